"""Figures of networks that are too big: random labels, double descent, twin maps, subsets, three principles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from torch import Tensor

from course_lib import datasets
from course_lib.classroom.figures.style import layer_labels
from course_lib.datasets import Splits
from course_lib.theory import double_descent, evidence

BLUE, ORANGE, GREEN, RED, VIOLET = (seaborn.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4))
GREY = "0.4"


def _range(axes, rows: pd.DataFrame, x: str, y: str, **look) -> None:
    """A line through the means over seeds, and a band from the least to the largest."""
    found = rows.groupby(x)[y].agg(["mean", "min", "max"])
    axes.plot(found.index, found["mean"], lw=3, **look)
    axes.fill_between(found.index, found["min"], found["max"], color=look["color"], alpha=0.2, lw=0)


def learnt_by_heart(table: pd.DataFrame) -> Figure:
    """Accuracy on training and on new images while a network trains: `over_complexity.learn_by_heart`."""
    figure, panels = plt.subplots(1, 2, figsize=(15, 5.8), sharey=True)
    looks = dict(
        zip(table.data.unique(), zip((BLUE, GREEN, ORANGE, RED), ("-", "--", "-.", ":"), strict=True), strict=True)
    )
    for axes, part in zip(panels, ("train", "test"), strict=True):
        for kind, rows in table.groupby("data", sort=False):
            paint, style = looks[kind]
            _range(axes, rows, "updates", part, color=paint, linestyle=style, label=kind)
        axes.axhline(0.1, color=GREY, lw=1.5)
        axes.set(xlabel="updates", ylim=(0, 1.03))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set(ylabel="accuracy", title="training images")
    panels[1].set_title("new images (grey: guessing)")
    panels[0].legend(loc="lower right", fontsize="small")
    return figure


def weak_features(n: int, signal: float, features: int, noise: float, simulated: dict[int, list[float]]) -> Figure:
    """The expected error by formula against the number of features used, and simulated means with their errors."""
    figure, axes = plt.subplots(figsize=(11, 5.8))
    p = np.arange(features + 1)
    inside = signal * p / features
    curve = [double_descent.expected_error(n, k, a, signal - a + noise**2) for k, a in zip(p, inside, strict=True)]
    axes.plot(p, np.where(np.isfinite(curve), curve, np.nan), color=BLUE, lw=3, label="formula")
    spread = [np.std(values) / len(values) ** 0.5 for values in simulated.values()]
    means = [np.mean(values) for values in simulated.values()]
    axes.errorbar(list(simulated), means, spread, fmt="o", color=RED, ms=9, capsize=5, label="simulated")
    axes.axvline(n, color=GREY, linestyle="--")
    axes.annotate(f"n = {n}", (n, 0.02), xycoords=("data", "axes fraction"), xytext=(6, 2), textcoords="offset points")
    axes.set(yscale="log", xlabel="features used, p", ylabel="error on new data")
    axes.set_title(f"Least norm, {n} examples: the error has a pole where p = n")
    axes.legend()
    return figure


def width_errors(table: pd.DataFrame, n: int) -> Figure:
    """Errors on digits, and the length of the weights, against the width: `over_complexity.width_errors`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.8), width_ratios=(1.5, 1))
    _range(left, table, "width", "train", color=BLUE, linestyle="--", label="training images")
    _range(left, table, "width", "test", color=RED, marker="o", label="new images")
    _range(right, table, "width", "norm", color=VIOLET, marker="s")
    for axes in (left, right):
        axes.axvline(n, color=GREY, linestyle="--")
        axes.set(xscale="log", xlabel="width: weights for each class")
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.set(ylabel="wrong answers", ylim=(-0.02, 1), title=f"{n} digits: errors by width")
    left.legend()
    right.set(yscale="log", ylabel="norm", title="length of the weights")
    return figure


def ridgeless_fit(width: int = 20, n: int = 20, seed: int = 0) -> Figure:
    """A curve fitted to n noisy points with random ReLU features, by least norm, and the errors of every width."""
    x, grid = np.linspace(-1, 1, n), np.linspace(-1, 1, 401)
    y = evidence.curve(x) + 0.15 * np.random.default_rng(seed).standard_normal(n)
    angle = 2 * np.append(x, grid)  # an arc in the plane: every random half-plane cuts it somewhere
    hidden = double_descent.random_relu(np.column_stack([np.cos(angle), np.sin(angle)]), width, seed)
    weights = double_descent.least_norm(hidden[:n], y)
    fitted, drawn = hidden[:n] @ weights, hidden[n:] @ weights
    figure = plt.figure(figsize=(11, 5.4), layout="none")
    axes = figure.add_axes((0.09, 0.15, 0.87, 0.7))
    axes.plot(grid, evidence.curve(grid), color=GREY, lw=3, linestyle="--", label="the truth")
    length = np.linalg.norm(weights)
    axes.plot(grid, drawn, color=RED, lw=3, label=f"fitted, norm of the weights {length:.3g}")
    axes.plot(x, y, "o", color="black", ms=9, label=f"{n} examples")
    axes.set(xlabel="x", ylabel="y", ylim=(-3.2, 4.2), xlim=(-1, 1))
    train, new = np.mean((fitted - y) ** 2), np.mean((drawn - evidence.curve(grid)) ** 2)
    axes.set_title(
        f"width {width}: squared error {train:.1e} on the examples, {new:.1e} on the curve", fontsize="small"
    )
    axes.legend(loc="upper center", ncol=3, fontsize="x-small")
    return figure


