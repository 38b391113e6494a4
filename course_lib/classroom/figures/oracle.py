"""Figures of the oracle: one gate, all gates of a layer, ranks by depth, many gates at once, few pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from course_lib import datasets
from course_lib.classroom import ablations
from course_lib.classroom.figures.style import colour, layer_labels
from course_lib.datasets import Splits
from course_lib.feature_maps import Chain, Scores
from course_lib.oracle import Estimate

OPEN, POOLED, CLOSED = (seaborn.color_palette("colorblind")[i] for i in (0, 2, 3))
RANKINGS = {"oracle-abs": (0.0, 0.0, 0.0), "oracle-loss": CLOSED, "random": colour("random")}
SIDES = {"another n": OPEN, "all here": (0.6, 0.6, 0.6), "the recorded": CLOSED}


def closed_gate(
    chain: Chain,
    splits: Splits,
    images: Tensor,
    labels: Tensor,
    truth: Scores,
    picture: int = 0,
    layer: str = "conv1_1",
    rank: int = 1,
) -> Figure:
    """A picture, one of its feature maps, and what the network says with that map's gate open and closed.

    Args:
        images, labels: (N, 3, H, W) and (N,), on the network's device.
        truth: the oracle; `rank` counts the layer's maps by |change of loss|, the largest first, and stops at the last.
        layer: a label as `figures.layer_labels` gives it.
    """
    name = dict(zip(layer_labels(list(chain.layers)), chain.layers, strict=True))[layer]
    order = ablations.strongest_maps(truth[name])
    rank = min(rank, len(order))
    index, x, taps = order[rank - 1], images[picture : picture + 1], {}
    gate = torch.ones(chain.layers[name].channels, device=x.device)
    gate[index] = 0.0
    with torch.inference_mode():
        answers = [chain.run(x, taps=taps), chain.run(x, gates={name: gate})]
    chances = torch.stack([logits[0].softmax(0).cpu() for logits in answers])  # (2, classes), open and closed
    figure = plt.figure(figsize=(14, 5), layout="none")  # fixed frames: fitting them takes longer than a slider may
    panels = [figure.add_axes(frame) for frame in ((0.01, 0.02, 0.27, 0.78), (0.31, 0.02, 0.27, 0.78))]
    panels.append(figure.add_axes((0.69, 0.17, 0.29, 0.65)))
    truly = int(labels[picture])
    panels[0].imshow(datasets.picture(x[0], splits))
    panels[0].set_title(f"the picture:\n{splits.classes[truly]}")
    z = taps[name][0, index].cpu().numpy()
    panels[1].imshow(z, vmin=0)
    panels[1].set_title(
        f"{layer}, map {index}: z up to {float(z.max()):.3g}\n{_nth(rank)} of {len(order)} in the layer"
    )
    for axes in panels[:2]:
        axes.set_axis_off()
    _chances(panels[2], chances, splits.classes, truly)
    return figure


def _chances(axes, chances: Tensor, classes: list[str], truly: int) -> None:
    """The five most likely classes and the right one, before and after."""
    few = chances.max(0).values.topk(min(5, len(classes))).indices.tolist()
    few = [*few[:4], truly] if truly not in few else few
    y = np.arange(len(few))
    for at, (p, paint, label) in enumerate(zip(chances, (OPEN, CLOSED), ("open", "closed"), strict=True)):
        axes.barh(y + 0.4 * at - 0.2, p[few].numpy(), 0.38, color=paint, label=f"gate {label}")
    axes.set_yticks(y, [classes[i] for i in few])
    axes.get_yticklabels()[few.index(truly)].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="probability")
    change = float((chances[0, truly] / chances[1, truly]).log())
    axes.set_title(f"gate closed: loss {change:+.3f} nats")
    axes.legend(loc="lower right", fontsize="small")


def _nth(number: int) -> str:
    return f"{number}{'th' if 10 < number % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def sorted_effects(table: pd.DataFrame, left: str = "conv1_1", right: str | None = None) -> Figure:
    """Change of the loss by each map of two layers, sorted, with two standard errors: Figure 11 of the paper.

    `table`: layer, map, change, standard_error. `left`, `right`: labels of layers; the last layer if not given.
    """
    labels = dict(zip(layer_labels(list(table.layer.unique())), table.layer.unique(), strict=True))
    frame = {"left": 0.13, "right": 0.99, "bottom": 0.14, "top": 0.85, "wspace": 0.22}
    figure, panels = plt.subplots(1, 2, figsize=(14, 5.5), layout="none", gridspec_kw=frame)
    for axes, label in zip(panels, (left, right or list(labels)[-1]), strict=True):
        rows = table[table.layer == labels[label]].sort_values("change", ascending=False)
        at = np.arange(1, len(rows) + 1)
        for side, paint in ((rows.change >= 0, OPEN), (rows.change < 0, CLOSED)):
            axes.vlines(at[side], 0, rows.change[side], color=paint, lw=380 / len(rows))
        low, high = rows.change - 2 * rows.standard_error, rows.change + 2 * rows.standard_error
        axes.vlines(at, low, high, color="0.35", lw=1.2)
        axes.axhline(0, color="black", lw=1)
        axes.set(title=label, xlabel="feature maps, sorted", xlim=(0, len(rows) + 1))
        axes.locator_params(nbins=4)  # a tick takes a millisecond to draw
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("change of loss, nats\nwhen the map is taken away")
    figure.suptitle("A few maps matter much, most matter little (thin lines: two standard errors)")
    return figure


def ranks_by_layer(ranked: pd.DataFrame, pooled: list[str]) -> Figure:
    """Ranks of each layer's maps among all maps, 1 the most important at the top: Figure 2 of the paper.

    `ranked`: layer and rank. `pooled`: the layers that a pooling follows, drawn in another colour.
    """
    names = list(ranked.layer.unique())
    figure, axes = plt.subplots(figsize=(12, 6))
    boxes = axes.boxplot(
        [ranked.loc[ranked.layer == name, "rank"] for name in names],
        whis=(0, 100),
        patch_artist=True,
        medianprops={"color": "black", "lw": 3},
        widths=0.65,
    )
    for name, box in zip(names, boxes["boxes"], strict=True):
        box.set_facecolor(POOLED if name in pooled else "0.85")
    axes.set_xticks(range(1, len(names) + 1), layer_labels(names), rotation=60)
    axes.invert_yaxis()
    axes.set(ylabel=f"rank among {len(ranked):,} maps\n(1: most important)")
    axes.set_title("Importance by depth: median, middle half, extremes")
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=paint, edgecolor="black") for paint in (POOLED, "0.85")]
    figure.legend(handles, ["max-pool follows", "no pooling"], loc="outside right upper", frameon=False)
    axes.grid(axis="x", visible=False)
    return figure


def closing_curves(curves: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Accuracy against the maps left, rankings made once, no fine-tuning: Figure 3 of the paper.

    `curves`: of `ablations.close_in_order`. `paper`: points of another network to draw beside (data/paper/figure3.csv).
    """
    figure, axes = plt.subplots(figsize=(11, 6))
    for (name, kind), rows in curves.groupby(["ranking", "pictures"], sort=False):
        first = kind == curves.pictures.iloc[0]
        style = {"ls": "-" if first else ":", "marker": "o" if first else None, "lw": 2.5}
        axes.plot(rows.maps_left, rows.accuracy, color=RANKINGS[name], label=f"{name}, {kind}", **style)
    if paper is not None:
        for name, rows in paper.groupby("ranking", sort=False):
            looks = {"marker": "D", "s": 110, "facecolors": "none", "edgecolors": [RANKINGS[name]], "linewidths": 2.5}
            axes.scatter(rows.maps_percent / 100, rows.accuracy, label=f"{name} (paper)", zorder=4, **looks)
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="feature maps left", ylabel="training accuracy", ylim=(0, 1.02))
    axes.set_title("Closing the lowest maps, without fine-tuning")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def adding_up(curves: pd.DataFrame, kind: str) -> Figure:
    """Change of the loss with many gates closed, against the sum of what each of them does alone."""
    figure, axes = plt.subplots()
    for name, rows in curves[curves.pictures == kind].groupby("ranking", sort=False):
        axes.plot(rows.maps_left, rows.change, marker="o", color=RANKINGS[name], lw=2.5, label=f"{name}: measured")
        axes.plot(rows.maps_left, rows.expected, ls="--", color=RANKINGS[name], lw=2, label=f"{name}: sum of its maps")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.axhline(0, color="black", lw=1)
    axes.set(xlabel="feature maps left", ylabel="change of loss, nats", title="Effects of single maps do not add up")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def pairs(table: pd.DataFrame) -> Figure:
    """Change of the loss with two gates closed against the sum of the two: `table` of `ablations.pairs`."""
    figure, axes = plt.subplots(figsize=(8, 7))
    for (kind, rows), paint, marker in zip(table.groupby("layers"), (OPEN, CLOSED), "os", strict=False):
        axes.scatter(rows.expected, rows.together, color=paint, marker=marker, s=45, alpha=0.8, label=f"in {kind}")
    low, high = table[["expected", "together"]].min().min(), table[["expected", "together"]].max().max()
    axes.plot([low, high], [low, high], color="black", lw=1.5, label="they add up")
    _both_signs(axes, max(1e-6, float(table.expected.abs().quantile(0.02))))
    axes.set(xlabel="sum of the two effects, nats", ylabel="effect of closing both, nats")
    axes.set_title("Pairs: above the line each stood in for the other")
    axes.legend(loc="lower right", fontsize="small")
    return figure


