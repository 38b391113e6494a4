"""Figures of notebook 12: coupled layers, batch norm's scales, tickets, and what evaluations hide."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from course_lib.classroom import protocol, true_oracle
from course_lib.classroom.figures.style import COLOURS, MARKERS, colour, title
from course_lib.feature_maps import Scores
from course_lib.residual import Group

_BLUE, _ORANGE, _GREEN, _RED = list(COLOURS.values())[:4]
_STARTS = {
    "fine-tuned": (_BLUE, "o"),
    "winning ticket": (_GREEN, "s"),
    "new random weights": (_ORANGE, "^"),
    "shuffled mask": ("0.45", "v"),
}


def coupled_layers(groups: list[Group]) -> Figure:
    """Which layers lose feature maps together: a row a group, a column a layer, from left to right through the network.

    A full square makes the group's maps and loses kernels, an open one reads them and loses columns.
    """
    layers = list(dict.fromkeys(name for group in groups for name in (*group.makers, *group.readers)))
    layers.sort(key=lambda name: (name == "head", name != "stem.conv", name))
    figure, axes = plt.subplots(figsize=(13, 6.2))
    for row, group in enumerate(groups):
        paint = _ORANGE if len(group.makers) > 1 else _BLUE
        for names, face in ((group.makers, paint), (group.readers, "white")):
            at = [layers.index(name) for name in names]
            axes.scatter(at, [row] * len(at), s=260, marker="s", facecolor=face, edgecolor=paint, lw=2.5, zorder=3)
    axes.scatter([], [], s=260, marker="s", color=_ORANGE, label="makes the maps, bound to others by a sum")
    axes.scatter([], [], s=260, marker="s", color=_BLUE, label="makes the maps, alone")
    axes.scatter([], [], s=260, marker="s", facecolor="white", edgecolor="0.3", lw=2.5, label="reads the maps")
    axes.set_xticks(range(len(layers)), [name.removesuffix(".conv") for name in layers], rotation=60, ha="right")
    axes.set_yticks(range(len(groups)), [f"group {row + 1}" for row in range(len(groups))])
    axes.invert_yaxis()
    axes.set_title("One row leaves together: full squares lose kernels, open ones columns")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def share_left(table: pd.DataFrame, p: float = 0.3) -> Figure:
    """What is left when every group loses a share p of its maps, against (1 - p)^2.

    `table`: index p; columns parameters and MACs, the shares that are left.
    """
    figure, axes = plt.subplots(figsize=(11, 6))
    fine = np.linspace(0, 1, 101)
    axes.plot(fine, (1 - fine) ** 2, color="0.4", ls="--", label="(1 - p)²", zorder=1)
    axes.plot(fine, 1 - fine, color="0.75", ls=":", label="1 - p, what one might expect", zorder=1)
    for what, paint, marker in (("parameters", _BLUE, "o"), ("MACs", _ORANGE, "s")):
        axes.plot(table.index, table[what], color=paint, marker=marker, lw=2.5, ms=8, label=what)
    near = table.index[np.abs(np.asarray(table.index, dtype=float) - p).argmin()]
    axes.axvline(near, color="0.2", lw=1.5)
    left = ", ".join(f"{table.loc[near, what]:.0%} of the {what}" for what in ("parameters", "MACs"))
    axes.set_title(f"p = {near:.0%}: left are {left}")
    axes.set(xlabel="share p of the feature maps that goes", ylabel="share left", ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False)
    return figure


def batch_sizes(table: pd.DataFrame) -> Figure:
    """Correlation with the oracle of the squared slope of batches, against the size of a batch.

    `table`: index batch size; columns 'within layers' and 'all layers', Spearman with oracle-abs, scores as they are.
    """
    figure, axes = plt.subplots(figsize=(11, 5.5))
    for what, paint, marker in zip(table, (_BLUE, _ORANGE), "os", strict=True):
        axes.plot(table.index, table[what], color=paint, marker=marker, lw=2.5, ms=9, label=what)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table.index, [str(size) for size in table.index])
    axes.set(xlabel="examples in a batch", ylabel="Spearman with oracle-abs", ylim=(min(0, table.min().min()), 1))
    axes.set_title("The square is taken of a batch's mean slope: how large a batch?")
    axes.legend(frameon=False)
    return figure


def scale_histogram(before: Scores, after: Scores, threshold: float = 0.05) -> Figure:
    """The scales |gamma| of a network's batch norms, before and after training with an l1 penalty on them.

    `before`, `after`: {norm: (C,)}. `threshold`: below it, a scale counts as small.
    """
    values = {
        name: np.concatenate([s.abs().numpy() for s in part.values()])
        for name, part in (("before", before), ("after l1", after))
    }
    top = max(part.max() for part in values.values())
    figure, axes = plt.subplots(figsize=(11, 5.5))
    edges = np.linspace(0, top, 45)
    for (name, part), paint in zip(values.items(), ("0.6", _BLUE), strict=True):
        below = (part < threshold).mean()
        axes.hist(part, edges, color=paint, alpha=0.7, label=f"{name}: {below:.0%} below the threshold")
    axes.axvline(threshold, color=_RED, lw=2.5)
    axes.set(xlabel="|γ|", ylabel="batch-norm channels", title=f"Scales of batch norm; threshold {threshold:.2f}")
    axes.legend(frameon=False)
    return figure


def tickets(recorded: pd.DataFrame, live: pd.DataFrame | None = None, when: str = "at the end") -> Figure:
    """Test accuracy of small networks of one mask, or of a shuffled one, against the share of weights that is left.

    Args:
        recorded: of `rethinking.lottery` for several seeds: means, and their range as a band.
        live: the same of this run, as large markers.
        when: 'early' in training, or 'at the end'.
    """
    y = "early" if when == "early" else "accuracy"
    figure, axes = plt.subplots(figsize=(12, 6))
    for what, (paint, marker) in _STARTS.items():
        runs = recorded[recorded.what == what].groupby("density")[y].agg(["mean", "min", "max"])
        axes.plot(runs.index, runs["mean"], color=paint, marker=marker, lw=2.5, ms=7, label=what)
        axes.fill_between(runs.index, runs["min"], runs["max"], color=paint, alpha=0.13, lw=0)
        if live is not None:
            now = live[live.what == what]
            axes.plot(now.density, now[y], color=paint, marker=marker, ms=14, ls="", mfc="none", mew=2.5)
    dense = recorded[recorded.what == "dense network"][y].mean()
    axes.axhline(dense, color="0.2", ls="--", lw=1.8, label="dense network")
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = sorted(recorded.density.unique())
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="share of weights left", ylabel="test accuracy", ylim=(0, 1.02), title=f"The same training, {when}")
    axes.legend(frameon=False, loc="lower left", fontsize="small")
    return figure


def from_scratch(table: pd.DataFrame) -> Figure:
    """Test accuracies of one pruned shape, trained in several ways; dots are seeds, bars their mean.

    `table`: columns what, epochs, accuracy, of `rethinking.scratch`.
    """
    rows = table[~table.what.str.contains("short start")]
    labels = rows.what.where(rows.epochs == 0, rows.what + rows.epochs.map(lambda e: f", {e:g} epochs"))
    return _bars(rows.accuracy, labels, "test accuracy", "One small shape: whose weights, which maps, how long?")


def starts(table: pd.DataFrame) -> Figure:
    """One method, two starting networks: what is reported as a change of accuracy, and the accuracy itself.

    `table`: as for `from_scratch`.
    """
    wide = table.drop_duplicates(["what", "seed", "epochs"]).query("what != 'from scratch'")
    wide = wide.pivot(index="seed", columns="what", values="accuracy")
    trained = table.drop_duplicates("what").set_index("what").epochs
    ends = {f"epochs of training: {trained[f'whole{end}']:g}": end for end in ("", ", short start")}
    figure, panels = plt.subplots(1, 2, figsize=(13, 4.6))
    for axes, relative in zip(panels, (True, False), strict=True):
        for at, end in enumerate(ends.values()):
            found = wide[f"fine-tuned{end}"] - (wide[f"whole{end}"] if relative else 0)
            axes.barh(at, found.mean(), color=(_BLUE, _ORANGE)[at], alpha=0.6, height=0.6)
            axes.plot(found, np.full(len(found), at), "o", color="0.2", ms=8, zorder=3)
        axes.axvline(0, color="0.2", lw=1)
        axes.set_yticks(range(len(ends)), ends if relative else [""] * len(ends))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(-0.6, len(ends) - 0.4)
        axes.set_xlabel("accuracy after minus before pruning" if relative else "accuracy after pruning")
        axes.grid(axis="y", visible=False)
    figure.suptitle("The same method on two starting networks: which one looks better?")
    return figure


def operating_point(table: pd.DataFrame, axis: str = "feature maps", share: float = 0.5) -> Figure:
    """Accuracy of every curve at one point of one axis, the best on top: mean over seeds, and their range.

    `table`: pruning curves, as `pruning_curves` takes them.
    """
    found = protocol.accuracy_at(table, axis, share)
    figure, axes = plt.subplots(figsize=(11, 5.5))
    for at, (name, row) in enumerate(found.iterrows()):
        axes.plot([row.low, row.high], [at, at], color=colour(name), lw=5, alpha=0.5)
        axes.plot(row["mean"], at, MARKERS.get(name, "o"), color=colour(name), ms=14)
    axes.set_yticks(range(len(found)), [title(name) for name in found.index])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    first = title(found.index[0]) if len(found) else "nobody"
    frame = (table.accuracy.min() - 0.02, table.accuracy.max() + 0.02)  # the same at every point
    axes.set(xlabel="test accuracy after fine-tuning: mean and range over seeds", xlim=frame)
    axes.set_title(f"Where {share:.0%} of the {axis} are left, {first} is first")
    return figure


def before_and_after(
    table: pd.DataFrame, updates: int = 100, share: float = 0.75, known: str = "loss right after the cut"
) -> Figure:
    """What was known right after the cut against the accuracy after retraining; a dot is one way to cut.

    Args:
        table: of `true_oracle.study`, with the columns share and seed.
        updates: of retraining; 0: right after the cut.
        known: 'loss right after the cut' or 'nearness to the oracle'.
    """
    x = "loss_after_cut" if known.startswith("loss") else "spearman"
    rows = table[table.share == share]
    figure, axes = plt.subplots(figsize=(12, 6))
    for name, part in rows.groupby("family", sort=False):
        looks = {"color": colour(name), "marker": MARKERS.get(name, "*"), "edgecolor": "white", "lw": 0.8}
        axes.scatter(part[x], part[f"accuracy_{updates}"], s=170 / (1 + part.noise), label=title(name), **looks)
    found = true_oracle.order(rows, next(k for k, (column, _) in true_oracle.KNOWN.items() if column == x), updates)
    when = f"after {updates} updates" if updates else "right after the cut"
    axes.set(
        xlabel=f"{known}" + (" (nats, training images)" if x == "loss_after_cut" else " (Spearman, within layers)")
    )
    axes.set(ylabel=f"test accuracy\n{when}")
    axes.set_title(f"{share:.0%} of the MACs, {when}: rank correlation {found:+.2f}")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def fading(found: Mapping[str, pd.DataFrame], kind: str = "all cuts") -> Figure:
    """How well what is known before retraining orders the accuracies after it, against the length of retraining.

    Args:
        found: heading -> table of `true_oracle.predictions`, one panel each; the bands hold nine redraws of the cuts
            in ten.
        kind: whose cuts, one of the tables' column 'cuts'.
    """
    frame = {"left": 0.13, "right": 0.985, "bottom": 0.14, "top": 0.82, "wspace": 0.06}
    figure, panels = plt.subplots(
        1, len(found), figsize=(13, 5.8), sharey=True, squeeze=False, layout="none", gridspec_kw=frame
    )
    for axes, (heading, table) in zip(panels[0], found.items(), strict=True):
        part = table[table.cuts == kind]
        for (what, rows), paint, marker in zip(part.groupby("known", sort=False), (_BLUE, _ORANGE), "os", strict=False):
            x = range(len(rows))
            axes.plot(x, rows.spearman, color=paint, marker=marker, lw=2.5, ms=9, label=what)
            axes.fill_between(x, rows.low, rows.high, color=paint, alpha=0.15, lw=0)
        axes.axhline(0, color="0.3", lw=1)
        moments = part.updates.unique()
        axes.set_xticks(range(len(moments)), [str(updates) for updates in moments])
        many = f"{part.number.iloc[0]} cuts" if len(part) else "too few cuts"
        axes.set(xlabel="updates of retraining", title=f"{heading}: {many}", ylim=(-1.05, 1.05))
    panels[0, 0].set_ylabel("Spearman with the\naccuracy afterwards")
    panels[0, 0].legend(*panels[0, -1].get_legend_handles_labels(), frameon=False, loc="lower left", fontsize="small")
    whose = kind if kind in ("all cuts", "criteria as they are") else f"the cuts by {title(kind)}"
    figure.suptitle(f"Does what is known right after the cut say who wins in the end? ({whose})")
    return figure


def _bars(values: pd.Series, labels: pd.Series, xlabel: str, heading: str) -> Figure:
    order = list(dict.fromkeys(labels))
    figure, axes = plt.subplots(figsize=(13, 5.5))
    for at, label in enumerate(order):
        found = values[labels == label]
        axes.barh(at, found.mean(), color=_ORANGE if "scratch" in label else _BLUE, alpha=0.55)
        axes.plot(found, np.full(len(found), at), "o", color="0.2", ms=8, zorder=3)
        axes.text(0.01, at, f"{found.mean():.1%}", va="center", fontsize="small")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel=xlabel, xlim=(0, 1), title=heading)
    axes.grid(axis="y", visible=False)
    return figure
