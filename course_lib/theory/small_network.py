"""A network with one hidden layer, small enough for its exact Hessian, and the evidence for it.

The recipe of MacKay 1992, "A practical Bayesian framework for backpropagation networks": most probable weights, exact
second derivatives there, Laplace's method, alpha and beta estimated anew, and again until they rest.

A weight vector w (k,) holds two layers, one after the other: `first` (J, inputs + 1) for J hidden tanh units, with the
biases in its last column; `second` (outputs, J + 1) likewise, for linear outputs.

Taught in: notebooks/04_evidence.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from course_lib.theory import evidence
from course_lib.theory.evidence import Evidence


class Trained(NamedTuple):
    """A network at its most probable weights.

    Attributes:
        w: (k,) weights.
        hidden: J.
        alpha: (k,), beta: precision of the weights before the data, and of the noise.
        misfit: (k, k), the Hessian of E_D; A is beta times it, plus alpha on the diagonal.
        evidence: log P(D|H), the network's symmetries counted.
    """

    w: np.ndarray
    hidden: int
    alpha: np.ndarray
    beta: float
    misfit: np.ndarray
    evidence: Evidence

    @property
    def precision(self) -> np.ndarray:
        """A, (k, k)."""
        return self.beta * self.misfit + np.diag(self.alpha)


def robot_arm(n: int, noise: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Where the hand of an arm with two joints is: angles (n, 2), in radians, and noisy positions (n, 2).

    Links of length 2.0 and 1.3, as in MacKay's experiments; the angles are our choice.
    """
    random = np.random.default_rng(seed)
    angles = random.uniform((-1.9, 0.5), (1.9, 3.1), (n, 2))
    a, b = angles[:, 0], angles.sum(1)
    hand = np.stack([2.0 * np.cos(a) + 1.3 * np.cos(b), 2.0 * np.sin(a) + 1.3 * np.sin(b)], axis=1)
    return angles, hand + noise * random.standard_normal((n, 2))


def _split(w: np.ndarray, hidden: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    at = hidden * (inputs + 1)
    return w[:at].reshape(hidden, -1), w[at:].reshape(-1, hidden + 1)


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


def predict(w: np.ndarray, x: np.ndarray, hidden: int) -> np.ndarray:
    """Outputs (N, outputs) for inputs (N, inputs)."""
    first, second = _split(w, hidden, x.shape[1])
    return _with_one(np.tanh(_with_one(x) @ first.T)) @ second.T


def jacobian(w: np.ndarray, x: np.ndarray, hidden: int) -> np.ndarray:
    """Derivatives of the outputs by the weights: (N, outputs, k)."""
    first, second = _split(w, hidden, x.shape[1])
    x = _with_one(x)
    h = np.tanh(x @ first.T)
    by_first = np.einsum("oj,nj,ni->noji", second[:, :-1], 1 - h**2, x).reshape(len(x), len(second), -1)
    by_second = np.einsum("op,nj->nopj", np.eye(len(second)), _with_one(h)).reshape(len(x), len(second), -1)
    return np.concatenate([by_first, by_second], axis=2)


def misfit_hessian(w: np.ndarray, x: np.ndarray, targets: np.ndarray, hidden: int) -> np.ndarray:
    """Exact second derivatives of E_D = |y - t|^2 / 2 by the weights: (k, k).

    J'J, the Gauss-Newton part, plus the residuals times the outputs' own second derivatives, which only link weights of
    one hidden unit: f''(a) = -2 h (1 - h^2) within its inputs, f'(a) = 1 - h^2 between its inputs and its outputs.
    """
    first, second = _split(w, hidden, x.shape[1])
    slopes = jacobian(w, x, hidden).reshape(-1, len(w))
    residual = predict(w, x, hidden) - targets
    x = _with_one(x)
    h = np.tanh(x @ first.T)
    bend = np.einsum("no,oj,nj->nj", residual, second[:, :-1], -2 * h * (1 - h**2))
    total = slopes.T @ slopes
    for j in range(hidden):
        inputs = slice(j * x.shape[1], (j + 1) * x.shape[1])
        outputs = first.size + j + np.arange(len(second)) * (hidden + 1)
        total[inputs, inputs] += np.einsum("n,ni,nk->ik", bend[:, j], x, x)
        crossed = np.einsum("no,n,ni->io", residual, 1 - h[:, j] ** 2, x)
        total[inputs, outputs] += crossed
        total[outputs, inputs] += crossed.T
    return total


def descend(
    w: np.ndarray, x: np.ndarray, targets: np.ndarray, hidden: int, alpha: np.ndarray, beta: float
) -> np.ndarray:
    """Some steps towards a minimum of M = alpha E_W + beta E_D, by Levenberg's and Marquardt's method."""

    def residuals(w):
        return np.concatenate([np.sqrt(beta) * (predict(w, x, hidden) - targets).ravel(), np.sqrt(alpha) * w])

    def slopes(w):
        return np.vstack([np.sqrt(beta) * jacobian(w, x, hidden).reshape(-1, len(w)), np.diag(np.sqrt(alpha))])

    return optimize.least_squares(residuals, w, slopes, method="lm", max_nfev=30).x


def settle(
    w: np.ndarray, x: np.ndarray, targets: np.ndarray, hidden: int, alpha: np.ndarray, beta: float
) -> np.ndarray:
    """Down to the minimum itself, by Newton's method with the exact Hessian, which does not rest on a saddle."""

    def value(w):
        residual = predict(w, x, hidden) - targets
        slope = np.einsum("nok,no->k", jacobian(w, x, hidden), residual)
        return (beta * np.sum(residual**2) + np.sum(alpha * w**2)) / 2, beta * slope + alpha * w

    def hessian(w):
        return beta * misfit_hessian(w, x, targets, hidden) + np.diag(alpha)

    return optimize.minimize(value, w, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-6}).x


