"""Ranking: normalisations against numpy, Spearman against scipy and by hand, the lowest scores."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from course_lib import ranking
from course_lib.ranking import fewest, lowest, normalize, regularize, spearman


def some(seed=0, ties=False):
    """Scores of three layers, signed."""
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.randn(n, generator=generator) for name, n in (("a", 9), ("b", 14), ("c", 5))}
    return {name: (2 * s).round() if ties else s for name, s in scores.items()}


# -------------------------------------------------------------------------------------------------------- normalising


@pytest.mark.parametrize(
    "how, expected",
    [
        ("none", lambda s: s),
        ("l1", lambda s: s / np.abs(s).sum()),
        ("l2", lambda s: s / np.linalg.norm(s)),
        ("minmax", lambda s: (s - s.min()) / (s.max() - s.min())),
    ],
)
def test_normalisations_against_numpy(how, expected):
    scores = some()
    found = normalize(scores, how)
    assert list(found) == list(scores)
    for name, s in scores.items():
        assert found[name].dtype == torch.float64
        assert np.allclose(found[name].numpy(), expected(s.numpy().astype(float)), rtol=1e-12)


@pytest.mark.parametrize("how", ranking.NORMALIZATIONS)
def test_zeros_stay_zeros_and_nan_does_not_become_a_low_score(how):
    zeros, broken = torch.zeros(4), torch.tensor([1.0, math.nan, 3.0])
    found = normalize({"zeros": zeros, "broken": broken}, how)
    assert torch.equal(found["zeros"], zeros.double())
    with pytest.raises(ValueError, match=r"\['broken'\] hold infinities or NaN"):
        lowest(found, 1)


def test_minmax_of_equal_scores_is_zero():
    assert normalize({"a": torch.full((3,), 2.5)}, "minmax")["a"].tolist() == [0, 0, 0]


def test_unknown_normalisation():
    with pytest.raises(KeyError, match="Did you mean 'l2'.*Known: none, l1, l2, minmax"):
        normalize(some(), "l22")


def test_flops_regularisation_by_hand():
    """Eq. 9: Theta - lambda Theta_flops."""
    found = regularize({"a": torch.tensor([0.5, 0.25]), "b": torch.tensor([0.1])}, {"a": 57.8, "b": 2.0}, 1e-3)
    assert found["a"].tolist() == pytest.approx([0.4422, 0.1922])
    assert found["b"].tolist() == pytest.approx([0.098])


# ----------------------------------------------------------------------------------------------------------- Spearman


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_spearman_equals_scipy(ties, absolute):
    scores, truth = some(1, ties), some(2, ties)
    found = spearman(scores, truth, absolute=absolute)
    side = np.abs if absolute else np.asarray
    pairs = {name: (scores[name].numpy(), side(truth[name].numpy())) for name in scores}
    for name, (s, t) in pairs.items():
        assert found.per_layer[name] == pytest.approx(stats.spearmanr(s, t).statistic)
    assert found.mean == pytest.approx(np.mean(list(found.per_layer.values())))
    everything = [np.concatenate([pair[i] for pair in pairs.values()]) for i in (0, 1)]
    assert found.all_layers == pytest.approx(stats.spearmanr(*everything).statistic)


def test_maps_that_were_not_measured_are_left_out():
    scores, truth = some(1), some(2)
    truth["a"][[0, 4]] = math.nan
    truth["c"][:] = math.nan
    found = spearman(scores, truth)
    known = [1, 2, 3, 5, 6, 7, 8]
    by_hand = stats.spearmanr(scores["a"][known].numpy(), truth["a"][known].abs().numpy()).statistic
    assert found.per_layer["a"] == pytest.approx(by_hand)
    assert math.isnan(found.per_layer["c"])
    assert found.mean == pytest.approx((found.per_layer["a"] + found.per_layer["b"]) / 2)
    s, t = torch.cat([scores["a"][known], scores["b"]]), torch.cat([truth["a"][known], truth["b"]]).abs()
    assert found.all_layers == pytest.approx(stats.spearmanr(s.numpy(), t.numpy()).statistic)


def test_spearman_by_hand():
    """1 - 6 sum d^2 / (n (n^2 - 1)): ranks 1 2 3 4 against 2 1 4 3 differ by one each; absolute values are compared."""
    scores, truth = {"a": torch.tensor([1.0, 2, 3, 4])}, {"a": torch.tensor([-20.0, 10, 40, -30])}
    assert spearman(scores, truth).all_layers == pytest.approx(1 - 6 * 4 / (4 * 15))
    assert spearman(scores, truth, absolute=False).all_layers == pytest.approx(1 - 6 * (3 * 1 + 3**2) / (4 * 15))
    # ties share their mean rank: 1, 2.5, 2.5 against 1, 2, 3 -> covariance 1.5 over sqrt(1.5 * 2)
    tied = spearman({"a": torch.tensor([1.0, 7, 7])}, {"a": torch.tensor([1.0, 2, 3])})
    assert tied.per_layer["a"] == pytest.approx(1.5 / math.sqrt(3))


def test_a_scale_that_differs_between_layers_shows_in_all_layers_only():
    truth = {"a": torch.tensor([1.0, 2, 3]), "b": torch.tensor([4.0, 5, 6])}
    scores = {"a": torch.tensor([100.0, 200, 300]), "b": torch.tensor([0.4, 0.5, 0.6])}
    found = spearman(scores, truth)
    assert found.mean == pytest.approx(1)
    assert found.all_layers < 0.5


def test_constant_scores_have_no_correlation_and_no_warning(recwarn):
    found = spearman({"a": torch.zeros(4), "b": torch.arange(3.0)}, {"a": torch.arange(4.0), "b": torch.arange(3.0)})
    assert math.isnan(found.per_layer["a"])
    assert found.mean == pytest.approx(1)
    assert not recwarn.list


def test_spearman_of_other_layers_or_other_networks_is_refused():
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\].*\['a'\]"):
        spearman(some(), {"a": torch.zeros(9)})
    with pytest.raises(ValueError, match="'b' has 14 scores.*13 in the oracle"):
        spearman(some(), some() | {"b": torch.zeros(13)})


def test_scores_that_are_no_numbers_have_no_correlation():
    broken = some()
    broken["b"][3] = math.nan
    with pytest.raises(ValueError, match="'b' hold NaN"):
        spearman(broken, some(1))


# -------------------------------------------------------------------------------------------------------------- lowest


def as_lists(plan):
    return {name: maps.tolist() for name, maps in plan.items()}


def test_lowest_by_hand():
    scores = {"a": torch.tensor([0.5, 0.1, 0.9]), "b": torch.tensor([0.3, 0.2]), "c": torch.tensor([2.0])}
    assert as_lists(lowest(scores, 0)) == {}
    assert as_lists(lowest(scores, 2)) == {"a": [1], "b": [1]}
    assert as_lists(lowest(scores, 3)) == {"a": [0, 1], "b": [1]}  # map 0 of b is lower, but the last of its layer


@given(st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_lowest_takes_the_lowest_that_may_go(data):
    values = st.floats(-2, 2, width=16) | st.sampled_from([0.0, 1.0])
    scores = data.draw(st.dictionaries(st.sampled_from("abcd"), st.lists(values, min_size=1, max_size=6), min_size=1))
    keep = data.draw(st.integers(1, 3))
    kept = {name: sorted(s)[max(0, len(s) - keep) :] for name, s in scores.items()}
    free = sorted(value for name, s in scores.items() for value in sorted(s)[: len(s) - len(kept[name])])
    n = data.draw(st.integers(0, len(free)))
    plan = lowest({name: torch.tensor(s) for name, s in scores.items()}, n, keep_at_least=keep)
    taken = [torch.tensor(scores[name])[maps].tolist() for name, maps in plan.items()]
    assert np.allclose(sorted(sum(taken, [])), free[:n])
    for name, maps in plan.items():
        assert maps.tolist() == sorted(set(maps.tolist())) != []
        assert len(scores[name]) - len(maps) >= min(keep, len(scores[name]))


def test_floor_of_every_layer():
    scores = {"low": torch.arange(5.0), "high": torch.arange(5.0) + 100}
    assert as_lists(lowest(scores, 4, keep_at_least=3)) == {"low": [0, 1], "high": [0, 1]}


def test_rounding_by_hand():
    scores = {"a": torch.arange(10.0), "b": torch.arange(8.0) + 0.4, "c": torch.tensor([-9.0, -8, -7, -6])}
    assert as_lists(lowest(scores, 1, round_to=4)) == {"a": [0, 1]}  # 8 stay; c has no more than 4 and keeps them all
    assert as_lists(lowest(scores, 2, round_to=4)) == {"a": [0, 1]}
    assert as_lists(lowest(scores, 3, round_to=4)) == {"a": [0, 1], "b": [0, 1, 2, 3]}  # mean 1.9 is below 3.5
    assert as_lists(lowest(scores, 7, round_to=4)) == {"a": [0, 1, 2, 3, 4, 5], "b": [0, 1, 2, 3]}
    assert as_lists(lowest(scores, 2, round_to=4, keep_at_least=5)) == {"a": [0, 1]}
    with pytest.raises(ValueError, match="3 feature maps: 2 of 22 may go .* at least 5, in multiples of 4"):
        lowest(scores, 3, round_to=4, keep_at_least=5)
    with pytest.raises(ValueError, match="round_to is 0: give 8 or 16"):
        lowest(scores, 3, round_to=0)


@pytest.mark.parametrize("value", [1.0, 0.1])  # the mean of three 0.1 is above 0.1
def test_rounding_with_ties(value):
    scores = {"a": torch.full((11,), value, dtype=torch.float64)}
    assert as_lists(lowest(scores, 1, round_to=4)) == {"a": [0, 1, 2]}
    assert as_lists(lowest(scores, 4, round_to=4)) == {"a": [0, 1, 2, 3, 4, 5, 6]}


@given(st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rounded_counts_are_multiples_and_nearly_n(data):
    values = st.floats(-2, 2, width=16)
    layers = st.lists(values, min_size=1, max_size=20)
    scores = data.draw(st.dictionaries(st.sampled_from("abcd"), layers, min_size=1))
    scores = {name: torch.tensor(s) for name, s in scores.items()}
    keep, to = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([1, 2, 4, 5]))
    most = sum(len(s) - fewest(len(s), keep, to) for s in scores.values())
    n = data.draw(st.integers(0, most))
    plan = lowest(scores, n, keep_at_least=keep, round_to=to)
    assert n <= sum(map(len, plan.values())) < n + to
    for name, maps in plan.items():
        stay = len(scores[name]) - len(maps)
        assert stay % to == 0 and stay >= keep
        assert scores[name][maps].max() <= scores[name].sort().values[len(maps) - 1]  # the layer's lowest
    with pytest.raises(ValueError, match=f"{most} of"):
        lowest(scores, most + 1, keep_at_least=keep, round_to=to)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_of_as_many_rounded_maps_has_a_lower_sum(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.randn(size, generator=generator) for name, size in (("a", 12), ("b", 8), ("c", 16))}
    for n in (4, 12, 20):
        sums = {}
        for counts in itertools.product(*(range(0, len(s), 4) for s in scores.values())):
            lows = [s.sort().values[:count] for s, count in zip(scores.values(), counts, strict=True)]
            sums.setdefault(sum(counts), []).append(float(torch.cat(lows).sum()))
        plan = lowest(scores, n, round_to=4)
        found = sum(float(scores[name][maps].sum()) for name, maps in plan.items())
        assert found == pytest.approx(min(sums[n]))


def test_ties_go_by_layer_and_index():
    scores = {"z": torch.ones(3), "a": torch.ones(200)}
    assert as_lists(lowest(scores, 4)) == {"z": [0, 1], "a": [0, 1]}
    assert all(as_lists(lowest(scores, 150)) == as_lists(lowest(scores, 150)) for _ in range(3))
    assert lowest(scores, 150)["a"].tolist() == list(range(148))


def test_scores_of_mixed_types():
    scores = {"a": torch.tensor([3, 1, 2]), "b": torch.tensor([1.5, 0.5]), "c": torch.tensor([0.7, 9]).double()}
    scores["d"] = torch.tensor([0.6, 5], dtype=torch.bfloat16)
    assert as_lists(lowest(scores, 4)) == {"a": [1], "b": [1], "c": [0], "d": [0]}


@pytest.mark.parametrize(
    "n, keep, message",
    [
        (4, 1, "Cannot remove 4 feature maps: 3 of 5 may go while each of 2 layers keeps at least 1"),
        (2, 2, "1 of 5 may go"),
        (-1, 1, "Cannot remove -1"),
        (1, 0, "keep_at_least is 0"),
    ],
)
def test_impossible_numbers(n, keep, message):
    with pytest.raises(ValueError, match=message):
        lowest({"a": torch.zeros(3), "b": torch.zeros(2)}, n, keep_at_least=keep)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    with pytest.raises(ValueError, match=r"\['b'\] hold infinities or NaN"):
        lowest({"a": torch.zeros(3), "b": torch.tensor([1, value])}, 1)
