"""Exercises of notebook 08: rank correlation, and a criterion of your own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from course_lib import criteria
from course_lib.classroom import comparison
from course_lib.classroom.checks.engine import add
from course_lib.classroom.checks.taylor import random_maps
from course_lib.criteria import Maps


def pairs(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores of a layer and its oracle: of several sizes, skewed, with and without equal values."""
    for size, ties in ((8, False), (20, True), (12, True), (3, False)):
        a, b = torch.randn(2, size, generator=generator, dtype=torch.float64).exp().numpy()
        if ties:
            a[a < np.median(a)] = 0.0  # maps that never answer
        yield a, a + b


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _ordinal(a: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(a, kind="stable"), kind="stable")


add(
    "rank_correlation",
    comparison.rank_correlation,
    inputs=pairs,
    mistakes={
        "you correlated the values; Spearman's correlates their ranks": _pearson,
        "equal values got different ranks; they share the mean of their ranks": lambda a, b: _pearson(
            _ordinal(a), _ordinal(b)
        ),
        "eq. 10 holds only where no two values are equal; correlate the ranks themselves": comparison.without_ties,
        "you correlated the positions that argsort gives; the rank of a value is where it comes in that order": (
            lambda a, b: _pearson(np.argsort(a, kind="stable"), np.argsort(b, kind="stable"))
        ),
        "`corrcoef` gives a table of two by two; return the entry [0, 1]": lambda a, b: np.corrcoef(
            stats.rankdata(a), stats.rankdata(b)
        ),
        "this is Kendall's tau, which counts pairs; Spearman's correlates ranks": lambda a, b: float(
            stats.kendalltau(a, b).statistic
        ),
        "you ranked one side from the top and one from the bottom": lambda a, b: comparison.rank_correlation(a, -b),
        "you used covariance; divide by both standard deviations": lambda a, b: float(
            np.cov(stats.rankdata(a), stats.rankdata(b), bias=True)[0, 1]
        ),
    },
)

EXAMPLES = "it averages over examples; return one number for each example and map, `score` averages them"
POSITIONS = "positions are left in it; add them up or average them over `maps.positions`"
NOT_FINITE = "some numbers are infinite or not a number; the last map of the inputs is dead, is there a 0 / 0 or log 0?"
CHANCE = "two calls on the same input differ; draw from `maps.generator` alone, or do not draw"
TOGETHER = "an example's numbers depend on the other examples of its batch; then the size of a batch decides"
CONSTANT = "every map of a layer has the same number, in all inputs; that ranks nothing"
INPUTS = "it changes `maps`, which other criteria still want to read; work on a copy"


def problem(function: Callable[[Maps], Tensor], cases: list[tuple[Maps]]) -> str | None:
    """What keeps a function from being a criterion that needs gradients; None if nothing does."""
    found = [_judged(function, maps) for (maps,) in cases]
    flat = [(len(answer) > 0 and answer.shape[1] > 1 and bool((answer != answer[:, :1]).any())) for answer, _ in found]
    return next((said for _, said in found if said), None) or (None if any(flat) else CONSTANT)


def _judged(function: Callable[[Maps], Tensor], maps: Maps) -> tuple[Tensor, str | None]:
    """The answer to one input, and what is wrong with it."""
    before = copy.deepcopy(maps)
    answer, again = _answer(function, copy.deepcopy(maps)), copy.deepcopy(maps)
    repeated = _answer(function, again)
    shape = tuple(maps.z.shape)
    if answer.shape != shape[:2]:
        return torch.zeros(0), _wrong_shape(tuple(answer.shape), shape)
    if not torch.isfinite(answer).all():
        return answer, NOT_FINITE
    if not torch.equal(before.z, again.z) or not torch.equal(before.gradient, again.gradient):
        return answer, INPUTS
    if not torch.equal(answer, repeated):
        return answer, CHANCE
    alone = _answer(function, _first(maps))
    return answer, None if torch.allclose(alone, answer[:1], rtol=1e-5, atol=1e-8) else TOGETHER


def _answer(function: Callable[[Maps], Tensor], maps: Maps) -> Tensor:
    return torch.as_tensor(function(maps)).detach().double()


def _first(maps: Maps) -> Maps:
    """The first example alone."""
    parts = {name: getattr(maps, name)[:1].clone() for name in ("z", "gradient", "curvature", "labels")}
    return Maps(maps.weight, torch.Generator(), classes=maps.classes, **parts)


def _wrong_shape(found: tuple[int, ...], z: tuple[int, ...]) -> str:
    if found == z[1:2]:
        return EXAMPLES
    if found == z:
        return POSITIONS
    return f"your result has shape {found}, (N, C) = {z[:2]} is expected"


add(
    "own_criterion",
    comparison.squared_slope,
    inputs=random_maps,
    mistakes={
        EXAMPLES: lambda m: (m.gradient * m.z).mean((0, *m.positions)).abs(),
        POSITIONS: lambda m: (m.gradient * m.z).abs(),
        NOT_FINITE: lambda m: m.z.mean(m.positions).log(),
        CHANCE: lambda m: m.z.mean(m.positions) + torch.rand(m.z.shape[:2]),
        TOGETHER: lambda m: m.z.mean(m.positions) - m.z.mean((0, *m.positions)),
        CONSTANT: lambda m: torch.ones(m.z.shape[:2]),
        INPUTS: lambda m: m.z.mul_(m.gradient).mean(m.positions).abs(),
    },
    problem=problem,
    shows=(comparison.squared_slope, criteria.taylor),
)