def _both_signs(axes, threshold: float) -> None:
    """Logarithmic to both sides of zero, linear below the threshold, with ticks that do not touch."""
    axes.set_xscale("symlog", linthresh=threshold)
    axes.set_yscale("symlog", linthresh=threshold)
    axes.autoscale_view()
    lowest = int(np.ceil(np.log10(2 * threshold)))
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        powers = 10.0 ** np.arange(lowest, np.ceil(np.log10(max(-low, high))) + 1)
        for factors in ((1,), (1, 3)):  # 0.01, 0.1; only where these are too few 0.01, 0.03, 0.1
            size = np.outer(powers, factors).ravel()
            ticks = [tick for tick in (*-size, 0, *size) if low <= tick <= high]
            if len(ticks) > 2:
                break
        axis.set_ticks(ticks)
        axis.set_major_formatter("{x:g}")


def halves(effects: Scores, share: float = 0.05) -> Figure:
    """Every map's change of loss on every second picture against the other half, the lowest on the first marked."""
    flat = torch.cat([e[:, ~e[0].isnan()] for e in effects.values()], 1)
    first, second = flat[::2].mean(0).numpy(), flat[1::2].mean(0).numpy()
    low = np.argsort(first)[: max(1, round(share * len(first)))]
    threshold = max(float(np.median(np.abs(first))), 1e-6)
    figure, axes = plt.subplots(figsize=(9, 6.5))
    axes.scatter(first, second, s=18, color="0.65", label="all maps")
    axes.scatter(first[low], second[low], s=28, color=CLOSED, label=f"lowest {share:.0%} on the one half")
    _both_signs(axes, threshold)
    axes.axhline(0, color="black", lw=1)
    axes.axvline(0, color="black", lw=1)
    axes.set(xlabel="change of loss, nats\none half of the pictures", ylabel="the other half")
    axes.set_title("Who lowers the loss here need not lower it there")
    axes.legend(loc="lower right", fontsize="small")
    return figure


