"""Figures of notebook 04: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
from drawing import drawn
from scipy import integrate

from course_lib.classroom import figures
from course_lib.theory import evidence

pytestmark = pytest.mark.usefixtures("figure_style")


def test_two_weights_shows_the_posterior_within_the_prior():
    x, targets = evidence.example(4)
    (axes,) = drawn(figures.two_weights(evidence.legendre(x, 1), targets, 1.0, 16.0)).axes
    assert axes.get_xlim() == pytest.approx((-3, 3))
    inner = axes.collections[-1].get_paths()[-1].vertices  # one standard deviation
    mean, _ = evidence.posterior(evidence.legendre(x, 1), targets, 1.0, 16.0)
    np.testing.assert_allclose(inner.mean(0), mean, atol=0.05)


@pytest.mark.parametrize("controls", [{}, {"degree": 0, "log_alpha": 3.0}, {"degree": 12, "log_beta": -1.0}])
def test_evidence_by_degree_splits_it_in_two(controls):
    x, targets = evidence.example(30)
    figure = drawn(figures.evidence_by_degree(x, targets, **controls))
    fit, total = (line.get_ydata() for line in figure.axes[1].lines[:2])
    alpha, beta = 10 ** controls.get("log_alpha", 0.0), 10 ** controls.get("log_beta", 1.2)
    expected = [evidence.log_marginal(evidence.legendre(x, d), targets, alpha, beta) for d in range(13)]
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert (fit > total).all()
    assert f"ask for degree {np.argmax(expected)}" in figure.get_suptitle()


def test_two_judges_marks_both_choices():
    table = pd.DataFrame(
        {"draw": [0, 0, 0], "degree": [1, 2, 3], "evidence": [0.0, 9.0, 3.0], "test_error": [0.3, 0.2, 0.1]}
    )
    left, right = drawn(figures.two_judges(table)).axes
    marks = [tuple(line.get_xydata()[0]) for line in left.lines[1:3]]
    assert marks == [(2, 9.0), (3, 3.0)]
    assert [tuple(line.get_xydata()[0]) for line in right.lines[1:3]] == [(2, 0.2), (3, 0.1)]


def test_occam_and_data_draws_bics_slope():
    n = np.array([10, 100, 1000])
    table = pd.DataFrame({"k": 4, "n": n, "occam": -2 * np.log(n) - 3})
    (axes,) = drawn(figures.occam_and_data(table)).axes
    measured, slope = (line.get_ydata() for line in axes.lines[:2])
    np.testing.assert_allclose(measured, slope)


@pytest.mark.parametrize("controls", [{}, {"noise": 0.1, "irrelevant": 0}, {"noise": 2.0, "irrelevant": 10, "seed": 9}])
def test_relevance_shows_every_input_twice(controls):
    left, right = drawn(figures.relevance(**controls)).axes
    inputs = 3 + controls.get("irrelevant", 4)
    assert len(left.patches) == len(right.patches) == inputs
    gone = right.lines[0].get_xdata()
    assert f"{inputs - len(gone)} of {inputs} stay" in right.get_title()
    assert all(right.patches[i].get_height() < 0.02 for i in gone)


@pytest.mark.parametrize("controls", [{}, {"tosses": 1, "share_of_heads": 1.0, "log_alpha": -3.0}, {"tosses": 60}])
def test_laplace_coin_tells_both_evidences(controls):
    (axes,) = drawn(figures.laplace_coin(**controls)).axes
    tosses = controls.get("tosses", 5)
    coin = (round(controls.get("share_of_heads", 0.8) * tosses), tosses, 10 ** controls.get("log_alpha", -1.0))
    area = integrate.quad(lambda a: np.exp(-evidence.coin(a, *coin)), -150, 150, points=[0, 2, 5], limit=500)[0]
    said = float(axes.get_legend().texts[0].get_text().split()[-1])
    assert said == pytest.approx(np.log(area), abs=2e-3)


@pytest.mark.parametrize("copies", [True, False])
def test_network_evidence_stars_the_best_of_each_judge(copies):
    table = pd.DataFrame(
        {
            "alphas": ["three"] * 6 + ["one"],
            "hidden": [2, 2, 5, 5, 10, 10, 2],
            "evidence": [0, 1, 50, 60, 70, 65, 99],
            "one_peak": [0, 1, 45, 55, 40, 35, 99],
            "test_error": [0.5, 0.4, 0.05, 0.04, 0.06, 0.07, 0.001],
        }
    )
    left, right = drawn(figures.network_evidence(table, "three", copies)).axes
    assert tuple(left.lines[-1].get_xydata()[0]) == ((10, 70) if copies else (5, 55))
    assert tuple(right.lines[-1].get_xydata()[0]) == (5, 0.04)


def test_saliencies_say_how_well_each_ranks():
    measured = np.array([1.0, 20.0, 3.0, 400.0])
    left, right = drawn(figures.saliencies(measured * 1.1, measured, -1 / measured)).axes
    assert "Spearman 1.00" in left.get_title() and "Spearman -1.00" in right.get_title()


@pytest.mark.parametrize("images", [50, 5000, 100_000])
def test_gate_widths_counts_the_relevant(images):
    random = np.random.default_rng(0)
    curvature = {f"features.{i}": 10 ** random.uniform(-6, -1, 20) for i in range(13)}
    left, right = drawn(figures.gate_widths(curvature, images)).axes
    h = np.concatenate(list(curvature.values()))
    np.testing.assert_allclose(left.lines[0].get_ydata(), (images * h + 1) ** -0.5)
    assert sum(bar.get_height() for bar in right.containers[1]) == np.sum(h > 1 / images)
    assert f"{np.mean(h > 1 / images):.0%}" in right.get_title()


@pytest.mark.parametrize("gates", ["open", "anew"])
def test_relevance_of_gates_has_a_line_for_everyone_who_chose(gates):
    names = ["relevance", "OBD", "oracle", "random"]
    rows = [
        {
            "chosen_by": who,
            "layer": layer,
            "maps": 9,
            "kept": 4,
            "gates": kind,
            "accuracy": (i + 1) / (5 + (kind == "open")),
        }
        for i, who in enumerate(names)
        for layer in ("conv4_1", "conv4_2")
        for kind in ("open", "anew")
    ]
    (axes,) = drawn(figures.relevance_of_gates(pd.DataFrame(rows), 0.9, gates)).axes
    lines = {line.get_label(): line.get_ydata()[0] for line in axes.lines[1:]}
    assert list(lines) == names
    assert lines["oracle"] == pytest.approx(3 / (6 if gates == "open" else 5))
    assert "4 of 9" in axes.get_xticklabels()[0].get_text()
