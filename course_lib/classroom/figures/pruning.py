"""Figures of the pruning loop: accuracy against size, what survives, what it costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, NullLocator, PercentFormatter
from torch import nn

from course_lib import cost
from course_lib.classroom.figures.style import COLOURS, MARKERS, colour, layer_labels, title
from course_lib.feature_maps import Chain

AXES = {"feature maps": "maps_share", "MACs": "macs_share", "parameters": "params_share"}
FRAME = {"left": 0.125, "right": 0.655, "bottom": 0.13, "top": 0.92}  # fixed: fitting takes longer than a slider may


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """A table of pruning steps with the shares that are left: maps_share, macs_share, params_share (0 to 1)."""
    runs = [key for key in ("curve", "seed") if key in table]
    whole = table.sort_values("number").groupby(runs)[["maps_left", "macs", "params"]].transform("first")
    added = {"maps_share": table.maps_left / whole.maps_left, "macs_share": table.macs / whole.macs}
    return table.assign(**added, params_share=table.params / whole.params)


def near_half(table: pd.DataFrame) -> pd.DataFrame:
    """Of every curve and seed the step that is nearest to half of the feature maps, with its shares."""
    all_steps = shares(table).reset_index(drop=True)
    distance = (all_steps.maps_share - 0.5).abs()
    return all_steps.loc[distance.groupby([all_steps.curve, all_steps.seed], sort=False).idxmin()]


def lead(table: pd.DataFrame, one: str, other: str, axis: str, share: float = 0.5) -> float:
    """Accuracy of one curve minus another's where this share of the axis is left, mean over seeds; NaN if not reached.

    Between steps by straight lines.
    """
    x = AXES[axis]
    found: dict[str, list[float]] = {one: [], other: []}
    for (name, _), run in shares(table).sort_values(x).groupby(["curve", "seed"]):
        if name in found:
            reached = run[x].min() <= share
            found[name].append(float(np.interp(share, run[x], run.accuracy)) if reached else float("nan"))
    return float(np.mean(found[one]) - np.mean(found[other]))


def milestones(curves: dict[str | int, pd.DataFrame]) -> pd.DataFrame:
    """Accuracies at the turning points of curves, one row a curve: to compare ways of fine-tuning between the steps.

    Args:
        curves: {how: the steps of one curve, as for `pruning_curves`}; of several seeds the mean counts.

    Returns:
        Columns: whole, first cut, tuned (after it), at half (of the feature maps), at the end.
    """
    rows = {}
    for how, curve in curves.items():
        steps = curve.groupby("number").mean(numeric_only=True)
        rows[how] = {
            "whole": steps.accuracy.iloc[0],
            "first cut": steps.accuracy_before_tuning.iloc[1],
            "tuned": steps.accuracy.iloc[1],
            "at half": near_half(curve).accuracy.mean(),
            "at the end": steps.accuracy.iloc[-1],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def one_point(
    name: str, network: nn.Module, whole: nn.Module, image_shape: tuple[int, ...], accuracy: float, seed: int = 0
) -> pd.DataFrame:
    """A network that no pruning run made, as a curve of `pruning_curves`: the whole one, undrawn, and this one."""
    rows = [
        {
            **{"curve": name, "seed": seed, "number": number, "accuracy": found, "accuracy_before_tuning": np.nan},
            **{"maps_left": cost.feature_maps(model), "macs": cost.macs(model, image_shape)},
            "params": cost.parameters(model),
        }
        for number, (model, found) in enumerate(((whole, np.nan), (network, accuracy)))
    ]
    return pd.DataFrame(rows)


def pruning_curves(
    table: pd.DataFrame,
    recorded: pd.DataFrame | None = None,
    axis: str = "feature maps",
    when: str = "after fine-tuning",
    heading: str = "Accuracy while feature maps are removed",
) -> Figure:
    """Accuracy against what is left of the network, as in Figures 4 and 5 of Molchanov et al. 2017.

    Args:
        table: one row a step: curve, seed, number, maps_left, macs, params, accuracy, accuracy_before_tuning. Of
            several seeds the mean is drawn, and their range as a band.
        recorded: the same of an earlier, longer run, drawn faintly beneath.
        axis: 'feature maps', 'MACs' or 'parameters'.
        when: 'after fine-tuning' or 'right after the cut'.
    """
    x, y = AXES[axis], "accuracy" if when == "after fine-tuning" else "accuracy_before_tuning"
    figure, axes = plt.subplots(figsize=(13, 6), layout="none", gridspec_kw=FRAME)
    for source, faint in ((recorded, True), (table, False)):
        if source is not None:
            steps = shares(source).groupby(["curve", "number"], sort=False)
            steps = steps.agg(x=(x, "mean"), mean=(y, "mean"), low=(y, "min"), high=(y, "max"), n=(y, "size"))
            for name, by_step in steps.groupby("curve", sort=False):
                _curve(axes, name, by_step, faint)
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel=f"{axis} left", ylabel=f"test accuracy\n{when}", title=heading, ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    return figure


def papers_figure4(paper: pd.DataFrame, axis: str = "feature maps") -> Figure:
    """Figure 4 of the paper, redrawn from numbers that were read from its plot: VGG-16 on Birds-200.

    Args:
        paper: data/paper/figure4.csv.
        axis: 'feature maps' (in percent of 4224) or 'FLOPs' (in GFLOPs).
    """
    column, label = {"feature maps": ("maps_percent", "feature maps left, %"), "FLOPs": ("gflops", "GFLOPs left")}[axis]
    figure, axes = plt.subplots(figsize=(13, 6), layout="none", gridspec_kw=FRAME)
    for name, rows in paper[paper.axis == column].groupby("criterion", sort=False):
        looks = {"color": colour(name), "marker": MARKERS.get(name, "o"), "ms": 9}
        axes.plot(rows.left, rows.accuracy, ls="-" if len(rows) > 1 else "", lw=2.5, label=title(name), **looks)
    axes.invert_xaxis()
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel=label, ylabel="test accuracy", ylim=(0, 1), title="VGG-16 on Birds-200 (paper, read from Figure 4)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    return figure


def _curve(axes, name: str, by_step: pd.DataFrame, faint: bool) -> None:
    """The mean over seeds, step by step, and the range over them as a band."""
    look = {"ls": "--", "lw": 1.8, "alpha": 0.6} if faint else {"marker": MARKERS.get(name, "o"), "lw": 2.5, "ms": 7}
    label = f"{title(name)} (recorded)" if faint else title(name)
    axes.plot(by_step.x, by_step["mean"], color=colour(name), label=label, zorder=2 if faint else 3, **look)
    if by_step.n.max() > 1:
        axes.fill_between(by_step.x, by_step.low, by_step.high, color=colour(name), alpha=0.12, lw=0)


def cost_by_layer(model: nn.Module, image_shape: tuple[int, ...]) -> Figure:
    """Where a network keeps its feature maps, its parameters and its MACs: shares by layer, side by side."""
    layers = Chain(model).layers
    macs = cost.macs_per_layer(model, image_shape)
    modules = dict(model.named_modules())
    numbers = {
        "feature maps": {name: layer.channels for name, layer in layers.items()},
        "parameters": {name: sum(p.numel() for p in modules[name].parameters()) for name in layers},
        "MACs": {name: macs[name] for name in layers},
    }
    figure, panels = plt.subplots(1, 3, sharey=True, figsize=(13, 6))
    labels = layer_labels(list(layers))
    for axes, (what, counts), paint in zip(panels, numbers.items(), list(COLOURS.values())[:3], strict=True):
        total = sum(counts.values())
        axes.barh(labels, [count / total for count in counts.values()], color=paint)
        axes.xaxis.set_major_locator(MultipleLocator(0.05))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel=f"share of all\n{total:,} {what}")
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    figure.suptitle("Where the maps are is not where the work is")
    return figure


def surviving_maps(history: list[dict[str, int]], step: int = -1) -> Figure:
    """Feature maps left in every layer after a step, over those the network had.

    `history`: for every step, layer name -> number of maps, the first being the whole network.
    """
    first, now = history[0], history[step]
    labels = layer_labels(list(first))
    frame = {"left": 0.09, "right": 0.98, "bottom": 0.19, "top": 0.92}
    figure, axes = plt.subplots(figsize=(11, 6), layout="none", gridspec_kw=frame)
    at = range(len(labels))
    axes.bar(at, list(first.values()), color="0.85", label="removed")
    bars = axes.bar(at, list(now.values()), color=COLOURS["taylor"], label="left")
    axes.bar_label(bars, [f"{now[name] / first[name]:.0%}" for name in first], fontsize="x-small", padding=2)
    share = sum(now.values()) / sum(first.values())
    number = step if step >= 0 else len(history) + step
    axes.set(ylabel="feature maps", title=f"After step {number}: {share:.0%} of the feature maps are left")
    axes.set_xticks(at, labels, rotation=60)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", frameon=False)
    return figure


def map_counts(model: nn.Module) -> dict[str, int]:
    """Layer name -> number of feature maps: one entry of the history that `surviving_maps` draws."""
    return {name: layer.channels for name, layer in Chain(model).layers.items()}


def realised_speed(table: pd.DataFrame, printed: pd.DataFrame | None = None) -> Figure:
    """Measured speed-up against the speed-up that the arithmetic promises; both logarithmic, for they are factors.

    Args:
        table: one row a network, indexed by its name, which begins with the criterion: macs, median_ms. The first is
            the whole network.
        printed: data/paper/table2.csv, whose pruned networks are drawn hollow, a marker a network.
    """
    promised, measured = table.macs.iloc[0] / table.macs, table.median_ms.iloc[0] / table.median_ms
    figure, axes = plt.subplots(figsize=(11, 6))
    for name, x, y in zip(table.index, promised, measured, strict=True):
        criterion = name.split(",")[0]
        look = {"marker": MARKERS.get(criterion, "o"), "ms": 12, "ls": "", "color": colour(criterion)}
        axes.plot(x, y, label=_titled(name), **look)
    if printed is not None:
        paper = papers_speed(printed)
        for (name, rows), marker in zip(paper.groupby("network", sort=False), "^sD", strict=False):
            look = {"ms": 10, "mfc": "none", "mec": "0.3", "mew": 2}
            axes.plot(rows.promised, rows.measured, marker, label=f"{name} (paper)", **look)
        promised, measured = pd.concat([promised, paper.promised]), pd.concat([measured, paper.measured])
    top = 1.1 * max(promised.max(), measured.max())
    axes.plot([1, top], [1, top], color="0.5", ls="--", label="as promised", zorder=0)
    axes.set(xlabel="MACs of the whole network / MACs left", ylabel="time of the whole network / time")
    axes.set(title="Speed-up: promised by MACs, and measured", xscale="log", yscale="log")
    ticks = [factor for factor in (1, 1.5, 2, 3, 4, 6, 8, 12, 16) if factor <= top]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{factor:g}" for factor in ticks])
        axis.set_minor_locator(NullLocator())
    low = 0.9 * min(1, measured.min())  # a small network may be no faster, or slower
    axes.set(xlim=(0.9, top), ylim=(low, top))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def papers_speed(printed: pd.DataFrame) -> pd.DataFrame:
    """The pruned networks of the paper's Table 2: network, hardware, batch, maps_left (0 to 1), promised, measured.

    `printed`: data/paper/table2.csv. Promised is how many times fewer FLOPs are left than the unpruned network has,
    measured the speed-up as it is printed.
    """
    place = ["network", "hardware", "batch"]
    whole = printed[printed.version == "unpruned"].set_index(place).gflops.rename("whole")
    pruned = printed[printed.version != "unpruned"].join(whole, on=place)
    added = {"maps_left": pruned.maps_left_percent / 100, "promised": pruned.whole / pruned.gflops}
    return pruned.assign(**added, measured=pruned.speedup)[[*place, *added, "measured"]].reset_index(drop=True)


def speed_beside_paper(table: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Measured speed-ups, a row for each pruned network, a column for each machine and batch; empty: not measured.

    `table`: as of `realised_speed`, with maps; `printed`: data/paper/table2.csv. The index is network, maps left (0 to
    1) and the promised speed-up.
    """
    paper = papers_speed(printed)
    paper = paper.assign(network=paper.network + " (paper)", at=paper.hardware + ", " + paper.batch.astype(str))
    whole, small = table.iloc[0], table.iloc[1:]
    ours = {"network": map(_titled, small.index), "maps_left": (small.maps / whole.maps).array}
    ours |= {"promised": (whole.macs / small.macs).array, "measured": (whole.median_ms / small.median_ms).array}
    rows = pd.concat([pd.DataFrame(ours).assign(at="this machine, 16"), paper], ignore_index=True)
    wide = rows.pivot(index=["network", "maps_left", "promised"], columns="at", values="measured")
    order = dict.fromkeys(zip(rows.network, rows.maps_left, rows.promised, strict=True))  # as they came
    ordered = wide.loc[list(order), rows["at"].unique()]
    return ordered.rename_axis(index=["network", "maps left", "promised"], columns="machine, images in a batch")


