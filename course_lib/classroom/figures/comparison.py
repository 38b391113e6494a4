"""Figures of notebook 08: criteria beside each other, with error bars, by layer, mixed, and on the leaderboard."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from course_lib import ranking
from course_lib.classroom.figures.style import COLOURS, MARKERS, colour, layer_labels, title
from course_lib.feature_maps import Scores

TRUTH = "0.15"
HEADINGS = {
    "mean_of_layers": "mean of layers",
    "all_layers": "all layers, raw",
    "all_layers_l2": "all layers, l2",
}
WAYS = {"none": "raw", "l1": "l1", "l2": "l2", "minmax": "min-max"}
SPREAD = ("linear_logits", "taylor", "obd", "activation_mean", "min_weight", "random")
HEAT = {"annot": True, "fmt": ".2f", "cmap": "vlag_r", "vmin": -1, "vmax": 1, "cbar": False, "linewidths": 2}


def table_by_layer(ours: pd.DataFrame, paper: pd.DataFrame, papers: str = "the paper: VGG-16 on Birds-200") -> Figure:
    """Correlation with the oracle within each layer, ours above the paper's Table 3: criteria by layers.

    `paper`: index the criterion, a column a layer; of it the criteria are shown that are among ours.
    """
    tables = (ours, paper.reindex([name for name in ours.index if name in paper.index]))
    rows = [len(table) for table in tables]
    figure, panels = plt.subplots(2, 1, figsize=(15, 8.5), sharex=True, height_ratios=rows)
    for axes, table, heading in zip(panels, tables, ("this run", papers), strict=True):
        labels = layer_labels(list(table.columns))
        seaborn.heatmap(table.rename(index=title), ax=axes, xticklabels=labels, **HEAT)
        axes.set(title=heading, xlabel="", ylabel="")
        axes.tick_params(axis="x", rotation=0, labelsize=14)
        axes.tick_params(axis="y", labelsize=15)
        axes.grid(visible=False)
    figure.suptitle("Spearman correlation with the oracle (absolute), layer by layer")
    return figure


def table_of_normalizations(
    ours: pd.DataFrame, paper: pd.DataFrame, papers: str = "the paper: VGG-16 on Birds-200"
) -> Figure:
    """Correlation over all layers after each normalisation, ours beside the paper's Table 3."""
    figure, panels = plt.subplots(1, 2, figsize=(15, 8), sharey=True)
    for axes, table, heading in zip(panels, (ours, paper.reindex(ours.index)), ("this run", papers), strict=True):
        labels = [WAYS[how] for how in table.columns]
        seaborn.heatmap(table.rename(index=title), ax=axes, xticklabels=labels, **HEAT)
        axes.set(title=heading, xlabel="", ylabel="")
        axes.grid(visible=False)
    figure.suptitle("All layers together: what the normalisation does to the correlation")
    return figure


def table3_over_seeds(layers: pd.DataFrame, table: pd.DataFrame, heading: str = "Recorded") -> Figure:
    """Both parts of Table 3 with error bars: mean and range over networks, one a seed, of a few criteria.

    Args:
        layers: criterion, layer, spearman, seed; a criterion that is not there is left out.
        table: criterion, seed, and all_layers, all_layers_l1, all_layers_l2, all_layers_minmax.
    """
    shown = [name for name in SPREAD if name in set(layers.criterion) & set(table.criterion)]
    order = list(dict.fromkeys(layers.layer))
    columns = ["all_layers" if how == "none" else f"all_layers_{how}" for how in WAYS]
    frame = {"left": 0.07, "right": 0.99, "bottom": 0.2, "top": 0.82, "wspace": 0.08, "width_ratios": (5, 3)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 7), sharey=True, layout="none", gridspec_kw=frame)
    for at, name in enumerate(shown):
        by_layer = layers[layers.criterion == name].groupby("layer").spearman.agg(["mean", "min", "max"]).loc[order]
        ways = table.loc[table.criterion == name, columns]
        aside = (at - (len(shown) - 1) / 2) * 0.13
        for axes, found in ((left, by_layer), (right, ways.agg(["mean", "min", "max"]).T)):
            bars = (found["mean"] - found["min"], found["max"] - found["mean"])
            where, look = np.arange(len(found)) + aside, {"color": colour(name), "marker": MARKERS[name], "ms": 9}
            axes.errorbar(where, found["mean"], yerr=bars, ls="none", capsize=3, label=title(name), **look)
    left.set_xticks(range(len(order)), layer_labels(order), fontsize=14, rotation=45)
    left.set(title="within each layer", ylabel="Spearman correlation with the oracle")
    right.set_xticks(range(len(WAYS)), WAYS.values())
    right.set(title="all layers together")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=len(shown), fontsize=14)
    figure.suptitle(f"{heading}: mean and range over {table.seed.nunique()} networks")
    return figure


