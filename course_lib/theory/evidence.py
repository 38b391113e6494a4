"""The evidence for a model: the probability of the data, averaged over everything the model could have been.

A linear model t = Phi w + noise has independent weights w ~ N(0, 1/alpha) and noise of variance 1/beta. Everything here
is in nats, and in the letters of MacKay 1992, "Bayesian interpolation": E_W = w'w / 2, E_D = |t - Phi w|^2 / 2,
M = alpha E_W + beta E_D, and A, the Hessian of M. `alpha` may be one number or one for every weight, (k,).

Taught in: notebooks/04_evidence.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

LARGEST = 1e12  # no alpha grows beyond it
GONE = 1e4  # an alpha beyond it holds its weights within a hundredth of zero: they are pruned


class Evidence(NamedTuple):
    """log P(D|H) in two parts: how well the best weights fit, and the Occam factor (its logarithm, negative)."""

    best_fit: float
    occam: float

    @property
    def total(self) -> float:
        """log P(D|H), nats."""
        return self.best_fit + self.occam


class Gaussian(NamedTuple):
    """Weights after the data: mean (k,) and precision (k, k), the matrix A."""

    mean: np.ndarray
    precision: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The inverse of A, (k, k)."""
        return np.linalg.inv(self.precision)


class Fit(NamedTuple):
    """Where the fixed point came to rest.

    Attributes:
        alpha: (k,), the same within a group; beyond `GONE` where the evidence wants the weights away.
        beta: of the noise.
        gamma: (groups,), how many weights of each group the data determine.
        weights: the posterior.
    """

    alpha: np.ndarray
    beta: float
    gamma: np.ndarray
    weights: Gaussian


