"""Experiments with closed gates: each against a slow or a known result."""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import batches, small_vgg
from scipy import stats

from course_lib import cost, oracle, training
from course_lib.classroom import ablations
from course_lib.feature_maps import Chain, mask


@pytest.fixture
def measured():
    model, data = small_vgg(), batches(3, 8, 8, n=3, size=4)
    return model, data, oracle.effects(model, data, progress=False)


def test_change_of_loss_is_the_oracle(measured):
    model, data, effects = measured
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    found = ablations.change_of_loss(Chain(model), images, labels, "3", 2)
    assert found == pytest.approx(float(effects["3"][:, 2].mean()), rel=1e-9)


def test_standard_error_is_scipys(measured):
    effects = measured[2]["3"]
    assert np.allclose(ablations.standard_error(effects), stats.sem(effects.numpy()))


def test_random_samples_are_drawn_with_or_without_replacement():
    values = torch.arange(10.0)
    often = ablations.random_samples(values, 10, 300)
    assert often.shape == (300, 10) and any(len(row.unique()) < 10 for row in often)
    assert torch.bincount(often.long().flatten()).min() > 200  # each is drawn 300 times on average
    once = ablations.random_samples(values, 7, 300, replace=False)
    assert once.shape == (300, 7) and all(len(row.unique()) == 7 for row in once)
    assert torch.bincount(once.long().flatten()).min() > 150  # 210 times on average


def test_guesses_are_the_sampled_oracles(measured):
    model, data, effects = measured
    guess, doubt = ablations.guesses(model, data, "5", [4, 1])
    assert guess.shape == doubt.shape == (len(effects["5"]), 2)
    change = effects["5"][:, [4, 1]]
    assert (change - guess).abs().mean() < change.abs().mean() / 2  # in the last layer the logits are nearly linear