def error_bars(
    ours: pd.DataFrame,
    spread: pd.DataFrame,
    recorded: pd.DataFrame,
    paper: pd.DataFrame,
    column: str = "mean_of_layers",
    ceiling: float | None = None,
) -> Figure:
    """Each criterion's correlation: this run with its bootstrap interval, the recorded networks, the paper's number.

    Args:
        ours, paper: as `comparison.table1`.
        spread: of `comparison.intervals`.
        recorded: criterion, seed and the columns of `table1`: one network a seed.
        ceiling: where a line is drawn that a criterion without noise would reach; of the mean of layers only.
    """
    frame = {"left": 0.26, "right": 0.98, "bottom": 0.24, "top": 0.92}
    figure, axes = plt.subplots(figsize=(11, 7), layout="none", gridspec_kw=frame)
    names = list(ours[column].sort_values().index)
    y = np.arange(len(names))
    low, high = (spread.loc[names, (side, column)] for side in ("low", "high"))
    axes.hlines(y, low, high, color=[colour(name) for name in names], lw=8, alpha=0.45)
    axes.scatter(ours.loc[names, column], y, s=130, color=[colour(name) for name in names], zorder=4, label="this run")
    seen = recorded[recorded.criterion.isin(names)]
    at = [names.index(name) + 0.28 for name in seen.criterion]
    axes.scatter(seen[column], at, marker="|", s=260, color=TRUTH, lw=2.5, label="recorded, one network each")
    axes.scatter(
        paper.reindex(names)[column], y - 0.28, marker="D", s=70, fc="none", ec=TRUTH, lw=2, label="the paper, one run"
    )
    if ceiling is not None and column == "mean_of_layers":
        axes.axvline(ceiling, color=TRUTH, ls="--", lw=2, label="ceiling set by the oracle's noise")
    axes.axvline(0, color="0.6", lw=1.5)
    axes.set_yticks(y, [title(name) for name in names])
    axes.set(
        xlim=(-0.5, 1), xticks=(-0.5, 0, 0.5, 1), xlabel=f"Spearman correlation with the oracle: {HEADINGS[column]}"
    )
    axes.set_title("How sure is a place in Table 1? (bars: nine draws in ten)")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def levels(kinds: Mapping[str, float], blind: Collection[str]) -> Figure:
    """Correlations over all layers as bars; grey are those of `blind`, which know nothing of single maps."""
    figure, axes = plt.subplots(figsize=(12, 1.5 + 0.55 * len(kinds)))
    paints = ["0.6" if name in blind else COLOURS["taylor"] for name in kinds]
    bars = axes.barh(list(kinds), list(kinds.values()), color=paints)
    axes.bar_label(bars, fmt="%+.2f", padding=6)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=1)
    axes.margins(x=0.18)
    axes.set(xlabel="Spearman correlation with the oracle, all layers", title="Grey: knows nothing of single maps")
    axes.grid(axis="y", visible=False)
    return figure


