"""Figures of the cheap criteria: kernels, activations, information, dying maps, mask and surgery."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from course_lib import datasets, ranking
from course_lib.classroom import baselines
from course_lib.classroom.figures.pictures import mosaic
from course_lib.classroom.figures.style import colour, layer_labels, title
from course_lib.datasets import Splits
from course_lib.feature_maps import Chain, Scores

OPEN, CLOSED = (seaborn.color_palette("colorblind")[i] for i in (0, 3))
COLUMNS = 8  # feature maps side by side in the browser


def score_ranges(kinds: dict[str, Scores], criterion: str) -> Figure:
    """Scores of every map by layer, on a logarithmic axis, for one or two networks side by side."""
    figure, panels = plt.subplots(1, len(kinds), figsize=(8 * len(kinds), 5.5), sharey=True, squeeze=False)
    for axes, (what, scores) in zip(panels[0], kinds.items(), strict=True):
        for at, values in enumerate(scores.values()):
            positive = values[values > 0].numpy()
            across = at + np.linspace(-0.3, 0.3, len(positive))
            axes.scatter(across, np.sort(positive), s=9, color=colour(criterion))
        axes.set_yscale("log")
        axes.set_xticks(range(len(scores)), layer_labels(list(scores)), rotation=90)
        axes.set_title(what)
        axes.grid(axis="x", visible=False)
    panels[0][0].set_ylabel(f"{title(criterion)},\nlogarithmic")
    return figure


def cut_by_threshold(scores: dict[str, Scores], criterion: str = "min_weight", share: float = 0.2) -> Figure:
    """Where one threshold for the whole network cuts each layer: `share` of all maps lie below it."""
    values = scores[criterion]
    threshold = float(torch.cat(list(values.values())).quantile(share))
    edges, counts = baselines.histogram(values)
    figure = plt.figure(figsize=(14, 5), layout="none")
    left, right = figure.add_axes((0.07, 0.16, 0.38, 0.7)), figure.add_axes((0.55, 0.25, 0.44, 0.61))
    left.stairs(sum(counts.values()), edges, fill=True, color=colour(criterion))
    left.axvline(threshold, color=CLOSED, lw=3)
    left.set(xscale="log", xlabel=title(criterion), ylabel="feature maps", title=f"{share:.0%} lie left of the line")
    gone = baselines.below(values, threshold)
    right.bar(range(len(gone)), [gone[name] / len(values[name]) for name in gone], color=CLOSED)
    right.set_xticks(range(len(gone)), layer_labels(list(gone)), rotation=90)
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.set(ylim=(0, 1), ylabel="share of the layer", title="one threshold, cut layer by layer")
    right.grid(axis="x", visible=False)
    return figure


def feature_map_browser(
    chain: Chain,
    splits: Splits,
    images: Tensor,
    labels: Tensor,
    names: list[str],
    layer: str = "conv1_1",
    picture: int = 0,
    close: int = 0,
) -> Figure:
    """A picture, the first maps of a layer, and what the network says with gate number `close` of that layer closed.

    Args:
        images, labels: (N, 3, H, W) and (N,), on the network's device. A label of -1 is none of the classes: then the
            change of the loss is that of the network's own answer.
        names: what the pictures are called.
        layer: a label as `figures.layer_labels` gives it.
        close: index of the map whose gate is closed; the last one if the layer has fewer.
    """
    name = dict(zip(layer_labels(list(chain.layers)), chain.layers, strict=True))[layer]
    channels, x, taps = chain.layers[name].channels, images[picture : picture + 1], {}
    close = min(close, channels - 1)
    gate = torch.ones(channels, device=x.device)
    gate[close] = 0.0
    with torch.inference_mode():
        answers = [chain.run(x, taps=taps), chain.run(x, gates={name: gate})]
    chances = torch.stack([logits[0].softmax(0).cpu() for logits in answers])
    z = taps[name][0].cpu()
    first = max(0, close // COLUMNS - 3) * COLUMNS  # scroll: four rows, the closed map in the last of them at most
    figure = plt.figure(figsize=(15, 5), layout="none")
    truly = int(labels[picture]) if labels[picture] >= 0 else int(chances[0].argmax())
    _picture(figure.add_axes((0.01, 0.02, 0.26, 0.8)), datasets.picture(x[0], splits), names[picture])
    _mosaic(figure.add_axes((0.29, 0.02, 0.40, 0.8)), z[first : first + 4 * COLUMNS], first, close, layer)
    _answers(figure.add_axes((0.81, 0.17, 0.18, 0.6)), chances, splits.classes, truly)
    return figure


def _picture(axes, picture, name: str) -> None:
    axes.imshow(picture)
    axes.set_title(name)
    axes.set_axis_off()


def _mosaic(axes, z: Tensor, first: int, close: int, layer: str) -> None:
    """Up to four rows of maps in one image, with a frame about the closed one."""
    axes.imshow(mosaic(z, 4, COLUMNS), vmin=0, vmax=float(z.max()) or 1.0)
    side = z.shape[-1] + max(1, z.shape[-1] // 16)
    at = close - first
    corner = (at % COLUMNS * side - 0.5, at // COLUMNS * side - 0.5)
    axes.add_patch(plt.Rectangle(corner, z.shape[-1], z.shape[-2], fill=False, edgecolor=CLOSED, lw=4))
    axes.set_title(f"{layer}: gate {close} is closed")
    axes.set_axis_off()


def _answers(axes, chances: Tensor, classes: list[str], truly: int) -> None:
    """The four most likely classes and the right one, with the gate open and closed."""
    few = chances.max(0).values.topk(min(4, len(classes))).indices.tolist()
    few = few if truly in few else [*few[:3], truly]
    y = np.arange(len(few))
    for at, (p, paint, label) in enumerate(zip(chances, (OPEN, CLOSED), ("open", "closed"), strict=True)):
        axes.barh(y + 0.4 * at - 0.2, p[few].numpy(), 0.38, color=paint, label=label)
    axes.set_yticks(y, [classes[i] for i in few])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xticks=(0, 1), xlabel="probability")
    change = float((chances[0, truly] / chances[1, truly]).log())
    axes.set_title(f"loss {change:+.3f} nats")
    axes.legend(loc="lower right", fontsize="small")


def information_bias(table: pd.DataFrame) -> Figure:
    """Information against the number of bins, with true and with shuffled labels: `baselines.information_by_bins`."""
    sizes = sorted(table.images.unique())
    figure, panels = plt.subplots(1, len(sizes), figsize=(7 * len(sizes), 5.5), sharey=True, squeeze=False)
    looks = {"true": ("-", colour("mutual_information")), "shuffled": ("--", colour("random"))}
    for axes, size in zip(panels[0], sizes, strict=True):
        for what, rows in table[table.images == size].groupby("labels"):
            style, paint = looks[what]
            axes.plot(rows.bins, rows.information, style, color=paint, marker="o", lw=3, label=f"{what} labels")
        axes.set(xlabel="bins", title=f"{size} images")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(table.bins.unique()), sorted(table.bins.unique()))
    panels[0][0].set_ylabel("information about the label,\nnats, mean over maps")
    panels[0][0].legend()
    return figure


def information_at(x: Tensor, labels: Tensor, bins: int = 8, images: int = 64) -> Figure:
    """Information of every map with true and with shuffled labels, for one number of bins and images."""
    some = torch.arange(len(x))[: min(images, len(x))]
    shuffled = labels[some][torch.randperm(len(some), generator=torch.Generator().manual_seed(0))]
    found = [baselines.information(x[some], y, bins).sort(descending=True).values for y in (labels[some], shuffled)]
    figure = plt.figure(figsize=(10, 5), layout="none")
    axes = figure.add_axes((0.11, 0.16, 0.87, 0.72))
    looks = {"true labels": colour("mutual_information"), "shuffled labels": colour("random")}
    for values, (what, paint) in zip(found, looks.items(), strict=True):
        axes.plot(range(1, len(values) + 1), values, color=paint, lw=4, label=what)
    axes.set(xlabel="feature maps, sorted", ylabel="information, nats", ylim=(0, None))
    axes.set_title(f"{bins} bins, {len(some)} images")
    axes.legend(loc="upper right")
    return figure


def dying_maps(table: pd.DataFrame) -> Figure:
    """Maps alive while a network trains with group lasso, and its accuracy: `baselines.dying_maps`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.5))
    alive = table.groupby(["strength", "updates"], as_index=False).agg(
        alive=("alive", "sum"), maps=("maps", "sum"), accuracy=("accuracy", "first")
    )
    strengths = sorted(alive.strength.unique())
    paints = seaborn.color_palette("viridis", len(strengths))
    for paint, marker, strength in zip(paints, "os^Dv", strengths, strict=False):
        rows = alive[alive.strength == strength]
        for axes, values in ((left, rows.alive / rows.maps), (right, rows.accuracy)):
            axes.plot(rows.updates, values, color=paint, marker=marker, lw=3, label=f"strength {strength:g}")
    for axes, what in ((left, "feature maps alive"), (right, "test accuracy")):
        axes.set(xlabel="updates", ylabel=what, ylim=(0, 1.03))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend(loc="lower left", fontsize="small")
    figure.suptitle("Group lasso: maps alive and accuracy while the network trains")
    return figure


