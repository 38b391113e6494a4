"""Experiments of notebook 12: cuts to equal work, tickets and what a study lacks, against plain computations."""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import small_vgg
from scipy import stats
from torch import nn

from course_lib import cost, datasets, models, ranking, surgery
from course_lib.classroom import protocol, results, rethinking, true_oracle

SHAPE = (3, 8, 8)


def scores(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(n, generator=generator).double() for name, n in (("0", 5), ("3", 6), ("5", 7))}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_cut_to_macs_takes_no_map_too_many(share):
    model, goal = small_vgg(), share * cost.macs(small_vgg(), SHAPE)
    small = true_oracle.cut_to_macs(model, scores(), SHAPE, share)
    assert cost.macs(small, SHAPE) <= goal
    gone = cost.feature_maps(model) - cost.feature_maps(small)
    one_less = surgery.remove(model, ranking.lowest(scores(), gone - 1))
    assert cost.macs(one_less, SHAPE) > goal


def test_cuts_reach_from_a_criterion_itself_to_random():
    found = list(true_oracle.cuts({"oracle": scores()}, noise=(0.5, 3.0), draws=5, unscored=2))
    assert [cut.family for cut in found] == ["oracle"] + ["random"] * 2 + ["oracle"] * 10
    own = torch.cat(list(scores().values()))
    assert torch.equal(torch.cat(list(found[0].scores.values())), own)
    near = {cut[:3]: stats.spearmanr(torch.cat(list(cut.scores.values())), own).statistic for cut in found}
    means = [np.mean([near["oracle", noise, draw] for draw in range(5 if noise else 1)]) for noise in (0.0, 0.5, 3.0)]
    assert means[0] == pytest.approx(1) and means[0] > means[1] > means[2]


@pytest.fixture(scope="module")
def tiny():
    splits = datasets.load("petals", train=64, val=10, test=40)
    torch.manual_seed(0)
    return models.vgg16(10, width=1 / 32, compact=True), splits


def test_a_study_has_a_row_a_cut_of_equal_macs(tiny):
    model, splits = tiny
    rows = pd.DataFrame(true_oracle.study(model, splits, images=16, noise=(), unscored=1, moments=(1,), share=0.6))
    assert rows.family.tolist() == ["oracle", *true_oracle.CRITERIA, "random"]
    assert (rows.macs <= 0.6 * cost.macs(model, (3, 32, 32))).all() and (
        rows.macs > 0.4 * cost.macs(model, (3, 32, 32))
    ).all()
    assert rows.spearman[0] == pytest.approx(1)
    assert true_oracle.moments_of(rows) == [0, 1]


def made_up_cuts(seeds=1, each=8):
    generator = np.random.default_rng(0)
    names = ["loss_after_cut", "spearman", "accuracy_0", "accuracy_30"]
    table = pd.DataFrame(generator.random((seeds * each, 4)), columns=names).assign(noise=0.0, family="taylor")
    return table.assign(seed=np.repeat(np.arange(seeds), each))


def test_predictions_are_rank_correlations_within_a_seed():
    table = made_up_cuts(seeds=2)
    found = true_oracle.predictions(table).set_index(["cuts", "known", "updates"]).spearman
    signs = {"lower loss right after the cut": ("loss_after_cut", -1), "nearer to the oracle": ("spearman", 1)}
    for known, (column, sign) in signs.items():
        for updates in (0, 30):
            each = [
                stats.spearmanr(sign * t[column], t[f"accuracy_{updates}"]).statistic for _, t in table.groupby("seed")
            ]
            assert found["all cuts", known, updates] == pytest.approx(np.mean(each))
    another_level = table.assign(accuracy_30=table.accuracy_30 + 10 * table.seed)  # of another seed, no cut's merit
    assert true_oracle.predictions(another_level).spearman.to_numpy() == pytest.approx(found.to_numpy())


def test_predictions_tell_kinds_of_cuts_apart_and_leave_out_what_has_no_order():
    table = made_up_cuts(each=12)
    table.loc[:5, "noise"], table.loc[9:, "family"] = 1.0, "obd"
    found = true_oracle.predictions(table)
    numbers = found.groupby("cuts", sort=False).number.first()
    assert numbers.to_dict() == {"all cuts": 12, "criteria as they are": 6, "taylor": 9}  # obd's three are too few