def groups(hidden: int, inputs: int, outputs: int) -> np.ndarray:
    """(k,): 0 for weights of inputs, 1 for biases of hidden units, 2 for what enters the outputs."""
    first = np.zeros((hidden, inputs + 1), int)
    first[:, -1] = 1
    return np.concatenate([first.ravel(), np.full(outputs * (hidden + 1), 2)])


def train(
    x: np.ndarray, targets: np.ndarray, hidden: int, *, seed: int = 0, separate: bool = True, rounds: int = 15
) -> Trained:
    """Train from random weights, alpha and beta estimated anew in every round; then the evidence by Laplace's method.

    Args:
        x: (N, inputs); targets: (N, outputs).
        separate: one alpha for each of the three `groups`; otherwise one for all weights.
    """
    kinds = groups(hidden, x.shape[1], targets.shape[1]) * separate
    w = np.random.default_rng(seed).standard_normal(len(kinds)) / 2
    alpha, beta = np.ones(len(kinds)), float(1 / targets.var())
    for _ in range(rounds):
        w = descend(w, x, targets, hidden, alpha, beta)
        alpha, beta = _re_estimate(w, x, targets, hidden, alpha, beta, kinds)
    w = settle(w, x, targets, hidden, alpha, beta)
    misfit = misfit_hessian(w, x, targets, hidden)
    residual = predict(w, x, hidden) - targets
    fit = targets.size / 2 * np.log(beta / (2 * np.pi)) - beta * np.sum(residual**2) / 2
    found = evidence.laplace(fit, evidence.log_prior(w, alpha), beta * misfit + np.diag(alpha))
    return Trained(w, hidden, alpha, beta, misfit, Evidence(found.best_fit, found.occam + log_copies(hidden)))


def _re_estimate(w, x, targets, hidden, alpha, beta, kinds):
    """alpha and beta from gamma, as for a linear model with the network's derivatives as its design."""
    design = jacobian(w, x, hidden).reshape(-1, len(w))
    curvature = beta * design.T @ design  # without the outputs' own second derivatives, so that gamma is positive
    gamma = np.bincount(kinds, np.diag(np.linalg.solve(curvature + np.diag(alpha), curvature)))
    alpha = gamma / np.bincount(kinds, w**2)
    return alpha[kinds], (targets.size - gamma.sum()) / np.sum((predict(w, x, hidden) - targets) ** 2)


def log_copies(hidden: int) -> float:
    """log(J! 2^J): hidden units may change places, and both signs of one may be turned, without changing the network.

    Every peak has so many copies, which Laplace's Gaussian about one of them leaves out.
    """
    return float(special.gammaln(hidden + 1) + hidden * np.log(2))


def removals(network: Trained, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What M rises by when one weight is set to zero and the others stay: measured, (k,) nats."""

    def M(w):
        misfit = np.sum((predict(w, x, network.hidden) - targets) ** 2)
        return (network.beta * misfit + np.sum(network.alpha * w**2)) / 2

    without = network.w * (1 - np.eye(len(network.w)))
    return np.array([M(w) for w in without]) - M(network.w)
