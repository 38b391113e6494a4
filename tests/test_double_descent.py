"""Least norm and the expected error of weak features, against independent computations."""

import numpy as np
import pytest

from course_lib.theory import double_descent, risk_bounds


@pytest.mark.parametrize("shape", [(4, 9), (5, 5), (9, 4), (1, 3)])
def test_least_norm_is_the_pseudo_inverse(shape):
    random = np.random.default_rng(0)
    design, targets = random.standard_normal(shape), random.standard_normal(shape[0])
    assert np.allclose(double_descent.least_norm(design, targets), np.linalg.pinv(design) @ targets)


def test_of_two_equal_columns_both_get_the_same():
    assert np.allclose(double_descent.least_norm(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([1.0, 2.0])), [0.5, 0.5])


def test_a_wider_layer_contains_the_narrower():
    x = np.random.default_rng(0).standard_normal((6, 3))
    narrow, wide = double_descent.random_relu(x, 4, 7), double_descent.random_relu(x, 11, 7)
    assert wide.shape == (6, 11) and np.array_equal(narrow, wide[:, :4]) and (wide >= 0).all() and (wide > 0).any()


@pytest.mark.parametrize("p", [0, 3, 8, 20, 40])
def test_the_expected_error_is_that_of_fits_judged_on_new_examples(p):
    random, weights, noise, found = np.random.default_rng(p), np.arange(40) / 100, 0.4, []
    new = random.standard_normal((400, 40))
    for _ in range(300):
        features = random.standard_normal((12, 40))
        targets = features @ weights + noise * random.standard_normal(12)
        fitted = np.linalg.pinv(features[:, :p]) @ targets
        found.append(np.mean((new @ weights - new[:, :p] @ fitted) ** 2) + noise**2)
    inside = np.sum(weights[:p] ** 2)
    expected = double_descent.expected_error(12, p, inside, np.sum(weights**2) - inside + noise**2)
    assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_a_simulated_error_has_that_mean_and_the_pole_is_infinite():
    weights = np.full(30, 0.2)
    found = [double_descent.simulated_error(10, 20, weights, 0.5, seed) for seed in range(400)]
    expected = double_descent.expected_error(10, 20, 20 * 0.04, 10 * 0.04 + 0.25)
    assert np.mean(found) == pytest.approx(expected, rel=0.06)
    assert [double_descent.expected_error(10, p, 1, 1) for p in (9, 10, 11)] == [np.inf] * 3


def test_the_regression_factor_grows_with_the_dimension_and_falls_with_the_data():
    few = [risk_bounds.regression_factor(d, 30) for d in range(1, 31)]
    assert few == sorted(few) and few[0] > 1 and few[-1] == np.inf
    assert risk_bounds.regression_factor(5, 10**6) == pytest.approx(1, abs=0.02)
    q = 0.1  # by hand, n = 30 and d = 3
    assert few[2] == pytest.approx(1 / (1 - (q + q * np.log(10) + np.log(30) / 60) ** 0.5))
