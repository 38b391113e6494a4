"""Figures of notebook 02: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
from drawing import drawn

from course_lib.classroom import figures
from course_lib.theory import codes
from course_lib.theory import description_length as theory

pytestmark = pytest.mark.usefixtures("figure_style")


def test_words_are_where_their_binary_fraction_is():
    words = {"gamma": [codes.elias_gamma(n) for n in range(1, 8)], "two": [[0], [1]]}
    (axes,) = drawn(figures.word_intervals(words)).axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars[:3] == [(0.5, 0.5), (0.25, 0.125), (0.375, 0.125)]  # 1, 010, 011
    assert bars[-2:] == [(0, 0.5), (0.5, 0.5)]
    assert sum(width for _, width in bars[:7]) == codes.kraft_sum([len(word) for word in words["gamma"]])


@pytest.mark.parametrize(("labels", "share"), [(1000, 0.3), (100, 0.1), (100, 0.9), (10_000, 0.5)])
def test_the_best_step_is_the_lowest_point_of_the_sum(labels, share):
    (axes,) = drawn(figures.coin_precision(labels, share)).axes
    digits, rounding, total, dots, best = axes.lines
    np.testing.assert_allclose(total.get_ydata(), digits.get_ydata() + rounding.get_ydata())
    lowest = total.get_xdata()[total.get_ydata().argmin()]
    assert best.get_xdata()[0] == pytest.approx(lowest, abs=0.1)
    fine = dots.get_xdata() < best.get_xdata()[0]
    law = theory.precision_bits(2.0 ** dots.get_xdata()[fine], labels, 1 / (share * (1 - share)))
    np.testing.assert_allclose(dots.get_ydata()[fine], law, atol=0.7)


def test_price_of_a_parameter_has_a_line_a_code_and_half_the_logarithm():
    prices = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 3, 4]}, index=[4, 16, 64])
    (axes,) = drawn(figures.price_of_a_parameter(prices)).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 2, 3], [2, 3, 4], [1, 2, 3]]


def test_the_star_stands_at_the_shortest_polynomial():
    bits = 300 + np.add.outer((np.arange(13) - 4.0) ** 2, (np.arange(9) - 6.0) ** 2)
    left, right, _ = drawn(figures.polynomial_lengths(bits, np.linspace(1, 0.1, 13))).axes
    assert left.lines[0].get_xydata().tolist() == [[4, 6]]
    assert "degree 4, 6 digits" in left.get_title()
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.linspace(1, 0.1, 13))


@pytest.mark.parametrize(("degree", "precision"), [(5, 3), (0, 0), (12, 10), (12, 0)])
def test_polynomial_fit_draws_what_is_told(degree, precision):
    x, resolution = np.linspace(-1, 1, 50), 2.0**-5
    y = np.round((np.sin(4 * x) + np.random.default_rng(0).normal(0, 0.2, 50)) / resolution) * resolution
    left, right = drawn(figures.polynomial_fit(x, y, resolution, degree, precision)).axes
    told = theory.polynomial_code(x, y, degree, precision, resolution)
    curve = left.lines[1]
    np.testing.assert_allclose(curve.get_ydata(), theory.design(curve.get_xdata(), degree) @ told.coefficients)
    tops = [area.get_paths()[0].vertices for area in right.collections]
    for vertices, height in zip(tops, (told.parameter_bits, told.bits), strict=True):
        here = vertices[np.abs(vertices[:, 0] - degree) <= 0.5][:, 1]
        assert np.abs(here - height).min() < 1e-6
    assert right.lines[0].get_xdata()[0] == degree


def test_label_codes_say_both_parts():
    table = pd.DataFrame({"model_bits": [20_000.0, 0], "label_bits": [100.0, 500]}, index=["told", "predicted"])
    (axes,) = drawn(figures.label_codes(table, 3976)).axes
    assert [text.get_text() for text in axes.texts] == ["20,100 = 20,000 + 100", "500"]


def test_prequential_is_a_block_and_their_sum():
    ends, bits = [10, 30, 60], {"learned": np.array([30.0, 40, 30]), "random": np.array([33.0, 70, 100])}
    left, right = drawn(figures.prequential(ends, bits, classes=8)).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [3, 3, 2, 1])
    np.testing.assert_allclose(right.lines[1].get_ydata(), [0.033, 0.103, 0.203])
    np.testing.assert_allclose(right.lines[2].get_ydata(), [0, 0.18])


def run(best=0.9):
    rows = [
        {"share": share, "precision": b, "model_bits": 1000 * share + 100 * b, "label_bits": 9000 * (share - best) ** 2}
        for share in (1, 0.9, 0.5, 0.1)
        for b in (-1, 0, 3)
    ]
    table = pd.DataFrame(rows).assign(mask_bits=50.0, test_error=0.2)
    return table.assign(bits=table.model_bits + table.label_bits + table.mask_bits)


def test_the_stars_of_total_lengths_are_the_minima_also_with_repeated_index():
    one = run()[run().precision == 0].assign(code="x").set_index("code")
    top, low = drawn(figures.total_lengths({"a": one, "b": one.assign(bits=one.bits * 3)}, 16_610)).axes
    stars = [line for line in top.lines if line.get_marker() == "*"]
    assert [float(line.get_xdata()[0]) for line in stars] == [one.share.iloc[one.bits.argmin()]] * 2
    assert [line.get_ydata()[0] for line in stars] == [one.bits.min(), 3 * one.bits.min()]
    assert len([line for line in low.lines if line.get_marker() == "*"]) == 2


@pytest.mark.parametrize("precision", [-1, 3])
def test_pruning_code_stacks_the_parts_of_one_precision(precision):
    table = run()
    top, low = drawn(figures.pruning_code({"a": table}, 16_610, "a", precision)).axes
    chosen = table[table.precision == precision]
    (star,) = [line for line in top.lines if line.get_marker() == "*"]
    assert star.get_xdata()[0] == chosen.share[chosen.bits.idxmin()]
    assert star.get_ydata()[0] == pytest.approx(chosen.bits.min() / 1000)
    highest = max(path.vertices[:, 1].max() for area in top.collections for path in area.get_paths())
    assert highest == pytest.approx(chosen.bits.max() / 1000)
    assert f"precision {precision}" in top.get_title()
