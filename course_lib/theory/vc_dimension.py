"""What a class of classifiers can fit: shattering, Radon's theorem, the growth function, Sauer's lemma.

Labels are +1 and -1. Points are rows of X, shape (m, p); a family of labellings is an array (F, m), a row each.
Taught in: notebooks/03_vc_dimension.ipynb.
"""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
from scipy.linalg import null_space
from scipy.optimize import linprog


def separator(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float] | None:
    """A hyperplane (w, b) with y (w x + b) >= 1 for all points, or None if there is none.

    A linear program in p + 1 unknowns. Of all hyperplanes it takes the one with the smallest sum of y (w x + b), so
    that w and b stay small.
    """
    lifted = y[:, None] * np.column_stack([X, np.ones(len(X))])  # a point and its label: y (x, 1)
    found = linprog(lifted.sum(0), A_ub=-lifted, b_ub=-np.ones(len(X)), bounds=(None, None))
    return (found.x[:-1], found.x[-1]) if _solved(found) else None


def separable(X: np.ndarray, y: np.ndarray) -> bool:
    """Whether some half-space holds exactly the points with y = +1. X (m, p), y (m,)."""
    return separator(X, y) is not None


def common_point(A: np.ndarray, B: np.ndarray) -> np.ndarray | None:
    """A point (p,) in the convex hulls of both sets of points, (a, p) and (b, p), or None if they are disjoint.

    It exists exactly where `separator` finds nothing: the certificate of the other answer.
    """
    if len(A) == 0 or len(B) == 0:
        return None
    ones = np.repeat([[1.0, 0.0], [0.0, 1.0]], [len(A), len(B)], axis=0)  # the shares of each set add up to one
    equations = np.vstack([np.vstack([A, -B]).T, ones.T])
    found = linprog(np.zeros(len(ones)), A_eq=equations, b_eq=[*np.zeros(A.shape[1]), 1, 1])
    return found.x[: len(A)] @ A if _solved(found) else None


def _solved(found) -> bool:
    if found.status not in (0, 2):  # 0: a solution, 2: there is none
        raise RuntimeError(f"The linear program was not decided: {found.message} Scale the points to about 1.")
    return found.status == 0


def on_a_circle(m: int) -> np.ndarray:
    """m points (m, 2), evenly spread on the unit circle: no three of them on a line."""
    angles = 2 * np.pi * np.arange(m) / m + 0.3
    return np.column_stack([np.cos(angles), np.sin(angles)])


def labellings(m: int) -> np.ndarray:
    """All 2^m labellings of m points, (2^m, m): row i has the binary digits of i, 1 as +1 and 0 as -1."""
    return np.array(list(itertools.product([-1, 1], repeat=m))).reshape(2**m, m)


def dichotomies(X: np.ndarray) -> np.ndarray:
    """The labellings of X that half-spaces produce: an array (F, m)."""
    return np.array([y for y in labellings(len(X)) if separable(X, y)])


def shatters(X: np.ndarray) -> bool:
    """Whether half-spaces produce all 2^m labellings of X."""
    return all(separable(X, y) for y in labellings(len(X)))


def radon(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radon's theorem: split p + 2 points into two sets whose convex hulls meet.

    Returns:
        labels (p + 2,): +1, -1, and 0 for a point that is not needed; and the common point (p,).
    """
    if len(X) != X.shape[1] + 2:
        raise ValueError(f"Radon's theorem is for p + 2 points: X has shape {X.shape}, so give {X.shape[1] + 2} rows.")
    shares = null_space(np.column_stack([X, np.ones(len(X))]).T)[:, 0]  # sum of shares 0, sum of shares * x 0
    shares[np.abs(shares) < 1e-12] = 0
    positive = np.maximum(shares, 0)
    return np.sign(shares).astype(int), positive @ X / positive.sum()


def half_space_growth(m: int, p: int) -> int:
    """Labellings of m >= 1 points in general position by half-spaces of R^p: 2 sum_{k <= p} C(m - 1, k).

    Cover, Geometrical and statistical properties of systems of linear inequalities, 1965, Theorem 1.
    """
    return 2 * sum(comb(m - 1, k) for k in range(p + 1))


def sauer(m: int, d: int) -> int:
    """The most labellings of m points that a class of VC dimension d has: sum_{k <= d} C(m, k). Sauer's lemma."""
    return sum(comb(m, k) for k in range(d + 1))


def is_shattered(family: np.ndarray, points: tuple[int, ...]) -> bool:
    """Whether the family (F, m) has all labellings of these points (indices of columns)."""
    return len(np.unique(family[:, list(points)], axis=0)) == 2 ** len(points) if points else len(family) > 0


def shattered_sets(family: np.ndarray) -> list[tuple[int, ...]]:
    """All sets of points that the family (F, m) shatters; the empty set too, if there is any labelling."""
    m = family.shape[1]
    subsets = (points for size in range(m + 1) for points in itertools.combinations(range(m), size))
    return [points for points in subsets if is_shattered(family, points)]


def family_dimension(family: np.ndarray) -> int:
    """VC dimension of a family of labellings (F, m): the size of the largest set of points that it shatters."""
    return max(map(len, shattered_sets(family)))


def sine_points(m: int) -> np.ndarray:
    """Points 1/2, 1/4, ..., 2^-m, which sin(omega x) shatters, however many they are."""
    return 0.5 ** np.arange(1, m + 1)


def sine_frequency(y: np.ndarray) -> float:
    """The frequency for which sin(omega x) has the signs y at `sine_points`: pi (1 + the sum of 2^i where y_i = -1)."""
    return np.pi * (1 + sum(2.0**i for i, label in enumerate(y, 1) if label < 0))
