"""Figures of notebook 10: how much fine-tuning, how often, and what a penalty does instead."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from course_lib import cost
from course_lib.classroom.figures.pruning import AXES, shares
from course_lib.classroom.figures.style import COLOURS, MARKERS, colour, layer_labels, title
from course_lib.classroom.repair import Quadratic, rise, rise_after, shortened

GONE, LEFT, STAYS, LASSO = "0.85", COLOURS["taylor"], COLOURS["obd"], (0.0, 0.0, 0.0)
FRAME = {"left": 0.13, "right": 0.97, "bottom": 0.15, "top": 0.91}  # laid out once: a slider should answer at once
PAPERS_GFLOPS = 1.46  # of AlexNet on Flowers-102, Table 2


def cost_of_a_map(networks: Mapping[str, tuple[nn.Module, tuple[int, ...]]]) -> Figure:
    """MFLOPs of one feature map, layer by layer; `networks`: name -> (network, shape of its images)."""
    figure, panels = plt.subplots(1, len(networks), figsize=(13, 5), squeeze=False)
    for axes, (name, (model, shape)) in zip(panels[0], networks.items(), strict=True):
        mflops = cost.mflops_per_map(model, shape)
        labels = layer_labels(list(mflops))
        axes.bar(labels, mflops.values(), color=LEFT)
        ratio = max(mflops.values()) / min(mflops.values())
        axes.set(title=f"{name}: dearest / cheapest {ratio:.0f}", ylabel="MFLOPs of one map")
        axes.tick_params(axis="x", rotation=90)
        axes.grid(axis="x", visible=False)
    return figure


def repair(loss: Quadratic, feature: int = 0, rate: float = 0.5) -> Figure:
    """The loss while the other weights settle after one input is removed, between what the cut cost and what stays."""
    updates = np.unique(np.geomspace(1, 1000, 40).round().astype(int))
    curvatures = np.linalg.eigvalsh(loss.hessian)
    cut, stays = rise(loss, [feature])
    after = rise_after(loss, [feature], rate / curvatures.max(), updates)
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="none", gridspec_kw=FRAME)
    axes.axhline(cut, color="0.3", ls=":", label="right after the cut")
    axes.plot(updates, after, color=LEFT, lw=3, label="after so many updates")
    axes.axhline(stays, color=STAYS, ls="--", label="what no fine-tuning repairs")
    axes.set(xscale="log", xlabel="updates", ylabel="rise of the loss", ylim=(0, 1.08 * cut))
    axes.set_title(f"Map {feature}: {1 - stays / cut:.0%} of the damage can be repaired, here at rate {rate:g} / λmax")
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure


def bites(table: pd.DataFrame) -> Figure:
    """The loss while inputs are removed, for several numbers at a time; `table`: of `repair.greedy`, joined."""
    figure, axes = plt.subplots(figsize=(10, 5.5))
    for (bite, run), paint in zip(table.groupby("bite"), _shades(table.bite.nunique()), strict=True):
        axes.plot(run.left, run.loss, marker="o", ms=6, color=paint, label=f"{bite} at a time")
    axes.invert_xaxis()
    axes.set(xlabel="feature maps that are read", ylabel="loss, settled", title="The same saliency, in smaller bites")
    axes.legend(frameon=False)
    return figure


def shrinking(length: float = 0.5) -> Figure:
    """One step of two penalties on a weight: l2 shrinks by a factor, the soft threshold by a length, to zero."""
    x = np.linspace(-2, 2, 201)
    figure, axes = plt.subplots(figsize=(8, 6), layout="none", gridspec_kw=FRAME)
    axes.plot(x, x, color="0.6", ls=":", label="no penalty")
    axes.plot(x, x / (1 + length), color=COLOURS["min_weight"], lw=3, label="squares (l2): never zero")
    soft = shortened(x[:, None], length)[:, 0]
    axes.plot(x, soft, color=LEFT, lw=3, label="lengths (l1, group lasso)")
    axes.axvspan(-length, length, color=LEFT, alpha=0.12, lw=0)
    axes.set(xlabel="weight before", ylabel="weight after", title=f"Dead where it was shorter than {length:.2f}")
    axes.legend(frameon=False)
    return figure


def update_curves(
    table: pd.DataFrame,
    paper: pd.DataFrame,
    axis: str = "MACs",
    when: str = "after fine-tuning",
    fewest: int = 0,
) -> Figure:
    """Figure 6: Taylor's curve for several numbers of updates between two steps; mean and range over seeds.

    Args:
        table: rows of pruning runs with `updates`.
        paper: data/paper/figure6.csv, whose points are drawn against MACs, as shares of the paper's 1.46 GFLOPs.
        fewest: leave out curves with fewer updates than this.
    """
    x, y = AXES[axis], "accuracy" if when == "after fine-tuning" else "accuracy_before_tuning"
    numbers = sorted(table.updates.unique())
    figure, axes = plt.subplots(figsize=(12, 6), layout="none", gridspec_kw=FRAME | {"right": 0.75})
    for number, paint in zip(numbers, _shades(len(numbers)), strict=True):
        if number >= fewest:
            _mean_and_range(axes, shares(table[table.updates == number]), x, y, paint, f"{number:g} updates")
    if (axis, when) == ("MACs", "after fine-tuning"):
        for (number, points), face in zip(paper.groupby("updates"), ("white", "black"), strict=True):
            look = {"marker": "*", "ls": "", "ms": 17, "color": "black", "mfc": face}
            axes.plot(points.gflops / PAPERS_GFLOPS, points.accuracy, label=f"{number} (paper)", **look)
    _percent(axes, axis)
    axes.set(ylabel=f"test accuracy\n{when}", title="Taylor, with so many updates between two steps")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def beside_paper(ours: pd.DataFrame, scratch: pd.DataFrame, paper: pd.DataFrame, axis: str = "feature maps") -> Figure:
    """Figure 5, ours and the paper's, as shares of accuracy that are left against what is left of the network.

    Args:
        ours: rows of pruning runs by `curve` and `seed`.
        scratch: rows with maps_left, macs, accuracy of networks trained from random weights.
        paper: data/paper/figure5.csv.
        axis: 'feature maps' or 'MACs'.
    """
    frame = {"left": 0.09, "right": 0.98, "bottom": 0.3, "top": 0.92, "wspace": 0.08}
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(14, 6.5), layout="none", gridspec_kw=frame)
    steps, whole = shares(ours), ours[ours.number == 0].iloc[0]
    for name, runs in steps.groupby("curve", sort=False):
        _mean_and_range(left, runs, AXES[axis], "accuracy", colour(name), title(name), MARKERS[name])
    column = {"feature maps": "maps_left", "MACs": "macs"}[axis]
    black = {"ls": "", "marker": MARKERS["scratch"], "ms": 11, "color": colour("scratch"), "label": title("scratch")}
    left.plot(scratch[column] / whole[column], scratch.accuracy, **black)
    printed = paper[paper["axis"] == {"feature maps": "maps_percent", "MACs": "gflops"}[axis]]
    first = printed[printed.criterion == "unpruned"].iloc[0]
    for name, points in printed[printed.criterion != "unpruned"].groupby("criterion", sort=False):
        x, y = points.left / first.left, points.accuracy
        if name == "scratch":
            right.plot(x, y, **black)
            continue
        look = {"color": colour(name), "marker": MARKERS[name], "lw": 2.5, "ms": 7, "label": title(name)}
        right.plot([1, *x], [first.accuracy, *y], **look)
    for axes, heading in ((left, "AlexNet on petals (recorded)"), (right, "AlexNet on Flowers-102 (paper)")):
        _percent(axes, axis)
        axes.set_title(heading)
    left.set_ylabel("test accuracy after fine-tuning")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=15)
    return figure


def last_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The last step of every run, for runs that differ in `maps_per_step` and `seed`."""
    return table.loc[table.groupby(["maps_per_step", "seed"]).number.idxmax()]