def map_pair(
    table: pd.DataFrame, taps: dict[str, Tensor], images: Tensor, splits: Splits, pair: int = 0, picture: int = 0
) -> Figure:
    """A picture, two maps of one layer, and their values over all examples: a row of `over_complexity.pairs`.

    Args:
        taps: feature maps of the images, (N, C, H, W) each.
        pair: row of the table.
        picture: which of the images, counted from the one on which the first map is strongest.
    """
    row = table.iloc[pair]
    a, b = (taps[row.layer][:, int(at)] for at in (row.a, row.b))
    picture = int(a.amax((1, 2)).argsort(descending=True, stable=True)[picture])
    label = dict(zip(taps, layer_labels(list(taps)), strict=True))[row.layer]
    figure = plt.figure(figsize=(15, 4.6), layout="none")
    shown = figure.add_axes((0.01, 0.03, 0.22, 0.76))
    shown.imshow(datasets.picture(images[picture], splits))
    shown.set_title(f"image {picture}")
    top = float(max(a[picture].max(), b[picture].max())) or 1.0
    for left, z, at in ((0.25, a, row.a), (0.49, b, row.b)):
        axes = figure.add_axes((left, 0.03, 0.22, 0.76))
        axes.imshow(z[picture].numpy(), vmin=0, vmax=top)
        axes.set_title(f"map {int(at)}")
        axes.set_axis_off()
    shown.set_axis_off()
    axes = figure.add_axes((0.79, 0.19, 0.2, 0.6))
    some = slice(None, None, max(1, a.numel() // 2000))
    axes.scatter(a.flatten()[some], b.flatten()[some], s=14, color=BLUE, alpha=0.5, lw=0)
    axes.set(xlabel=f"map {int(row.a)}", ylabel=f"map {int(row.b)}", title=f"correlation {row.correlation:.2f}")
    figure.suptitle(f"{label}: two of {taps[row.layer].shape[1]} maps", y=0.99)
    return figure


def twin_costs(kinds: dict[str, pd.DataFrame], given_up: pd.DataFrame) -> Figure:
    """What closing costs: in single pairs, `over_complexity.close_pairs`; many at once, `give_up_twins`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(15.5, 6))
    ways = ["one", "both", "folded"]
    for shift, paint, marker, (kind, table) in zip((-0.16, 0.16), (RED, BLUE), "os", kinds.items(), strict=True):
        for at, way in enumerate(ways):
            across = at + shift + np.linspace(-0.1, 0.1, len(table))
            left.scatter(across, table[way], s=28, color=paint, marker=marker, alpha=0.8, label=None if at else kind)
    left.axhline(0, color=GREY)
    left.set_xticks(range(3), ["one\nclosed", "both\nclosed", "one folded\ninto the other"])
    left.set(ylabel="change of the loss, nats", title="single pairs")
    left.legend(fontsize="small")
    looks = {"random maps closed": (BLUE, "s-"), "twins closed": (RED, "o-"), "folded": (GREEN, "D--")}
    for way, (paint, style) in looks.items():
        right.plot(given_up.closed, given_up[way], style, color=paint, lw=3, ms=9, label=way)
    right.axhline(0, color=GREY)
    right.set(xlabel="maps given up at once", ylabel="change of the loss, nats", title="many at once")
    right.legend(fontsize="small")
    return figure


def subset_searches(table: pd.DataFrame) -> Figure:
    """Loss against the number of maps closed, three ways to choose them: `over_complexity.searches`."""
    k = table.index.max()
    figure, axes = plt.subplots(figsize=(11, 5.8))
    looks = {
        "ranked": (RED, "s:", f"ranked once: {k + 1} evaluations"),
        "greedy": (ORANGE, "o--", f"greedily, asking again: {k * (k + 1) // 2 + 1}"),
        "best": (BLUE, "D-", f"best of all subsets: {2**k}"),
    }
    for way, (paint, style, label) in looks.items():
        axes.plot(table.index, table[way], style, color=paint, lw=3, ms=9, label=label)
    axes.set(xlabel=f"maps closed, of {k}", ylabel="loss, nats", title="Which maps to close: three ways to search")
    axes.legend()
    return figure


def three_principles(table: pd.DataFrame, n: int = 30, draw: int = 0) -> Figure:
    """Description length, evidence, VC bound and test error against the degree: `over_complexity.principles`."""
    rows = table[(table.n == n) & (table.draw == draw)]
    figure = plt.figure(figsize=(13, 5), layout="none")
    left, right = (figure.add_axes((x, 0.15, 0.40, 0.66)) for x in (0.08, 0.58))
    looks = {
        "description length": (left, BLUE, "o-"),
        "evidence": (left, GREEN, "s-"),
        "VC bound": (right, ORANGE, "o-"),
        "test error": (right, RED, "s-"),
    }
    for judge, (axes, paint, style) in looks.items():
        finite = rows[np.isfinite(rows[judge])]
        best = finite.loc[finite[judge].idxmin()]
        axes.plot(finite.degree, finite[judge], style, color=paint, lw=3, label=f"{judge}: {int(best.degree)}")
        axes.plot(best.degree, best[judge], "*", color="black", ms=22)
    for axes, unit in ((left, "bits"), (right, "squared error")):
        axes.set(xlabel="degree", ylabel=unit, xticks=(0, 3, 6, 9, 12), xlim=(-0.5, 12.5))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2, frameon=False, fontsize="small")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    figure.suptitle(f"{n} points, draw {draw}: the degree that each asks for", y=0.98)
    return figure
