"""Figures of notebook 04: best fit and Occam factor, relevance, Laplace's Gaussian, a small network, gates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy import integrate, stats

from course_lib.classroom.figures.style import COLOURS, MARKERS
from course_lib.theory import evidence

TRUTH = "0.15"  # what was measured, or is exact, is drawn dark
FIT, OCCAM, TOTAL = COLOURS["taylor"], COLOURS["obd"], TRUTH
ONE, OWN = COLOURS["activation_mean"], COLOURS["taylor"]


def two_weights(design: np.ndarray, targets: np.ndarray, alpha: float, beta: float) -> Figure:
    """Prior and posterior of a model with two weights: the Occam factor is what is left of the volume, more or less."""
    weights = evidence.posterior(design, targets, alpha, beta)
    reach = 3 / np.sqrt(alpha)
    grid = np.linspace(-reach, reach, 401)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    off = points - weights.mean
    after = np.exp(-np.einsum("...i,ij,...j", off, weights.precision, off) / 2)
    before = np.exp(-alpha * np.sum(points**2, axis=-1) / 2)
    figure, axes = plt.subplots(figsize=(8, 7))
    levels = np.exp(-np.array([8, 2, 0.5]))  # four, two, one standard deviations
    axes.contour(grid, grid, before, levels, colors=[ONE], linewidths=2.5, linestyles="--")
    axes.contourf(grid, grid, after, [*levels, 1.01], colors=[OWN], alpha=0.3)
    axes.contour(grid, grid, after, levels, colors=[OWN], linewidths=1.5)
    axes.plot([], [], color=ONE, ls="--", lw=2.5, label="before the data: prior")
    axes.plot([], [], color=OWN, lw=6, alpha=0.6, label="after: posterior")
    axes.set(xlabel="first weight", ylabel="second weight", aspect="equal")
    axes.set_title("What the data leave of the prior (1, 2, 4 s.d.)")
    axes.legend(frameon=True, fontsize="small", loc="upper left")
    return figure


def evidence_by_degree(
    x: np.ndarray, targets: np.ndarray, degree: int = 4, log_alpha: float = 0.0, log_beta: float = 1.2
) -> Figure:
    """A polynomial's fit with its error bars; and for degrees up to 12, best fit, Occam factor and their sum.

    `log_alpha`, `log_beta`: to base ten.
    """
    frame = {"left": 0.07, "right": 0.985, "bottom": 0.14, "top": 0.81, "wspace": 0.2}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6), layout="none", gridspec_kw=frame)
    alpha, beta = 10.0**log_alpha, 10.0**log_beta
    _fit(left, x, targets, evidence.posterior(evidence.legendre(x, degree), targets, alpha, beta), degree)
    found = [evidence.log_evidence(evidence.legendre(x, d), targets, alpha, beta) for d in range(13)]
    fit, total = np.array([e.best_fit for e in found]), np.array([e.total for e in found])
    degrees = np.arange(13)
    right.plot(degrees, fit, color=FIT, marker="s", lw=3, ms=8, label="best fit")
    right.vlines(degrees, total, fit, color=OCCAM, lw=7, alpha=0.45, label="Occam factor")
    right.plot(degrees, total, color=TOTAL, marker="o", lw=3, ms=8, label="log evidence")
    right.plot(total.argmax(), total.max(), "*", color=OCCAM, ms=24, zorder=4)
    right.axvline(degree, color="0.6", lw=1.5, ls=":")
    right.set(ylim=(total.max() - 60, fit.max() + 8), xlabel="degree of the polynomial", ylabel="nats")
    right.set_xticks(degrees[::3])
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="x-small", loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=3)
        axes.locator_params(axis="y", nbins=4)
    settings = f"Degree {degree}, α = {alpha:.3g}, β = {beta:.3g}: log evidence {found[degree].total:.1f} nats."
    figure.suptitle(f"{settings} The data ask for degree {total.argmax()}.", fontsize="medium")
    return figure


def _fit(axes, x, targets, weights, degree) -> None:
    grid = np.linspace(-1, 1, 121)
    design = evidence.legendre(grid, degree)
    mean, spread = design @ weights.mean, np.sqrt(np.sum(design @ weights.covariance * design, axis=1))
    axes.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color=FIT, alpha=0.25, lw=0, label="two s.d.")
    axes.plot(grid, mean, color=FIT, lw=3, label="most probable")
    axes.plot(grid, evidence.curve(grid), color=TRUTH, lw=2, ls="--", label="truth")
    axes.plot(x, targets, "o", color=TRUTH, ms=8)
    low, high = targets.min() - 0.7, targets.max() + 0.7
    axes.set(xlabel="x", ylabel="t", ylim=(low, high), xticks=[-1, 0, 1])


def two_judges(table: pd.DataFrame) -> Figure:
    """Log evidence and test error by degree, a line for every draw of the data, each one's choice marked.

    `table`: of `model_choice.polynomials`.
    """
    figure, panels = plt.subplots(1, 2, figsize=(14, 6))
    for _, rows in table.groupby("draw"):
        for axes, column in zip(panels, ("evidence", "test_error"), strict=True):
            axes.plot(rows.degree, rows[column], color=TRUTH, lw=1.5, alpha=0.4)
        for chosen, paint, marker in ((rows.evidence.idxmax(), OWN, "o"), (rows.test_error.idxmin(), OCCAM, "D")):
            for axes, column in zip(panels, ("evidence", "test_error"), strict=True):
                axes.plot(rows.degree[chosen], rows[column][chosen], marker, color=paint, ms=11, alpha=0.8)
    panels[0].set(ylabel="log evidence (nats)", title="The evidence: training data alone")
    panels[1].set(ylabel="mean squared error to the truth", yscale="log", title="The test error")
    for axes in panels:
        axes.set(xlabel="degree of the polynomial")
    panels[1].plot([], [], "o", color=OWN, ms=11, label="chosen by evidence")
    panels[1].plot([], [], "D", color=OCCAM, ms=11, label="least test error")
    panels[1].legend(frameon=True, fontsize="small", loc="upper right")
    return figure


def occam_and_data(table: pd.DataFrame) -> Figure:
    """Logarithm of the Occam factor against the number of data, with BIC's slope, a line for every k.

    `table`: of `model_choice.occam_factors`.
    """
    figure, axes = plt.subplots(figsize=(11, 6))
    for (k, rows), paint, marker in zip(table.groupby("k"), (FIT, OCCAM, ONE), "osD", strict=False):
        axes.plot(rows.n, rows.occam, marker=marker, color=paint, lw=3, ms=9, label=f"k = {k} weights")
        line = rows.occam.iloc[-1] - k / 2 * np.log(rows.n / rows.n.iloc[-1])
        axes.plot(rows.n, line, color="0.4", lw=1.5, ls="--")
    axes.plot([], [], color="0.4", lw=1.5, ls="--", label="slope of BIC, −k/2 log N")
    axes.set(xscale="log", xlabel="N data", ylabel="log of the Occam factor (nats)")
    axes.set_title("Every weight costs half a log N")
    axes.legend(frameon=True, fontsize="small")
    return figure


def relevance(noise: float = 0.5, irrelevant: int = 4, seed: int = 0) -> Figure:
    """Weights of inputs that matter and inputs that do not, with one alpha for all and with an alpha for each.

    `irrelevant`: how many inputs have nothing to do with the target; the first three have.
    """
    x, targets, inputs = evidence.some_relevant(60, irrelevant, noise, seed)
    figure, panels = plt.subplots(1, 2, figsize=(14, 6), sharey=True, layout="none")
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.14, top=0.85, wspace=0.06)
    names = ("one α for all", "an α for every input")
    for axes, own, paint, name in zip(panels, (False, True), (ONE, OWN), names, strict=True):
        found = evidence.fixed_point(x, targets, inputs if own else None, tolerance=1e-3, steps=100)
        size = np.sqrt(np.bincount(inputs, found.weights.mean**2))
        gone = np.bincount(inputs, found.alpha > evidence.GONE) > 0
        axes.bar(np.arange(len(size)), size, color=[paint] * 3 + ["0.6"] * irrelevant)
        axes.plot(np.flatnonzero(gone), 0 * np.flatnonzero(gone), "x", color=OCCAM, ms=13, mew=3, clip_on=False)
        total = evidence.log_evidence(x, targets, found.alpha, found.beta).total
        axes.set_title(f"{name}: {np.sum(~gone)} of {len(size)} stay, log evidence {total:.1f}", fontsize="small")
        axes.set(xlabel="input (grey: irrelevant; x: pruned)", ylim=(0, 1.2), yticks=[0, 0.5, 1])
        axes.set_xticks(range(0, len(size), 2), range(1, len(size) + 1, 2))
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("size of its weights")
    figure.suptitle(f"Noise {noise:.2g}: which inputs does the target depend on?")
    return figure


def laplace_coin(tosses: int = 5, share_of_heads: float = 0.8, log_alpha: float = -1.0) -> Figure:
    """The posterior of a coin's logit and Laplace's Gaussian at its peak, with the evidence of both.

    `log_alpha`: precision of the prior, to base ten.
    """
    heads, alpha = round(share_of_heads * tosses), 10.0**log_alpha
    peak, precision = evidence.coin_peak(heads, tosses, alpha)
    lowest = evidence.coin(peak, heads, tosses, alpha)
    grid = peak + np.linspace(-6, 6, 241) / np.sqrt(precision)
    exact = np.exp(lowest - evidence.coin(grid, heads, tosses, alpha))
    nearly = np.exp(-precision * (grid - peak) ** 2 / 2)
    wide = np.linspace(-8, 8, 4001) / np.sqrt(alpha)
    total = np.log(integrate.trapezoid(np.exp(lowest - evidence.coin(wide, heads, tosses, alpha)), wide)) - lowest
    guess = np.log(2 * np.pi / precision) / 2 - lowest
    frame = {"left": 0.09, "right": 0.97, "bottom": 0.14, "top": 0.86}
    figure, axes = plt.subplots(figsize=(11, 6), layout="none", gridspec_kw=frame)
    axes.fill_between(grid, exact, color=TRUTH, alpha=0.2, lw=0)
    axes.plot(grid, exact, color=TRUTH, lw=3, label=f"posterior: log evidence {total:.3f}")
    axes.plot(grid, nearly, color=OCCAM, lw=3, ls="--", label=f"Laplace: log evidence {guess:.3f}")
    axes.plot(grid, np.exp(-alpha * (grid - 0) ** 2 / 2), color=ONE, lw=2, ls=":", label="prior")
    axes.set(xlabel="logit of the coin", ylabel="density, highest point 1", ylim=(0, 1.35))
    axes.set_title(f"{heads} heads in {tosses} tosses, α = {alpha:.3g}")
    axes.legend(frameon=True, fontsize="small", loc="upper right")
    return figure


def network_evidence(table: pd.DataFrame, alphas: str = "three", copies: bool = True) -> Figure:
    """Log evidence and test error of small networks by hidden units, a dot for every random start.

    Args:
        table: of `model_choice.networks`.
        copies: count the J! 2^J copies of a peak, or one peak alone.
    """
    rows = table[table.alphas == alphas]
    values = rows.evidence if copies else rows.one_peak
    frame = {"left": 0.085, "right": 0.985, "bottom": 0.15, "top": 0.84, "wspace": 0.26}
    figure, panels = plt.subplots(1, 2, figsize=(14, 6), layout="none", gridspec_kw=frame)
    ticks = [2, *range(5, rows.hidden.max() + 1, 5)]
    shown = ((values, OWN, "o", "max"), (rows.test_error, OCCAM, "D", "min"))
    for axes, (column, paint, marker, best) in zip(panels, shown, strict=True):
        axes.plot(rows.hidden, column, marker, color=paint, ms=10, alpha=0.6)
        line = column.groupby(rows.hidden).agg(best)
        axes.plot(line.index, line, color=paint, lw=2)
        at = line.idxmax() if best == "max" else line.idxmin()
        axes.plot(at, line[at], "*", color=TRUTH, ms=24, zorder=4)
        axes.set_xlabel("hidden units")
        axes.set_xticks(ticks)
    low = np.sort(values)[len(values) // 4]
    panels[0].set(ylabel="log evidence (nats)", title="Log evidence", ylim=(low - 20, values.max() + 15))
    panels[1].set(ylabel="test error (r.m.s.)", yscale="log", title="Test error")
    _plain(panels[1].yaxis, rows.test_error)
    counted = "all copies of a peak" if copies else "one peak"
    figure.suptitle(f"{alphas} α, {counted}: a dot is a network, a star the best")
    return figure


def _plain(axis, values) -> None:
    """A few ticks 1, 2, 5 on a logarithmic axis: the usual ones take longer to draw than all the rest."""
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    ticks = np.outer(10.0 ** np.arange(low, high + 1), [1, 2, 5]).ravel()
    ticks = [tick for tick in ticks if values.min() / 1.3 < tick < values.max() * 1.3]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def saliencies(predicted: np.ndarray, measured: np.ndarray, weights: np.ndarray) -> Figure:
    """What OBD predicts of M when one weight goes against what M does; and against the size of the weight.

    `predicted`, `measured`: (k,) nats; `weights`: (k,).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.5), sharey=True)
    left.plot(predicted, measured, "D", color=OCCAM, ms=10, alpha=0.7)
    ends = np.array([min(predicted.min(), measured.min()), max(predicted.max(), measured.max())])
    left.plot(ends, ends, color="0.4", lw=1.5, label="predicted = measured")
    left.set(xscale="log", yscale="log", xlabel="OBD: A w² / 2 (nats)", ylabel="measured rise of M (nats)")
    left.legend(frameon=True, fontsize="small")
    right.plot(np.abs(weights), measured, "P", color=COLOURS["min_weight"], ms=11, alpha=0.7)
    right.set(xscale="log", xlabel="size of the weight")
    for axes, x, name in ((left, predicted, "OBD"), (right, np.abs(weights), "Size")):
        axes.set_title(f"{name}: Spearman {stats.spearmanr(x, measured).statistic:.2f}")
    return figure


