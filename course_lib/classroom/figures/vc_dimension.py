"""Figures of notebook 03: the shattering game, growth functions, structural risk, and what networks can fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from course_lib.theory import vc_dimension

TRUTH = "0.15"
_PALETTE = seaborn.color_palette("colorblind", 10)
PLUS, MINUS, BOUND, GOOD, BAD = _PALETTE[0], _PALETTE[1], _PALETTE[4], _PALETTE[2], _PALETTE[3]
_MARKERS = "osD^vP"


class Game(NamedTuple):
    """Points (m, 2), and for every labelling the separating line or a point that both classes surround.

    Attributes:
        lines: (w, b) or None, in the order of `vc_dimension.labellings`.
        meetings: a common point of the convex hulls (2,), where there is no line.
    """

    points: np.ndarray
    lines: list
    meetings: list

    @property
    def answers(self) -> np.ndarray:
        """For each labelling whether a line separates it."""
        return np.array([line is not None for line in self.lines])


def game(points: np.ndarray) -> Game:
    """Solve the shattering game for these points: two linear programs for each of the 2^m labellings."""
    points = np.asarray(points, dtype=float)
    every = vc_dimension.labellings(len(points))
    lines = [vc_dimension.separator(points, y) for y in every]
    meetings = [vc_dimension.common_point(points[y > 0], points[y < 0]) for y in every]
    return Game(points, lines, meetings)


def all_labellings(played: Game) -> Figure:
    """Every labelling of a few points as a small picture: its line, or a red frame where there is none."""
    every = vc_dimension.labellings(len(played.points))
    columns = min(8, len(every))
    rows = -(-len(every) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(14, 2 * rows + 1), squeeze=False)
    for axes, y, line, meeting in zip(panels.flat, every, played.lines, played.meetings, strict=False):
        _draw_labelling(axes, played.points, y, line, meeting, size=120)
    figure.suptitle(_score(played))
    return figure


def shattering_game(games: Mapping[str, Game], points: str, labelling: int) -> Figure:
    """One labelling of one configuration, and the state of the game over all labellings.

    `labelling`: counted from 0; beyond the last one it starts again.
    """
    played = games[points]
    every = vc_dimension.labellings(len(played.points))
    i = labelling % len(every)
    frame = {"left": 0.02, "right": 0.98, "bottom": 0.04, "top": 0.8, "wspace": 0.05, "width_ratios": (3, 2)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="none", gridspec_kw=frame)
    _draw_labelling(left, played.points, every[i], played.lines[i], played.meetings[i], size=420)
    verdict = "separable" if played.answers[i] else "no line, the cross is in both"
    left.set_title(f"{verdict} ({i + 1} of {len(every)})")
    _draw_score(right, played.answers, i)
    figure.suptitle(_score(played), fontsize="medium")
    return figure


def _score(played: Game) -> str:
    m, possible = len(played.points), int(played.answers.sum())
    verdict = "shattered" if possible == 2**m else "not shattered"
    return f"{m} points, {possible} of {2**m} labellings by a line: {verdict}"


def _draw_labelling(axes, points, y, line, meeting, size) -> None:
    for sign, paint, marker in ((1, PLUS, "o"), (-1, MINUS, "s")):
        x = points[y == sign]
        axes.scatter(*x.T, s=size, color=paint, marker=marker, edgecolor="white", zorder=3)
        if line is None:
            order = np.argsort(np.arctan2(*(x - x.mean(0)).T))  # round the middle, so that the outline is the hull
            axes.fill(*x[order].T, color=paint, alpha=0.25, lw=3, zorder=1)
    low, high = points.min() - 0.8, points.max() + 0.8
    if line is not None:
        _half_plane(axes, *line, low, high)
    else:
        axes.scatter(*meeting, s=size, color=TRUTH, marker="x", lw=3, zorder=4)
    axes.set(xlim=(low, high), ylim=(low, high), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set(color=BAD if line is None else "0.8", lw=4 if line is None else 1)


def _half_plane(axes, w, b, low, high) -> None:
    grid = np.linspace(low, high, 60)
    values = w[0] * grid[None, :] + w[1] * grid[:, None] + b
    axes.contourf(grid, grid, values, levels=[-np.inf, 0, np.inf], colors=[MINUS, PLUS], alpha=0.18)
    if np.abs(w).max() > 1e-9:
        axes.contour(grid, grid, values, levels=[0], colors=[TRUTH], linewidths=2.5)


def _draw_score(axes, answers: np.ndarray, chosen: int) -> None:
    side = int(np.ceil(np.sqrt(len(answers))))
    rows, columns = np.divmod(np.arange(len(answers)), side)
    look = {"s": 20000 / side**2, "marker": "s"}
    axes.scatter(columns, -rows, c=[GOOD if answer else BAD for answer in answers], alpha=0.55, **look)
    axes.scatter(columns[~answers], -rows[~answers], s=2500 / side**2, marker="x", color="white", lw=2)
    axes.scatter(columns[chosen], -rows[chosen], facecolor="none", edgecolor=TRUTH, lw=4, **look)
    axes.set(xlim=(-0.7, side - 0.3), ylim=(-rows[-1] / 2 - side / 2, -rows[-1] / 2 + side / 2), aspect="equal")
    axes.set_title("all labellings (×: no line)")
    axes.axis("off")


def growth(m: int, d: int) -> Figure:
    """How many labellings of up to m points a class of VC dimension d can have, against all 2^m."""
    frame = {"left": 0.1, "right": 0.97, "bottom": 0.15, "top": 0.9}
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="none", gridspec_kw=frame)
    points = np.arange(1, m + 1)
    lines = (
        ("all labellings, 2ᵐ", 2.0**points, TRUTH, "-"),
        ("(em/d)ᵈ", np.where(points >= d, (np.e * points / d) ** d, np.nan), BOUND, "--"),
        (
            f"Sauer's lemma, {vc_dimension.sauer(m, d):.4g} for m = {m}",
            [float(vc_dimension.sauer(int(i), d)) for i in points],
            PLUS,
            "-",
        ),
        (f"half-spaces in {d - 1} dimension{'s' * (d > 2)}", _half_spaces(points, d - 1), MINUS, ":"),
    )
    for label, values, paint, style in lines:
        axes.semilogy(points, values, style, color=paint, lw=3.5, label=label)
    axes.axvline(d, color="0.6", lw=1.5)
    axes.text(d, 1.02, f" m = d = {d}", transform=axes.get_xaxis_transform(), fontsize="small")
    axes.set(xlabel="points m", ylabel="labellings", ylim=(1, 2.0**m), xlim=(1, m))
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.minorticks_off()  # dozens of them, too slow to draw for a slider
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def _half_spaces(points: np.ndarray, p: int) -> list[float]:
    return [float(vc_dimension.half_space_growth(int(i), p)) for i in points]


def sine(m: int, labelling: int) -> Figure:
    """sin(omega x) through m labelled points 1/2, 1/4, ...; `labelling` counts from 0 and starts again after 2^m."""
    y = vc_dimension.labellings(m)[labelling % 2**m]
    x, omega = vc_dimension.sine_points(m), vc_dimension.sine_frequency(y)
    frame = {"left": 0.09, "right": 0.97, "bottom": 0.17, "top": 0.88}
    figure, axes = plt.subplots(figsize=(11, 4.5), layout="none", gridspec_kw=frame)
    grid = 2.0 ** np.linspace(-m - 0.5, -0.5, 2000)
    axes.plot(grid, np.sin(omega * grid), color="0.6", lw=1.5)
    for sign, paint, marker in ((1, PLUS, "o"), (-1, MINUS, "s")):
        chosen = y == sign
        axes.scatter(x[chosen], np.sin(omega * x[chosen]), s=220, color=paint, marker=marker, zorder=3)
    axes.axhline(0, color=TRUTH, lw=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"1/{2**i}" for i in range(1, m + 1)])
    axes.set(xlabel="x", ylabel="sin(ω x)", ylim=(-1.2, 1.2), yticks=[-1, 0, 1])
    signs = "".join("+" if label > 0 else "−" for label in y[::-1])  # 1/2, the first point, is on the right
    axes.set_title(f"labels {signs} from left to right: one parameter, ω = {omega / np.pi:.0f} π")
    return figure


def structural_risk(curves: Mapping[int, pd.DataFrame], examples: int) -> Figure:
    """Training error, test error and bound of nested classes; the smallest of each is marked.

    `curves`: {number of training examples: table with index k and columns training, test, bound}.
    """
    table = curves[examples]
    frame = {"left": 0.1, "right": 0.97, "bottom": 0.15, "top": 0.9}
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="none", gridspec_kw=frame)
    looks = {
        "training": ("training error", PLUS, "o"),
        "test": ("test error", TRUTH, "D"),
        "bound": ("bound", BOUND, "s"),
    }
    for column, (label, paint, marker) in looks.items():
        axes.plot(table.index, table[column], marker=marker, color=paint, lw=2.5, ms=7, label=label)
        if column != "training":
            best = table[column].idxmin()
            axes.scatter(best, table[column][best], s=420, facecolor="none", edgecolor=paint, lw=3, zorder=4)
    axes.axhline(0.5, color="0.5", lw=1.5, ls=":", label="guessing")
    axes.set(xlabel="changes of sign allowed, k", ylabel="share of errors", ylim=(0, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{examples} training examples (rings: where each is smallest)")
    axes.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    return figure


def network_dimensions(table: pd.DataFrame) -> Figure:
    """VC dimensions of networks before and after pruning, beside the number of training images, on a log scale.

    `table`: index the network; columns lower, upper (orders), bits (of float32 weights), images, allowed (the largest
    dimension with which the bound says anything).
    """
    figure, axes = plt.subplots(figsize=(13, 1.1 * len(table) + 2.5))
    rows = np.arange(len(table))[::-1]
    axes.hlines(rows, table.lower, table.upper, color=MINUS, lw=9, alpha=0.5)
    looks = {
        "lower": ("W L log₂(W/L)", MINUS, "<"),
        "upper": ("W L log₂ W", MINUS, ">"),
        "bits": ("32 W: bits of float32", BOUND, "s"),
        "images": ("training images", TRUTH, "o"),
        "allowed": ("largest d with a gap < 1", GOOD, "D"),
    }
    for column, (label, paint, marker) in looks.items():
        axes.scatter(table[column], rows, s=170, marker=marker, color=paint, label=label, zorder=3)
    axes.set_yticks(rows, table.index)
    axes.set(xscale="log", xlabel="VC dimension, or number of images", ylim=(-0.6, len(table) - 0.4))
    axes.set_title("VC dimension before and after pruning, beside what the data allow")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    return figure


def random_labels(table: pd.DataFrame) -> Figure:
    """Share of random labels that each network was trained to, against their number; ticks mark its weights.

    `table`: a row a run, columns network, weights, labels, fitted (`capacity.fit_random_labels`).
    """
    figure, axes = plt.subplots(figsize=(12, 7.5))
    for (name, runs), paint, marker in zip(table.groupby("network", sort=False), _PALETTE, _MARKERS, strict=False):
        mean = runs.groupby("labels").fitted.mean()
        weights = runs.weights.iloc[0]
        axes.plot(mean.index, mean, marker=marker, color=paint, lw=2.5, ms=8, label=f"{name}: {weights} weights")
        axes.plot([weights] * 2, [1.01, 1.05], color=paint, lw=6, clip_on=False)
    axes.axhline(0.5, color="0.5", lw=1.5, ls=":")
    axes.set_xscale("log", base=2)
    ticks = sorted(table.labels.unique())[::2]
    axes.set_xticks(ticks, ticks)
    axes.set(xlabel="random labels to be learnt", ylabel="share fitted", ylim=(0.45, 1.06))
    axes.set_title("Random labels learnt by heart (bars: one label for each weight)")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize="small"
    )
    return figure


def occam(table: pd.DataFrame, bits_per_weight: int) -> Figure:
    """Training error, test error and Occam bound of pruned and rounded networks, against the weights that are left.

    `table`: from `capacity.short_codes`.
    """
    rows = table[table.bits_per_weight == bits_per_weight].set_index("kept")
    frame = {"left": 0.1, "right": 0.97, "bottom": 0.16, "top": 0.9}
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="none", gridspec_kw=frame)
    looks = (("bound", "Occam bound", BOUND, "s"), ("test_error", "test error", TRUTH, "D"))
    for column, label, paint, marker in (*looks, ("train_error", "training error", PLUS, "o")):
        axes.plot(rows.index, rows[column], marker=marker, color=paint, lw=2.5, ms=8, label=label)
        if column != "train_error":
            best = rows[column].idxmin()
            axes.scatter(best, rows[column][best], s=420, facecolor="none", edgecolor=paint, lw=3, zorder=4)
    axes.axhline(0.9, color="0.5", lw=1.5, ls=":", label="guessing")
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows.index[::2], rows.index[::2])
    axes.minorticks_off()
    axes.set(
        xlabel=f"weights left, of {rows.total.iloc[0]}",
        ylabel="share of errors",
        ylim=(0, 1.25),
        yticks=np.arange(6) / 5,
    )
    axes.set_title(f"Digits, {bits_per_weight} bit{'s' * (bits_per_weight > 1)} a weight (rings: smallest)")
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper center")
    return figure
