"""Reading a table of pruning runs as a sceptic: who leads where, and what the study behind it lacks.

What to report: Blalock, Gonzalez Ortiz, Frankle, Guttag, What is the State of Neural Network Pruning?, MLSys 2020.
Taught in: notebooks/12_after_2017.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import nn

from course_lib import residual
from course_lib.classroom.figures.pruning import AXES, shares

MAGNITUDE = {"min_weight", "l1_norm", "magnitude"}
NUMBERS = ("maps_left", "macs", "params", "accuracy")


def accuracy_at(table: pd.DataFrame, axis: str, share: float) -> pd.DataFrame:
    """Mean, low and high accuracy over seeds of every curve where this share of an axis is left, the best first.

    Args:
        table: one row a step: curve, seed, number, maps_left, macs, params, accuracy.
        axis: 'feature maps', 'MACs' or 'parameters'. Between steps by straight lines; a run that did not get so far is
            left out, and so is one without accuracies there (a network trained from scratch).
    """
    x, found = AXES[axis], {}
    for (curve, _), run in shares(table).sort_values(x).groupby(["curve", "seed"], sort=False):
        if run[x].min() <= share and not np.isnan(accuracy := np.interp(share, run[x], run.accuracy)):
            found.setdefault(curve, []).append(float(accuracy))
    rows = [(curve, np.mean(values), min(values), max(values)) for curve, values in found.items()]
    ranked = pd.DataFrame(rows, columns=["curve", "mean", "low", "high"]).set_index("curve")
    return ranked.sort_values("mean", ascending=False)


def leaders(table: pd.DataFrame, points: Iterable[float]) -> pd.DataFrame:
    """Which curve is first at each share of each axis: axes by shares."""
    return pd.DataFrame({point: {axis: accuracy_at(table, axis, point).index[0] for axis in AXES} for point in points})


def operations(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, float]:
    """Millions of operations for one image, in ways of counting that papers call "FLOPs".

    The last way adds a multiplication and an addition for each value that leaves a batch norm.
    """
    values = []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(lambda _norm, _input, output: values.append(output.numel())) for norm in norms]
    macs = residual.macs(model, image_shape) / 1e6
    for hook in hooks:
        hook.remove()
    return {"MACs": macs, "FLOPs = 2 MACs": 2 * macs, "FLOPs with batch norm": 2 * macs + 2 * sum(values) / 1e6}


def missing(table: pd.DataFrame) -> list[str]:
    """What a table of pruning runs lacks to be a study that somebody else can build on; empty if nothing.

    Args:
        table: one row a step, with whatever columns it has; wanted are data, network, curve, seed, maps_left, macs,
            params, accuracy and command.
    """
    lacks = [f"column {name!r}" for name in ("curve", "seed", *NUMBERS, "command") if name not in table]
    pairs = table[["data", "network"]].drop_duplicates() if {"data", "network"} <= set(table) else table.iloc[:1]
    if len(pairs) < 3:
        lacks.append(f"three pairs of data and network (it has {len(pairs)}; columns 'data' and 'network')")
    curves = set(table.get("curve", []))
    if "random" not in curves:
        lacks.append("a random baseline (curve 'random')")
    if not curves & MAGNITUDE:
        lacks.append(f"a magnitude baseline (a curve of {', '.join(sorted(MAGNITUDE))})")
    if {"curve", "seed"} <= set(table):
        keys = [name for name in ("data", "network", "curve") if name in table]
        runs = table.groupby([*keys, "seed"]).size().rename("steps").reset_index()
        if runs.groupby(keys).seed.nunique().min() < 3:
            lacks.append("three seeds of every curve")
        if runs[runs.curve != "scratch"].steps.min() < 6:  # that is one network, not a run
            lacks.append("five operating points of every run, besides the whole network")
    return lacks
