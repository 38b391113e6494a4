"""The figures of notebook 12: they draw what they are given, and they can be rendered."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn

from course_lib.classroom import figures, true_oracle
from course_lib.residual import Group

pytestmark = pytest.mark.usefixtures("figure_style")

GROUPS = [
    Group(("stem.conv", "stages.0.0.second.conv"), ("stem.norm",), ("stages.0.0.first.conv", "head")),
    Group(("stages.0.0.first.conv",), ("stages.0.0.first.norm",), ("stages.0.0.second.conv",)),
]


def curves():
    rows = []
    for (curve, start), seed in itertools.product({"taylor": 0.9, "random": 0.7}.items(), (0, 1)):
        for number in range(4):
            left = {"maps_left": 100 - 20 * number, "macs": 1000 - 300 * number, "params": 500 - 100 * number}
            rows.append(
                {"curve": curve, "seed": seed, "number": number, **left, "accuracy": start - 0.1 * number + 0.02 * seed}
            )
    return pd.DataFrame(rows)


def retrained():
    whats = ["whole", "right after the cut", "fine-tuned", "fine-tuned, random maps"]
    rows = [(what, 4 * what.startswith("fine"), 0.9 - 0.1 * i, seed) for i, what in enumerate(whats) for seed in (0, 1)]
    rows += [("from scratch", length, 0.6 + length / 100, seed) for length in (4, 12) for seed in (0, 1)]
    rows += [("whole, short start", 3, 0.7, s) for s in (0, 1)] + [
        ("fine-tuned, short start", 4, 0.75, s) for s in (0, 1)
    ]
    return pd.DataFrame(rows, columns=["what", "epochs", "accuracy", "seed"])


def cuts():
    generator = np.random.default_rng(0)
    rows = []
    for share, family, noise in itertools.product((0.75, 0.5), ("oracle", "taylor", "random"), (0.0, 0.5, 1.0, 2.0)):
        loss = generator.uniform(0.3, 2.5)
        known = {"share": share, "family": family, "noise": noise, "seed": 0, "loss_after_cut": loss}
        rows.append({**known, "spearman": -loss, "accuracy_0": 1 - loss / 3, "accuracy_30": loss / 5})
    return pd.DataFrame(rows)


def lottery():
    rows = [("dense network", 1.0, 0.9, 0.98, seed) for seed in (0, 1)]
    for at, what in enumerate(("winning ticket", "new random weights", "fine-tuned", "shuffled mask")):
        rows += [(what, d, d - 0.01 * at, 0.9 * d, seed) for d in (0.5, 0.1) for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["what", "density", "early", "accuracy", "seed"])


def test_coupled_layers_mark_makers_full_and_readers_open():
    axes = drawn(figures.coupled_layers(GROUPS)).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        *("stem", "stages.0.0.first", "stages.0.0.second", "head")
    ]
    first = axes.collections[0].get_offsets().tolist()  # makers of the first group: stem and second
    assert first == [[0, 0], [2, 0]]
    assert axes.collections[1].get_offsets().tolist() == [[1, 0], [3, 0]]


def test_share_left_marks_the_nearest_share():
    table = pd.DataFrame({"parameters": [1, 0.5, 0.1], "MACs": [1, 0.49, 0.2]}, index=[0.0, 0.3, 0.6])
    axes = drawn(figures.share_left(table, p=0.4)).axes[0]
    assert axes.get_title() == "p = 30%: left are 50% of the parameters, 49% of the MACs"


def test_batch_sizes_draws_every_column():
    table = pd.DataFrame({"within layers": [0.7, 0.5], "all layers": [0.8, 0.6]}, index=[1, 16])
    axes = drawn(figures.batch_sizes(table)).axes[0]
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[0.7, 0.5], [0.8, 0.6]]


def test_scale_histogram_counts_below_the_threshold():
    before, after = {"a": torch.tensor([1.0, -1.0])}, {"a": torch.tensor([0.01, -0.02, 1.0, 0.5])}
    figure = drawn(figures.scale_histogram(before, after, threshold=0.1))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["before: 0% below the threshold", "after l1: 50% below the threshold"]


@pytest.mark.parametrize("when", ["early", "at the end"])
def test_tickets_draw_means_of_seeds(when):
    figure = drawn(figures.tickets(lottery(), lottery().query("seed == 0"), when))
    line = next(line for line in figure.axes[0].get_lines() if line.get_label() == "winning ticket")
    assert line.get_ydata().tolist() == pytest.approx([0.1, 0.5] if when == "early" else [0.09, 0.45])


def test_from_scratch_leaves_the_short_start_out():
    axes = drawn(figures.from_scratch(retrained())).axes[0]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels[0] == "whole, 12 epochs" or labels[0].startswith("whole")
    assert not [label for label in labels if "short" in label]
    widths = dict(zip(labels, (bar.get_width() for bar in axes.patches), strict=True))
    assert widths["from scratch, 12 epochs"] == pytest.approx(0.72)


def test_starts_show_differences_and_accuracies():
    left, right = drawn(figures.starts(retrained())).axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([-0.2, 0.05])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.7, 0.75])


@pytest.mark.parametrize("axis, share, first", [("MACs", 0.5, "Taylor"), ("feature maps", 0.9, "Taylor")])
def test_operating_point_says_who_is_first(axis, share, first):
    axes = drawn(figures.operating_point(curves(), axis, share)).axes[0]
    assert axes.get_title() == f"Where {share:.0%} of the {axis} are left, {first} is first"


@pytest.mark.parametrize("known", ["loss right after the cut", "nearness to the oracle"])
@pytest.mark.parametrize("updates", [0, 30])
def test_before_and_after_says_the_correlation(known, updates):
    # accuracy right after the cut falls with the loss and rises afterwards, in these made-up cuts
    title = drawn(figures.before_and_after(cuts(), updates, 0.5, known)).axes[0].get_title()
    assert title.endswith("+1.00" if updates == 0 else "-1.00")


@pytest.mark.parametrize("kind, many", [("all cuts", "12 cuts"), ("criteria as they are", "too few cuts")])
def test_fading_has_a_panel_for_each_share(kind, many):
    found = {"mild": true_oracle.predictions(cuts().query("share == 0.75")), "deep": true_oracle.predictions(cuts())}
    figure = drawn(figures.fading(found, kind))
    assert figure.axes[0].get_title() == f"mild: {many}" and figure.axes[1].get_title().startswith("deep")
    if kind == "all cuts":
        assert figure.axes[0].get_lines()[0].get_ydata().tolist() == pytest.approx([1, -1])