def gate_widths(curvature: dict[str, np.ndarray], images: int = 5000, alpha: float = 1.0) -> Figure:
    """How well N images determine each gate, against OBD; and how many gates pass the relevance rule, by layer.

    Args:
        curvature: {layer: (C,)}, mean second derivative of the loss by each gate: criterion 'obd'.
        images: N.
        alpha: precision of a gate before the data.
    """
    frame = {"left": 0.085, "right": 0.985, "bottom": 0.15, "top": 0.89, "wspace": 0.22}
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), layout="none", gridspec_kw=frame)
    h = np.concatenate(list(curvature.values()))
    left.plot(h, (images * h + alpha) ** -0.5, ".", color=OCCAM, ms=8)
    left.axvline(1 / images, color=TRUTH, lw=2, ls="--", label="N h = 1")
    left.axhline(alpha**-0.5, color=ONE, lw=2, ls=":", label="before the data")
    left.set(xscale="log", yscale="log", xlabel="OBD's h: curvature by the gate", ylabel="σ of the gate after N images")
    left.set(title="Where OBD is large, the gate is known", ylim=(0.01, 1.5))
    left.set_xticks(10.0 ** np.arange(np.ceil(np.log10(h[h > 0].min())), np.log10(h.max()), 2))
    left.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    left.minorticks_off()
    left.legend(frameon=True, fontsize="small", loc="lower left")
    at = np.arange(1, len(curvature) + 1)
    right.bar(at, [len(part) for part in curvature.values()], color="0.85", label="all maps")
    right.bar(at, [np.sum(images * part > 1) for part in curvature.values()], color=OCCAM, label="N h > 1")
    right.set(xlabel="convolution, from input to output", ylabel="feature maps", xticks=at[::4])
    right.set_title(f"N = {images:,}: {np.mean(images * h > 1):.0%} of the gates are relevant")
    right.legend(frameon=True, fontsize="small", loc="upper left")
    right.grid(axis="x", visible=False)
    return figure


