"""Least squares through and beyond the point where a model has as many weights as there are examples.

Taught in: notebooks/01_over_complexity.ipynb.
"""

from __future__ import annotations

import numpy as np


def least_norm(design: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Among all weights of least squared error the shortest: design (n, p), targets (n,) or (n, outputs)."""
    return np.linalg.lstsq(design, targets, rcond=None)[0]


def random_relu(x: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """x (n, d) through a hidden layer whose weights are drawn and never trained: (n, width), ReLU after it.

    The first columns do not depend on the width: a wider layer contains the narrower ones.
    """
    x = np.column_stack([x, np.ones(len(x))])
    weights = np.random.default_rng(seed).standard_normal((width, x.shape[1]))
    return np.maximum(x @ weights.T, 0) / np.sqrt(x.shape[1])


def expected_error(n: int, p: int, inside: float, outside: float) -> float:
    """Mean squared error on new data when p of all features, standard normal, are fitted to n examples.

    Belkin, Hsu and Xu, Two models of double descent for weak features, 2020, Theorem 1.

    Args:
        inside: squared length of the true weights of the p features that are used.
        outside: squared length of the other true weights, plus the variance of the noise.

    Returns:
        Infinity where p is n - 1, n or n + 1.
    """
    if abs(p - n) <= 1:
        return np.inf
    if p < n:
        return outside * (1 + p / (n - p - 1))
    return inside * (1 - n / p) + outside * (1 + n / (p - n - 1))


def simulated_error(n: int, p: int, weights: np.ndarray, noise: float, seed: int = 0) -> float:
    """The same for one draw of n examples: features (n, D) of which the first p are used, true weights (D,).

    No new examples are needed: for features that are standard normal the error is the squared distance of the weights.
    """
    random = np.random.default_rng(seed)
    features = random.standard_normal((n, len(weights)))
    targets = features @ weights + noise * random.standard_normal(n)
    found = np.zeros(len(weights))
    found[:p] = least_norm(features[:, :p], targets)
    return float(np.sum((found - weights) ** 2) + noise**2)
