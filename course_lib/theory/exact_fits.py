"""Two classes that can be fitted exactly, without luck: changes of sign on a line, and a network that memorises.

Taught in: notebooks/03_vc_dimension.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def fewest_errors(y: np.ndarray, most: int) -> np.ndarray:
    """Empirical risk minimisation over labellings of a sorted line with at most k changes of sign, k = 0 ... most.

    These are the labellings by polynomials of degree k. Exact, by dynamic programming in n * most steps.

    Args:
        y: (n,) labels +1 and -1, in the order of the points.

    Returns:
        (most + 1, n): in row k the best labelling with at most k changes.
    """
    cost = np.zeros((most + 1, 2))  # fewest errors so far, by changes made and present sign (-1, +1)
    switched = np.zeros((len(y), most + 1, 2), dtype=bool)
    for i, label in enumerate(y):
        other = np.vstack([[np.inf, np.inf], cost[:-1, ::-1]])  # one change less, and the other sign
        switched[i] = (other < cost) & (i > 0)
        cost = np.where(switched[i], other, cost) + (np.array([-1, 1]) != label)
    return np.array([_trace(switched, k, int(cost[k].argmin())) for k in range(most + 1)])


def _trace(switched: np.ndarray, changes: int, sign: int) -> np.ndarray:
    labels = np.empty(len(switched), dtype=int)
    for i in reversed(range(len(switched))):
        labels[i] = 2 * sign - 1
        if switched[i, changes, sign]:
            changes, sign = changes - 1, 1 - sign
    return labels


class Memory(NamedTuple):
    """A two-layer ReLU network x -> sum_j w_j max(a x - b_j, 0): p + n + n numbers."""

    a: np.ndarray
    b: np.ndarray
    w: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Outputs (m,) for points (m, p)."""
        return np.maximum((X @ self.a)[:, None] - self.b, 0) @ self.w


def memorise(X: np.ndarray, y: np.ndarray, seed: int = 0) -> Memory:
    """A network of 2n + p weights that has exactly the values y (n,) at n different points X (n, p).

    Zhang, Bengio, Hardt, Recht and Vinyals, ICLR 2017, Theorem 1 and its proof in the appendix: project on a random
    line, put one kink before each point, and solve a triangular system. Here each kink is at the point's left
    neighbour, so that along the line the outputs go straight from value to value and do not overshoot.
    """
    a = np.random.default_rng(seed).standard_normal(X.shape[1])
    z = X @ a
    order = np.argsort(z)
    if np.diff(z[order]).min(initial=np.inf) <= 0:
        raise ValueError("Two points fall on the same place of the line: they are equal, so leave one of them out.")
    b = np.empty(len(X))
    b[0], b[1:] = z[order[0]] - 1, z[order[:-1]]  # b_1 < z_1 = b_2 < z_2 = b_3 < ...
    triangle = np.maximum(z[order][:, None] - b, 0)
    return Memory(a, b, _forward_substitution(triangle, y[order]))


def _forward_substitution(triangle: np.ndarray, y: np.ndarray) -> np.ndarray:
    w = np.zeros(len(y))
    for i in range(len(y)):
        w[i] = (y[i] - triangle[i, :i] @ w[:i]) / triangle[i, i]
    return w
