"""Figures of notebook 02: codes, the precision of a parameter, polynomials, and the description length of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from course_lib.classroom.figures.style import COLOURS
from course_lib.theory import description_length as theory

MODEL, DATA, MASK = COLOURS["taylor"], COLOURS["obd"], COLOURS["activation_mean"]
TOTAL, NEUTRAL = "0.15", "0.5"


def word_intervals(codes: Mapping[str, Sequence[Sequence[int]]]) -> Figure:
    """Every word of a prefix code as the piece of the unit interval that begins with it: {name of the code: words}."""
    figure, axes = plt.subplots(figsize=(13, 1.6 + 1.3 * len(codes)))
    paints = [MODEL, DATA]
    for row, words in enumerate(codes.values()):
        for i, word in enumerate(words):
            left, width = sum(bit * 2.0 ** -(at + 1) for at, bit in enumerate(word)), 2.0 ** -len(word)
            axes.barh(row, width, left=left, height=0.8, color=paints[i % 2], alpha=0.75, edgecolor="white")
            if width >= 1 / 32:
                text = "".join(map(str, word))
                axes.text(left + width / 2, row, text, ha="center", va="center", rotation=0 if width > 0.06 else 90)
    axes.set(xlim=(0, 1), xlabel="the unit interval, read as a binary fraction", yticks=range(len(codes)))
    axes.set_yticklabels(list(codes))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_title("Every word owns a piece of the unit interval, as long as its probability")
    return figure


def coin_precision(labels: int = 1000, share_of_ones: float = 0.3) -> Figure:
    """What a coin's parameter and its rounding cost, against the step, with the step that the derivation calls best.

    The dots are two-part codes, averaged over all shares within a twentieth of `share_of_ones`.
    """
    near = np.arange(
        max(1, round(labels * (share_of_ones - 0.05))), min(labels, round(labels * (share_of_ones + 0.05)))
    )
    near = near[:: max(1, len(near) // 200)]
    cells = np.unique(np.geomspace(2, 512, 40).astype(int))
    least = theory.coin_bits(labels, near, near / labels)
    rounding = [np.mean(theory.coin_two_part(labels, near, m)[1] - least) for m in cells]
    information = 1 / (share_of_ones * (1 - share_of_ones))
    steps = np.geomspace(1 / 512, 1 / 2, 100)
    law, digits = theory.precision_bits(steps, labels, information), np.log2(1 / steps)
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="none", gridspec_kw={"left": 0.1, "bottom": 0.14, "top": 0.9})
    axes.plot(np.log2(steps), digits, color=MODEL, lw=3, label="to tell the parameter: log2(1/step)")
    axes.plot(np.log2(steps), law - digits, color=DATA, lw=3, label="for rounding it: n I step² / (24 ln 2)")
    axes.plot(np.log2(steps), law, color=TOTAL, lw=3, label="sum")
    axes.plot(-np.log2(cells), np.log2(cells) + rounding, "o", color=TOTAL, ms=6, label="measured two-part codes")
    best = theory.best_step(labels, information)
    axes.axvline(np.log2(best), color=NEUTRAL, ls="--", lw=2)
    # A logarithmic axis by hand: matplotlib's own, with its minor ticks, takes too long for a slider.
    axes.set(xlim=(-9.2, -0.8), ylim=(0, 16), xlabel="step of the parameter", ylabel="bits", yticks=range(0, 17, 4))
    axes.set_xticks([-9, -7, -5, -3, -1], ["1/512", "1/128", "1/32", "1/8", "1/2"])
    axes.set_title(f"{labels:,} labels, {share_of_ones:.0%} ones: the best step is about 1/{1 / best:.0f}")
    axes.legend(frameon=True, fontsize="small", loc="upper center", framealpha=0.9)
    return figure


def price_of_a_parameter(prices: pd.DataFrame) -> Figure:
    """Bits paid for not knowing the parameter, against the number of labels: a column a code; and half of log2 n."""
    figure, axes = plt.subplots(figsize=(11, 6))
    for (name, column), paint, marker in zip(prices.items(), (MODEL, DATA, MASK), "os^", strict=False):
        axes.plot(prices.index, column, marker=marker, color=paint, lw=2.5, ms=9, label=name)
    n = prices.index.to_numpy(dtype=float)
    axes.plot(n, np.log2(n) / 2, color=TOTAL, ls="--", lw=3, label="½ log2 n")
    axes.text(0.98, 0.04, "a float32 has 32", transform=axes.transAxes, ha="right", color="0.3")
    axes.set(xscale="log", ylim=(0, None), xlabel="labels n", ylabel="bits for the parameter")
    axes.set_title("A parameter is worth half a bit for every doubling of the data")
    axes.legend(frameon=False, loc="upper left")
    return figure


# -------------------------------------------------------------------------------------------------------- polynomials


def polynomial_lengths(bits: np.ndarray, test_errors: np.ndarray) -> Figure:
    """Description length by degree and precision, and the test error of the unrounded fit by degree.

    `bits`: (degrees, precisions), both from 0 on. `test_errors`: (degrees,) root mean square errors on new points.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.5), gridspec_kw={"width_ratios": (3, 2)})
    image = left.imshow(bits.T, origin="lower", aspect="auto", cmap="cividis_r", norm=LogNorm())
    degree, precision = np.unravel_index(bits.argmin(), bits.shape)
    left.plot(degree, precision, "*", ms=26, color="white", mec="black")
    left.set(xlabel="degree", ylabel="precision (binary digits)", title=f"Least at degree {degree}, {precision} digits")
    left.set_xticks(range(0, len(bits), 2))
    left.grid(visible=False)
    ticks = [t for t in (200, 250, 300, 350, 400, 500, 600) if bits.min() <= t <= bits.max()]
    bar = figure.colorbar(image, ax=left, label="description length (bits)", ticks=ticks)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    right.plot(test_errors, "o-", color=DATA, lw=3)
    right.axvline(degree, color=NEUTRAL, ls="--", lw=2)
    right.set(xlabel="degree", ylabel="error on new points (root mean square)", yscale="log")
    right.set_xticks(range(0, len(bits), 2))
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.set_title("The degree it chooses, on new points")
    return figure


