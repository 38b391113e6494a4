"""The figures of notebook 06: they draw what they are given, and they can be rendered."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn
from matplotlib import pyplot as plt
from networks import batches, small_vgg

from course_lib import datasets, oracle
from course_lib.classroom import ablations, figures
from course_lib.feature_maps import Chain

pytestmark = pytest.mark.usefixtures("figure_style")


@pytest.fixture(scope="module")
def measured():
    model, data = small_vgg(), batches(3, 8, 8, n=4, size=5)
    return model, data, oracle.effects(model, data, progress=False)


def splits():
    return datasets.Splits("test", None, None, None, ["rose", "lily", "daisy", "tulip"])


@pytest.mark.parametrize(("rank", "shown"), [(1, 1), (2, 2), (99, 6)])
def test_a_closed_gate_shows_the_map_of_that_rank(measured, rank, shown):
    model, data, effects = measured
    (images, labels), truth = data[0], {name: e.mean(0) for name, e in effects.items()}
    figure = drawn(figures.closed_gate(Chain(model), splits(), images, labels, truth, 1, "conv2", rank))
    index = truth["3"].abs().argsort(descending=True)[shown - 1]
    title = figure.axes[1].get_title()
    assert f"conv2, map {index}:" in title and f"{ {1: '1st', 2: '2nd', 6: '6th'}[shown] } of 6" in title
    taps = {}
    Chain(model).run(images, taps=taps)
    assert np.allclose(figure.axes[1].get_images()[0].get_array(), taps["3"][1, index].detach())
    change = float(effects["3"][1, index])
    assert f"loss {change:+.3f} nats" in figure.axes[-1].get_title()
    assert splits().classes[labels[1]] in figure.axes[0].get_title()


def test_the_right_answer_is_always_among_the_chances():
    classes = [f"class {i}" for i in range(9)]
    figure, axes = plt.subplots()
    chances = torch.stack([torch.linspace(0.3, 0.01, 9)] * 2)
    figures.oracle._chances(axes, chances, classes, 8)
    assert [label.get_text() for label in axes.get_yticklabels()] == [*classes[:4], "class 8"]


def test_sorted_effects_of_two_layers(measured):
    table = ablations.table(measured[2])
    figure = drawn(figures.sorted_effects(table, "conv2"))
    assert [axes.get_title() for axes in figure.axes] == ["conv2", "conv3"]
    down, up = (np.array([s[:, 1].max() for s in c.get_segments()]) for c in figure.axes[0].collections[:2])
    assert len(down) + len(up) == 6 and (np.diff(down) <= 0).all()


def test_ranks_are_drawn_with_the_most_important_at_the_top(measured):
    model, _, effects = measured
    figure = drawn(
        figures.ranks_by_layer(ablations.ranked(ablations.table(effects)), ablations.before_pooling(Chain(model)))
    )
    axes = figure.axes[0]
    assert axes.yaxis_inverted()
    colours = [patch.get_facecolor() for patch in axes.patches[:3]]
    assert colours[0] == colours[2] != colours[1]


@pytest.fixture(scope="module")
def curves(measured):
    model, data, effects = measured
    truth = {name: e.mean(0) for name, e in effects.items()}
    kinds = {"seen": data[:2], "others": data[2:]}
    rankings = {"oracle-abs": {name: t.abs() for name, t in truth.items()}, "oracle-loss": truth}
    return ablations.close_in_order(model, kinds, truth, rankings, shares=(0, 0.2, 0.5))


def test_closing_curves_fall_from_left_to_right_beside_the_papers_points(curves):
    paper = pd.DataFrame({"ranking": ["oracle-abs", "oracle-loss"], "maps_percent": [90, 90], "accuracy": [0.8, 0.1]})
    figure = drawn(figures.closing_curves(curves, paper))
    axes = figure.axes[0]
    assert axes.xaxis_inverted() and len(axes.get_lines()) == 4 and len(axes.collections) == 2
    assert axes.get_lines()[0].get_ydata().tolist() == curves.accuracy[curves.pictures == "seen"][:3].tolist()


def test_adding_up_draws_measured_and_expected(curves):
    figure = drawn(figures.adding_up(curves, "others"))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    rows = curves[(curves.pictures == "others") & (curves.ranking == "oracle-loss")]
    assert lines["oracle-loss: measured"].tolist() == rows.change.tolist()
    assert lines["oracle-loss: sum of its maps"].tolist() == rows.expected.tolist()


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_pairs_of_either_sign(sign):
    values = np.geomspace(1e-3, 0.3, 12) * (sign or 1) * np.where(np.arange(12) % 2, 1, 1 if sign else -1)
    table = pd.DataFrame({"expected": values, "together": 1.5 * values, "layers": ["one layer", "two layers"] * 6})
    figure = drawn(figures.pairs(table))
    axes = figure.axes[0]
    for limits, axis in ((axes.get_xlim(), axes.xaxis), (axes.get_ylim(), axes.yaxis)):
        assert limits[0] <= min(values) and max(values) <= limits[1]
        assert len(axis.get_ticklocs()) >= 3


def test_halves_mark_the_lowest_of_the_first_half(measured):
    effects = measured[2]
    figure = drawn(figures.halves(effects, share=3 / 18))
    flat = torch.cat(list(effects.values()), 1)
    marked = figure.axes[0].collections[1].get_offsets()
    assert sorted(marked[:, 0]) == pytest.approx(flat[::2].mean(0).sort().values[:3].tolist())


@pytest.mark.parametrize("layers", ["each layer", "all layers"])
def test_agreement_draws_the_median(measured, layers):
    effects = {name: e.repeat(2, 1) + torch.randn(40, e.shape[1]) for name, e in measured[2].items()}
    found = ablations.agreement(effects, draws=9)
    figure = drawn(figures.agreement(found, "oracle-loss", layers))
    line = figure.axes[0].get_lines()[0]
    rows = found[(found.against == "another n") & ~found.absolute & (found.layers == layers.split()[0])]
    assert line.get_ydata().tolist() == pytest.approx(rows.groupby("images").spearman.median().tolist())
    assert line.get_xdata().tolist() == [8, 16]


def test_estimated_maps_are_marked_where_the_interval_misses():
    truth = {"a": torch.tensor([0.5, 0.1, -0.2, torch.nan]), "b": torch.tensor([0.1])}
    truth = {name: t.double() for name, t in truth.items()}
    scores = {"a": truth["a"] + torch.tensor([0.01, 0.3, 0.0, torch.nan]), "b": truth["b"]}
    errors = {name: torch.full_like(s, 0.1) for name, s in scores.items()}
    estimate = oracle.Estimate(scores, errors, 0.95, 10, 0.1)
    figure = drawn(figures.estimated(estimate, truth, "conv1"))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["interval holds the exact value: 2", "interval does not: 1", "equal"]
    bars, missed = (c.get_segments() for c in figure.axes[0].collections[::2])
    assert [len(bars), len(missed)] == [2, 1]
    assert np.allclose(missed[0], [[0.1, 0.4 - 0.196], [0.1, 0.4 + 0.196]], atol=1e-3)
    assert figure.axes[0].get_title() == "conv1: 10% of the evaluations"
    assert ablations.coverage(estimate, truth) == 0.75
