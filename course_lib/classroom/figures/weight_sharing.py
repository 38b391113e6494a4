"""Figures of notebook 11: the mixture as a code and as a pull, weights on their way, and what is stored in the end."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_lib import weight_sharing as ws
from course_lib.classroom.figures import animation
from course_lib.weight_code import PARTS
from course_lib.weight_sharing import Components, Epoch

BLUE, ORANGE, GREEN, RED, _, _, _, GREY, *_ = seaborn.color_palette("colorblind")
METHODS = {"soft weight-sharing": BLUE, "magnitude and k-means": ORANGE}
SHOWN = 2500  # weights in a scatter plot: more would only be slower


def mixture_pull(zero_share: float = 0.98, zero_deviation: float = 0.05, precision: float = 2**-10) -> Figure:
    """What a weight costs under a mixture of three, in bits, and the gradient that pulls it.

    Free components of deviation 0.05 at -0.4 and 0.4. `precision`: the width of the cells that weights are rounded to.
    """
    free = math.log((1 - zero_share) / 2)
    deviations = torch.tensor([zero_deviation, 0.05, 0.05], dtype=torch.float64)
    shares = torch.tensor([math.log(zero_share), free, free], dtype=torch.float64)
    components = Components(torch.tensor([0.0, -0.4, 0.4], dtype=torch.float64), 2 * deviations.log(), shares)
    w = torch.linspace(-0.7, 0.7, 401, dtype=torch.float64, requires_grad=True)
    cost = -ws.log_density(w, components)
    (slope,) = torch.autograd.grad(cost.sum(), w)
    # Fixed frames, here and below: a layout that fits itself takes too long for a slider.
    frame = {"left": 0.08, "right": 0.99, "bottom": 0.16, "top": 0.82, "wspace": 0.25}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="none", gridspec_kw=frame)
    grid = w.detach().numpy()
    left.plot(grid, cost.detach().numpy() / math.log(2) - math.log2(precision), color=BLUE, lw=3)
    right.plot(grid, -slope.numpy(), color=BLUE, lw=3)
    right.axhline(0, color="0.4", lw=1.5)
    for axes, quantity in ((left, f"bits, to a precision of {precision:.4f}"), (right, "pull (nats per unit)")):
        for mean in (-0.4, 0.0, 0.4):
            axes.axvline(mean, color=ORANGE, lw=2, ls=":")
        axes.set(xlabel="weight w", ylabel=quantity)
    left.set(ylim=(0, 60), title="Cost of one weight")
    right.set(ylim=(-150, 150), title="Pull on it: positive is to the right")
    figure.suptitle(f"Three components (dotted): share of zero {zero_share:.3f}, its deviation {zero_deviation:.3f}")
    return figure


def weights_moving(epochs: Sequence[Epoch], epoch: int = 0) -> Figure:
    """Where every weight began (across) and where it is after so many epochs (up), with the mixture beside it.

    Bands are components, two deviations to each side of the mean; the histogram counts all weights.
    """
    now, start = epochs[epoch], epochs[0].weights
    some = torch.linspace(0, len(start) - 1, min(SHOWN, len(start))).long()
    pruned = (ws.assign(now.weights[some], now.components) == 0).numpy()
    reach = 1.05 * max(float(e.weights.abs().max()) for e in (epochs[0], epochs[-1]))
    frame = {"left": 0.11, "right": 0.98, "bottom": 0.15, "top": 0.83, "wspace": 0.06, "width_ratios": (3, 2)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5.5), sharey=True, layout="none", gridspec_kw=frame)
    for mean, deviation in zip(now.components.means.tolist(), now.components.deviations.tolist(), strict=True):
        left.axhspan(mean - 2 * deviation, mean + 2 * deviation, color=GREY, alpha=0.25, lw=0)
    for mask, paint, what in ((pruned, ORANGE, "nearest to the zero component"), (~pruned, BLUE, "to another")):
        chosen = some[mask]
        left.plot(start[chosen], now.weights[chosen], ".", color=paint, ms=5, label=what, rasterized=True)
    left.set(xlabel="weight before", ylabel="weight now", xlim=(-reach, reach), ylim=(-reach, reach))
    left.grid(visible=False)
    left.locator_params(nbins=5)
    counts, edges = np.histogram(now.weights.numpy(), bins=np.linspace(-reach, reach, 121))
    right.stairs(np.maximum(counts, 0.5), edges, orientation="horizontal", baseline=0.5, fill=True, color=BLUE)
    right.set(xscale="log", xlabel="weights in each bin", xlim=(0.5, 2 * len(start)))
    right.minorticks_off()
    share = float((ws.assign(now.weights, now.components) == 0).float().mean())
    figure.suptitle(f"Epoch {now.number} of {epochs[-1].number}: {share:.0%} of the weights belong to zero")
    left.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2, frameon=False, fontsize="x-small", markerscale=3
    )
    return figure


def moving_picture(epochs: Sequence[Epoch], frames: int = 24) -> str:
    """`weights_moving` as an animation: HTML with a GIF in it, which needs neither a player nor a network.

    Frames stand densely at the beginning, where most happens; the last one stays longest.
    """
    last = len(epochs) - 1
    chosen = sorted({round(last * (i / (frames - 1)) ** 2) for i in range(frames)})
    moving = animation.gif((weights_moving(epochs, number) for number in chosen), milliseconds=200)
    encoded = base64.b64encode(moving).decode()
    return f'<img alt="weights moving" style="max-width: 100%" src="data:image/gif;base64,{encoded}">'


def retraining(epochs: Sequence[Epoch], examples: int) -> Figure:
    """The misfit of all `examples` labels, in bits, epoch by epoch, and how the components narrow."""
    numbers = [epoch.number for epoch in epochs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5))
    misfit = np.array([epoch.misfit for epoch in epochs]) * examples / math.log(2)
    left.plot(numbers, misfit, color=ORANGE, lw=3)
    left.set(ylim=(0, None), xlabel="epoch", ylabel="misfit of all labels (bits)", title="What the labels cost")
    zero = [float(epoch.components.deviations[0]) for epoch in epochs]
    free = np.array(
        [epoch.components.deviations[1:].quantile(torch.tensor([0.0, 0.5, 1.0])).tolist() for epoch in epochs]
    )
    right.plot(numbers, zero, color=ORANGE, lw=3, label="at zero")
    right.plot(numbers, free[:, 1], color=BLUE, lw=3, ls="--", label="free: median and range")
    right.fill_between(numbers, free[:, 0], free[:, 2], color=BLUE, alpha=0.2, lw=0)
    right.set(yscale="log", xlabel="epoch", ylabel="standard deviation", title="Components narrow")
    right.set_yticks([0.001, 0.003, 0.01, 0.03, 0.1], ["0.001", "0.003", "0.01", "0.03", "0.1"])
    right.minorticks_off()
    right.legend(frameon=False, fontsize="small")
    return figure


def merging(components: Components, table: pd.DataFrame, threshold: float) -> Figure:
    """The free components before and after merging at a threshold, and what the quantised network is then worth.

    `table`: index the thresholds; columns components, error_after, rate.
    """
    merged, row = ws.merge(components, threshold), table.loc[threshold]
    frame = {"left": 0.15, "right": 0.97, "bottom": 0.2, "top": 0.88}
    figure, axes = plt.subplots(figsize=(11, 4.5), layout="none", gridspec_kw=frame)
    for mixture, height, paint in ((components, 1, GREY), (merged, 0, BLUE)):
        means, deviations = mixture.means.numpy(), mixture.deviations.numpy()
        axes.errorbar(means, [height] * len(means), xerr=2 * deviations, fmt="o", color=paint, ms=9, capsize=6, lw=2)
    for mean in components.means:
        home = merged.means[(merged.means - mean).abs().argmin()]
        axes.plot([mean, home], [0.9, 0.1], color="0.6", lw=1)
    axes.set_yticks([0, 1], [f"merged: {len(merged.means)}", f"before: {len(components.means)}"])
    axes.set(ylim=(-0.4, 1.4), xlabel="weight: mean and two standard deviations")
    axes.set_title(f"Merged below {threshold:g} nats: test error {row.error_after:.1%}, rate {row.rate:.1f}")
    axes.grid(axis="y", visible=False)
    return figure


def stored_parts(table: pd.DataFrame, gap_bits: int = 4) -> Figure:
    """What every part of the stored form takes, against the bits of a gap; the chosen one is not faded.

    `table`: index the bits of a gap; columns `weight_code.PARTS`.
    """
    frame = {"left": 0.1, "right": 0.78, "bottom": 0.16, "top": 0.9}
    figure, axes = plt.subplots(figsize=(11, 5.5), layout="none", gridspec_kw=frame)
    bottom, faded = np.zeros(len(table)), np.where(table.index == gap_bits, 1.0, 0.45)
    for part, paint in zip(PARTS, (RED, GREY, GREEN, ORANGE, BLUE), strict=True):
        bars = axes.bar(table.index, table[part] / 1000, bottom=bottom, color=paint, label=part, width=0.8)
        for bar, alpha in zip(bars, faded, strict=True):
            bar.set_alpha(alpha)
        bottom += table[part].to_numpy() / 1000
    axes.set(xlabel="bits of a gap", ylabel="stored (1,000 bits)", xticks=table.index)
    axes.set_title(
        f"Gaps of {gap_bits} bits: {table.loc[gap_bits].sum():,} bits in all, best {table.sum(axis=1).min():,}"
    )
    axes.grid(axis="x", visible=False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="upper right", frameon=False, fontsize="small")
    return figure


def methods(table: pd.DataFrame) -> Figure:
    """Error before and after, each seed a line, method beside method; and the compression rates.

    `table`: rows of `classroom.weight_sharing.row`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), gridspec_kw={"width_ratios": (3, 2)})
    for place, (method, paint) in enumerate(METHODS.items()):
        rows = table[table.method == method]
        ends = 100 * rows[["error_before", "error_after"]].to_numpy().T
        left.plot([2 * place, 2 * place + 1], ends, "o-", color=paint, lw=2, ms=9, alpha=0.8)
        right.plot([place] * len(rows), rows.rate, "o", color=paint, ms=11, alpha=0.8)
        right.plot(place, rows.rate.mean(), "_", color="black", ms=36, mew=3)
    left.set_xticks(range(4), ["before", "after"] * 2)
    left.set(ylabel="test error (%)", ylim=(0, None), xlim=(-0.4, 3.4), title="Each line one seed")
    right.set_xticks(
        range(len(METHODS)), [method.replace(" and ", "\nand ").replace(" w", "\nw") for method in METHODS]
    )
    right.set(ylabel="compression rate", xlim=(-0.6, 1.6), title="Stored bits (bar: mean)")
    right.set_ylim(0, 1.2 * table.rate.max())
    for axes in (left, right):
        axes.grid(axis="x", visible=False)
    figure.legend(*_handles(), loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def _handles():
    lines = [plt.Line2D([], [], color=paint, marker="o", lw=2) for paint in METHODS.values()]
    return lines, list(METHODS)


def total_bits(table: pd.DataFrame) -> Figure:
    """Two-part description of the training labels, network and labels given the network, against labels alone.

    `table`: index what is shown, one bar each; columns network_bits, label_bits, uniform_bits.
    """
    figure, axes = plt.subplots(figsize=(13, 1.2 * len(table) + 2.5))
    total = (table.network_bits + table.label_bits) / table.uniform_bits
    axes.barh(range(len(table)), total, color=[GREEN if share < 1 else BLUE for share in total])
    axes.axvline(1, color="black", lw=3, ls="--")
    for place, (share, row) in enumerate(zip(total, table.itertuples(), strict=True)):
        parts = f"  network {row.network_bits / 1000:,.1f} + labels {row.label_bits / 1000:,.1f} kbit"
        axes.text(max(share, 1), place, parts, va="center", fontsize="small")
    axes.set_yticks(range(len(table)), table.index)
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(0.1, 60 * total.max()), xlabel="total, in units of the labels alone (dashed)")
    axes.set_title("Does the network pay for itself?")
    axes.grid(axis="y", visible=False)
    return figure
