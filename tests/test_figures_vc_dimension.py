"""Figures of notebook 03: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
from drawing import drawn

from course_lib.classroom import figures
from course_lib.theory import vc_dimension

pytestmark = pytest.mark.usefixtures("figure_style")

GAMES = {
    "square": figures.game([[0, 0], [2, 0], [2, 2], [0, 2]]),
    "line": figures.game([[0, 0], [1, 1], [2, 2]]),
    "triangle": figures.game([[0, 0], [2, 0], [1, 1.5]]),
}


def test_a_game_has_a_line_or_a_common_point_for_every_labelling():
    game = GAMES["square"]
    assert len(game.lines) == len(game.meetings) == 16 and game.answers.sum() == 14
    for line, meeting in zip(game.lines, game.meetings, strict=True):
        assert (line is None) != (meeting is None)


def test_all_labellings_say_the_score():
    assert "14 of 16" in drawn(figures.all_labellings(GAMES["square"])).get_suptitle()
    assert drawn(figures.all_labellings(GAMES["triangle"])).get_suptitle().endswith(": shattered")


@pytest.mark.parametrize("points", list(GAMES))
@pytest.mark.parametrize("labelling", [0, 2, 5, 63])
def test_the_game_is_drawn_with_its_answer(points, labelling):
    game = GAMES[points]
    left, _ = drawn(figures.shattering_game(GAMES, points, labelling)).axes
    separable = game.answers[labelling % len(game.answers)]
    assert left.get_title().startswith("separable" if separable else "no line")


def test_the_game_draws_the_points_of_each_class():
    left, _ = drawn(figures.shattering_game(GAMES, "square", 5)).axes
    y = vc_dimension.labellings(4)[5]
    shown = [np.asarray(part.get_offsets()) for part in left.collections[:2]]
    np.testing.assert_array_equal(shown[0], GAMES["square"].points[y > 0])
    np.testing.assert_array_equal(shown[1], GAMES["square"].points[y < 0])


@pytest.mark.parametrize(("m", "d"), [(10, 2), (60, 12), (30, 3), (10, 12)])
def test_growth_curves_are_in_order(m, d):
    (axes,) = drawn(figures.growth(m, d)).axes
    everything, polynomial, sauer, half_spaces = (np.asarray(line.get_ydata(), float) for line in axes.lines[:4])
    assert (half_spaces <= sauer).all() and (sauer <= everything).all()
    assert (sauer <= polynomial * (1 + 1e-12))[d - 1 :].all()


@pytest.mark.parametrize(("m", "labelling"), [(2, 0), (7, 127), (5, 10), (3, 127)])
def test_the_sine_goes_through_its_points(m, labelling):
    (axes,) = drawn(figures.sine(m, labelling)).axes
    above, below = (np.asarray(part.get_offsets()).reshape(-1, 2) for part in axes.collections[:2])
    assert len(above) + len(below) == m and (above[:, 1] > 0).all() and (below[:, 1] < 0).all()


def test_structural_risk_rings_the_smallest():
    table = pd.DataFrame({"training": [0.4, 0.2, 0.1], "test": [0.5, 0.2, 0.3], "bound": [0.6, 0.7, 0.8]})
    (axes,) = drawn(figures.structural_risk({50: table}, 50)).axes
    rings = [tuple(np.asarray(part.get_offsets())[0]) for part in axes.collections]
    assert (1, 0.2) in rings and (0, 0.6) in rings


def test_network_dimensions_has_a_row_for_each():
    columns = {
        "lower": [1e10, 1e9],
        "upper": [2e10, 2e9],
        "bits": [1e9, 1e8],
        "images": [1e6, 1e6],
        "allowed": [1e5] * 2,
    }
    (axes,) = drawn(figures.network_dimensions(pd.DataFrame(columns, index=["before", "after"]))).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before", "after"]


def test_random_labels_are_averaged_over_draws():
    rows = [("a", 30, n, f) for n in (16, 32, 64) for f in (0.6, 1.0)] + [("b", 9, n, 0.5) for n in (16, 32, 64)]
    (axes,) = drawn(figures.random_labels(pd.DataFrame(rows, columns=["network", "weights", "labels", "fitted"]))).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 0.8)


@pytest.mark.parametrize("bits", [1, 3])
def test_occam_shows_the_chosen_bits(bits):
    rows = [
        {
            "kept": k,
            "total": 640,
            "bits_per_weight": b,
            "train_error": 0.1,
            "test_error": 0.2 / b,
            "bound": 0.5 + k / 2000,
        }
        for k in (20, 80, 640)
        for b in (1, 3)
    ]
    (axes,) = drawn(figures.occam(pd.DataFrame(rows), bits)).axes
    assert f"{bits} bit" in axes.get_title()
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 0.2 / bits)
