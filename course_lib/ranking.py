"""From scores to a decision: normalise, compare with the oracle, pick the lowest.

Section 2.3 and Table 1 of Molchanov et al. 2017. Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from scipy import stats
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
    return Correlation(per_layer, mean, _spearman(flatten(pairs, 0), flatten(pairs, 1)))


def lowest(scores: Scores, n: int, *, keep_at_least: int = 1) -> Plan:
    """The n feature maps with the lowest scores: {layer: sorted indices}, only layers that lose a map.

    Args:
        n: how many maps, over all layers.
        keep_at_least: every layer keeps its best so many maps, whatever their scores.

    Raises:
        ValueError: n is negative or more than may be removed; keep_at_least below 1; scores that are not numbers.
    """
    if keep_at_least < 1:
        raise ValueError(f"keep_at_least is {keep_at_least}, but a layer without feature maps passes nothing on.")
    free = {name: torch.argsort(s, stable=True)[: max(0, len(s) - keep_at_least)] for name, s in scores.items()}
    available = sum(map(len, free.values()))
    if not 0 <= n <= available:
        raise ValueError(
            f"Cannot remove {n} feature maps: {available} of {sum(map(len, scores.values()))} may go while each of "
            f"{len(scores)} layers keeps at least {keep_at_least}."
        )
    if bad := [name for name, s in scores.items() if not torch.isfinite(s).all()]:
        raise ValueError(f"Scores of layers {bad} hold infinities or NaN: score again before ranking.")
    candidates = [(name, index) for name, indices in free.items() for index in indices.tolist()]
    values = torch.cat([scores[name][indices] for name, indices in free.items()])
    plan: dict[str, list[int]] = {}
    for at in torch.argsort(values, stable=True)[:n].tolist():
        name, index = candidates[at]
        plan.setdefault(name, []).append(index)
    return {name: torch.tensor(sorted(plan[name])) for name in scores if name in plan}


def flatten(pairs: dict[str, tuple[Tensor, ...]], side: int) -> Tensor:
    """One side of all layers' pairs, end to end."""
    return torch.cat([pair[side] for pair in pairs.values()])


def _spearman(a: Tensor, b: Tensor) -> float:
    if len(a) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)
