"""Figures of notebook 07: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn

from course_lib.classroom import figures
from course_lib.classroom.gate_curves import GRID, Curve

pytestmark = pytest.mark.usefixtures("figure_style")

NAMES = [f"features.{i}" for i in range(13)]


def scores(seed, sign=False):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn if sign else torch.rand
    return {name: draw(4 + i, generator=generator) for i, name in enumerate(NAMES)}


def truth():
    found = scores(0, sign=True)
    found[NAMES[0]][1] = torch.nan  # a map that was not measured
    return found


def curve(slope=-0.2, bend=0.3):
    g = np.array(GRID)[:, None] * np.ones(4)
    return Curve(3, np.array(GRID), 1 + slope * (g - 1) + bend * (g - 1) ** 2 / 2, np.full(4, slope), np.full(4, bend))


def test_the_parabola_of_a_quadratic_loss_is_the_loss():
    left, right = drawn(figures.loss_along_gate({"a": {"idle": curve()}}, "a", "idle")).axes
    measured, tangent, parabola = (line.get_ydata() for line in left.lines[:3])
    np.testing.assert_allclose(parabola, measured)
    assert tangent[10] == pytest.approx(measured[10]) and tangent[0] == pytest.approx(1.2)
    assert len([line for line in right.lines if len(line.get_xdata()) == len(GRID)]) == 4


def test_an_idle_map_has_a_flat_curve():
    drawn(figures.loss_along_gate({"a": {"idle": curve(0, 0)}}, "a", "idle"))


@pytest.mark.parametrize("layer", ["all layers", NAMES[0], NAMES[-1]])
def test_expansion_shows_measured_maps_and_how_near_each_guess_is(layer):
    t = truth()
    opposite = {name: -change for name, change in t.items()}
    twisted = {name: 1 / change for name, change in t.items()}  # the right signs, the sizes upside down
    ways = {"tangent": opposite, "tangent and curvature": twisted, "linear logits": t}
    panels = drawn(figures.expansion(ways, t, layer)).axes
    shown = sum(map(len, t.values())) if layer == "all layers" else len(t[layer])
    unmeasured = layer != NAMES[-1]
    assert [len(axes.collections[0].get_offsets()) for axes in panels] == [shown - unmeasured] * 3
    said = [axes.get_title().partition("\n")[2] for axes in panels]
    assert said == [f"{signs} of signs right, Spearman {order}" for signs, order in zip(*SAID, strict=True)]
    x, y = panels[2].collections[0].get_offsets().T
    np.testing.assert_allclose(x, y)
    assert layer in panels[0].figure.get_suptitle()


SAID = ("0%", "100%", "100%"), ("1.00", "-1.00", "1.00")


def test_orders_has_a_bar_for_each_place_and_yardstick():
    table = pd.DataFrame(np.linspace(-0.3, 1, 12).reshape(4, 3), index=list("abcd"), columns=["x", "y", "z"])
    (axes,) = drawn(figures.orders(table)).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, table.to_numpy())


def test_half_normal_of_normal_numbers_lies_at_its_line():
    y = {name: torch.randn(2000, 20, generator=torch.Generator().manual_seed(1)) for name in NAMES}
    y[NAMES[0]][:, 0] = 0  # a map that never answers
    _, right = drawn(figures.half_normal(y)).axes
    tallest = max(right.patches, key=lambda bar: bar.get_height())
    assert abs(tallest.get_x() + tallest.get_width() / 2 - np.sqrt(2 / np.pi)) < 0.03


def test_estimates():
    errors = pd.DataFrame({"classes": [1, 0.5, 0.25], "gates": [4.0, 2, 1]}, index=[1, 4, 16])
    (axes,) = drawn(figures.estimates(errors)).axes
    assert len(axes.lines) == 3


def test_scales_are_medians_over_the_overall_median():
    t = truth()
    (axes,) = drawn(figures.scales({"raw": scores(1), "ones": {k: torch.ones_like(v) for k, v in t.items()}}, t)).axes
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 1)
    assert np.isfinite(axes.lines[2].get_ydata()).all()


def test_correlations_beside_the_papers_with_gaps():
    ours = pd.DataFrame(np.linspace(-1, 1, 9).reshape(3, 3), index=["taylor", "obd", "random"])
    left, right = drawn(figures.correlations(ours, ours.where(ours > 0))).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["Taylor", "OBD", "Random"]
    shown = [text.get_text() for text in right.texts]
    assert len(shown) == (ours > 0).to_numpy().sum()


@pytest.mark.parametrize("layer", ["all layers", NAMES[0], NAMES[-1]])
def test_a_criterion_that_is_the_oracle_has_correlation_one(layer):
    t = truth()
    same = {k: v.abs().nan_to_num() for k, v in t.items()}
    (axes,) = drawn(figures.criterion_scatter({"taylor": same, "own": scores(2)}, t, "taylor", layer)).axes
    assert "1.00" in axes.get_title()
    x, y = axes.collections[0].get_offsets().T
    np.testing.assert_allclose(x, y)
    drawn(figures.criterion_scatter({"own": scores(2)}, t, "own", layer))
