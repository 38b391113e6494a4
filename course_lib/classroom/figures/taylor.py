"""Figures of notebook 07: the loss along a gate, what the tangent predicts, and criteria against the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from course_lib import ranking
from course_lib.classroom.figures.style import COLOURS, colour, layer_labels, title
from course_lib.classroom.gate_curves import Curve
from course_lib.feature_maps import Scores

TRUTH = "0.15"  # what was measured is drawn dark, in every figure here
COLUMNS = ["mean of\nlayers", "all layers,\nraw", "all layers,\nl2"]
FIRST, SECOND = COLOURS["taylor"], COLOURS["obd"]
PAINTS = {"tangent": FIRST, "tangent and curvature": SECOND, "linear logits": COLOURS["linear_logits"]}


def loss_along_gate(curves: Mapping[str, Mapping[str, Curve]], layer: str, feature_map: str) -> Figure:
    """The loss while one gate closes, with tangent and parabola at the open gate; and the same for each example.

    `curves`: {layer: {what: Curve}}, from `gate_curves.curves`; `layer` and `feature_map` choose one.
    """
    curve = curves[layer][feature_map]
    # A fixed frame: a layout that fits itself takes longer than all the drawing, too long for a slider.
    frame = {"left": 0.07, "right": 0.98, "bottom": 0.13, "top": 0.85, "wspace": 0.22, "width_ratios": (3, 2)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="none", gridspec_kw=frame)
    _mean_curve(left, curve)
    changes = curve.losses - curve.losses[_open(curve)]
    right.plot(curve.values, changes, color=TRUTH, alpha=0.45, lw=1.5)
    right.axvline(1, color="0.6", lw=1)
    right.set(xlabel="gate g", ylabel="change of loss (nats)", title="One curve an example")
    for axes in (left, right):
        axes.set_xticks([0, 0.5, 1, 1.5])
        axes.locator_params(axis="y", nbins=4)
    figure.suptitle(f"Loss along the gate of a {feature_map} map: number {curve.index} of {layer}")
    return figure


def _open(curve: Curve) -> int:
    return int(np.abs(curve.values - 1).argmin())


def _mean_curve(axes, curve: Curve) -> None:
    g, mean = curve.values, curve.losses.mean(1)
    step, slope, bend = g - 1, curve.slope.mean(), curve.curvature.mean()
    tangent = mean[_open(curve)] + slope * step
    parabola = tangent + bend * step**2 / 2
    axes.plot(g, mean, color=TRUTH, lw=4, label="measured")
    axes.plot(g, tangent, color=FIRST, lw=3, ls="--", label="tangent (Taylor)")
    axes.plot(g, parabola, color=SECOND, lw=3, ls=":", label="parabola (with OBD)")
    for ends, paint, marker in ((mean, TRUTH, "o"), (tangent, FIRST, "s"), (parabola, SECOND, "D")):
        axes.plot(g[0], ends[0], marker, color=paint, ms=11, clip_on=False, zorder=4)
    axes.axvline(1, color="0.6", lw=1)
    axes.set(xlabel="gate g  (0: closed, 1: open)", ylabel="mean loss (nats)", title="Mean over examples")
    axes.legend(frameon=False, fontsize="small", loc="best")


def expansion(predicted: Mapping[str, Scores], truth: Scores, layer: str = "all layers") -> Figure:
    """Predicted against measured change of the loss, one dot a map, a panel for each way to predict it.

    Args:
        predicted: {way: {layer: (C,)}}, signed, in nats: 'tangent', 'tangent and curvature', 'linear logits'.
        truth: the oracle, signed; its NaN are left out.
        layer: one of the layers, or 'all layers'.

    Titles: how many signs are right, and Spearman's correlation of the sizes (oracle-abs) of the maps that are shown.
    """
    chosen = list(truth) if layer == "all layers" else [layer]
    points = [_known({n: by[n] for n in chosen}, {n: truth[n] for n in chosen}) for by in predicted.values()]
    scale = float(points[0][1].abs().median()) or 1e-12
    frame = {"left": 0.09, "right": 0.985, "bottom": 0.14, "top": 0.77, "wspace": 0.14}
    figure, panels = plt.subplots(
        1, len(predicted), sharex=True, sharey=True, figsize=(15, 6.5), layout="none", gridspec_kw=frame
    )
    ends = torch.stack([torch.stack([part.min(), part.max()]) for pair in points for part in pair])
    ends = np.array([ends.min(), ends.max()])
    for axes, what, (x, y) in zip(np.atleast_1d(panels), predicted, points, strict=True):
        axes.scatter(x, y, s=22, color=PAINTS.get(what, TRUTH), alpha=0.5, lw=0)
        axes.plot(ends, ends, color="0.4", lw=1.5, label="predicted = measured")
        axes.set_xscale("symlog", linthresh=scale)
        axes.set_yscale("symlog", linthresh=scale)
        order = ranking.spearman({"": x.abs()}, {"": y}).all_layers
        signs = float((x.sign() == y.sign()).double().mean())
        axes.set(xlabel="predicted (nats)", title=f"{what}\n{signs:.0%} of signs right, Spearman {order:.2f}")
        _few_ticks(axes, scale, max(np.abs(ends)))
    figure.axes[0].set_ylabel("measured change of loss (nats)")
    figure.axes[0].legend(frameon=False, fontsize="small", loc="lower right")
    figure.suptitle(f"What closing one gate does to the loss: {len(points[0][0])} maps of {layer}")
    return figure


def _few_ticks(axes, scale: float, largest: float) -> None:
    powers = np.arange(np.ceil(np.log10(scale)), np.floor(np.log10(max(largest, 10 * scale))) + 1)
    powers = 10.0 ** powers[:: max(2, len(powers) // 2)]  # neighbours would run into each other
    ticks = [*-powers[::-1], 0, *powers]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)


def _joined(scores: Scores) -> np.ndarray:
    return torch.cat([s.double().cpu() for s in scores.values()]).numpy()


def orders(table: pd.DataFrame) -> Figure:
    """Three places of the absolute value, and the oracle itself: correlation with three yardsticks, as bars.

    `table`: index the order, the oracle last; columns the yardsticks; values Spearman correlations.
    """
    figure, axes = plt.subplots(figsize=(13, 7))
    paints = [FIRST, COLOURS["obd"], COLOURS["activation_mean"], TRUTH]
    table.T.plot.bar(ax=axes, rot=0, width=0.8, color=paints, legend=False)
    for bars in axes.containers:
        axes.bar_label(bars, fmt="%.2f", fontsize="x-small", padding=2)
    axes.axhline(0, color="0.3", lw=1)
    axes.set(ylabel="Spearman correlation,\nmean over layers", ylim=(min(0, table.min().min() - 0.1), 1.1))
    axes.set_title("The same product, three places of the absolute value, three yardsticks")
    axes.grid(axis="x", visible=False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    return figure


def half_normal(y: Scores) -> Figure:
    """Is y = dC/dg / M normal, as the half-normal argument wants? Its shape, and E|y| over its standard deviation.

    `y`: {layer: (N, C)}. Maps that never answer are left out.
    """
    joined = torch.cat(list(y.values()), dim=1)
    deviation = joined.std(0)
    standard = (joined - joined.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    ratio = (joined.abs().mean(0) / deviation)[deviation > 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6))
    grid = np.linspace(-6, 6, 121)
    left.hist(standard.flatten().clamp(-6, 6), bins=grid[::2], density=True, color=FIRST, alpha=0.6, label="measured")
    left.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=TRUTH, lw=3, label="normal")
    left.set(yscale="log", ylim=(1e-4, 20), xlabel="y in standard deviations of its map", ylabel="density")
    left.set_title("All maps and examples (beyond ±6: outermost bars)")
    left.legend(frameon=False)
    right.hist(ratio, bins=np.linspace(0, 1, 41), color=FIRST, alpha=0.6)
    right.axvline(np.sqrt(2 / np.pi), color=TRUTH, lw=3)
    right.text(
        np.sqrt(2 / np.pi) - 0.02, 0.95, "normal: √(2/π)", transform=right.get_xaxis_transform(), ha="right", va="top"
    )
    right.set(xlabel="E|y| / standard deviation", ylabel="feature maps", title="One number a map")
    figure.suptitle("How normal is y?")
    return figure


def estimates(errors: pd.DataFrame) -> Figure:
    """Relative error of the estimated Hessian diagonal against the number of random sign vectors.

    `errors`: index the number of draws, a column for each kind of signs.
    """
    figure, axes = plt.subplots(figsize=(11, 6))
    for (name, column), paint, marker in zip(errors.items(), (SECOND, COLOURS["activation_std"]), "Ds", strict=False):
        axes.loglog(errors.index, column, marker=marker, color=paint, lw=2.5, ms=8, label=f"signs for the {name}")
    axes.loglog(
        errors.index, errors.iloc[0, 0] / np.sqrt(errors.index), color="0.5", lw=1.5, ls="--", label="1 / √draws"
    )
    axes.set(xlabel="random sign vectors", ylabel="relative error of the diagonal")
    axes.set_title("The more sign vectors, the nearer to the exact diagonal")
    axes.legend(frameon=False)
    return figure


def scales(kinds: Mapping[str, Scores], truth: Scores) -> Figure:
    """Where the scores of each layer lie, on a common scale: a line a kind of score, and the oracle's.

    Of every layer the median, divided by the median over all maps; the oracle as absolute values.
    """
    figure, axes = plt.subplots(figsize=(13, 6.5))
    labels = layer_labels(list(truth))
    paints = (FIRST, COLOURS["activation_mean"], COLOURS["apoz"], COLOURS["min_weight"])
    for (name, scores), paint, marker in zip(kinds.items(), paints, "osv^", strict=False):
        axes.plot(labels, _medians(scores), marker=marker, color=paint, lw=2.5, ms=8, label=name)
    known = {name: t[~t.isnan()].abs() for name, t in truth.items()}
    axes.plot(labels, _medians(known), marker="D", color=TRUTH, lw=3.5, ms=8, label="oracle, absolute")
    axes.set(yscale="log", ylabel="median of the layer /\nmedian of all maps")
    axes.set_title("Ranking all layers together needs a common scale")
    axes.tick_params(axis="x", rotation=45)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _medians(scores: Scores) -> np.ndarray:
    whole = np.median(_joined(scores))
    return np.array([s.double().median() for s in scores.values()]) / (whole if whole > 0 else 1)


def correlations(ours: pd.DataFrame, paper: pd.DataFrame, papers: str = "the paper: VGG-16 on Flowers-102") -> Figure:
    """Spearman correlation with the oracle, ours beside the paper's: two heat maps with the same rows.

    Both tables: index the criterion; columns mean of layers, all layers, all layers after l2; NaN where there is none.
    """
    figure, panels = plt.subplots(1, 2, figsize=(15, 8), sharey=True)
    look = {"annot": True, "fmt": ".2f", "cmap": "vlag_r", "vmin": -1, "vmax": 1, "cbar": False, "linewidths": 2}
    for axes, table, heading in zip(panels, (ours, paper), ("this run", papers), strict=True):
        seaborn.heatmap(table.rename(index=title), ax=axes, xticklabels=COLUMNS, **look)
        axes.set(title=heading, xlabel="", ylabel="")
        axes.tick_params(axis="x", rotation=0)
        axes.grid(visible=False)
    figure.suptitle("Spearman correlation with the oracle (absolute)")
    return figure


def criterion_scatter(scores: Mapping[str, Scores], truth: Scores, criterion: str, layer: str = "all layers") -> Figure:
    """A criterion against the oracle's absolute change of loss, one dot a map, on axes of ranks.

    Args:
        scores: {criterion: {layer: (C,)}}.
        layer: one of the layers, or 'all layers', which ranks the scores of all together as they are.
    """
    chosen = list(truth) if layer == "all layers" else [layer]
    x, y = _known({name: scores[criterion][name] for name in chosen}, {name: truth[name] for name in chosen})
    found = ranking.spearman({"": x}, {"": y}).all_layers
    frame = {"left": 0.1, "right": 0.97, "bottom": 0.12, "top": 0.92}
    figure, axes = plt.subplots(figsize=(9, 7), layout="none", gridspec_kw=frame)
    ranks = [pd.Series(values.abs() if i else values).rank(pct=True) for i, values in enumerate((x, y))]
    axes.scatter(*ranks, s=30, color=colour(criterion), alpha=0.6, lw=0)
    axes.set(xlabel=f"rank by {title(criterion)}", ylabel="rank by the oracle (absolute)")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.plot([0, 1], [0, 1], color="0.6", lw=1.5)
    axes.set_xticks([0, 1], ["least", "most"])
    axes.set_yticks([0, 1], ["least", "most"], rotation=90, va="center")
    axes.grid(visible=False)
    axes.set_title(f"{title(criterion)}, {layer}, {len(x)} maps: Spearman {found:.2f}")
    return figure


def _known(scores: Scores, truth: Scores) -> tuple[Tensor, Tensor]:
    x, y = (torch.cat([s.double().cpu() for s in part.values()]) for part in (scores, truth))
    return x[~y.isnan()], y[~y.isnan()]
