"""From scores to a decision: normalise, compare with the oracle, pick the lowest.

Section 2.3 and Table 1 of Molchanov et al. 2017. Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

import math
import warnings
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.feature_maps import Plan, Scores
from course_lib.names import UnknownName


def _min_max(s: Tensor) -> Tensor:
    spread = s.max() - s.min()
    return torch.zeros_like(s) if spread == 0 else (s - s.min()) / spread


def _divide(s: Tensor, by: Tensor) -> Tensor:
    return torch.zeros_like(s) if by == 0 else s / by  # NaN stays NaN, for `lowest` to refuse


NORMALIZATIONS = {
    "none": lambda s: s,
    "l1": lambda s: _divide(s, s.abs().sum()),
    "l2": lambda s: _divide(s, s.square().sum().sqrt()),
    "minmax": _min_max,
}


class Correlation(NamedTuple):
    """Spearman rank correlations as Table 1 has them: by layer, their plain mean, and over all maps at once."""

    per_layer: dict[str, float]
    mean: float
    all_layers: float


def normalize(scores: Scores, how: str = "l2") -> Scores:
    """Scores on a common scale, layer by layer; 'l2' divides by the root of the sum of squares (section 2.3).

    `how`: 'none', 'l1', 'l2' or 'minmax' (Table 3). A layer whose scores are all zero stays so.
    """
    if how not in NORMALIZATIONS:
        raise UnknownName("normalization", how, NORMALIZATIONS)
    return {name: NORMALIZATIONS[how](s.double()) for name, s in scores.items()}


def regularize(scores: Scores, mflops: dict[str, float], strength: float = 1e-3) -> Scores:
    """FLOPs regularisation (eq. 9): scores minus strength times the MFLOPs of one map of the layer.

    Scores should be l2-normalised, for only then do the scales match; `mflops` is `cost.mflops_per_map`.
    """
    return {name: s - strength * mflops[name] for name, s in scores.items()}


def spearman(scores: Scores, truth: Scores, *, absolute: bool = True) -> Correlation:
    """Spearman rank correlation of a criterion with the oracle, ties by average ranks.

    Args:
        scores: {layer: (C,)}.
        truth: {layer: (C,)} signed changes of loss; NaN where a map was not measured, which is left out.
        absolute: compare with |truth|, the oracle-abs of Table 1; otherwise with the signed oracle-loss.

    Returns:
        Correlation; NaN for a layer in which either side is constant, and the mean is over the other layers.

    Raises:
        ValueError: other layers or numbers of maps on one side than on the other; scores that are NaN.
    """
    if set(scores) != set(truth):
        raise ValueError(f"Scores are of layers {list(scores)}, the oracle of {list(truth)}: they have to be the same.")
    pairs = {}
    for name in scores:
        s, t = scores[name].double().cpu(), truth[name].double().cpu()
        if len(s) != len(t):
            raise ValueError(f"Layer {name!r} has {len(s)} scores, but {len(t)} in the oracle: compare one network.")
        if torch.isnan(s).any():
            raise ValueError(f"Scores of layer {name!r} hold NaN: they have no rank. Score again.")
        known = ~torch.isnan(t)
        pairs[name] = (s[known], (t.abs() if absolute else t)[known])
    per_layer = {name: _spearman(*pair) for name, pair in pairs.items()}
    defined = [value for value in per_layer.values() if value == value]
    mean = sum(defined) / len(defined) if defined else float("nan")
    criterion, oracle = (torch.cat(side) for side in zip(*pairs.values(), strict=True))
    return Correlation(per_layer, mean, _spearman(criterion, oracle))


def lowest(scores: Scores, n: int, *, keep_at_least: int = 1, round_to: int = 1) -> Plan:
    """The n feature maps with the lowest scores: {layer: sorted indices}, only layers that lose a map.

    Processors work on 8 or 16 channels at once, so that a layer of 33 maps takes about as long as one of 48. With
    `round_to=16` maps leave in groups, each of which leaves a multiple of 16 behind: within a layer the lowest first,
    over all layers the group with the lowest mean score, until at least n maps are gone (at most 15 more). A layer of
    16 maps or fewer keeps them all, for it would not become faster. The scores decide here which maps those are:
    surgery, which does not know them, does not round.

    Args:
        n: how many maps, over all layers.
        keep_at_least: every layer keeps its best so many maps, whatever their scores.
        round_to: how many maps stay in a layer that loses some is a multiple of this.

    Raises:
        ValueError: n is negative or more than may be removed; keep_at_least or round_to below 1; scores that are not
        numbers.
    """
    _refuse_impossible(scores, n, keep_at_least, round_to)
    values = {name: s.double().tolist() for name, s in scores.items()}
    groups = {name: _groups(values[name], keep_at_least, round_to) for name in scores}
    turns = [(fmean(values[name][at] for at in maps), name) for name in scores for maps in groups[name]]
    plan: dict[str, list[int]] = {name: [] for name in scores}
    for _, name in sorted(turns, key=lambda turn: turn[0]):
        if sum(map(len, plan.values())) >= n:
            break
        plan[name] += groups[name].pop(0)  # in a layer's own order, however the means of equal scores are rounded
    return {name: torch.tensor(sorted(maps)) for name, maps in plan.items() if maps}


def fewest(channels: int, keep_at_least: int = 1, round_to: int = 1) -> int:
    """How few of its feature maps a layer can be left with by `lowest`."""
    return min(channels, math.ceil(keep_at_least / round_to) * round_to)


def _groups(values: list[float], keep_at_least: int, round_to: int) -> list[list[int]]:
    """Which maps of a layer leave together, lowest scores first."""
    lowest_first = sorted(range(len(values)), key=values.__getitem__)
    removable = len(values) - fewest(len(values), keep_at_least, round_to)
    ends = range(removable, 0, -round_to)  # counted from above: what does not fill a group is the first to go
    return [lowest_first[max(0, end - round_to) : end] for end in reversed(ends)]


def _refuse_impossible(scores: Scores, n: int, keep_at_least: int, round_to: int) -> None:
    if keep_at_least < 1:
        raise ValueError(f"keep_at_least is {keep_at_least}, but a layer without feature maps passes nothing on.")
    if round_to < 1:
        raise ValueError(f"round_to is {round_to}: give 8 or 16 for counts that run fast, 1 for any count.")
    if bad := [name for name, s in scores.items() if not torch.isfinite(s).all()]:
        raise ValueError(f"Scores of layers {bad} hold infinities or NaN: score again before ranking.")
    maps = sum(map(len, scores.values()))
    available = maps - sum(fewest(len(s), keep_at_least, round_to) for s in scores.values())
    if not 0 <= n <= available:
        multiples = f", in multiples of {round_to}" if round_to > 1 else ""
        raise ValueError(
            f"Cannot remove {n} feature maps: {available} of {maps} may go while each of {len(scores)} layers keeps at "
            f"least {keep_at_least}{multiples}."
        )


def _spearman(a: Tensor, b: Tensor) -> float:
    from scipy import stats  # a slow import, which pruning can do without

    if len(a) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)
