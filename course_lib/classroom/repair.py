"""What fine-tuning can repair, where it can be worked out: a quadratic loss; and the step of a penalty that removes.

Taught in: notebooks/10_prune_alexnet.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd


class Quadratic(NamedTuple):
    """A loss C(w) = lowest + 1/2 tr (w - optimum)^T hessian (w - optimum): what least squares is, exactly.

    hessian: (n, n); optimum: (n, k), one row for each input that can be removed; lowest: a number.
    """

    hessian: np.ndarray
    optimum: np.ndarray
    lowest: float


def least_squares(x: np.ndarray, targets: np.ndarray) -> Quadratic:
    """Half the mean squared error of predicting targets (N, k) linearly from inputs x (N, n), both centred."""
    x, targets = x - x.mean(0), targets - targets.mean(0)
    hessian = x.T @ x / len(x)
    optimum = np.linalg.lstsq(x, targets, rcond=None)[0]
    return Quadratic(hessian, optimum, float(((x @ optimum - targets) ** 2).sum() / len(x) / 2))


def rise(loss: Quadratic, removed: list[int]) -> tuple[float, float]:
    """Rise of the loss when inputs are removed: right after the cut, and when all other weights have settled again.

    1/2 w^T H w (LeCun et al. 1990, with the whole block instead of the diagonal) and 1/2 w^T (H^-1 block)^-1 w
    (Hassibi and Stork 1993), w the removed weights.
    """
    w, block = loss.optimum[removed], np.ix_(removed, removed)
    settled = np.linalg.solve(np.linalg.inv(loss.hessian)[block], w)
    return float((w * (loss.hessian[block] @ w)).sum() / 2), float((w * settled).sum() / 2)


def excess(curvatures: np.ndarray, distances: np.ndarray, rate: float, updates: int) -> float:
    """What is left above the minimum after so many gradient steps: 1/2 sum c (1 - rate c)^(2 updates) d^2.

    curvatures: (n,) eigenvalues c of the Hessian; distances: (n,) from the minimum along their eigenvectors, before.
    """
    return float((curvatures * ((1 - rate * curvatures) ** updates * distances) ** 2).sum() / 2)


def rise_after(loss: Quadratic, removed: list[int], rate: float, updates: Iterable[int]) -> list[float]:
    """Rise of the loss when inputs are removed and the other weights make so many gradient steps."""
    kept = np.setdiff1d(np.arange(len(loss.optimum)), removed)
    curvatures, vectors = np.linalg.eigh(loss.hessian[np.ix_(kept, kept)])
    pull = vectors.T @ loss.hessian[np.ix_(kept, removed)] @ loss.optimum[removed]
    distances = np.sqrt((pull**2).sum(1)) / curvatures  # to where the kept weights settle, over all outputs
    settled = rise(loss, removed)[1]
    return [settled + excess(curvatures, distances, rate, n) for n in updates]


def without(loss: Quadratic, removed: list[int]) -> Quadratic:
    """The loss of the inputs that are left, their weights settled."""
    kept = np.setdiff1d(np.arange(len(loss.optimum)), removed)
    hessian = loss.hessian[np.ix_(kept, kept)]
    moved = np.linalg.solve(hessian, loss.hessian[np.ix_(kept, removed)] @ loss.optimum[removed])
    return Quadratic(hessian, loss.optimum[kept] + moved, loss.lowest + rise(loss, removed)[1])


def greedy(loss: Quadratic, bite: int, left: int) -> pd.DataFrame:
    """Remove inputs, `bite` at a time, always those of the lowest 1/2 w^2 H; the others settle after every bite.

    Returns:
        Rows: bite, left (inputs), loss.
    """
    rows = [{"bite": bite, "left": len(loss.optimum), "loss": loss.lowest}]
    while (now := len(loss.optimum)) > left:
        saliency = (loss.optimum**2).sum(1) * np.diag(loss.hessian) / 2
        loss = without(loss, saliency.argsort()[: min(bite, now - left)].tolist())
        rows.append({"bite": bite, "left": len(loss.optimum), "loss": loss.lowest})
    return pd.DataFrame(rows)


def shortened(kernels: np.ndarray, length: float) -> np.ndarray:
    """Each kernel, a row of (C, n), shorter by `length`, but not shorter than nothing.

    The proximal step of length * sum of the rows' Euclidean lengths (Parikh and Boyd 2014, section 6.5.1); for n = 1 it
    is the soft threshold.
    """
    lengths = np.linalg.norm(kernels, axis=1, keepdims=True)
    return kernels * np.maximum(1 - length / np.maximum(lengths, 1e-12), 0)
