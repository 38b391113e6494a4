"""Choosing sizes: one row for each model, and the choices are the best rows."""

import numpy as np
import pandas as pd
import pytest

from course_lib.classroom import model_choice
from course_lib.theory import evidence, small_network


def test_polynomials_are_judged_one_by_one():
    table = model_choice.polynomials([3, 4], n=20, degrees=range(4))
    assert table[["draw", "degree"]].values.tolist() == [[d, k] for d in (3, 4) for k in range(4)]
    x, targets = evidence.example(20, seed=4)
    design = evidence.legendre(x, 2)
    fit = evidence.fixed_point(design, targets)
    row = table.iloc[6]
    assert row.evidence == pytest.approx(evidence.log_marginal(design, targets, fit.alpha, fit.beta), abs=1e-4)
    grid = np.linspace(-1, 1, 401)
    missed = evidence.curve(grid) - evidence.legendre(grid, 2) @ fit.weights.mean
    assert row.test_error == pytest.approx(np.mean(missed**2), rel=1e-3)


def test_chosen_are_the_most_evidence_and_the_least_error():
    table = pd.DataFrame(
        {"draw": [0, 0, 1, 1], "degree": [1, 2, 1, 2], "evidence": [5, 4, 1, 3], "test_error": [0.2, 0.1, 0.1, 0.3]}
    )
    found = model_choice.chosen(table)
    assert found["evidence"].degree.tolist() == [1, 2]
    assert found["test error"].degree.tolist() == [2, 1]


def test_occam_factors_fall_with_half_a_log_n_for_every_weight():
    table = model_choice.occam_factors((2, 5), (4000, 16_000))
    for k, rows in table.groupby("k"):
        slope = np.diff(rows.occam)[0] / np.log(4)
        assert slope == pytest.approx(-k / 2, rel=0.05)


def test_networks_and_their_judgement(monkeypatch):
    monkeypatch.setattr(model_choice, "HIDDEN", (1, 2))
    table = model_choice.networks(starts=1, n=30)
    assert table[["alphas", "hidden"]].values.tolist() == [["three", 1], ["three", 2], ["one", 1], ["one", 2]]
    copies = table.evidence - table.one_peak
    np.testing.assert_allclose(copies, [small_network.log_copies(j) for j in table.hidden])
    judged = model_choice.judged(table)
    assert judged.index.tolist()[:2] == ["three alpha, all copies", "three alpha, one peak"]
    assert (judged["error / least"] >= 1).all()


def test_judged_takes_the_network_with_most_evidence():
    table = pd.DataFrame(
        {
            "alphas": "one",
            "hidden": [2, 3, 4],
            "start": 0,
            "evidence": [1.0, 2.0, 3.0],
            "one_peak": [1.0, 2.0, 0.0],
            "test_error": [0.4, 0.1, 0.2],
        }
    )
    found = model_choice.judged(table)
    assert found["asks for"].tolist() == [4, 3]
    assert found["error / least"].tolist() == pytest.approx([2, 1])
    assert found["Spearman"].tolist() == pytest.approx([0.5, 0.5])
