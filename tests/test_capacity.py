"""Measured capacity: batches of small networks against single ones, masks, rounding, and code lengths."""

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.classroom import capacity
from course_lib.theory import risk_bounds


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_outputs_are_those_of_single_networks():
    layers = capacity.draw([4, 7, 3], 5, generator())
    X, own = torch.randn(6, 4), torch.randn(5, 6, 4)
    for i in range(5):
        single = nn.Sequential(nn.Linear(4, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
        for module, weight in zip(single[::2], layers, strict=True):
            module.weight.data = weight[i].T
        torch.testing.assert_close(capacity.outputs(X, layers)[i], single(X))
        torch.testing.assert_close(capacity.outputs(own, layers)[i], single(own[i]))


def test_training_many_is_training_each():
    X, target = torch.randn(20, 3, generator=generator()), torch.randn(20, generator=generator(1))

    def loss(out):
        return (out[..., 0] - target).square().mean(1)

    layers = capacity.draw([3, 5, 1], 4, generator(2))
    together = capacity.train(X, layers, loss, list, 30, 0.01)
    alone = capacity.train(X, [weight[2:3] for weight in layers], loss, list, 30, 0.01)
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[2:3], one)
    assert (loss(capacity.outputs(X, together)) < loss(capacity.outputs(X, layers))).all()


def test_masks_keep_the_largest_weights_over_all_layers():
    layers = capacity.draw([6, 4, 2], 1, generator())
    masks = capacity.largest(layers, [0, 5, 32])
    sizes = torch.cat([weight.abs().flatten() / weight.square().sum().sqrt() for weight in layers])
    for i, kept in enumerate((0, 5, 32)):
        chosen = torch.cat([mask[i].flatten() for mask in masks]).bool()
        assert chosen.sum() == kept
        if 0 < kept < 32:
            assert sizes[chosen].min() > sizes[~chosen].max()


def test_a_masked_weight_stays_zero():
    masks = capacity.largest(capacity.draw([3, 5, 1], 1, generator()), [7])
    X, y = torch.randn(10, 3), torch.randn(10)
    trained = capacity.train(
        X, capacity.draw([3, 5, 1], 1, generator()), lambda out: (out[..., 0] - y).square().mean(1),
        capacity.masked(masks), 20, 0.1,
    )  # fmt: skip
    for weight, mask in zip(trained, masks, strict=True):
        assert (weight[mask == 0] == 0).all()


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_rounded_weights_are_odd_multiples_of_a_step(bits):
    layers = capacity.draw([6, 4, 2], 3, generator())
    masks = [mask.repeat(3, 1, 1) for mask in capacity.largest([weight[:1] for weight in layers], [15])]
    for before, weight, mask in zip(layers, capacity.rounded(masks, bits)(layers), masks, strict=True):
        for old, network, left in zip(before, weight, mask.bool(), strict=True):
            assert (network[~left] == 0).all() and left.any()
            step = old[left].abs().mean() / 2 ** (bits - 1)
            multiples = network[left].abs() / step
            torch.testing.assert_close(multiples, multiples.round())
            assert (multiples.round() % 2 == 1).all() and multiples.max() < 2**bits
            assert (network[left].sign() == old[left].sign()).all()


def test_rounding_takes_the_nearest_level():
    weight, mask = torch.tensor([[[-3.1, -0.2, 0.9, 2.2, 4.0, 0.0]]]), torch.tensor([[[1.0, 1, 1, 1, 1, 0]]])
    step = float(weight.abs().sum()) / 5 / 2
    expected = [min((-3, -1, 1, 3), key=lambda level, w=w: abs(level * step - w)) * step for w in weight[0, 0, :5]]
    found = capacity.rounded([mask], 2)([weight])[0]
    torch.testing.assert_close(found, torch.tensor([[[*map(float, expected), 0.0]]]))


def test_a_wide_network_learns_few_random_labels_by_heart_and_a_dead_one_none():
    X = capacity.principal_components(torch.randn(60, 20, generator=generator()), 8)
    wide, dead = [[torch.full((9, 12), on), torch.full((12, 1), on)] for on in (1.0, 0.0)]
    table = capacity.fit_random_labels(X, {"wide": wide, "dead": dead}, [12, 40], seeds=2, steps=300)
    assert list(table.groupby("network", sort=False).weights.first()) == [120, 0]
    assert len(table) == 8
    assert (table[(table.network == "wide") & (table.labels == 12)].fitted == 1).all()
    assert (table[table.network == "dead"].fitted < 0.8).all()


def test_random_labels_repeat_from_a_seed():
    X = torch.randn(30, 5, generator=generator())
    networks = {"one": [torch.ones(5, 3), torch.ones(3, 1)]}
    tables = [capacity.fit_random_labels(X, networks, [20, 25, 30], seeds=4, seed=s, steps=30) for s in (0, 0, 1)]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_principal_components_are_uncorrelated_and_have_a_column_of_ones():
    Z = capacity.principal_components(torch.randn(50, 6) @ torch.randn(6, 6) + 4, 3)
    torch.testing.assert_close(Z.T @ Z / 50, torch.eye(4), atol=1e-4, rtol=0)


def test_short_codes_add_up():
    table = capacity.short_codes([40, 640], [1, 2], steps=40)
    assert len(table) == 4 and set(table.total) == {640} and set(table.n) == {1197}
    for row in table.itertuples():
        told = risk_bounds.sparse_code_bits(row.kept, 640, row.bits_per_weight) + 1  # one bit says which of two
        assert row.bits == pytest.approx(told)
        assert row.bound == pytest.approx(risk_bounds.occam_bound(row.train_error, told, 1197))
    large, small = (table[table.kept == k].train_error.mean() for k in (640, 40))
    assert large < small < 0.95


def test_gaps_of_networks_before_and_after_pruning():
    table = capacity.network_gaps({"large": (10**6, 14, 5000), "tiny": (30, 2, 100_000)})
    large, tiny = table.loc["large"], table.loc["tiny"]
    assert large.upper == pytest.approx(1e6 * 14 * np.log2(1e6)) and large.bits == 32e6
    # A dimension above the number of images says nothing: sqrt(2 ln 2) and the part for the risk.
    assert large.gap == pytest.approx(np.sqrt(2 * np.log(2)) + np.sqrt(np.log(1 / risk_bounds.DELTA) / 10_000))
    assert tiny.gap == pytest.approx(risk_bounds.vc_gap(30 * 2 * np.log2(15), 100_000)) and tiny.gap < 0.2
    for row in table.itertuples():
        assert risk_bounds.vc_gap(row.allowed, int(row.images)) == pytest.approx(1)
        assert row.room * row.layers * np.log2(row.room) == pytest.approx(row.allowed, rel=1e-3)


def test_sign_changes_bounds_hold_and_more_data_give_a_better_choice():
    few, many = capacity.sign_change_risks(100), capacity.sign_change_risks(3000)
    for table in (few, many):
        assert (np.diff(table.training) <= 0).all()
        assert (table.test <= table.bound).all() and (table.test >= capacity.FALSE_LABELS - 1e-12).all()
    assert many.test[many.bound.idxmin()] < few.test[few.bound.idxmin()]
    assert many.bound.idxmin() == 5  # as many changes as the truth has