def _titled(name: str) -> str:
    """'taylor, end' as a reader calls it."""
    criterion, comma, rest = name.partition(",")
    return title(criterion) + comma + rest


def shrinking_network(run: pd.DataFrame, step: int = -1) -> Figure:
    """The network as a row of boxes, as tall as a layer has feature maps, and its accuracy on the way to this step.

    Args:
        run: one row a step of one pruning run: maps_left, macs, accuracy, and `layers`, the numbers of maps of all
            layers in a text, as experiment 'pruning' of classroom.reproduce records them.
        step: which row to draw.
    """
    counts = np.array([[int(count) for count in text.split()] for text in run.layers])  # (steps, L)
    frame = {"left": 0.02, "right": 0.98, "bottom": 0.16, "top": 0.84, "wspace": 0.22, "width_ratios": (3, 2)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="none", gridspec_kw=frame)
    places = np.arange(counts.shape[1])
    for heights, look in ((counts[0], {"color": "0.88"}), (counts[step], {"color": COLOURS["taylor"]})):
        left.bar(places, heights, bottom=-heights / 2, width=0.78, **look)
    left.set(xlim=(-0.6, len(places) - 0.4), xlabel="convolutions, from the image to the answer", yticks=[], xticks=[])
    left.grid(visible=False)
    left.spines[:].set_visible(False)
    share, now = run.maps_left / run.maps_left.iloc[0], run.iloc[step]
    until = len(run) + step if step < 0 else step
    right.plot(share, run.accuracy, color="0.8", lw=3)
    right.plot(share[: until + 1], run.accuracy[: until + 1], color=COLOURS["taylor"], lw=4)
    right.plot(share.iloc[step], now.accuracy, "o", color=COLOURS["taylor"], ms=13)
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.invert_xaxis()
    right.set(ylim=(0, 1), xlabel="feature maps left", ylabel="test accuracy")
    figure.suptitle(
        f"{now.maps_left:,} feature maps, {now.macs / run.macs.iloc[0]:.0%} of the MACs: accuracy {now.accuracy:.1%}"
    )
    return figure