def example(n: int, noise: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n points x in [-1, 1] and targets (n,): a smooth curve, no polynomial, and normal noise."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, n)
    return x, curve(x) + noise * random.standard_normal(n)


def curve(x: np.ndarray) -> np.ndarray:
    """The curve under the noise of `example`."""
    return np.sin(4 * x) * np.exp(-x)


def some_relevant(
    n: int, irrelevant: int, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three inputs that matter and some that do not, three polynomials of each.

    Returns:
        The design (n, 3 * inputs), the targets (n,), and which input each column belongs to, counted from 0.
    """
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (n, 3 + irrelevant))
    targets = x[:, 0] + np.sin(3 * x[:, 1]) + x[:, 2] ** 2 - 1 / 3 + noise * random.standard_normal(n)
    return (
        np.hstack([legendre(column, 3)[:, 1:] for column in x.T]),
        targets,
        np.repeat(np.arange(3 + irrelevant), 3),
    )


def legendre(x: np.ndarray, degree: int) -> np.ndarray:
    """Polynomials of degree 0 to `degree` at x in [-1, 1], each of mean square one there: (N, degree + 1)."""
    return np.polynomial.legendre.legvander(x, degree) * np.sqrt(2 * np.arange(degree + 1) + 1)


def posterior(design: np.ndarray, targets: np.ndarray, alpha: float | np.ndarray, beta: float) -> Gaussian:
    """Weights after the data: A = beta Phi'Phi + alpha I, mean beta A^-1 Phi't (Bishop 2006, eq. 3.81 and 3.84).

    Args:
        design: (N, k), Phi.
        targets: (N,).
    """
    precision = beta * design.T @ design + np.diag(np.broadcast_to(alpha, design.shape[1]))
    return Gaussian(beta * np.linalg.solve(precision, design.T @ targets), precision)


def objective(
    weights: np.ndarray, design: np.ndarray, targets: np.ndarray, alpha: float | np.ndarray, beta: float
) -> float:
    """M = alpha E_W + beta E_D: -log P(D, w) up to a constant, and squared error with weight decay."""
    return float(np.sum(alpha * weights**2) / 2 + beta * np.sum((targets - design @ weights) ** 2) / 2)


def log_likelihood(weights: np.ndarray, design: np.ndarray, targets: np.ndarray, beta: float) -> float:
    """log P(D|w) = N/2 log(beta / 2 pi) - beta E_D."""
    misfit = np.sum((targets - design @ weights) ** 2) / 2
    return len(targets) / 2 * np.log(beta / (2 * np.pi)) - beta * misfit


def log_prior(weights: np.ndarray, alpha: float | np.ndarray) -> float:
    """log P(w) = sum of log(alpha / 2 pi) / 2 - alpha w^2 / 2."""
    return float(np.sum(np.log(alpha / (2 * np.pi)) - alpha * weights**2) / 2)


def laplace(best_fit: float, log_prior: float, precision: np.ndarray) -> Evidence:
    """The evidence of a posterior that is Gaussian about its peak, exactly or nearly (MacKay 1992, section 2).

    log P(D|H) = log P(D|w_MP) + [log P(w_MP) + k/2 log 2 pi - 1/2 log det A]; the bracket is the Occam factor.

    Args:
        best_fit, log_prior: log P(D|w) and log P(w) at the peak.
        precision: (k, k), A: second derivatives of -log P(D, w) there.

    Raises:
        ValueError: if A is not positive definite, so that the point is no peak.
    """
    eigenvalues = np.linalg.eigvalsh(precision)
    if eigenvalues[0] <= 0:
        raise ValueError(
            f"The Hessian has the eigenvalue {eigenvalues[0]:.3g}; at a peak all are positive. Train to convergence."
        )
    occam = log_prior + np.sum(np.log(2 * np.pi / eigenvalues)) / 2
    return Evidence(float(best_fit), float(occam))


def log_evidence(design: np.ndarray, targets: np.ndarray, alpha: float | np.ndarray, beta: float) -> Evidence:
    """Evidence of the linear model, for which Laplace's method is exact."""
    mean, precision = posterior(design, targets, alpha, beta)
    return laplace(log_likelihood(mean, design, targets, beta), log_prior(mean, alpha), precision)


def log_marginal(design: np.ndarray, targets: np.ndarray, alpha: float | np.ndarray, beta: float) -> float:
    """The same in one line: without the weights the targets are normal, with covariance I / beta + Phi Phi' / alpha."""
    covariance = np.eye(len(targets)) / beta + (design / alpha) @ design.T
    return float(stats.multivariate_normal(cov=covariance).logpdf(targets))


def effective_parameters(design: np.ndarray, alpha: float, beta: float) -> float:
    """gamma = sum of lambda / (lambda + alpha) over the eigenvalues lambda of beta Phi'Phi: between 0 and k."""
    values = beta * np.linalg.eigvalsh(design.T @ design)
    return float(np.sum(values / (values + alpha)))


def re_estimate(
    design: np.ndarray, targets: np.ndarray, alpha: np.ndarray, beta: float, groups: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """One step of the fixed point: the new alpha (k,), the new beta, and gamma (groups,)."""
    weights = posterior(design, targets, alpha, beta)
    determined = np.diag(weights.covariance @ (beta * design.T @ design))  # 1 - alpha / A, without the cancellation
    gamma = np.bincount(groups, determined)
    squares = np.bincount(groups, weights.mean**2)
    alpha = np.full(len(gamma), LARGEST)  # also for weights that the data say nothing of, zero for ever
    np.divide(gamma, squares, out=alpha, where=squares * LARGEST > gamma)
    beta = (len(targets) - gamma.sum()) / np.sum((targets - design @ weights.mean) ** 2)
    return alpha[groups], float(beta), gamma


def fixed_point(
    design: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    tolerance: float = 1e-8,
    steps: int = 5000,
) -> Fit:
    """alpha and beta where the evidence is stationary: 2 alpha E_W = gamma and 2 beta E_D = N - gamma, again and again.

    MacKay 1992, section 4; Bishop 2006, eq. 3.92 and 3.95. With a group for every input this is automatic relevance
    determination.

    Args:
        groups: (k,) whole numbers from 0: weights of one group share one alpha. All in one group if not given.
        tolerance: of the largest relative change in a step.
        steps: at most so many.
    """
    groups = np.zeros(design.shape[1], int) if groups is None else np.asarray(groups)
    alpha, beta = np.ones(len(groups)), float(1 / targets.var())
    for _ in range(steps):
        before = np.append(alpha, beta)
        alpha, beta, gamma = re_estimate(design, targets, alpha, beta, groups)
        if np.max(np.abs(np.append(alpha, beta) / before - 1)) < tolerance:
            break
    return Fit(alpha, beta, gamma, posterior(design, targets, alpha, beta))


def gain(mean: np.ndarray, variance: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
    """Log evidence with a weight minus without it, for one weight at a time, alpha and beta held: nats.

    Savage and Dickey's ratio, log p(w = 0) - log p(w = 0 | D) = mean^2 / (2 variance) + log(alpha variance) / 2: the
    saliency of the optimal brain surgeon, plus the logarithm of an Occam factor, never positive. Exact for a Gaussian
    posterior.

    Args:
        mean, variance: of each weight after the data; variances are the diagonal of the inverse of A.
        alpha: precision of each weight before the data.
    """
    return mean**2 / (2 * variance) + np.log(alpha * variance) / 2


def coin(logit: float | np.ndarray, heads: int, tosses: int, alpha: float) -> float | np.ndarray:
    """-log P(D, a): a row of tosses with so many heads, P(head) = 1 / (1 + exp(-a)), and a ~ N(0, 1 / alpha)."""
    prior = alpha * logit**2 / 2 - np.log(alpha / (2 * np.pi)) / 2
    return tosses * np.logaddexp(0, logit) - heads * logit + prior


def coin_peak(heads: int, tosses: int, alpha: float) -> tuple[float, float]:
    """The logit at which P(D, a) is largest, and A there, the second derivative of `coin`."""

    def slope(logit):
        return tosses * special.expit(logit) - heads + alpha * logit

    widest = tosses / alpha + 1  # the prior's pull is stronger than all tosses beyond it
    peak = optimize.brentq(slope, -widest, widest)
    p = special.expit(peak)
    return peak, tosses * p * (1 - p) + alpha