def estimated(estimate: Estimate, truth: Scores, layer: str = "conv1_1") -> Figure:
    """The sampled oracle of one layer's maps, with its intervals, against the exact one; those that miss are marked.

    `truth`: {layer: (C,)} of the exact oracle on the same pictures. `layer`: a label as `layer_labels` gives it.
    """
    name = dict(zip(layer_labels(list(truth)), truth, strict=True))[layer]
    exact, found = truth[name].numpy(), estimate.scores[name].numpy()
    low, high = estimate.low[name].numpy(), estimate.high[name].numpy()
    holds, misses = (low <= exact) & (exact <= high), (exact < low) | (exact > high)
    frame = {"left": 0.16, "right": 0.97, "bottom": 0.13, "top": 0.93}
    figure, axes = plt.subplots(figsize=(9, 6.5), layout="none", gridspec_kw=frame)
    for side, paint, label in ((holds, OPEN, "holds the exact value"), (misses, CLOSED, "does not")):
        axes.vlines(exact[side], low[side], high[side], color=paint, lw=2)
        axes.scatter(exact[side], found[side], s=26, color=paint, label=f"interval {label}: {side.sum()}")
    ends = np.nanmin(low), np.nanmax(high)
    axes.plot(ends, ends, color="black", lw=1.5, label="equal")
    _both_signs(axes, max(1e-7, float(np.nanquantile(np.abs(exact), 0.1))))
    axes.set(xlabel="exact change of loss, nats", ylabel=f"estimate, with {estimate.confidence:.0%} interval")
    axes.set_title(f"{layer}: {estimate.share:.0%} of the evaluations")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def agreement(found: pd.DataFrame, oracle: str = "oracle-abs", layers: str = "each layer") -> Figure:
    """Agreement of an oracle on n pictures with others: median and middle 95 % of the draws.

    `found`: of `ablations.agreement`. `oracle`: 'oracle-abs' or 'oracle-loss'. `layers`: 'each layer' (mean of the
    layers' correlations) or 'all layers'.
    """
    rows = found[(found.absolute == (oracle == "oracle-abs")) & (found.layers == layers.split()[0])]
    frame = {"left": 0.1, "right": 0.74, "bottom": 0.14, "top": 0.9}
    figure, axes = plt.subplots(figsize=(11, 6), layout="none", gridspec_kw=frame)
    spread = rows.groupby(["against", "images"]).spearman.quantile([0.025, 0.5, 0.975]).unstack()
    for name in rows.against.unique():
        n, (low, middle, high) = spread.loc[name].index.to_numpy(), spread.loc[name].to_numpy().T
        axes.plot(n, middle, marker="o", lw=2.5, color=SIDES[name], label=f"with {name}")
        axes.fill_between(n, low, high, color=SIDES[name], alpha=0.18, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(n, [str(i) for i in n])
    axes.set(xlabel="n pictures", ylabel="Spearman correlation", ylim=(min(0, rows.spearman.min()), 1))
    axes.set_title(f"How well {oracle} of n pictures agrees ({layers})")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