def same_total(table: pd.DataFrame) -> Figure:
    """Accuracy at the end of runs that had the same updates in all, against how many maps left in one step."""
    last = last_steps(table)
    figure, axes = plt.subplots(figsize=(10, 5.5))
    for seed, run in last.groupby("seed"):
        axes.plot(run.maps_per_step, run.accuracy, "o", color=LEFT, alpha=0.6, label="a seed" if seed == 0 else None)
    mean = last.groupby("maps_per_step").accuracy.mean()
    axes.plot(mean.index, mean, color=LEFT, lw=3, label="mean")
    bites = last.groupby("maps_per_step").updates.first()
    axes.set_xscale("log", base=2)
    axes.set_xticks(bites.index, [f"{maps:.0f}\n({updates:.0f})" for maps, updates in bites.items()])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="maps removed in a step (updates after it)", ylabel="test accuracy at the end", ylim=(0, None))
    axes.set_title(f"{last.maps_left.min():.0f} maps left, the same number of updates in all")
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    return figure


def penalty_or_greedy(table: pd.DataFrame, maps: int, accuracy: float) -> Figure:
    """Figure 12: accuracy against what is left of one layer, by a penalty of several strengths and by greedy pruning.

    Args:
        table: rows of `update_budget.penalised` and `update_budget.one_layer`.
        maps, accuracy: of the whole layer and network.
    """
    figure, axes = plt.subplots(figsize=(12, 6))
    looks = {"taylor": ("greedy, Taylor", LEFT, "o", "number"), "group_lasso": ("group lasso", LASSO, "D", "strength")}
    for curve, (label, paint, marker, step) in looks.items():
        runs = table[table.curve == curve]
        mean = runs.groupby(step)[["layer_maps", "accuracy"]].mean()
        axes.plot(mean.layer_maps / maps, mean.accuracy, color=paint, marker=marker, lw=2.5, ms=9, label=label)
        axes.plot(runs.layer_maps / maps, runs.accuracy, marker, color=paint, alpha=0.35, ms=6)
    for strength, point in mean.iterrows():
        at = (point.layer_maps / maps, point.accuracy)
        axes.annotate(f"{strength:g}", at, (0, -22), textcoords="offset points", fontsize=14, ha="center")
    axes.axhline(accuracy, color="0.5", ls=":", label="whole network, untouched")
    _percent(axes, "maps of the last layer")
    axes.set(ylabel="test accuracy", title="A penalty instead of a choice (numbers: its strength)")
    axes.legend(frameon=False, loc="lower left")
    return figure


