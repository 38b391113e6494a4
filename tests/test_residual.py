"""Residual networks: coupled layers leave together, and what is left answers as the masked network does."""

import copy

import pytest
import torch
from networks import shake_batch_norm
from torch import nn
from torch.nn import functional as F

from course_lib import cost, models, residual
from course_lib.classroom import checks
from course_lib.feature_maps import Chain, UnsupportedModel

SHAPE = (3, 16, 16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = residual.resnet(4, widths=(6, 8), blocks=2).double()
    shake_batch_norm(network)
    return network.eval()


def images(n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    return pictures, torch.randint(4, (n,), generator=generator)


def test_a_chain_refuses_it_and_points_to_notebook_12(model):
    with pytest.raises(UnsupportedModel, match="notebook 12"):
        Chain(model)


def test_groups_are_those_that_a_reader_of_the_code_finds(model):
    found = residual.groups(model, SHAPE)
    first, second = "stages.0", "stages.1"
    assert found[0].makers == ("stem.conv", f"{first}.0.second.conv", f"{first}.1.second.conv")
    assert found[0].readers == (
        *(f"{first}.0.first.conv", f"{first}.1.first.conv", f"{second}.0.first.conv", f"{second}.0.shortcut.conv"),
    )
    assert [len(group.makers) for group in found] == [3, 1, 1, 1, 3, 1]
    assert found[4].readers == (f"{second}.1.first.conv", "head")
    assert all(len(group.norms) == len(group.makers) for group in found)


def test_removing_equals_closing_all_gates_of_a_group(model):
    coupled = residual.groups(model, SHAPE)
    plan = {group.makers[0]: torch.tensor([0, 3]) for group in coupled}
    small, masked = residual.remove(model, plan, SHAPE), copy.deepcopy(model)
    with torch.no_grad():
        for group in coupled:
            for norm in map(masked.get_submodule, group.norms):
                norm.weight[[0, 3]] = norm.bias[[0, 3]] = 0
        assert torch.allclose(small(images()[0]), masked(images()[0]), rtol=1e-10, atol=1e-12)
    assert small.sizes == {"num_classes": 4, "streams": [4, 6], "inner": [[4, 4], [6, 6]], "in_channels": 3}
    assert model.sizes["streams"] == [6, 8]  # untouched


def test_a_layer_keeps_a_map_and_a_group_is_named_once(model):
    with pytest.raises(ValueError, match="cannot lose 6"):
        residual.remove(model, {"stem.conv": torch.arange(6)}, SHAPE)
    both = {"stem.conv": torch.tensor([0]), "stages.0.1.second.conv": torch.tensor([1])}
    with pytest.raises(ValueError, match="coupled"):
        residual.remove(model, both, SHAPE)


@pytest.mark.parametrize(
    "plan, error, message",
    [
        ({"stem.cov": [0]}, KeyError, "Did you mean 'stem.conv'"),
        ({"head": [0]}, KeyError, "no convolution whose maps may go 'head'"),
        ({"stem.conv": [0, 6]}, IndexError, "'stem.conv' has feature maps 0 to 5"),
        ({"stem.conv": [-1]}, IndexError, "0 to 5"),
        ({"stem.conv": [1, 1]}, ValueError, r"twice: \[1, 1\]"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(model, plan, error, message):
    with pytest.raises(error, match=message):
        residual.remove(model, plan, SHAPE)


def test_lowest_takes_the_same_share_everywhere_but_never_all():
    found = residual.lowest({"a": torch.tensor([3.0, 1.0, 2.0, 0.0]), "b": torch.tensor([5.0])}, 0.5)
    assert {name: maps.tolist() for name, maps in found.items()} == {"a": [1, 3]}
    assert residual.lowest({"a": torch.arange(4.0)}, 1.0)["a"].tolist() == [0, 1, 2]
    for share in (-0.5, 50):
        with pytest.raises(ValueError, match="between 0 and 1"):
            residual.lowest({"a": torch.arange(4.0)}, share)


def test_slopes_are_those_of_a_gate_behind_the_norm(model):
    """Against finite differences of a gate that a hook multiplies in."""
    pictures, labels = images()
    slopes = residual.gate_slopes(model, [(pictures, labels)])
    for name in ("stem.norm", "stages.1.0.shortcut.norm", "stages.1.1.second.norm"):
        costs = []
        for g in (1 + 1e-5, 1 - 1e-5):
            gate = torch.ones(len(slopes[name][0]), dtype=torch.float64)
            gate[2] = g
            hook = model.get_submodule(name).register_forward_hook(lambda _m, _x, y, gate=gate: y * gate[:, None, None])
            with torch.no_grad():
                costs.append(F.cross_entropy(model(pictures), labels))
            hook.remove()
        assert slopes[name][0, 2].item() == pytest.approx(float(costs[0] - costs[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_importance_of_a_group_is_the_square_of_the_joint_slope(model):
    coupled = residual.groups(model, SHAPE)
    slopes = residual.gate_slopes(model, [images(4, 1), images(3, 2)])
    found = residual.taylor_2019(slopes, coupled)
    assert list(found) == [group.makers[0] for group in coupled]
    joint = sum(slopes[f"{name}.norm"] for name in ("stem", "stages.0.0.second", "stages.0.1.second"))
    assert torch.equal(found["stem.conv"], ((joint[0] ** 2 + joint[1] ** 2) / 2))
    alone = model.stages[0][0].first.norm
    pictures, labels = images(4, 1)
    F.cross_entropy(model(pictures), labels).backward()
    mine = checks.after_2017.norm_taylor(alone.weight, alone.bias, alone.weight.grad[None], alone.bias.grad[None])
    once = residual.taylor_2019(residual.gate_slopes(model, [(pictures, labels)]), coupled)
    assert torch.allclose(once["stages.0.0.first.conv"], mine.detach())


def test_scales_and_their_price(model):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    by_hand = sum(float(norm.weight.detach().abs().sum()) for norm in norms)
    assert residual.sparsity(model).detach().item() == pytest.approx(by_hand)


def test_macs_by_hand():
    network = residual.resnet(4, widths=(6,), blocks=1)
    by_hand = 256 * 9 * (3 * 6 + 6 * 6 + 6 * 6) + 6 * 4
    assert residual.macs(network, SHAPE) == by_hand
    assert cost.parameters(network) == 9 * (3 * 6 + 6 * 6 + 6 * 6) + 3 * 2 * 6 + 6 * 4 + 4


def test_a_pruned_one_is_saved_and_loaded_like_a_chain(model, tmp_path):
    small = residual.remove(model.float(), {"stages.1.0.first.conv": torch.tensor([1, 4, 5])}, SHAPE)
    again = models.load(models.save(small, tmp_path / "small.safetensors", notes={"seed": 0}))
    pictures = images()[0].float()
    with torch.no_grad():
        assert torch.equal(again(pictures), small.eval()(pictures))
    assert again.sizes["inner"] == [[6, 6], [5, 8]] and not again.training
    assert models.notes(tmp_path / "small.safetensors") == {"seed": 0}


def test_the_exercise_removes_what_the_library_removes():
    """The kernels of a stem, a block and a reader, through Torch-Pruning and by hand."""
    torch.manual_seed(0)
    network = residual.ResNet(3, [5, 4], [[7], [6]])
    drop = torch.tensor([1, 4])
    small = residual.remove(network, {"stem.conv": drop}, SHAPE)
    paths = {"stem": "stem", "first": "stages.0.0.first", "second": "stages.0.0.second", "reader": "stages.1.0.first"}
    before, after = ({k: net.get_submodule(p).conv.weight for k, p in paths.items()} for net in (network, small))
    by_hand = checks.find("without_channels").reference(before, drop)
    assert all(torch.equal(by_hand[name], after[name]) for name in paths)
