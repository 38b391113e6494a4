"""Exact fits: changes of sign against trying everything, and a network that memorises."""

import itertools

import numpy as np
import pytest

from course_lib.theory import exact_fits


def changes(y):
    return int((np.diff(y) != 0).sum())


@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_fewest_errors_as_by_trying_every_labelling(n):
    rng = np.random.default_rng(n)
    every = np.array(list(itertools.product([-1, 1], repeat=n)))
    for _ in range(10):
        y = rng.choice([-1, 1], n)
        best = exact_fits.fewest_errors(y, 4)
        assert best.shape == (5, n)
        for k, labels in enumerate(best):
            allowed = every[[changes(row) <= k for row in every]]
            assert changes(labels) <= k
            assert (labels != y).sum() == (allowed != y).sum(1).min()


def test_enough_changes_fit_everything():
    y = np.array([1, -1] * 6)
    np.testing.assert_array_equal(exact_fits.fewest_errors(y, 11)[-1], y)


@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 3), (40, 1), (300, 5)])
def test_memorise_has_the_values_with_2n_plus_p_weights(n, p):
    rng = np.random.default_rng(n)
    X, y = rng.standard_normal((n, p)), rng.standard_normal(n)
    network = exact_fits.memorise(X, y, seed=1)
    assert sum(map(np.size, network)) == 2 * n + p
    np.testing.assert_allclose(network(X), y, atol=1e-5)
    hidden = np.maximum(X @ network.a - network.b[:, None], 0)  # written out once more, the other way round
    np.testing.assert_allclose(network.w @ hidden, network(X), atol=1e-6)


def test_between_the_points_the_memory_does_not_overshoot():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 1)), rng.choice([-1, 1], 200)
    between = np.linspace(X.min(), X.max(), 3001)[:, None]
    order = X[:, 0].argsort()
    expected = np.interp(between[:, 0], X[order, 0], y[order])
    np.testing.assert_allclose(exact_fits.memorise(X, y)(between), expected, atol=1e-5)


def test_memorise_refuses_equal_points():
    with pytest.raises(ValueError, match="leave one of them out"):
        exact_fits.memorise(np.array([[1.0, 2], [3, 4], [1, 2]]), np.ones(3))