def cockpit(
    table: pd.DataFrame, recorded: pd.DataFrame, criterion: str = "taylor", left: float = 0.5, floor: int = 1
) -> Figure:
    """What one cut leaves: maps by layer, work, time and accuracy, beside the recorded run that fine-tunes between.

    Args:
        table: of `update_budget.cuts`.
        recorded: rows of pruning runs by `curve`.
        criterion, left, floor: which of the cuts; the nearest share that was measured.
    """
    mine = table[(table.criterion == criterion) & (table.floor == floor)].sort_values("share")
    at = mine.loc[(mine.share - left).abs().idxmin()]
    whole = table.attrs["maps"]
    frame = {"left": 0.08, "right": 0.98, "bottom": 0.15, "top": 0.86, "wspace": 0.32}
    figure, (maps, work, curve) = plt.subplots(1, 3, figsize=(15, 5.5), layout="none", gridspec_kw=frame)
    labels = layer_labels(list(whole))
    maps.bar(labels, list(whole.values()), color=GONE)
    bars = maps.bar(labels, [at[name] for name in whole], color=colour(criterion))
    maps.bar_label(bars, [f"{at[name]:.0f}" for name in whole], fontsize=14)
    maps.set_title(f"{at.share:.0%} of the maps are left", fontsize=17)
    maps.tick_params(axis="x", rotation=60)
    values = [at.macs, at.params, at.ms]
    bars = work.barh(["MACs", "weights", "time"], values, color=colour(criterion))
    work.bar_label(bars, [f"{value:.0%}" for value in values], fontsize=14, padding=2)
    work.set_title("of the whole network's", fontsize=17)
    work.set_xlim(0, max(1.25, 1.2 * max(values)))
    work.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    work.invert_yaxis()
    curve.plot(mine.share, mine.accuracy, color=colour(criterion), ls=":", lw=3, label="one cut, no updates")
    curve.plot(at.share, at.accuracy, "o", ms=13, color=colour(criterion))
    if len(runs := recorded[recorded.curve == criterion]):
        means = shares(runs).groupby("number")[["maps_share", "accuracy"]].mean()
        curve.plot(means.maps_share, means.accuracy, color="0.3", lw=2.5, label="in steps, tuned (recorded)")
    _percent(curve, "feature maps")
    curve.set_title(f"accuracy after one cut: {at.accuracy:.0%}", fontsize=17)
    curve.legend(frameon=False, fontsize=14, loc="upper right")
    figure.suptitle(f"{title(criterion)}, at least {floor} map{'s' * (floor > 1)} in every layer")
    return figure


def _shades(n: int) -> list:
    """Colours that go from light to dark, for numbers that grow; told apart in grey too."""
    return seaborn.color_palette("viridis_r", n + 1)[1:]


def _mean_and_range(axes, runs: pd.DataFrame, x: str, y: str, paint, label: str, marker: str = "o") -> None:
    by_step = runs.groupby("number").agg(x=(x, "mean"), mean=(y, "mean"), low=(y, "min"), high=(y, "max"))
    axes.plot(by_step.x, by_step["mean"], color=paint, marker=marker, lw=2.5, ms=7, label=label)
    if runs.seed.nunique() > 1:
        axes.fill_between(by_step.x, by_step.low, by_step.high, color=paint, alpha=0.12, lw=0)


def _percent(axes, axis: str) -> None:
    axes.set(xlim=(1.03, 0), ylim=(0, 1), xlabel=f"{axis} left")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