def polynomial_fit(x: np.ndarray, y: np.ndarray, resolution: float, degree: int, precision: int) -> Figure:
    """The data with the polynomial as it is told at this precision; and the two parts of the code for every degree."""
    lengths = [theory.polynomial_code(x, y, k, precision, resolution) for k in range(13)]
    told, grid = lengths[degree], np.linspace(-1, 1, 200)
    frame = {"left": 0.08, "right": 0.98, "bottom": 0.14, "top": 0.88, "wspace": 0.22}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="none", gridspec_kw=frame)
    left.plot(x, y, "o", color=NEUTRAL, ms=6)
    left.plot(grid, theory.design(grid, degree) @ told.coefficients, color=MODEL, lw=3)
    margin = 0.4 * np.ptp(y)
    left.set(xlabel="x", ylabel="y", ylim=(y.min() - margin, y.max() + margin))
    left.set_title(f"Degree {degree}, {precision} binary digits: {told.bits:.0f} bits")
    parts = np.array([[code.parameter_bits, code.data_bits] for code in lengths])
    right.stackplot(
        range(13), *parts.T, colors=(MODEL, DATA), labels=("parameters", "data, given them"), alpha=0.8, step="mid"
    )
    right.plot(degree, parts[degree].sum() + 8, "v", color=TOTAL, ms=12)
    right.set(xlabel="degree", ylabel="bits", ylim=(0, 1.45 * parts.sum(1).max()), xticks=range(0, 13, 2))
    right.set_title(f"Least at degree {parts.sum(1).argmin()}")
    right.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    left.locator_params(nbins=5)
    right.locator_params(axis="y", nbins=5)
    return figure


# ----------------------------------------------------------------------------------------------------------- networks


def label_codes(table: pd.DataFrame, uniform: float) -> Figure:
    """Ways to tell the same labels: `table`, by name, has model_bits and label_bits; `uniform`: bits without."""
    total = table.sum(axis=1)
    figure, axes = plt.subplots(figsize=(13, 1.5 + 0.85 * len(table)))
    paints = [MODEL if model > 0 else DATA for model in table.model_bits]
    axes.barh(table.index, total, color=paints)
    for row, (whole, model, labels) in enumerate(zip(total, table.model_bits, table.label_bits, strict=True)):
        text = f"{whole:,.0f}" + (f" = {model:,.0f} + {labels:,.0f}" if model > 0 else "")
        axes.text(1.05 * whole, row, text, va="center", bbox={"color": "white", "pad": 0})
    axes.axvline(uniform, color=TOTAL, ls="--", lw=2)
    axes.set(xscale="log", xlim=(total.min() / 2, total.max() * 12), xlabel="bits = model + labels (logarithmic)")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title("The same labels, told in several ways (dashed: the uniform code)")
    return figure


