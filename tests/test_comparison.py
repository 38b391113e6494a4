"""Experiments of notebook 08 against slow and independent ways of the same."""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import batches, small_vgg
from scipy import stats
from torch.utils.data import TensorDataset

from course_lib import criteria, oracle, paths
from course_lib.classroom import checks, comparison
from course_lib.datasets import Splits

DATA = batches(3, 8, 8)  # ten examples in two batches


@pytest.fixture(scope="module")
def case():
    model = small_vgg()
    effects = oracle.effects(model, DATA, progress=False)
    names = ["taylor", "activation_std", "min_weight"]
    scores = criteria.score(model, DATA, names, progress=False)
    return model, effects, {name: e.mean(0) for name, e in effects.items()}, scores


def joined(scores, how=lambda s: s):
    return np.concatenate([how(s.double().numpy()) for s in scores.values()])


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties):
    a, b = np.random.default_rng(0).normal(size=(2, 31))
    a = a.round() if ties else a
    assert comparison.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    same = comparison.without_ties(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert same is not ties


def test_by_chance_counts_orders():
    a = np.arange(4.0)
    assert comparison.by_chance(a, a) == 1 / 24
    assert comparison.by_chance(a, -a) == 1
    assert comparison.by_chance(a, np.array([0.0, 1, 3, 2])) == 4 / 24  # itself, the perfect one, two more swaps


def test_table1_row_by_row(case):
    _, _, truth, scores = case
    found = comparison.table1(scores, truth)
    size = joined(truth, np.abs)
    for name, s in scores.items():
        layers = [stats.spearmanr(s[k], truth[k].abs()).statistic for k in truth]
        assert found.mean_of_layers[name] == pytest.approx(np.mean(layers))
        assert found.all_layers[name] == pytest.approx(stats.spearmanr(joined(s), size).statistic)
        level = joined(s, lambda x: x / np.sqrt((x**2).sum()))
        assert found.all_layers_l2[name] == pytest.approx(stats.spearmanr(level, size).statistic)


def test_the_papers_table_has_its_printed_numbers_and_gaps():
    printed = pd.read_csv(paths.data_dir() / "paper" / "table1.csv")
    table = comparison.papers_table1(printed, "VGG-16", "Flowers-102", ["taylor", "obd", "random"])
    assert table.loc["taylor"].tolist() == [0.60, 0.02, 0.70]
    assert np.isnan(table.all_layers_l2.obd) and table.loc["random"].isna().all()


def test_by_layer_and_normalizations_are_those_of_table1(case):
    _, _, truth, scores = case
    table = comparison.table1(scores, truth)
    by_layer, ways = comparison.by_layer(scores, truth), comparison.normalizations(scores, truth)
    assert list(by_layer.columns) == list(truth)
    np.testing.assert_allclose(by_layer.mean(axis=1), table.mean_of_layers)
    np.testing.assert_allclose(ways[["none", "l2"]], table[["all_layers", "all_layers_l2"]])
    level = joined(scores["taylor"], lambda x: (x - x.min()) / (x.max() - x.min()))
    assert ways.minmax.taylor == pytest.approx(stats.spearmanr(level, joined(truth, np.abs)).statistic)


def test_shuffling_keeps_each_layers_scores_and_no_order():
    scores = {"a": torch.arange(50.0), "b": torch.arange(50.0) + 100}
    found = comparison.shuffled(scores, seed=1)
    for name, s in scores.items():
        assert torch.equal(found[name].sort().values, s) and not torch.equal(found[name], s)


def test_mixing_takes_both_at_the_same_scale(case):
    _, _, truth, scores = case
    first, second = scores["taylor"], {k: 1e6 * s for k, s in scores["min_weight"].items()}
    mixed = comparison.mix(first, second, 0.25)
    for k in first:
        torch.testing.assert_close(mixed[k], 0.75 * first[k] / first[k].norm() + 0.25 * second[k] / second[k].norm())
    halves = {"one": truth, "other": {k: -2 * t for k, t in truth.items()}}
    curves = comparison.mixing(first, {"p": second}, halves, [0, 1])
    ends = comparison.table1({"0": first, "1": second}, truth)
    for pictures, rows in curves.groupby("pictures"):
        np.testing.assert_allclose(rows.mean_of_layers, ends.mean_of_layers, err_msg=pictures)
        np.testing.assert_allclose(rows.all_layers, ends.all_layers_l2)


def test_the_bottom_is_the_lowest_by_the_first():
    taylor = {"a": torch.arange(1.0, 11)}
    factor = {"a": torch.tensor([1.0, 2, 3, 4, 5, 10, 9, 8, 7, 6])}
    assert comparison.at_the_bottom(taylor, factor, 0.5) == pytest.approx(1)
    assert comparison.at_the_bottom(taylor, factor, 1.0) < 0.8


def test_answers_averaged_over_all_examples_are_the_scores(case):
    model = case[0]
    names = list(comparison.PER_EXAMPLE)
    answers = comparison.answers(model, DATA, names, seed=3)
    scores = criteria.score(model, DATA, names, seed=3, progress=False)
    for name in names:
        found = comparison.averaged(name, answers[name], torch.arange(10))
        for layer, s in scores[name].items():
            torch.testing.assert_close(found[layer], s, rtol=1e-9, atol=1e-12)


def test_averaged_takes_the_rows_with_repeats(case):
    model, twice = case[0], torch.tensor([7, 7, 2])
    found = comparison.averaged("taylor", comparison.answers(model, DATA, ["taylor"])["taylor"], twice)
    images, labels = (torch.cat(part) for part in zip(*DATA, strict=True))
    direct = criteria.score(model, [(images[twice], labels[twice])], "taylor", progress=False)["taylor"]
    for layer, s in direct.items():
        torch.testing.assert_close(found[layer], s)


def test_intervals_of_examples_that_are_all_alike_are_points(case):
    model, effects, _, scores = case
    answers = comparison.answers(model, DATA, ["taylor"])
    alike = {"taylor": {k: a[:1].expand_as(a) for k, a in answers["taylor"].items()}}
    same = {k: e[:1].expand_as(e) for k, e in effects.items()}
    found = comparison.intervals(alike, {"min_weight": scores["min_weight"]}, same, draws=3)
    table = comparison.table1(
        {"taylor": comparison.averaged("taylor", alike["taylor"], torch.arange(10))}, {k: e[0] for k, e in same.items()}
    )
    np.testing.assert_allclose(found.loc["taylor", "low"], table.loc["taylor"])
    np.testing.assert_allclose(found["low"], found["high"])


def test_intervals_have_width_and_hold_nine_in_ten(case):
    model, effects, _, scores = case
    answers = comparison.answers(model, DATA, ["taylor"])
    found = comparison.intervals(answers, {"min_weight": scores["min_weight"]}, effects, draws=20)
    assert (found["high"].mean_of_layers > found["low"].mean_of_layers).all()
    again = comparison.intervals(answers, {"min_weight": scores["min_weight"]}, effects, draws=20)
    pd.testing.assert_frame_equal(found, again)


def test_the_ceiling_without_noise_is_one_and_falls_with_it():
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(400, generator=generator).double() + 1
    assert comparison.ceiling({"a": worth.expand(40, 400)}) == pytest.approx(1)
    noise = torch.randn(40, 400, generator=generator).double()
    measured = worth + 40**0.5 * worth.std() * noise  # the mean of 40 has as much noise as truth: r = 1/2
    assert comparison.ceiling({"a": measured}) == pytest.approx(0.5**0.5, abs=0.06)


def test_a_registered_criterion_leaves_no_trace(case):
    model = case[0]
    with comparison.registered("mine", comparison.squared_slope) as name:
        mine = criteria.score(model, DATA, name, progress=False)["mine"]
    assert "mine" not in criteria.CRITERIA
    images, labels = (torch.cat(part) for part in zip(*DATA, strict=True))
    losses = torch.nn.functional.cross_entropy(model(images), labels, reduction="none")
    assert losses.shape == (10,) and all((s >= 0).all() for s in mine.values())
    with pytest.raises(ValueError, match="another name"), comparison.registered("taylor", criteria.taylor):
        pass
    with pytest.raises(ZeroDivisionError), comparison.registered("mine", criteria.taylor):
        raise ZeroDivisionError
    assert "mine" not in criteria.CRITERIA


def curve(name, seed, accuracies):
    numbers = range(len(accuracies))
    sizes = [18 - 3 * n for n in numbers]
    columns = {"curve": name, "seed": seed, "number": numbers, "maps_left": sizes, "macs": sizes, "params": sizes}
    return pd.DataFrame({**columns, "accuracy": accuracies, "accuracy_before_tuning": [a / 2 for a in accuracies]})


def test_the_leaderboard_has_the_table_and_the_curve(case):
    model, _, truth, scores = case
    data = TensorDataset(*(torch.cat(part) for part in zip(*DATA, strict=True)))
    splits = Splits("noise", data, data, data, list("abcd"))
    others = pd.concat([curve("taylor", 0, [0.9, 0.8, 0.7, 0.6]), curve("taylor", 1, [0.9, 0.8, 0.5, 0.4])])
    loop = {"maps_per_step": 4, "updates": 1, "images": 10, "seed": 0, "progress": False}
    board = comparison.leaderboard(comparison.squared_slope, model, splits, DATA, truth, scores, others, **loop)
    assert board.table.mean_of_layers.is_monotonic_decreasing
    assert set(board.table.index) == {*scores, "my_criterion"}
    assert board.table.accuracy.taylor == pytest.approx(0.5)  # nearest to nine of eighteen maps: the fourth step
    assert np.isnan(board.table.accuracy.min_weight)
    assert list(board.curve.maps_left) == [18, 14, 10, 9] and set(board.curve.curve) == {"my_criterion"}
    assert board.table.accuracy.my_criterion == board.curve.accuracy.iloc[-1]
    alone = comparison.leaderboard(
        comparison.squared_slope, model, splits, DATA, truth, scores, others.iloc[:0], **loop
    )
    assert alone.table.accuracy.notna().sum() == 1


def test_worth_joins_means_over_seeds():
    rows = [("taylor", 0, 0.4, 0.1, 0.2), ("taylor", 1, 0.6, 0.1, 0.2), ("obd", 0, 0.3, 0.1, 0.2)]
    table = pd.DataFrame(rows, columns=["criterion", "seed", *comparison.ROWS.values()])
    found = comparison.worth(table, curve("taylor", 0, [0.9, 0.8, 0.7, 0.6]))
    assert list(found.index) == ["taylor"]
    assert found.loc["taylor", ["mean_of_layers", "right_after_the_cut", "after_tuning"]].tolist() == [0.5, 0.3, 0.6]


@pytest.mark.parametrize("name", ["taylor", "activation_mean", "apoz"])
def test_every_valid_criterion_passes_the_exercise(name):
    verdict = checks.judge("own_criterion", criteria.CRITERIA[name].function)
    assert verdict.kind == "right"


def test_an_own_criterion_is_judged_by_itself_and_not_by_the_example():
    assert checks.judge("own_criterion", lambda m: 3 * m.z.amax(m.positions) + 1).kind == "right"
    drawn = checks.judge("own_criterion", lambda m: torch.rand(m.z.shape[:2], generator=m.generator))
    assert drawn.kind == "right"  # from the generator that it was given: the same again
    wrong = checks.judge("own_criterion", lambda m: m.z.mean())
    assert wrong.kind == "mistake" and "shape ()" in wrong.sentence
