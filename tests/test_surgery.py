"""Surgery: equals masking and Torch-Pruning, keeps everything else, and carries the optimizer over."""

import copy
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import batches, chains, plans, small_vgg, torchvision_network, volumes, written_by_hand
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from course_lib.feature_maps import Chain, UnsupportedModel, mask
from course_lib.surgery import carry_optimizer, remove

PLAN = {"0": torch.tensor([3]), "4": torch.tensor([5, 0, 2])}  # of small_vgg(batch_norm=True)
KEPT_0, KEPT_4 = torch.tensor([0, 1, 2, 4]), torch.tensor([1, 3, 4])


def difference(model, plan, images):
    """Largest difference between the smaller network and the masked one, relative to the largest answer above 1."""
    with torch.no_grad():
        found, expected = remove(model, plan)(images), Chain(model).run(images, gates=mask(plan, model))
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


# ------------------------------------------------------------------------------------------------- the same function


@given(st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_surgery_equals_masking(data):
    model, shape = data.draw(chains())
    plan = data.draw(plans(model))
    assert difference(model, plan, torch.randn(3, *shape)) < 1e-5
    small = Chain(remove(model, plan))
    for name, layer in Chain(model).layers.items():
        assert small.layers[name].channels == layer.channels - len(plan.get(name, []))


@pytest.mark.parametrize("build, shape", [(written_by_hand, (3, 9, 8)), (volumes, (2, 4, 6, 6))])
def test_surgery_equals_masking_in_other_forms(build, shape):
    model = build()
    plan = {layer: torch.tensor([2, 0]) for layer in Chain(model).layers}
    assert difference(model, plan, batches(*shape)[0][0]) < 1e-12


@pytest.mark.parametrize("name, size", [("vgg16_bn", 32), ("alexnet", 64)])
def test_torchvision_networks_as_they_come(name, size):
    model = torchvision_network(name, num_classes=5)
    layers = Chain(model).layers.values()
    plan = {layer.name: torch.arange(layer.channels)[7 :: 2 + at % 3] for at, layer in enumerate(layers)}
    assert difference(model, plan, torch.randn(2, 3, size, size)) < 1e-5


class TorchvisionLike(nn.Module):
    """VGG in small, with torchvision's parts: features, avgpool, flatten with H W = 4, a classifier with dropout."""

    def __init__(self):
        super().__init__()
        layers = []
        for c_in, c_out in ((3, 6), (6, 8), (8, 7)):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(7 * 4, 9), nn.ReLU(True), nn.Dropout(), nn.Linear(9, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def test_surgery_equals_torch_pruning():
    import torch_pruning as tp

    torch.manual_seed(0)
    model = TorchvisionLike().eval()
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape))
    plan = {"features.0": [1, 4], "features.3": [0, 2, 7], "features.6": [6, 3, 0]}
    ours = remove(model, plan)
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=torch.randn(1, 3, 8, 8))
    for name, maps in plan.items():
        graph.get_pruning_group(model.get_submodule(name), tp.prune_conv_out_channels, idxs=sorted(maps)).prune()
    assert repr(ours) == repr(model)
    found, expected = ours.state_dict(), model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_by_hand():
    model = small_vgg(batch_norm=True)
    small = remove(model, PLAN)
    assert torch.equal(small[0].weight, model[0].weight[KEPT_0])
    assert torch.equal(small[1].running_mean, model[1].running_mean[KEPT_0])
    assert torch.equal(small[4].weight, model[4].weight[KEPT_4][:, KEPT_0])
    assert torch.equal(small[4].bias, model[4].bias[KEPT_4])
    assert torch.equal(small[5].running_var, model[5].running_var[KEPT_4])
    assert torch.equal(small[7].weight, model[7].weight[:, KEPT_4])
    assert (small[4].in_channels, small[4].out_channels, small[5].num_features) == (4, 3, 3)
    small = remove(model, {"7": [1, 2, 3, 4, 5, 6]})  # before a flatten, with H W = 4
    assert torch.equal(small[12].weight, model[12].weight[:, :4])
    assert small[12].in_features == 4
    small = remove(model, {"7": [0, 3, 5]})
    stay = torch.tensor([1, 2, 4, 6])
    assert torch.equal(small[12].weight, model[12].weight[:, (stay[:, None] * 4 + torch.arange(4)).flatten()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_weights_by_hand(dtype):
    model = nn.Sequential(nn.Conv2d(3, 9, 1), nn.Flatten(), nn.Linear(9 * 256, 1024), nn.Linear(1024, 2100)).to(dtype)
    stay = [0, 1, 3, 4, 5, 6, 8]
    small = remove(model, {"0": [7, 2]})
    assert torch.equal(small[2].weight, model[2].weight.view(1024, 9, 256)[:, stay].flatten(1))
    assert torch.equal(small[3].weight, model[3].weight)
    for p in small.parameters():
        assert p.data_ptr() % 64 == 0 and p.is_contiguous() and p.dtype == dtype
    small.share_memory()
    assert torch.equal(copy.deepcopy(small)[2].weight, small[2].weight)


def test_in_two_cuts_as_in_one():
    model = small_vgg(batch_norm=True)
    twice = remove(remove(model, {"4": [0, 2]}), {"0": [3], "4": [3]})  # map 5 has become map 3
    assert all(torch.equal(a, b) for a, b in zip(twice.parameters(), remove(model, PLAN).parameters(), strict=True))


# ------------------------------------------------------------------------------------------------- and nothing else


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype):
    small = remove(small_vgg(batch_norm=True).to(dtype), PLAN)
    state = small.state_dict()
    assert {value.dtype for name, value in state.items() if "num_batches" not in name} == {dtype}
    assert state["1.num_batches_tracked"].dtype == torch.int64


def test_device_is_kept():
    small = remove(small_vgg(batch_norm=True).to("meta"), PLAN)
    assert {tensor.device.type for tensor in small.state_dict().values()} == {"meta"}
    assert small[4].weight.shape == (3, 4, 3, 3)


def test_requires_grad_and_modes_are_kept():
    model = small_vgg(batch_norm=True, dropout=True).train()
    model[4].weight.requires_grad_(False)
    model[7].bias.requires_grad_(False)
    model[1].eval()
    small = remove(model, PLAN)
    assert {name for name, p in small.named_parameters() if not p.requires_grad} == {"4.weight", "7.bias"}
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert all(p.is_leaf for p in small.parameters())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_memory_format_is_kept(layout):
    small = remove(small_vgg(batch_norm=True).to(memory_format=layout), PLAN)
    assert all(m.weight.is_contiguous(memory_format=layout) for m in small if isinstance(m, nn.Conv2d))
    assert all(p.stride() == torch.empty_like(p).stride() for p in small.parameters())  # dense, no views


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_memory_format_of_volumes_is_kept(layout):
    model, plan = volumes().to(memory_format=layout), {"0": [1], "3": [0, 2]}
    small = remove(model, plan)
    assert small[3].weight.is_contiguous(memory_format=layout)
    assert torch.equal(small[3].weight, model[3].weight[[1, 3]][:, [0, 2]])
    assert all(p.stride() == torch.empty_like(p).stride() for p in small.parameters())


LARGE = """
    import sys
    import torch
    from torch import nn
    from course_lib.surgery import remove

    def high_water():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

    torch.set_num_threads(1)
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(64 * 49, 4096), nn.Linear(4096, 3136), nn.Linear(3136, 4096)]  # three of 51 MB
    model = nn.Sequential(*layers)
    remove(nn.Sequential(*layers[:3]), {"0": [1]})  # what torch loads at the first call
    before = high_water()
    small = remove(model, {"0": [5, 7], "2": list(range(int(sys.argv[1])))})
    new = sum(p.numel() * p.element_size() for p in small.parameters())
    print(high_water() - before, new, max(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from Linux's /proc")
@pytest.mark.parametrize("removed", ["1", "32"])
def test_peak_memory_is_the_new_model_and_the_largest_layer(removed):
    command = [sys.executable, "-c", textwrap.dedent(LARGE), removed]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, new, largest = map(int, done.stdout.split())
    assert new / 2 < taken < new + largest + 8e6  # the model itself is three layers: a second copy would show


class Recorder:
    """A hook that keeps what it saw, with its graph: what a copy could not copy."""

    def __init__(self):
        self.seen = []

    def __call__(self, *arguments):
        self.seen.append(arguments[-1])


def test_gradients_and_hooks_stay_behind():
    model, hook, (images, labels) = small_vgg(batch_norm=True), Recorder(), batches(3, 8, 8)[0]
    model[4].register_forward_hook(hook)
    model[7].register_full_backward_hook(hook)
    model.register_forward_pre_hook(hook)
    F.cross_entropy(model(images), labels).backward()
    calls = len(hook.seen)
    small = remove(model, PLAN)
    F.cross_entropy(small(images), labels).backward()
    assert len(hook.seen) == calls > 0
    assert all(p.grad is None for p in remove(model, PLAN).parameters())
    assert len(model[4]._forward_hooks) == 1  # and the given model still has them


@pytest.mark.parametrize("plan", [PLAN, {}])
def test_the_given_model_is_untouched(plan):
    model = small_vgg(batch_norm=True)
    before = copy.deepcopy(model.state_dict())
    small = remove(model, plan)
    with torch.no_grad():
        for tensor in small.state_dict().values():
            tensor.zero_()
    assert repr(model) == repr(small_vgg(batch_norm=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "plan, error, message",
    [
        ({"3": [1]}, KeyError, "There is no layer '3'.*Known: 0, 4, 7"),
        ({"0": [5]}, IndexError, "'0' has feature maps 0 to 4"),
        ({"0": [-1]}, IndexError, "0 to 4"),
        ({"4": [2, 3, 2]}, ValueError, r"twice: \[2, 2, 3\]"),
        ({"0": [0, 1, 2, 3, 4]}, ValueError, "all 5 feature maps of layer '0'.*keep_at_least"),
    ],
)
def test_errors_say_what_was_wrong(plan, error, message):
    with pytest.raises(error, match=message):
        remove(small_vgg(batch_norm=True), plan)


def test_nearest_layer_names():
    with pytest.raises(KeyError, match="Did you mean 'conv"):
        remove(written_by_hand(), {"conv_1": [0]})


def test_weights_that_are_computed_anew_are_refused():
    model = small_vgg()
    torch_prune.random_unstructured(model[3], "weight", 0.3)
    with pytest.raises(UnsupportedModel, match=r"'3' computes its weight anew.*prune\.remove"):
        remove(model, {"0": [1]})
    torch_prune.remove(model[3], "weight")
    assert remove(model, {"0": [1]})[3].in_channels == 4


def test_maps_that_nobody_flattens_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(8, 2))  # along W, not C H W
    with pytest.raises(UnsupportedModel, match="'2' reads feature maps that were not flattened"):
        remove(model, {"0": [1]})


# ----------------------------------------------------------------------------------------------------------- optimizer


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, betas=(0.8, 0.95)),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
}


def train(forward, optimizer, data, rounds=1):
    for images, labels in data * rounds:
        optimizer.zero_grad()
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_after_surgery_equals_going_on_with_closed_gates(name):
    model, data = small_vgg(batch_norm=True).train(), batches(3, 8, 8, n=3)
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, data)
    small = remove(model, PLAN)
    carried = carry_optimizer(optimizer, model, small, PLAN)
    assert type(carried) is type(optimizer)
    train(small, carried, data, rounds=2)
    chain, gates = Chain(model), mask(PLAN, model)
    train(lambda images: chain.run(images, gates=gates), optimizer, data, rounds=2)
    expected = remove(model, PLAN).state_dict()
    expected["4.weight"] = model[4].weight[KEPT_4][:, KEPT_0]
    for key, value in small.state_dict().items():
        assert torch.allclose(value, expected[key], rtol=1e-7, atol=1e-10), key


def test_the_state_is_selected_by_index():
    model = small_vgg(batch_norm=True)
    optimizer = OPTIMIZERS["amsgrad"](model.parameters())
    train(model, optimizer, batches(3, 8, 8, n=3))
    small = remove(model, PLAN)
    old, new = optimizer.state[model[4].weight], carry_optimizer(optimizer, model, small, PLAN).state[small[4].weight]
    assert set(new) == set(old) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        assert torch.equal(new[key], old[key][KEPT_4][:, KEPT_0])
    assert new["step"] == 3


@pytest.mark.parametrize("plan", [PLAN, {}])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_the_new_optimizer_moves_the_new_weights_and_nothing_of_the_old(name, plan):
    model, data = small_vgg(batch_norm=True), batches(3, 8, 8)
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, data)
    small = remove(model, plan)
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict(), list(small.parameters())])
    train(small, carry_optimizer(optimizer, model, small, plan), data)
    assert all(not torch.equal(p, old) for p, old in zip(small.parameters(), before[2], strict=True))
    assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
    for at, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[1]["state"][at][key]) for key, value in state.items())


def test_groups_keep_their_settings_and_their_weights():
    model = small_vgg(batch_norm=True)
    groups = [
        {"params": [model[0].weight, model[4].weight], "lr": 0.3, "weight_decay": 0.7},
        {"params": [model[12].weight, model[4].bias], "momentum": 0.2, "initial_lr": 9.0},
    ]  # the others are not trained
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    train(model, optimizer, batches(3, 8, 8))
    small = remove(model, PLAN)
    carried = carry_optimizer(optimizer, model, small, PLAN)
    for old, new in zip(optimizer.param_groups, carried.param_groups, strict=True):
        assert {k: v for k, v in new.items() if k != "params"} == {k: v for k, v in old.items() if k != "params"}
    assert [id(p) for group in carried.param_groups for p in group["params"]] == [
        id(p) for p in (small[0].weight, small[4].weight, small[12].weight, small[4].bias)
    ]
    assert len(carried.state) == 4


def test_an_optimizer_of_another_model_is_refused():
    model, other = small_vgg(batch_norm=True), small_vgg(batch_norm=True)
    with pytest.raises(ValueError, match="weights that the model does not have"):
        carry_optimizer(torch.optim.SGD(other.parameters(), 0.1), model, remove(model, PLAN), PLAN)