def prequential(ends: Sequence[int], bits: Mapping[str, np.ndarray], classes: int) -> Figure:
    """Bits a label in each block of a prequential code, and their sum so far: {name: (blocks,)}; against uniform."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6))
    paints, sizes = (MODEL, DATA, MASK), np.diff([0, *ends])
    for (name, each), paint, marker in zip(bits.items(), paints, "os^", strict=False):
        left.step([0, *ends], [each[0] / sizes[0], *(each / sizes)], color=paint, lw=3, label=name)
        right.plot(ends, np.cumsum(each) / 1000, marker=marker, ms=6, color=paint, lw=3, label=name)
    left.axhline(np.log2(classes), color=TOTAL, ls="--", lw=2)
    right.plot([0, ends[-1]], [0, ends[-1] * np.log2(classes) / 1000], color=TOTAL, ls="--", lw=2, label="uniform")
    left.set(xlabel="labels told", ylabel="bits for the next label", ylim=(0, None), title="What the next label costs")
    right.set(xlabel="labels told", ylabel="thousand bits", title="What all of them cost so far")
    right.legend(frameon=False, fontsize="small")
    return figure


def total_lengths(curves: Mapping[str, pd.DataFrame], uniform: float) -> Figure:
    """Description length against the share of maps left, a curve a code, with its minimum; test error below.

    `curves`: {name: table with share, bits and test_error}. `uniform`: bits of the labels without any model.
    """
    figure, (top, low) = plt.subplots(2, 1, figsize=(15, 7.5), sharex=True, height_ratios=(3, 2))
    paints = (COLOURS["min_weight"], MODEL, DATA, MASK, COLOURS["activation_std"])
    for (name, table), paint, marker in zip(curves.items(), paints, "osD^v", strict=False):
        best = table.iloc[table.bits.argmin()]
        top.plot(table.share, table.bits, marker=marker, color=paint, lw=3, ms=7, label=name)
        top.plot(best.share, best.bits, marker="*", color=paint, ms=26, mec="black", zorder=4)
        low.plot(table.share, table.test_error, marker=marker, color=paint, lw=3, ms=7)
        low.plot(best.share, best.test_error, marker="*", color=paint, ms=26, mec="black", zorder=4)
    top.axhline(uniform, color=TOTAL, ls="--", lw=2, label="uniform code: no model")
    top.set(yscale="log", ylabel="bits, model and labels", title="How far to prune? Stars: the shortest description")
    low.set(ylabel="test error", xlabel="share of the feature maps left", xlim=(1.03, -0.03), ylim=(0, 1))
    for axis in (low.xaxis, low.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles, labels = top.get_legend_handles_labels()
    figure.legend(handles, [fill(label, 22) for label in labels], loc="outside right upper", frameon=False)
    return figure


def pruning_code(tables: Mapping[str, pd.DataFrame], uniform: float, run: str, precision: int) -> Figure:
    """The parts of a two-part code at one precision along a pruning run, and the test error.

    `tables`: {name of the run: rows with share, precision, mask_bits (if any), model_bits, label_bits, test_error}.
    """
    chosen = tables[run]
    table = chosen[chosen.precision == precision].sort_values("share")
    frame = {"left": 0.12, "right": 0.97, "bottom": 0.12, "top": 0.92, "hspace": 0.12, "height_ratios": (3, 2)}
    figure, (top, low) = plt.subplots(2, 1, figsize=(10, 6.5), sharex=True, layout="none", gridspec_kw=frame)
    parts = {"which maps": table.get("mask_bits", 0 * table.share), "weights": table.model_bits}
    parts |= {"labels, given the network": table.label_bits}
    top.stackplot(table.share, *(part / 1000 for part in parts.values()), colors=(MASK, MODEL, DATA), labels=parts)
    top.axhline(uniform / 1000, color=TOTAL, ls="--", lw=2, label="uniform code")
    total = sum(parts.values())
    best = total.idxmin()
    top.plot(table.share[best], total[best] / 1000, "*", ms=24, color="white", mec="black", clip_on=False, zorder=4)
    top.set(ylabel="thousand bits", ylim=(0, max(1.6 * uniform / 1000, 1.3 * total.min() / 1000)))
    top.legend(frameon=True, fontsize="small", loc="upper right", ncols=2)
    top.set_title(f"{run}, precision {precision}: least at {table.share[best]:.0%} of the maps")
    low.plot(table.share, table.test_error, "o-", color=TOTAL, lw=3)
    low.axvline(table.share[best], color=NEUTRAL, ls="--", lw=2)
    low.set(ylabel="test error", xlabel="share of the feature maps left", xlim=(1, 0), ylim=(0, 1))
    low.set(yticks=[0, 0.5, 1], xticks=[1, 0.75, 0.5, 0.25, 0])
    top.locator_params(axis="y", nbins=4)
    for axis in (low.xaxis, low.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
