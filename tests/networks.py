"""Small networks and batches that the tests share."""

import torch
import torchvision
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib.feature_maps import Chain


def small_vgg(batch_norm=False, classes=4, dropout=False, seed=0) -> nn.Sequential:
    """Three convolutions, two poolings and two linear layers for 3 x 8 x 8 images, in double precision."""
    torch.manual_seed(seed)
    layers, channels = [], 3
    for maps, pool in ((5, True), (6, False), (7, True)):
        layers.append(nn.Conv2d(channels, maps, 3, padding=1))
        layers += [nn.BatchNorm2d(maps)] if batch_norm else []
        layers += [nn.ReLU(inplace=True)] + ([nn.MaxPool2d(2)] if pool else [])
        channels = maps
    layers += [nn.Dropout()] if dropout else []
    layers += [nn.Flatten(), nn.Linear(7 * 4, 9), nn.ReLU(), nn.Linear(9, classes)]
    model = nn.Sequential(*layers).double()
    shake_batch_norm(model)
    return model.eval()


def shake_batch_norm(model: nn.Module) -> None:
    """Batch norms as training leaves them: a fresh one is the identity, and would hide mistakes."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(torch.randn_like(tensor))
                module.running_var.copy_(torch.rand_like(module.running_var) + 0.5)


class WrittenByHand(nn.Module):
    """As students write it: functional ReLU, pooling and view, with an average pooling and uneven strides."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 5, padding=2, stride=2, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, (3, 1), padding=(1, 0), dilation=(1, 2))
        self.fc = nn.Linear(6 * 4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.conv1(x)))
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc(x.view(x.size(0), -1))


def written_by_hand(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    model = WrittenByHand().double()
    shake_batch_norm(model)
    return model.eval()


def volumes(seed=0) -> nn.Module:
    """A network of three-dimensional convolutions, for 2 x 4 x 6 x 6 videos."""
    torch.manual_seed(seed)
    layers = [nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(3, 4, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4, 3)).double().eval()


def batches(*shape, classes=4, n=2, size=5, seed=0):
    """`n` batches of `size` random images of this shape, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, *shape, generator=generator, dtype=torch.float64),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(n)
    ]


CASES = {
    "plain": (lambda: small_vgg(), lambda: batches(3, 8, 8)),
    "batch norm": (lambda: small_vgg(batch_norm=True), lambda: batches(3, 8, 8)),
    "dropout": (lambda: small_vgg(dropout=True), lambda: batches(3, 8, 8)),
    "one image": (lambda: small_vgg(), lambda: batches(3, 8, 8, n=1, size=1)),
    "by hand": (written_by_hand, lambda: batches(3, 9, 8, classes=3)),
    "volumes": (volumes, lambda: batches(2, 4, 6, 6, classes=3)),
}


@st.composite
def chains(draw):
    """Random chains (model, image shape) of one to four convolutions, with everything that may stand in between."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    size, channels, layers = 8, draw(st.integers(1, 3)), []
    shape = (channels, size, size)
    for _ in range(draw(st.integers(1, 4))):
        maps = draw(st.integers(1, 9))
        kernel = draw(st.sampled_from([1, 3]))
        layers.append(nn.Conv2d(channels, maps, kernel, padding=kernel // 2, bias=draw(st.booleans())))
        layers += [nn.BatchNorm2d(maps)] if draw(st.booleans()) else []
        layers += draw(st.sampled_from([[nn.ReLU(inplace=True)], [nn.ReLU()], [nn.LeakyReLU()], []]))
        if size > 2 and draw(st.booleans()):
            layers.append(draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])))
            size //= 2
        layers += [nn.Dropout(0.3)] if draw(st.booleans()) else []
        channels = maps
    pooled = draw(st.sampled_from([1, size]))
    layers += [nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), nn.Linear(channels * pooled**2, 3)]
    model = nn.Sequential(*layers)
    shake_batch_norm(model)
    return model.eval(), shape


@st.composite
def plans(draw, model):
    """Any subset of maps of a chain that leaves one in every layer."""
    plan = {}
    for name, layer in Chain(model).layers.items():
        maps = draw(st.lists(st.integers(0, layer.channels - 1), unique=True, max_size=layer.channels - 1))
        if maps:
            plan[name] = torch.tensor(maps)
    return plan


def torchvision_network(name, **options) -> nn.Module:
    """A network of torchvision with quickly drawn weights; its own initialisation takes seconds."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name, **options)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(1) if tensor.dim() < 2 else tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)
    return model