def test_estimates_are_right_on_average_and_as_far_off_as_the_chances_allow():
    residuals = torch.tensor([[1.0, 0.0], [-2.0, 4.0], [8.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    p = torch.tensor([[0.2, 0.0], [0.5, 1.0], [1.0, 0.4], [0.3, 0.6]], dtype=torch.float64)
    found = ablations.resampled(residuals, p, 4000)
    error = found.std(0) / len(found) ** 0.5
    assert (found.std(0) > 0).all() and ((found.mean(0) - residuals.mean(0)).abs() < 4 * error).all()


def test_the_table_has_the_measured_maps_only():
    model, data = small_vgg(), batches(3, 8, 8)
    effects = oracle.effects(model, data, {"0": [1, 4], "5": [0]}, progress=False)
    table = ablations.table(effects)
    assert list(zip(table.layer, table["map"], strict=True)) == [("0", 1), ("0", 4), ("5", 0)]
    assert table.change.tolist() == pytest.approx(
        [float(effects[x][:, i].mean()) for x, i in (("0", 1), ("0", 4), ("5", 0))]
    )
    assert ablations.ranked(table)["rank"].tolist() == stats.rankdata(-table.change.abs()).tolist()


def test_a_recorded_table_becomes_scores_again(measured):
    effects = measured[2]
    part = ablations.table(effects).query("not (layer == '3' and map == 2)")
    scores = ablations.from_table(part, effects)
    assert torch.isnan(scores["3"]).tolist() == [False, False, True, False, False, False]
    assert torch.allclose(scores["5"], effects["5"].mean(0))


def test_layers_before_a_pooling():
    assert ablations.before_pooling(Chain(small_vgg())) == ["0", "5"]
    assert ablations.before_pooling(Chain(small_vgg(batch_norm=True))) == ["0", "7"]


def test_with_nothing_closed_it_is_an_ordinary_evaluation(measured):
    model, data, _ = measured
    examples = [(x, int(y)) for images, labels in data for x, y in zip(images, labels, strict=True)]
    assert ablations.evaluate_closed(model, data, {}) == pytest.approx(training.evaluate(model, examples))


def test_closing_in_order_closes_the_lowest_and_sums_their_effects(measured):
    model, data, effects = measured
    truth = {name: e.mean(0) for name, e in effects.items()}
    curves = ablations.close_in_order(model, {"seen": data}, truth, {"oracle-loss": truth}, shares=(0, 3 / 18))
    lowest = sorted((float(t), name, i) for name, ts in truth.items() for i, t in enumerate(ts))[:3]
    plan = {name: [i for _, layer, i in lowest if layer == name] for _, name, _ in lowest}
    expected = ablations.evaluate_closed(model, data, plan).loss - ablations.evaluate_closed(model, data, {}).loss
    assert curves.change.tolist() == pytest.approx([0, expected])
    assert curves.expected.tolist() == pytest.approx([0, sum(change for change, _, _ in lowest)])
    assert curves.maps_left.tolist() == pytest.approx([1, 1 - 3 / cost.feature_maps(model)])


def test_closing_never_takes_a_map_that_was_not_measured(monkeypatch, measured):
    model, data, effects = measured
    truth = {name: e.mean(0) for name, e in effects.items()}
    truth["3"][:] = torch.nan
    plans = []
    monkeypatch.setattr(ablations, "evaluate_closed", lambda *args: plans.append(args[2]) or training.Evaluation(1, 0))
    scores = {name: torch.zeros(len(t)) for name, t in truth.items()}
    ablations.close_in_order(model, {"seen": data}, truth, {"any": scores}, shares=(0, 0.8))
    assert set(plans[-1]) == {"0", "5"} and sum(map(len, plans[-1].values())) == round(0.8 * 12)


def test_pairs_are_closed_together(measured):
    model, data, effects = measured
    found = ablations.pairs(model, data[:2], effects, strongest=3)
    assert len(found) == 3 * 3 + 2 and found.layers.value_counts().to_dict() == {"one layer": 9, "two layers": 2}
    alone = effects["3"][:8].mean(0)
    i, j, _ = ablations.strongest_maps(alone, 3)
    row = found[found.pair == f"3 map {i} and 3 map {j}"].iloc[0]
    assert row.expected == pytest.approx(float(alone[i] + alone[j]))
    gates = mask({"3": [i, j]}, model)
    images, labels = (torch.cat(parts) for parts in zip(*data[:2], strict=True))
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(Chain(model).run(images, gates=g), labels).item() for g in (gates, {})
        ]
    assert row.together == pytest.approx(losses[0] - losses[1])


def test_the_strongest_maps_are_measured_ones():
    change = torch.tensor([0.1, torch.nan, -0.3, 0.2])
    assert ablations.strongest_maps(change) == [2, 3, 0]
    assert ablations.strongest_maps(change, 2) == [2, 3]


def test_the_race_compares_the_same_numbers(measured):
    model, data, _ = measured
    found = ablations.race(model, data[0], {"0": [0, 3], "5": [1]})
    assert found.index.tolist() == ["0", "5"] and found.maps.tolist() == [2, 1]
    assert (found["largest difference"] < 1e-10).all() and (found[["naive, s", "exact, s"]] > 0).all(axis=None)


def test_arithmetic_by_hand():
    model = small_vgg()  # 3 x 8 x 8; conv 5, pool, conv 6, conv 7, pool, linear 28 -> 9 -> 4
    first, second, third = 64 * 5 * 27, 16 * 6 * 45, 16 * 7 * 54
    linear, last = 28 * 9, 9 * 4
    whole = first + second + third + linear + last
    found = ablations.arithmetic(model, (3, 8, 8))
    assert found.naive.tolist() == [whole, 5 * whole, 6 * whole, 7 * whole]
    assert found.exact["all gates open"] == whole
    assert found.exact["0"] == pytest.approx(second + 5 * (third + linear + last))
    assert found.exact["5"] == pytest.approx(linear + 7 * last)


def test_agreement_is_spearmans_and_finds_what_is_there():
    generator = torch.Generator().manual_seed(0)
    truth = {name: torch.randn(9, generator=generator, dtype=torch.float64) for name in ("a", "b")}
    noise = {name: torch.randn(64, 9, generator=generator, dtype=torch.float64) for name in truth}
    effects = {name: truth[name] + noise[name] for name in truth}
    effects["a"][:, 4] = torch.nan
    found = ablations.agreement(effects, truth, draws=20)
    assert found.spearman.between(-1, 1).all() and set(found.images) == {8, 16, 32}
    mean = found.query("not absolute and layers == 'all'").groupby(["against", "images"]).spearman.mean()
    assert mean["another n"].is_monotonic_increasing and mean["the recorded"][32] > 0.95
    assert mean["all here"][32] > mean["another n"][32]
    again = ablations.agreement(effects, truth, draws=20)
    pd.testing.assert_frame_equal(found, again)


def test_rows_of_spearman_are_scipys():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 10)).round(1)  # with ties
    found = ablations._spearman_rows(a, b, [4])
    one = [
        np.mean([stats.spearmanr(x[:4], y[:4])[0], stats.spearmanr(x[4:], y[4:])[0]]) for x, y in zip(a, b, strict=True)
    ]
    assert found == pytest.approx(one)
