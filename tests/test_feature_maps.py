"""Chains: what they find, what they refuse, and what gates do."""

import pytest
import torch
import torchvision
from networks import CASES, small_vgg, written_by_hand
from torch import nn

from course_lib import feature_maps
from course_lib.feature_maps import Chain, UnsupportedModel

VGGS = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]


@pytest.mark.parametrize("case", CASES)
def test_chain_computes_what_the_model_computes(case):
    model, data = CASES[case][0](), CASES[case][1]()
    images = data[0][0]
    assert torch.equal(Chain(model).run(images), model(images))


@pytest.mark.parametrize("name", [*VGGS, "alexnet"])
def test_torchvision_networks_as_they_come(name):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    chain = Chain(model)
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert list(chain.layers) == convolutions
    assert all(chain.steps[layer.gate_at].kind == "activation" for layer in chain.layers.values())
    if name == "vgg16":
        assert sum(layer.channels for layer in chain.layers.values()) == 4224


def test_gate_acts_after_batch_norm_and_relu():
    model = small_vgg(batch_norm=True)
    layer = Chain(model).layers["0"]
    assert layer.norm is model[1]
    assert layer.gate_at == 2
    gated = Chain(model).run(torch.randn(2, 3, 8, 8).double(), stop=3, gates={"0": torch.tensor([0.0, 1, 1, 1, 1])})
    assert torch.equal(gated[:, 0], torch.zeros_like(gated[:, 0]))
    assert bool((gated[:, 1:] > 0).any())


def test_in_place_relu_does_not_overwrite_what_is_tapped():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(inplace=True), nn.Flatten(), nn.Linear(4, 2)
    )
    taps = {}
    images = torch.randn(2, 3, 1, 1)
    Chain(model).run(images, taps=taps)  # dropout is active: it zeroes some of its own copy
    assert torch.equal(taps["0"], model[1](model[0](images)))


def test_gates_of_one_example_change_that_example_only():
    model, images = small_vgg(), torch.randn(3, 3, 8, 8).double()
    gate = torch.ones(3, 5)
    gate[1, 2] = 0
    change = Chain(model).run(images, gates={"0": gate}) - model(images)
    assert torch.equal(change[[0, 2]], torch.zeros(2, 4).double())
    assert bool(change[1].abs().max() > 0)


def test_mask_closes_the_maps_of_a_plan():
    assert feature_maps.mask({"3": torch.tensor([1, 4])}, small_vgg())["3"].tolist() == [1, 0, 1, 1, 0, 1]
    with pytest.raises(IndexError, match="0 to 5"):
        feature_maps.mask({"3": [-1]}, small_vgg())


def test_a_gate_of_an_unknown_layer_is_refused():
    with pytest.raises(KeyError, match="There is no layer '7'"):
        Chain(small_vgg()).run(torch.zeros(1, 3, 8, 8).double(), gates={"7": torch.zeros(5)})


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.a(x)
        return self.fc((x + self.b(x)).mean((2, 3)))


class FlattensTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(192, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x)))  # begins at axis 0, unlike nn.Flatten


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.conv(self.conv(x)), 1))


REFUSED = {
    "residual": (Residual, "a"),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4, 2)), "groups=4"),
    "shared": (Shared, "shares its weights"),
    "flattened batch": (FlattensTheBatch, "flattens other axes"),
    "resnet18": (lambda: torchvision.models.resnet18(), "maxpool"),
    "unknown module": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1)),
        "PixelShuffle",
    ),
    "norm after flatten": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        "after flattening",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_networks_are_refused_by_name(case):
    build, named = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=named) as refusal:
        Chain(build())
    assert "notebook 12" in str(refusal.value)


def test_a_network_without_feature_maps_is_refused():
    with pytest.raises(UnsupportedModel, match="no feature maps"):
        Chain(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_unknown_layer_lists_the_nearest():
    with pytest.raises(KeyError, match="conv2"):
        Chain(written_by_hand()).select(["conv_2"])


def test_evaluating_restores_every_mode():
    model = small_vgg(batch_norm=True, dropout=True).train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    with feature_maps.evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(TypeError, match=r"model.float\(\)"):
        feature_maps.device_of(small_vgg().half())