def test_the_interval_of_a_prediction_holds_the_truth_nine_times_in_ten():
    """Cuts of a known correlation, 0.5 within the normal law: Spearman's is 6/pi asin(r/2)."""
    generator, right, held, runs = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.25), 0, 60
    for _ in range(runs):
        x, e = generator.normal(size=(2, 60))
        table = pd.DataFrame({"loss_after_cut": -x, "spearman": x, "accuracy_30": 0.5 * x + 0.75**0.5 * e})
        row = true_oracle.predictions(table.assign(family="a", noise=1.0), draws=200).iloc[0]
        held += row.low <= right <= row.high
    assert 0.8 <= held / runs <= 0.98


def test_an_answer_says_no_more_than_the_interval():
    said = [
        true_oracle.answer(pd.Series({"spearman": (low + high) / 2, "low": low, "high": high, "number": 9}))
        for low, high in ((0.1, 0.5), (-0.2, 0.4), (-0.6, -0.1))
    ]
    assert [text.partition(" (")[0] for text in said] == ["yes", "not told from chance", "the reverse"]


def test_masks_keep_the_largest_weights_of_every_layer():
    model = models.lenet_300_100(3, pixels=16, hidden=(8, 5))
    masks = rethinking.largest(model, 0.25)
    assert set(masks) == {"fc1.weight", "fc2.weight", "fc3.weight"}
    for name, mask in masks.items():
        weight = model.get_parameter(name).detach().abs()
        assert int(mask.sum()) == round(0.25 * mask.numel())
        assert weight[mask].min() >= weight[~mask].max()
    mixed = rethinking.shuffled(masks, seed=1)
    assert all(mixed[name].sum() == mask.sum() for name, mask in masks.items())
    assert not torch.equal(mixed["fc1.weight"], masks["fc1.weight"])


def test_masked_weights_stay_zero_and_the_others_learn():
    model = models.lenet_300_100(3, pixels=16, hidden=(8, 5))
    masks, before = rethinking.largest(model, 0.25), model.fc1.weight.detach().clone()
    optimizer = rethinking.MaskedAdam(model, masks)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(6, 1, 4, 4)), torch.arange(6) % 3).backward()
        optimizer.step()
    after = model.fc1.weight.detach()
    assert (after[~masks["fc1.weight"]] == 0).all()
    assert (after != before)[masks["fc1.weight"]].any()


def test_a_lottery_trains_four_networks_at_each_density():
    splits = datasets.load("digits")
    found = rethinking.lottery(splits, densities=(0.5, 0.1), updates=4, early=2)
    assert len(found) == 1 + 4 * 2
    assert found.groupby("density").size().to_dict() == {1.0: 1, 0.5: 4, 0.1: 4}
    assert found.accuracy.between(0, 1).all()


def test_accuracy_at_is_between_the_steps_by_straight_lines():
    table = pd.DataFrame(
        {
            "curve": ["a", "a", "b", "b"],
            "seed": 0,
            "number": [0, 1, 0, 1],
            "maps_left": [100, 50, 100, 80],
            "macs": [10, 2, 10, 9],
            "params": [10, 5, 10, 8],
            "accuracy": [0.9, 0.7, 0.9, 0.85],
        }
    )
    assert protocol.accuracy_at(table, "feature maps", 0.75)["mean"].to_dict() == pytest.approx({"a": 0.8})
    assert protocol.accuracy_at(table, "MACs", 0.92)["mean"].to_dict() == pytest.approx({"a": 0.88, "b": 0.86})
    assert protocol.leaders(table, [0.9]).loc["feature maps", 0.9] == "b"  # .875 against .86


def test_operations_are_told_apart():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    macs = (64 * 4 * 27 + 256 * 2) / 1e6
    found = protocol.operations(model, (3, 8, 8))
    assert list(found.values()) == pytest.approx([macs, 2 * macs, 2 * macs + 2 * 4 * 64 / 1e6])
    assert not model[1]._forward_hooks


def test_a_table_is_told_what_it_lacks():
    whole = results.read("petals_pruning").assign(data="petals", network="vgg")
    pairs = pd.concat([whole, whole.assign(network="resnet"), whole.assign(data="digits")])
    assert protocol.missing(pairs) == []
    assert [said.split(" (")[0] for said in protocol.missing(whole)] == ["three pairs of data and network"]
    bare = pairs[(pairs.seed == 0) & (pairs.curve == "taylor") & (pairs.number < 3)].drop(columns="macs")
    said = " ".join(protocol.missing(bare))
    for what in ("'macs'", "random", "magnitude", "three seeds", "five operating points"):
        assert what in said
