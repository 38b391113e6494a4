"""Which size does the evidence choose, and which the test error? Polynomials, and small networks.

Taught in: notebooks/04_evidence.ipynb.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from course_lib.progress import track
from course_lib.theory import evidence, small_network

HIDDEN = (2, 3, 4, 5, 6, 8, 12, 20)


def polynomials(draws: Iterable[int], n: int = 30, degrees: Iterable[int] = range(13)) -> pd.DataFrame:
    """Every degree on every draw of n points, alpha and beta at their fixed point.

    Returns:
        One row for each: draw, degree, evidence (nats), test_error (mean squared error to the true curve).
    """
    grid, rows = np.linspace(-1, 1, 401), []
    for draw, degree in itertools.product(draws, degrees):
        x, targets = evidence.example(n, seed=draw)
        design = evidence.legendre(x, degree)
        fit = evidence.fixed_point(design, targets, tolerance=1e-4)
        missed = evidence.legendre(grid, degree) @ fit.weights.mean - evidence.curve(grid)
        total = evidence.log_evidence(design, targets, fit.alpha, fit.beta).total
        rows.append({"draw": draw, "degree": degree, "evidence": total, "test_error": np.mean(missed**2)})
    return pd.DataFrame(rows)


def chosen(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of every draw the row that the evidence chooses, and the row with the least test error."""
    draws = table.groupby("draw")
    return {
        "evidence": table.loc[draws.evidence.idxmax()],
        "test error": table.loc[draws.test_error.idxmin()],
    }


def occam_factors(weights: Iterable[int], data: Iterable[int], seed: int = 0) -> pd.DataFrame:
    """The Occam factor's logarithm for k weights and n data, with alpha = 1 and beta = 16: columns k, n, occam."""
    rows = []
    for k, n in itertools.product(weights, data):
        x, targets = evidence.example(n, seed=seed)
        occam = evidence.log_evidence(evidence.legendre(x, k - 1), targets, 1.0, 16.0).occam
        rows.append({"k": k, "n": n, "occam": occam})
    return pd.DataFrame(rows)


def networks(starts: int, n: int = 100, noise: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Networks for the robot's arm, with one alpha and with three, of several sizes, from several random starts.

    Returns:
        One row for each: alphas ('three' or 'one'), hidden, start, evidence (all copies of the peak counted), one_peak
        (not counted), test_error (root of the mean square, against positions without noise).
    """
    x, targets = small_network.robot_arm(n, noise, seed)
    new, truth = small_network.robot_arm(2000, 0.0, seed + 1)
    rows = []
    for alphas, hidden, start in track(list(itertools.product(("three", "one"), HIDDEN, range(starts))), "networks"):
        net = small_network.train(x, targets, hidden, seed=start, separate=alphas == "three")
        error = np.sqrt(np.mean((small_network.predict(net.w, new, hidden) - truth) ** 2))
        total, peak = net.evidence.total, net.evidence.total - small_network.log_copies(hidden)
        size = {"alphas": alphas, "hidden": hidden, "start": start}
        rows.append({**size, "evidence": total, "one_peak": peak, "test_error": error})
    return pd.DataFrame(rows)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """What the evidence chooses among `networks`, for both kinds of alpha and both ways to count copies.

    Returns:
        Columns: hidden units of the network with most evidence; its test error over the least of all; Spearman's
        correlation of evidence and negative test error over all networks.
    """
    rows = {}
    for alphas, part in table.groupby("alphas", sort=False):
        for column, name in (("evidence", "all copies"), ("one_peak", "one peak")):
            best = part.loc[part[column].idxmax()]
            rows[f"{alphas} alpha, {name}"] = {
                "asks for": int(best.hidden),
                "error / least": best.test_error / part.test_error.min(),
                "Spearman": stats.spearmanr(part[column], -part.test_error).statistic,
            }
    return pd.DataFrame(rows).T.astype({"asks for": int})
