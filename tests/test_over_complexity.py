"""Notebook 01's experiments: labels by heart, twin maps, subsets and the three principles, computed another way too."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.classroom import capacity, over_complexity
from course_lib.feature_maps import Chain
from course_lib.theory import evidence


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(5, 3)).train()
    with torch.no_grad():
        model[0].weight[2] = 1.5 * model[0].weight[1]  # a true twin
        model[0].bias[2] = 1.5 * model[0].bias[1]
    return model


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 3, 6, 6, generator=generator), torch.randint(3, (7,), generator=generator)


def maps(network, images):
    taps = {}
    with torch.inference_mode():
        Chain(network.eval()).run(images, taps=taps)
    network.train()
    return taps


def test_disturbed_digits_are_what_they_are_called():
    plain, labels = capacity.digits()["train"]
    data = {kind: over_complexity.disturbed(kind, 3)["train"] for kind in over_complexity.DISTURBANCES}
    assert torch.equal(data["true labels"][0], plain) and torch.equal(data["true labels"][1], labels)
    assert torch.equal(data["random labels"][0], plain)
    assert 0.03 < float((data["random labels"][1] == labels).double().mean()) < 0.17
    for kind in ("shuffled pixels", "random pixels"):
        assert not torch.equal(data[kind][0], plain) and torch.equal(data[kind][1], labels)
        assert torch.equal(data[kind][0].sort(1).values, plain.sort(1).values)
    counts = {
        kind: len({tuple(c) for c in data[kind][0].T.tolist()} & {tuple(c) for c in plain.T.tolist()}) for kind in data
    }
    assert counts["shuffled pixels"] == counts["true labels"] > counts["random pixels"]


def test_one_order_of_pixels_for_training_and_new_images():
    plain, other = capacity.digits(), over_complexity.disturbed("shuffled pixels", 0)
    order = [
        next(j for j in range(64) if torch.equal(plain["train"][0][:, j], column)) for column in other["train"][0].T
    ]
    assert torch.equal(plain["test"][0][:, order].sum(0), other["test"][0].sum(0))


def test_labels_are_learnt_by_heart_from_a_seed():
    table = over_complexity.learn_by_heart(1, images=30, updates=40, every=20)
    assert len(table) == 4 * 3 and set(table.updates) == {0, 20, 40}
    assert (table.train[table.updates == 40].to_numpy() > table.train[table.updates == 0].to_numpy()).all()
    pd.testing.assert_frame_equal(table, over_complexity.learn_by_heart(1, images=30, updates=40, every=20))


def test_the_error_by_width_peaks_at_the_number_of_images():
    table = over_complexity.width_errors((15, 40, 300), seeds=3, n=40)
    mean = table.groupby("width")[["train", "test", "norm"]].mean()
    assert mean.test.idxmax() == 40 and mean.norm.idxmax() == 40 and mean.train[300] == 0


def test_correlations_are_numpy_s_and_dead_maps_have_none():
    z = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0)).relu()
    z[:, 3] = 0
    r = over_complexity.correlations(z)
    assert np.allclose(r[:3, :3], np.corrcoef(z[:, :3].transpose(0, 1).flatten(1).numpy()), atol=1e-6)
    assert (r[3] == 0).all()


def test_the_census_counts_dead_maps_and_pairs():
    z = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    z[:, 1], z[:, 4] = 3 * z[:, 0], 0
    row = over_complexity.census({"a": z}).loc["a"]
    assert (row["maps"], row["never fire"], row["in a pair"]) == (5, 1, 2) and row.largest == pytest.approx(1)
    first = over_complexity.pairs({"a": z}).iloc[0]
    assert (first.a, first.b) == (0, 1) and len(over_complexity.pairs({"a": z})) == 10


@pytest.mark.parametrize("layer", ["0", "3"])
def test_a_folded_network_is_the_one_with_the_map_replaced(network, examples, layer):
    reader = over_complexity.Reader(network, layer, *examples)
    folded = over_complexity.folded(network, layer, 0, 2, 0.7).eval()
    with torch.inference_mode():
        loss = float(F.cross_entropy(folded(examples[0]), examples[1]))
    assert loss == pytest.approx(reader.loss(replaced=[(0, 2, 0.7)]), abs=1e-6)
    assert loss != pytest.approx(reader.loss(), abs=1e-4) and network.training


def test_a_true_twin_is_folded_for_nothing(network, examples):
    taps = maps(network, examples[0])
    assert over_complexity.slope(taps["0"], 1, 2) == pytest.approx(1.5, rel=1e-5)
    table = over_complexity.pairs(taps)
    table = table[(table.layer == "0") & (table.a == 1) & (table.b == 2)]
    row = over_complexity.close_pairs(network, table, taps, *examples).iloc[0]
    assert row.correlation == pytest.approx(1) and row.folded == pytest.approx(0, abs=1e-6) and abs(row.both) > 1e-4


def test_closing_is_what_closed_gates_do(network, examples):
    taps = maps(network, examples[0])
    row = over_complexity.close_pairs(network, over_complexity.pairs(taps).head(1), taps, *examples).iloc[0]
    gate = torch.ones(taps[row.layer].shape[1])
    losses = []
    with torch.inference_mode():
        for closed in ([], [row.b], [row.a, row.b]):
            gate[closed] = 0
            losses.append(
                float(F.cross_entropy(Chain(network.eval()).run(examples[0], gates={row.layer: gate}), examples[1]))
            )
    assert row.one == pytest.approx(losses[1] - losses[0], abs=1e-6)
    assert row.both == pytest.approx(losses[2] - losses[0], abs=1e-6)


def test_nobody_is_folded_into_a_map_that_is_gone():
    table = pd.DataFrame({"a": [0, 0, 1, 3, 2], "b": [1, 2, 2, 0, 4]})
    assert over_complexity.disjoint(table) == [(0, 1), (0, 2)]


def test_twins_given_up_at_once(network, examples):
    taps = maps(network, examples[0])
    table = over_complexity.pairs(taps)
    found = over_complexity.give_up_twins(network, table[table.layer == "0"], taps, [0.999], *examples, draws=3)
    row = found.loc[0.999]
    assert row.closed == 1 and row.folded == pytest.approx(0, abs=1e-6)
    closed = over_complexity.Reader(network, "0", *examples)
    assert row["twins closed"] == pytest.approx(closed.loss([2]) - closed.loss(), abs=1e-6)


def test_every_subset_and_the_searches(network, examples):
    losses = over_complexity.every_subset(network, "3", [0, 3, 4], *examples)
    reader = over_complexity.Reader(network, "3", *examples)
    assert float(losses[0b101]) == pytest.approx(reader.loss([1, 2, 0, 4]), abs=1e-6)
    table = over_complexity.searches(losses)
    for m in range(4):
        subsets = [sum(1 << i for i in s) for s in itertools.combinations(range(3), m)]
        assert table.best[m] == pytest.approx(min(float(losses[s]) for s in subsets))
    assert (table.greedy >= table.best).all() and (table.iloc[[0, 1, 3]].std(axis=1) < 1e-9).all()


def test_greedy_asks_again_and_a_ranking_does_not():
    # Two twins (bits 0 and 1) that cost nothing alone and much together; bit 2 costs a little.
    table = over_complexity.searches(torch.tensor([0.0, 0.1, 0.2, 9.0, 0.3, 0.4, 0.5, 9.3]))
    assert table.greedy[2] == pytest.approx(0.4) == table.best[2] and table.ranked[2] == pytest.approx(9.0)


def test_the_best_subset_need_not_be_found_greedily():
    table = over_complexity.searches(torch.tensor([0.0, 0.1, 1.0, 2.0, 1.0, 2.0, 0.2, 3.0]))
    assert table.best[2] == pytest.approx(0.2) and table.greedy[2] == pytest.approx(2.0)


def test_the_principles_judge_one_degree_by_their_own_formulas():
    x, y = evidence.example(25, seed=1)
    y = np.round(y, 2)
    found = over_complexity.judged(x, y, 3)
    fit = np.polyfit(x, y, 3)
    q, grid = 4 / 25, np.linspace(-1, 1, 401)
    factor = 1 / (1 - np.sqrt(q - q * np.log(q) + np.log(25) / 50))
    assert found["VC bound"] == pytest.approx(factor * np.mean((np.polyval(fit, x) - y) ** 2))
    assert found["test error"] == pytest.approx(np.mean((np.polyval(fit, grid) - evidence.curve(grid)) ** 2))
    assert found["evidence"] < found["description length"]


def test_what_each_judge_chooses():
    table = over_complexity.principles([20], 2, range(7))
    assert len(table) == 14
    chosen = over_complexity.choices(table, ["evidence", "test error"])
    assert (chosen[chosen.judge == "test error"]["error / least"] == 1).all() and len(chosen) == 4
    part = table[table.draw == 1]
    by_hand = part.degree[part.evidence.idxmin()]
    assert chosen[(chosen.draw == 1) & (chosen.judge == "evidence")].degree.item() == by_hand
