"""Exercises of notebook 04: the log evidence of a linear model, and what a weight is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.linalg import slogdet

from course_lib.classroom.checks.engine import add
from course_lib.theory import evidence


def random_data(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
    """Designs (N, k) with targets, alpha and beta; one with a single row, one with a single weight."""
    for shape in ((7, 3), (4, 6), (1, 2), (5, 1)):
        alpha, beta = (0.3 + 3 * torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
        design = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
        yield design, torch.randn(shape[0], generator=generator, dtype=torch.float64).numpy(), alpha, beta


def random_weights(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Means and variances of weights after the data, and their precision before them; one weight is exactly zero."""
    for k in (5, 3, 1):
        mean = torch.randn(k, generator=generator, dtype=torch.float64).numpy()
        mean[1:2] = 0
        alpha = float(0.3 + 2 * torch.rand((), generator=generator))
        yield mean, (0.1 + 0.8 * torch.rand(k, generator=generator, dtype=torch.float64).numpy()) / alpha, alpha


def log_evidence(design: np.ndarray, targets: np.ndarray, alpha: float, beta: float) -> float:
    """The reference of exercise 'log_evidence': both parts of the library's `Evidence` together."""
    return evidence.log_evidence(design, targets, alpha, beta).total


def _with(*, noise=1, prior=1, misfit=1, size=1, volume=1, circle=0) -> Callable:
    """A wrong log evidence: the terms of the right one, some of them taken not once but so many times."""

    def wrong(design, targets, alpha, beta):
        n, k = design.shape
        weights = evidence.posterior(design, targets, alpha, beta)
        normalisers = noise * n / 2 * np.log(beta / (2 * np.pi)) + prior * k / 2 * np.log(alpha)
        peak = misfit * beta * np.sum((targets - design @ weights.mean) ** 2) / 2
        peak += size * alpha * np.sum(weights.mean**2) / 2
        return normalisers - peak - volume * slogdet(weights.precision)[1] / 2 + circle * k / 2 * np.log(2 * np.pi)

    return wrong


def _without_beta(design, targets, alpha, beta):
    precision = design.T @ design + alpha * np.eye(design.shape[1])
    mean = np.linalg.solve(precision, design.T @ targets)
    fit = evidence.log_likelihood(mean, design, targets, beta)
    return evidence.laplace(fit, evidence.log_prior(mean, alpha), precision).total


def _peak_without_beta(design, targets, alpha, beta):
    weights = evidence.posterior(design, targets, alpha, beta)
    mean = weights.mean / beta
    fit = evidence.log_likelihood(mean, design, targets, beta)
    return evidence.laplace(fit, evidence.log_prior(mean, alpha), weights.precision).total


add(
    "log_evidence",
    log_evidence,
    inputs=random_data,
    mistakes={
        "you left out -1/2 log det A: this is the height of the peak, not the volume under it": _with(volume=0),
        "you added 1/2 log det A; a sharper peak has less volume": _with(volume=-1),
        "this is the best fit alone; the Occam factor is missing": _with(prior=0, size=0, volume=0),
        "you left out k/2 log alpha, which normalises the prior": _with(prior=0),
        "you left out N/2 log(beta / 2 pi), which normalises the likelihood": _with(noise=0),
        "you left k/2 log 2 pi over; it cancels between prior and integral": _with(circle=1),
        "E_W and E_D carry a factor 1/2": _with(misfit=2, size=2),
        "your A is Phi'Phi + alpha I; the noise scales the first part, beta Phi'Phi": _without_beta,
        "your w_MP lacks the factor beta: it is beta times the inverse of A times Phi't": _peak_without_beta,
        "you subtracted log det A; the integral has its root, so half of it": _with(volume=2),
        "you exchanged alpha and beta": lambda design, t, alpha, beta: log_evidence(design, t, beta, alpha),
        "the sign is the wrong way round": lambda *given: -log_evidence(*given),
        "that is the evidence itself; its logarithm is asked for": lambda *given: np.exp(log_evidence(*given)),
        "these are bits; nats are asked for": lambda *given: log_evidence(*given) / np.log(2),
    },
    shows=(
        evidence.posterior,
        evidence.log_likelihood,
        evidence.log_prior,
        evidence.laplace,
        evidence.log_evidence,
    ),
)

add(
    "gain",
    evidence.gain,
    inputs=random_weights,
    mistakes={
        "you left out the Occam factor: this is the saliency alone, and no weight would ever go": lambda m, v, a: (
            m**2 / (2 * v)
        ),
        "you turned the sign of the Occam factor; variance is at most 1 / alpha, so its logarithm is negative": (
            lambda m, v, a: m**2 / (2 * v) - np.log(a * v) / 2
        ),
        "you forgot the 1/2 at the logarithm; a Gaussian has one over the root of its variance": lambda m, v, a: (
            m**2 / (2 * v) + np.log(a * v)
        ),
        "you forgot the 1/2 in the exponent": lambda m, v, a: m**2 / v + np.log(a * v) / 2,
        "you divided by the standard deviation; the exponent has the variance": lambda m, v, a: (
            m**2 / (2 * np.sqrt(v)) + np.log(a * v) / 2
        ),
        "this is evidence without the weight minus with it: turn it around": lambda m, v, a: (
            -(m**2) / (2 * v) - np.log(a * v) / 2
        ),
        "you left out alpha: compare with the width before the data": lambda m, v, a: m**2 / (2 * v) + np.log(v) / 2,
        "you took alpha for a variance; it is a precision, the variance before the data is 1 / alpha": (
            lambda m, v, a: m**2 / (2 * v) + np.log(v / a) / 2
        ),
        "you added up the weights; one number for each is wanted": lambda m, v, a: evidence.gain(m, v, a).sum(),
        "m**2 / 2 * v multiplies by v; write m**2 / (2 * v)": lambda m, v, a: m**2 / 2 * v + np.log(a * v) / 2,
    },
)
