"""The results gallery: figures of the recorded runs, each with the command that makes its numbers again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_lib import datasets, models, paths
from course_lib.classroom import ablations, comparison, description_length, figures, picture, results, session
from course_lib.feature_maps import Chain


@dataclass(frozen=True)
class Item:
    """A figure made of recorded tables (names in data/results), and the notebook that says how to read it."""

    title: str
    tables: tuple[str, ...]
    draw: Callable[..., Figure]
    notebook: str


def _correlations(recorded: pd.DataFrame, network: str = "VGG-16") -> Figure:
    printed = pd.read_csv(paths.data_dir() / "paper" / "table1.csv").query(
        "network == @network and data == 'Flowers-102'"
    )
    columns = ["mean_of_layers", "all_layers", "all_layers_l2"]
    ours = recorded.groupby("criterion", sort=False)[columns].mean()
    paper = printed.pivot(index="criterion", columns="row", values="spearman")
    paper = paper.reindex(columns=["per layer", "all layers", "all layers, l2"], index=ours.index)
    return figures.correlations(ours, paper, f"the paper: {network} on Flowers-102")


def _worth(criteria: pd.DataFrame, pruned: pd.DataFrame) -> Figure:
    return figures.worth(comparison.worth(criteria, pruned))


def _ranks(recorded: pd.DataFrame) -> Figure:
    pooled = ablations.before_pooling(Chain(models.trained("vgg16-petals")))
    return figures.ranks_by_layer(ablations.ranked(recorded), pooled)


def _lengths(recorded: pd.DataFrame) -> Figure:
    """The first seed's codes: those of the other seeds lie close, and would hide the curves."""
    curves = {
        f"{figures.title(criterion)}, {code}": description_length.cheapest(rows)
        for (criterion, code), rows in recorded[recorded.seed == 0].groupby(["criterion", "code"], sort=False)
    }
    classes = datasets.load("petals", train=1, val=1, test=1).classes
    return figures.total_lengths(curves, session.PROFILES["laptop"].train_images * np.log2(len(classes)))


def _updates(recorded: pd.DataFrame) -> Figure:
    taylor = (recorded.experiment == "criteria") & (recorded.curve == "taylor")
    paper = pd.read_csv(paths.data_dir() / "paper" / "figure6.csv")
    return figures.update_curves(recorded[taylor | (recorded.experiment == "updates")], paper)


ITEMS = (
    Item(
        "Pruning curves of the embedded VGG-16 on petals", ("petals_pruning",), figures.pruning_curves, "09_prune_vgg16"
    ),
    Item("Pruning curves of VGG-16 on photographs", ("flowers102_pruning",), figures.pruning_curves, "09_prune_vgg16"),
    Item("Feature maps removed in a step: VGG-16 on petals", ("petals_steps",), figures.same_total, "10_prune_alexnet"),
    Item("Ranks of the oracle, layer by layer: petals", ("petals_oracle",), _ranks, "06_oracle"),
    Item("Criteria against the oracle: petals", ("petals_criteria",), _correlations, "07_taylor"),
    Item("Criteria against the oracle: photographs", ("flowers102_criteria",), _correlations, "07_taylor"),
    Item(
        "Table 3 on photographs: within each layer, and over all by normalisation",
        ("flowers102_layers", "flowers102_criteria"),
        partial(figures.table3_over_seeds, heading="Photographs"),
        "08_criteria_against_the_oracle",
    ),
    Item(
        "What a place in the table is worth after pruning",
        ("petals_criteria", "petals_pruning"),
        _worth,
        "08_criteria_against_the_oracle",
    ),
    Item("How far to prune, by description length", ("petals_description_length",), _lengths, "02_description_length"),
    Item(
        "Table 1 on the embedded AlexNet",
        ("alexnet_criteria",),
        partial(_correlations, network="AlexNet"),
        "10_prune_alexnet",
    ),
    Item("Updates between two steps: AlexNet on petals", ("alexnet_pruning",), _updates, "10_prune_alexnet"),
    Item(
        "How many times the exact oracle is faster",
        ("benchmark_oracle",),
        figures.ratios,
        "06_oracle",
    ),
    Item(
        "Soft weight-sharing against magnitude pruning",
        ("digits_weight_sharing",),
        figures.methods,
        "11_soft_weight_sharing",
    ),
)
_INTRODUCTION = """# Results gallery

Figures of the recorded runs in `data/results`, drawn anew for this site by the functions of
`course_lib.classroom.figures`. Under each: the commands that make its numbers again; seeds, versions and machine stand
in the table's own columns. What can and cannot be read from a figure is said in its notebook.
"""


def write(docs: Path) -> None:
    """Draw every figure into the folder `docs`/gallery, and write the page gallery.md around them."""
    (docs / "gallery").mkdir(parents=True)
    parts = [_INTRODUCTION]
    with pyplot.rc_context():
        session.figure_style()
        for number, item in enumerate(ITEMS, start=1):
            tables = [results.read(name) for name in item.tables]
            figure, name = item.draw(*tables), f"gallery/{number}.png"
            figure.savefig(docs / name, dpi=90)
            parts.append(_shown(item, tables, name, picture.words(picture.closed(figure))))
    (docs / "gallery.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _shown(item: Item, tables: list[pd.DataFrame], name: str, words: str) -> str:
    commands = "\n".join(dict.fromkeys(command for table in tables for command in table.command))
    notebook = f"[notebook {item.notebook[:2]}](../notebooks/{item.notebook}.ipynb)"
    sources = " and ".join(f"`data/results/{table}.csv`" for table in item.tables)
    alt = " ".join(words.split())
    return (
        f"## {item.title}\n\n```{{image}} {name}\n:alt: {alt}\n```\n\n{sources}; read in {notebook}. "
        f"Made by:\n\n```sh\n{commands}\n```"
    )