def ranks_against_oracle(
    scores: Mapping[str, Scores], truth: Scores, criterion: str = "taylor", normalization: str = "l2"
) -> Figure:
    """Median and middle half of the ranks that each layer's maps have among all maps, by the oracle and a criterion.

    Rank 1, the most important, is at the top. Figures 2 and 10 of the paper.
    """
    known = {name: ~t.isnan() for name, t in truth.items()}
    kept = ranking.normalize(scores[criterion], normalization)
    both = {
        "oracle (absolute)": {name: truth[name][k].abs() for name, k in known.items()},
        f"{title(criterion)}, {WAYS[normalization]}": {name: kept[name][k] for name, k in known.items()},
    }
    frame = {"left": 0.13, "right": 0.98, "bottom": 0.15, "top": 0.83}
    figure, axes = plt.subplots(figsize=(12, 7), layout="none", gridspec_kw=frame)
    x = np.arange(len(truth))
    for (label, values), paint, shift in zip(both.items(), (TRUTH, colour(criterion)), (-0.12, 0.12), strict=True):
        ranks = pd.Series(torch.cat(list(values.values())).numpy()).rank(ascending=False).to_numpy()
        parts = np.split(ranks, np.cumsum([len(v) for v in values.values()])[:-1])
        low, middle, high = np.transpose([np.quantile(part, [0.25, 0.5, 0.75]) for part in parts])
        axes.vlines(x + shift, low, high, color=paint, lw=7, alpha=0.4)
        axes.plot(x + shift, middle, marker="o", ms=9, lw=2.5, color=paint, label=label)
    axes.invert_yaxis()
    axes.set_xticks(x, [label.removeprefix("conv") for label in layer_labels(list(truth))])  # turned text is slow
    axes.set(xlabel="layer", ylabel=f"rank among {len(ranks):,} maps\n(1: most important)")
    axes.locator_params(axis="y", nbins=5)
    figure.suptitle("Which layers does it hold dear? (median, middle half)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    axes.grid(axis="x", visible=False)
    return figure


def mixing(curves: pd.DataFrame, partner: str = "activation_mean", column: str = "all_layers") -> Figure:
    """Correlation against the partner's weight in (1 - weight) Taylor + weight partner, the best weight marked.

    `curves`: of `comparison.mixing`. The best is chosen on the first kind of pictures and marked on each.
    """
    rows = curves[curves.partner == partner]
    kinds = list(rows.pictures.unique())
    chosen = rows[rows.pictures == kinds[0]].set_index("weight")[column].idxmax()
    frame = {"left": 0.12, "right": 0.97, "bottom": 0.14, "top": 0.91}
    figure, axes = plt.subplots(figsize=(11, 6.5), layout="none", gridspec_kw=frame)
    for kind, style in zip(kinds, ("-", "--"), strict=False):
        curve = rows[rows.pictures == kind].set_index("weight")[column]
        gain = curve[chosen] - curve.iloc[0]
        label = f"{kind}: {gain:+.3f} at weight {chosen:g}"
        axes.plot(curve.index, curve, ls=style, lw=3, color=colour(partner), label=label)
        axes.plot(chosen, curve[chosen], marker="*", ms=22, color=colour(partner), mec="black", zorder=4)
    what = "all layers, l2" if column == "all_layers" else "mean of layers"
    axes.set(xlabel=f"weight of {title(partner)}  (0: Taylor alone)", ylabel=f"Spearman, {what}")
    axes.set_title(f"Taylor mixed with {title(partner)}")
    axes.legend(loc="lower left", fontsize="small")
    return figure


def product_and_factors(taylor: Scores, activation: Scores, gradient: Scores, share: float = 0.1) -> Figure:
    """Ranks by Taylor against ranks by activation and by gradient, of the maps with the lowest Taylor scores.

    All l2-normalised, over all layers: Figure 14 of the paper. `share`: of the maps that are shown, 0 to 1.
    """
    a, *factors = (torch.cat(list(ranking.normalize(s, "l2").values())) for s in (taylor, activation, gradient))
    few = a.argsort()[: max(2, round(share * len(a)))]
    frame = {"left": 0.07, "right": 0.99, "bottom": 0.12, "top": 0.82, "wspace": 0.12}
    figure, panels = plt.subplots(1, 2, figsize=(14, 6.5), layout="none", gridspec_kw=frame)
    x = pd.Series(a[few].numpy()).rank(pct=True)
    paints = (COLOURS["activation_mean"], COLOURS["obd"])
    for axes, factor, name, paint in zip(panels, factors, ("mean activation", "mean |gradient|"), paints, strict=True):
        y = pd.Series(factor[few].numpy()).rank(pct=True)
        axes.scatter(x, y, s=32, color=paint, alpha=0.6, lw=0)
        axes.set(xlabel="rank by Taylor", ylabel=f"rank by {name}", xticks=[], yticks=[])
        axes.set_title(f"{name}: Spearman {x.corr(y):.2f}")
        axes.grid(visible=False)
    figure.suptitle(f"The lowest {share:.0%} by Taylor, {len(few)} maps: which factor made them low?")
    return figure


def leaderboard(table: pd.DataFrame, own: str = "my_criterion") -> Figure:
    """`table` of `comparison.leaderboard` as bars, your criterion in black."""
    columns = {
        "mean_of_layers": "mean of layers",
        "all_layers_l2": "all layers, l2",
        "accuracy": "accuracy, half the maps\n(the others' are recorded)",
    }
    figure, panels = plt.subplots(1, 3, sharey=True, figsize=(15, 7))
    y = np.arange(len(table))
    for axes, (column, heading) in zip(panels, columns.items(), strict=True):
        bars = axes.barh(y, table[column].fillna(0), color=[colour(name) for name in table.index])
        form = "{:.0%}" if column == "accuracy" else "{:.2f}"
        texts = ["" if np.isnan(value) else form.format(value) for value in table[column]]
        axes.bar_label(bars, texts, padding=5, fontsize="small")
        axes.set(title=heading, xlim=(min(-0.12, table[column].min() - 0.3), 1.12), xticks=[0, 0.5, 1])
        axes.axvline(0, color="black", lw=1)
        axes.grid(axis="y", visible=False)
    panels[2].xaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_yticks(y, [title(name) for name in table.index])
    panels[0].get_yticklabels()[list(table.index).index(own)].set_fontweight("bold")
    panels[0].invert_yaxis()
    figure.suptitle("The leaderboard")
    return figure


def worth(table: pd.DataFrame, column: str = "mean_of_layers") -> Figure:
    """Accuracy near half of the maps against the correlation with the oracle, one dot a criterion.

    `table`: of `comparison.worth`. Left right after the cut, right after fine-tuning.
    """
    figure, panels = plt.subplots(1, 2, figsize=(14, 6.5), sharey=True)
    whens = {"right_after_the_cut": "right after the cut", "after_tuning": "after fine-tuning"}
    for axes, (when, heading) in zip(panels, whens.items(), strict=True):
        for name, row in table.iterrows():
            axes.scatter(row[column], row[when], s=200, marker=MARKERS[name], color=colour(name), label=title(name))
        axes.set(title=heading, xlabel=f"Spearman with the oracle\n({HEADINGS[column]})")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.margins(0.12)
    panels[0].set_ylabel("test accuracy, half the maps left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    figure.suptitle("Nearer to the oracle, better after pruning? (recorded)")
    return figure
