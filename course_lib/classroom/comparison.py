"""Experiments that compare criteria: Table 1 and its error bars, scales, mixtures, and a leaderboard for your own.

Table 1, Table 3 and Figures 10, 13 and 14 of Molchanov et al. 2017. Taught in:
notebooks/08_criteria_against_the_oracle.ipynb.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from course_lib import criteria, oracle, pruning, ranking
from course_lib.classroom import gate_curves
from course_lib.classroom.figures.pruning import near_half
from course_lib.criteria import Maps
from course_lib.datasets import Splits
from course_lib.feature_maps import Batches, Scores
from course_lib.progress import track

ROWS = {"per layer": "mean_of_layers", "all layers": "all_layers", "all layers, l2": "all_layers_l2"}
# The paper's, the L1 norm, and nothing at all.
NINE = (
    *("taylor", "obd", "activation_mean", "activation_std", "apoz", "mutual_information"),
    *("min_weight", "l1_norm", "random"),
)
DRAWS = 10  # random sign vectors a minibatch for curvature, as in appendix A.6
BEYOND = ("linear_logits", "second_order")  # the paper
# These answer for every example by itself.
PER_EXAMPLE = ("taylor", "obd", "activation_mean", "activation_std", "apoz", *BEYOND)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing the mean of their ranks. a, b: (C,).

    Eq. 10 of the paper, 1 - 6 sum d^2 / (C (C^2 - 1)), is this where no two values are equal. NaN where all are.
    """
    a, b = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size else float("nan")