def relevance_of_gates(table: pd.DataFrame, whole: float, gates: str = "anew") -> Figure:
    """Accuracy with one layer pruned at a time, by who chose the maps: `table` of `gate_relevance.compare`.

    Args:
        whole: accuracy with nothing closed.
        gates: 'anew', those that stay make up for the others, or 'open', they stay at one.
    """
    rows = table[table.gates == gates]
    size = rows.drop_duplicates("layer").set_index("layer")
    labels = [f"{name}\n{row.kept} of {row.maps}" for name, row in size.iterrows()]
    frame = {"left": 0.09, "right": 0.76, "bottom": 0.17, "top": 0.9}
    figure, axes = plt.subplots(figsize=(13, 6.5), layout="none", gridspec_kw=frame)
    paints = {"relevance": OWN, "OBD": OCCAM, "oracle": TRUTH}
    marks = {"relevance": "o", "OBD": MARKERS["obd"], "oracle": "s"}
    axes.axhline(whole, color="0.4", lw=2, ls="--", label="nothing closed")
    for who, part in rows.groupby("chosen_by", sort=False):
        looks = {"color": paints.get(who, COLOURS["random"]), "marker": marks.get(who, MARKERS["random"])}
        axes.plot(labels, part.accuracy, lw=2, ms=13, label=who, **looks)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(ylim=(0, 1.02), ylabel="accuracy, no fine-tuning", xlabel="layer, and how many of its maps stay")
    kind = "the others' gates set anew" if gates == "anew" else "the others' gates left open"
    axes.set_title(f"One layer pruned at a time, {kind}")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="maps chosen by", fontsize="small")
    return figure