def mask_or_surgery(table: pd.DataFrame) -> Figure:
    """Stored numbers, MACs and measured time of whole, masked and operated network: `baselines.mask_or_surgery`."""
    what = {"parameters": "numbers stored", "MACs": "MACs", "ms": "milliseconds, measured"}
    figure, panels = plt.subplots(1, len(what), figsize=(15, 4.8))
    for axes, (column, label) in zip(panels, what.items(), strict=True):
        share = table[column] / table[column].iloc[0]
        axes.bar(table.network, share, color=[OPEN, CLOSED, "0.4"])
        axes.bar_label(axes.containers[0], [f"{s:.0%}" for s in share], padding=2)
        axes.set_title(label)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(0, max(2.3, 1.1 * share.max()) if column == "parameters" else max(1.3, 1.15 * share.max()))
        axes.tick_params(axis="x", labelsize="small")
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("of the whole network's")
    return figure


def criteria_agree(scores: dict[str, Scores]) -> Figure:
    """Spearman rank correlation between criteria, mean over layers, as a heat map."""
    names = list(scores)
    table = pd.DataFrame(
        [[ranking.spearman(scores[a], scores[b], absolute=False).mean for b in names] for a in names],
        index=[title(name) for name in names],
        columns=[title(name) for name in names],
    )
    figure, axes = plt.subplots(figsize=(11, 7.5))
    seaborn.heatmap(table, annot=True, fmt=".2f", vmin=-1, vmax=1, cmap="vlag", ax=axes, annot_kws={"size": 15})
    axes.tick_params(axis="x", rotation=35)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_title("Do they agree? Spearman, mean over layers")
    return figure