def without_ties(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation by eq. 10, which is right only where no two values are equal. a, b: (C,)."""
    d = stats.rankdata(a) - stats.rankdata(b)
    return float(1 - 6 * (d * d).sum() / (len(d) * (len(d) ** 2 - 1)))


def by_chance(a: np.ndarray, b: np.ndarray) -> float:
    """Share of all orders of b whose rank correlation with a is at least that of a and b: few values only, (K,)."""
    a, b = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    orders = np.array(list(itertools.permutations(b))) @ a
    return float(np.mean(orders >= a @ b - 1e-9))


def table1(scores: Mapping[str, Scores], truth: Scores) -> pd.DataFrame:
    """Table 1 of the paper: correlation with oracle-abs, a row for each criterion.

    Args:
        scores: {criterion: {layer: (C,)}}.
        truth: the oracle, signed.

    Returns:
        Columns mean_of_layers, all_layers (raw scores) and all_layers_l2.
    """
    rows = {}
    for name, found in scores.items():
        raw, after = ranking.spearman(found, truth), ranking.spearman(ranking.normalize(found, "l2"), truth)
        rows[name] = (raw.mean, raw.all_layers, after.all_layers)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(ROWS.values()))


def papers_table1(printed: pd.DataFrame, network: str, data: str, names: Sequence[str]) -> pd.DataFrame:
    """One of the five settings of the paper's Table 1 in the form of `table1`; NaN where it prints nothing.

    `printed`: data/paper/table1.csv.
    """
    rows = printed[(printed.network == network) & (printed.data == data)]
    return (
        rows.pivot(index="criterion", columns="row", values="spearman").reindex(names)[list(ROWS)].rename(columns=ROWS)
    )


def by_layer(scores: Mapping[str, Scores], truth: Scores) -> pd.DataFrame:
    """Upper part of Table 3: correlation with oracle-abs within each layer; criteria by layers."""
    return pd.DataFrame({name: ranking.spearman(found, truth).per_layer for name, found in scores.items()}).T


def normalizations(scores: Mapping[str, Scores], truth: Scores) -> pd.DataFrame:
    """Lower part of Table 3: correlation over all layers after each normalisation; criteria by normalisations."""
    ways = list(ranking.NORMALIZATIONS)
    rows = {
        name: [ranking.spearman(ranking.normalize(found, how), truth).all_layers for how in ways]
        for name, found in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=ways)


def shuffled(scores: Scores, seed: int = 0) -> Scores:
    """Every layer keeps its scores, but hands them to its maps at random: only the layers' levels are left."""
    generator = torch.Generator().manual_seed(seed)
    return {name: s[torch.randperm(len(s), generator=generator)] for name, s in scores.items()}


def mix(first: Scores, second: Scores, weight: float) -> Scores:
    """(1 - weight) first + weight second, both l2-normalised before, layer by layer (appendix A.5)."""
    first, second = ranking.normalize(first, "l2"), ranking.normalize(second, "l2")
    return {name: (1 - weight) * first[name] + weight * second[name] for name in first}


def mixing(
    first: Scores, partners: Mapping[str, Scores], truths: Mapping[str, Scores], weights: Sequence[float]
) -> pd.DataFrame:
    """Correlation of mixtures with oracles, Figure 13: columns partner, pictures, weight, mean_of_layers, all_layers.

    `truths`: what the pictures are called -> the oracle on them.
    """
    rows = []
    for partner, second in track(partners.items(), "mixing"):
        for weight in weights:
            mixed = mix(first, second, weight)
            for pictures, truth in truths.items():
                found = ranking.spearman(mixed, truth)
                rows.append((partner, pictures, weight, found.mean, found.all_layers))
    return pd.DataFrame(rows, columns=["partner", "pictures", "weight", "mean_of_layers", "all_layers"])


def gradient_size(maps: Maps) -> Tensor:
    """Mean over positions of |dC/dz|, for each example: what is left of Taylor when z is left out."""
    return maps.gradient.abs().mean(maps.positions)


def at_the_bottom(taylor: Scores, factor: Scores, share: float) -> float:
    """Spearman correlation of two l2-normalised scores among the maps that are lowest by the first (Figure 14)."""
    a, b = (torch.cat(list(ranking.normalize(s, "l2").values())) for s in (taylor, factor))
    few = a.argsort()[: max(2, round(share * len(a)))]
    return rank_correlation(a[few].numpy(), b[few].numpy())


def answers(model: nn.Module, batches: Batches, names: Iterable[str] = PER_EXAMPLE, seed: int = 0) -> dict[str, Scores]:
    """What criteria say of every example, before the average: {criterion: {layer: (N, C, ...)}}, on the CPU.

    `names`: of `PER_EXAMPLE`. One pass; as `criteria.score` would do it with one draw of signs for curvature.
    """
    found = {name: criteria.find(name) for name in names}
    needs = max((criterion.needs for criterion in found.values()), key=criteria.NEEDS.index)
    functions = {name: criterion.function for name, criterion in found.items()}
    return gate_curves.all_per_example(model, batches, functions, needs, seed)


def averaged(name: str, answer: Scores, rows: Tensor) -> Scores:
    """The score that a criterion gives on some rows of its `answers`, repeats counted: {layer: (C,)}."""
    finish = criteria.find(name).finish or (lambda mean: mean)
    return {layer: finish(part[rows].mean(0)) for layer, part in answer.items()}


def intervals(
    found: Mapping[str, Scores], fixed: Mapping[str, Scores], effects: Scores, draws: int = 20, seed: int = 0
) -> pd.DataFrame:
    """Bootstrap: Table 1 again and again, the examples of criteria and oracle redrawn together with replacement.

    Args:
        found: of `answers`.
        fixed: scores that stay as they are: those that look at no examples, or at all of them at once.
        effects: of `oracle.effects`, on the same examples in the same order.

    Returns:
        Rows by criterion; columns as `table1`, once under 'low' and once under 'high': nine draws in ten lie between.
    """
    tables = [
        table1({n: averaged(n, a, rows) for n, a in found.items()} | dict(fixed), truth)
        for rows, truth in track(gate_curves.bootstrap_oracles(effects, draws, seed), "redrawing examples", draws)
    ]
    grouped = pd.concat(tables).groupby(level=0)
    return pd.concat({"low": grouped.quantile(0.05), "high": grouped.quantile(0.95)}, axis=1)


def ceiling(effects: Scores) -> float:
    """How high a noiseless criterion can correlate with the oracle on these examples: the root of its reliability.

    Half of the examples have the reliability r of `oracle.split_half`, the mean over layers; all of them have
    2 r / (1 + r) (Spearman 1910, Brown 1910). NaN if r is negative.
    """
    half = oracle.split_half(effects).mean
    return float(np.sqrt(2 * half / (1 + half))) if half >= 0 else float("nan")


def squared_slope(maps: Maps) -> Tensor:
    """(dC/dg)^2 for each example: few examples in doubt count for more than in Taylor's mean of absolute values.

    A square in place of the absolute value, as in Molchanov et al. 2019 (there of the batch).
    """
    return (maps.gradient * maps.z).sum(maps.positions).square()


@contextmanager
def registered(name: str, function: Callable[[Maps], Tensor], needs: str = "gradients") -> Iterator[str]:
    """Inside the `with`, the function is a criterion of this name. ValueError if the name is taken."""
    if name in criteria.CRITERIA:
        raise ValueError(f"There is a criterion {name!r} already: give yours another name.")
    criteria.register(name, needs=needs)(function)
    try:
        yield name
    finally:
        del criteria.CRITERIA[name]


class Board(NamedTuple):
    """The leaderboard.

    Attributes:
        table: rows by criterion, the nearest to the oracle within layers first; columns of `table1`, and accuracy: at
            the pruning step nearest to half of the maps, after fine-tuning; NaN where no curve was given.
        curve: the steps of the new criterion's pruning run: curve, seed and what `pruning.Step.row` says.
    """

    table: pd.DataFrame
    curve: pd.DataFrame


def leaderboard(
    function: Callable[[Maps], Tensor],
    model: nn.Module,
    splits: Splits,
    batches: Batches,
    truth: Scores,
    scores: Mapping[str, Scores],
    others: pd.DataFrame,
    *,
    name: str = "my_criterion",
    needs: str = "gradients",
    maps_left: float = 0.5,
    **loop,
) -> Board:
    """A criterion of your own goes through Table 1 and one pruning curve, and stands among the others.

    Args:
        function: Maps -> (N, C), or (C,) with needs="weights".
        batches, truth, scores: examples, the oracle on them, and the other criteria's scores.
        others: pruning curves to stand among: curve, seed, number, maps_left, macs, params, accuracy.
        loop: settings of `pruning.prune`.
    """
    with registered(name, function, needs):
        mine = criteria.score(model, batches, name, seed=loop.get("seed", 0))
        steps = [step.row() for step in pruning.prune(model, splits, name, maps_left=maps_left, **loop)]
    curve = pd.DataFrame(steps).assign(curve=name, seed=loop.get("seed", 0))
    halves = near_half(pd.concat([others, curve], ignore_index=True)).groupby("curve").accuracy.mean()
    table = table1({**scores, **mine}, truth)
    return Board(
        table.assign(accuracy=halves.reindex(table.index)).sort_values("mean_of_layers", ascending=False), curve
    )


def worth(correlations: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """What a place in Table 1 is worth in pruning: a row a criterion that both tables have, means over seeds.

    Args:
        correlations: criterion, seed and the columns of `table1`.
        curves: as `others` of `leaderboard`, and accuracy_before_tuning.

    Returns:
        The columns of `table1`, and right_after_the_cut and after_tuning: accuracies near half of the maps.
    """
    halves = near_half(curves).groupby("curve")[["accuracy_before_tuning", "accuracy"]].mean()
    halves.columns = ["right_after_the_cut", "after_tuning"]
    means = correlations.groupby("criterion", sort=False)[list(ROWS.values())].mean()
    return means.join(halves, how="inner")
