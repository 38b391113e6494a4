"""Figures of notebook 01: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn

from course_lib import datasets
from course_lib.classroom import figures, over_complexity

pytestmark = pytest.mark.usefixtures("figure_style")


def test_learning_by_heart_draws_training_and_new_images():
    kinds = over_complexity.DISTURBANCES
    rows = [
        {"data": k, "seed": s, "updates": u, "train": u / 20, "test": 0.1}
        for k in kinds
        for s in (0, 1)
        for u in (0, 20)
    ]
    left, right = drawn(figures.learnt_by_heart(pd.DataFrame(rows))).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(kinds)
    assert list(left.lines[0].get_ydata()) == [0, 1] and list(right.lines[0].get_ydata()) == [0.1, 0.1]


def test_weak_features_show_the_pole():
    (axes,) = drawn(figures.weak_features(20, 1.0, 60, 0.3, {5: [1.0, 1.2], 40: [2.0, 2.4]})).axes
    curve = axes.lines[0].get_ydata()
    assert np.isnan(curve[19:22]).all() and np.isfinite(np.delete(curve, [19, 20, 21])).all()


def test_errors_by_width():
    table = pd.DataFrame(
        {"width": [10, 10, 20, 20], "train": 0.1, "test": [0.2, 0.4, 0.6, 0.8], "norm": [1, 2, 3, 4.0]}
    )
    left, right = drawn(figures.width_errors(table, 20)).axes
    assert np.allclose(left.lines[1].get_ydata(), [0.3, 0.7]) and np.allclose(right.lines[0].get_ydata(), [1.5, 3.5])


@pytest.mark.parametrize(("width", "n"), [(2, 10), (20, 20), (1000, 10)])
def test_the_fit_passes_the_examples_when_it_is_wide(width, n):
    axes = drawn(figures.ridgeless_fit(width, n)).axes[0]
    assert f"width {width}:" in axes.get_title()
    if width == 1000:
        x, y = axes.lines[2].get_data()
        assert np.allclose(np.interp(x, *axes.lines[1].get_data()), y, atol=0.05)


@pytest.mark.parametrize("pair", [0, 5])
def test_a_pair_of_maps(pair):
    splits = datasets.load("petals", train=20, test=20)
    images = torch.stack([splits.test[i][0] for i in range(4)])
    taps = {"features.0": torch.rand(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
    taps["features.0"][2, 0] += 5
    figure = drawn(figures.map_pair(over_complexity.pairs(taps), taps, images, splits, pair, 0))
    row = over_complexity.pairs(taps).iloc[pair]
    shown = figure.axes[1].images[0].get_array()
    strongest = int(taps["features.0"][:, int(row.a)].amax((1, 2)).argmax())
    assert np.allclose(shown, taps["features.0"][strongest, int(row.a)])
    assert "conv1" in figure.get_suptitle() and f"{row.correlation:.2f}" in figure.axes[3].get_title()


def test_costs_of_twins():
    costs = pd.DataFrame({"one": [0.1, 0.2], "both": [0.3, 0.4], "folded": [0.0, 0.1]})
    given_up = pd.DataFrame(
        {"closed": [2, 5], "folded": [0, 0.1], "twins closed": [0.1, 0.2], "random maps closed": 0.3}
    )
    left, right = drawn(figures.twin_costs({"twins": costs, "strangers": costs}, given_up)).axes
    assert len(left.collections) == 6 and list(right.lines[2].get_ydata()) == [0, 0.1]


def test_searches_name_their_price():
    table = over_complexity.searches(torch.rand(16, generator=torch.Generator().manual_seed(0)))
    (axes,) = drawn(figures.subset_searches(table)).axes
    prices = [text.get_text().rsplit(": ", 1)[1] for text in axes.get_legend().get_texts()]
    assert prices == ["5 evaluations", "11", "16"]


def test_each_principle_marks_its_own_degree():
    table = over_complexity.principles([15], 1, range(5))
    for axes in drawn(figures.three_principles(table, 15, 0)).axes:
        for label, star in zip(axes.get_legend().get_texts(), axes.lines[1::2], strict=True):
            judge, degree = label.get_text().rsplit(": ", 1)
            assert int(degree) == table.degree[table[judge].idxmin()] == star.get_xdata()[0]
