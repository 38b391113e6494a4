"""Description length: bits for the model plus bits for the data given the model (Rissanen 1978).

Four ways to pay for a model: two-part codes at the best precision, enumerating, bits-back, predicting.

Taught in: notebooks/02_description_length.ipynb.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.base import ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning

from course_lib.theory.codes import array_bits, integer_bits

# ------------------------------------------------------------------------------------- a coin: one parameter, n labels


def coin_bits(n: int, k: ArrayLike, p: ArrayLike) -> np.ndarray:
    """Bits of n given labels, k of them ones, under a coin of probability p, 0 < p < 1."""
    k, p = np.asarray(k), np.asarray(p, dtype=float)
    return -(k * np.log2(p) + (n - k) * np.log2(1 - p))


def coin_two_part(n: int, k: ArrayLike, cells: int) -> tuple[float, np.ndarray]:
    """Two parts: which of so many equal cells of (0, 1) holds the share k / n; the labels under that cell's centre."""
    cell = np.minimum(np.asarray(k) * cells // n, cells - 1)
    return float(np.log2(cells)), coin_bits(n, k, (cell + 0.5) / cells)


# ------------------------------------------------------------------------------------------- precision of a parameter


def precision_bits(step: ArrayLike, n: int, information: float) -> np.ndarray:
    """What a parameter of unit range costs at a step: its digits, and the mean extra bits of n labels for rounding it.

    log2(1 / step) + n I step^2 / (24 ln 2), where I is the Fisher information of one label, in nats.
    """
    step = np.asarray(step, dtype=float)
    return np.log2(1 / step) + n * information * step**2 / (24 * np.log(2))


def best_step(n: int, information: float) -> float:
    """The step that makes `precision_bits` least: sqrt(12 / (n I)), about 3.5 standard errors of the parameter."""
    return float(np.sqrt(12 / (n * information)))


class NetworkCode(NamedTuple):
    """Arrays rounded at a precision: what a receiver gets, and the bits it costs to tell."""

    arrays: list[np.ndarray]
    bits: float


def rounded(arrays: Sequence[ArrayLike], precision: int) -> NetworkCode:
    """Round arrays of weights and write them down; their shapes are known to the receiver.

    Every array has a step of its own, 2^(e - precision), with 2^e the power of two next to the root mean square of its
    entries. Told are: the precision, and of each array e and its entries in steps (`codes.array_bits`). An array that
    is all zero counts as e = 0.
    """
    decoded, bits = [], float(integer_bits(precision))
    for array in map(np.asarray, arrays):
        size = np.sqrt(np.mean(np.square(array, dtype=float)))
        exponent = int(np.round(np.log2(size))) if size > 0 else 0
        step = 2.0 ** (exponent - precision)
        steps = np.round(array / step).astype(int)
        decoded.append(steps * step)
        bits += float(integer_bits(exponent)) + array_bits(steps)
    return NetworkCode(decoded, bits)


# -------------------------------------------------------------------------------------------------------- polynomials


class PolynomialCode(NamedTuple):
    """A polynomial as it is told, with noise of standard deviation 2^(noise / 4), and the bits of both parts."""

    coefficients: np.ndarray
    noise: int
    parameter_bits: float
    data_bits: float

    @property
    def bits(self) -> float:
        """The description length."""
        return self.parameter_bits + self.data_bits


NOISES = np.arange(-24, 9)  # standard deviations 2^(noise / 4)


def design(x: ArrayLike, degree: int) -> np.ndarray:
    """Legendre polynomials on [-1, 1] up to a degree, scaled to mean square 1: (N, degree + 1).

    For evenly spread x they are nearly orthonormal, so that one step suits all coefficients.
    """
    return legendre.legvander(np.asarray(x), degree) * np.sqrt(2 * np.arange(degree + 1) + 1)


def polynomial_code(x: ArrayLike, y: ArrayLike, degree: int, precision: int, resolution: float) -> PolynomialCode:
    """Two-part code of measurements y, whole multiples of `resolution`, by a polynomial with Gaussian noise.

    Told are: the degree, the precision, the noise, the coefficients in steps of 2^-precision (all by Elias), and then
    each y with the probability that the model gives to its cell of width `resolution`.
    """
    basis = design(x, degree)
    best = np.linalg.lstsq(basis, np.asarray(y), rcond=None)[0]
    steps = np.round(best * 2.0**precision).astype(int)
    residuals = np.abs(y - basis @ (steps * 2.0**-precision))
    deviations = 2.0 ** (NOISES[:, None] / 4)
    cells = norm.cdf((-residuals + resolution / 2) / deviations) - norm.cdf((-residuals - resolution / 2) / deviations)
    data = -np.log2(np.maximum(cells, 1e-300)).sum(1) + integer_bits(NOISES)  # the noise's own bits decide too
    chosen = int(data.argmin())
    told = float(integer_bits([degree, precision, NOISES[chosen]]).sum() + integer_bits(steps).sum())
    data_bits = float(data[chosen] - integer_bits(NOISES[chosen]))
    return PolynomialCode(steps * 2.0**-precision, int(NOISES[chosen]), told, data_bits)


# ----------------------------------------------------------------------------------------------------------- bits-back


def gaussian_kl_bits(mean: ArrayLike, sd: ArrayLike, prior_sd: float) -> float:
    """KL(Q || P) in bits, summed over weights: Q normal with these means and deviations, P normal about zero.

    Hinton and van Camp 1993, there in nats: what noisy weights cost when the sender's random bits come back.
    """
    mean, ratio = np.asarray(mean, dtype=float), (np.asarray(sd, dtype=float) / prior_sd) ** 2
    return float(np.sum(ratio + (mean / prior_sd) ** 2 - 1 - np.log(ratio)) / (2 * np.log(2)))


def bits_back(mean: float, sd: float, prior_sd: float, step: float) -> tuple[float, float]:
    """One noisy weight told in steps: mean bits paid under P = N(0, prior_sd^2), mean bits refunded under Q."""
    grid = np.arange(np.floor((mean - 9 * sd) / step), np.ceil((mean + 9 * sd) / step) + 1) * step
    q = norm.pdf(grid, mean, sd) * step
    return (
        float(-(q * (norm.logpdf(grid, 0, prior_sd) + np.log(step))).sum() / np.log(2)),
        float(-(q * (norm.logpdf(grid, mean, sd) + np.log(step))).sum() / np.log(2)),
    )


def bits_back_formula(mean: float, sd: float, prior_sd: float, step: float) -> tuple[float, float]:
    """What `bits_back` comes to as the step gets small: the integrals instead of the sums over a grid."""
    paid = np.log2(prior_sd * np.sqrt(2 * np.pi) / step) + (mean**2 + sd**2) / (2 * prior_sd**2 * np.log(2))
    return float(paid), float(np.log2(sd * np.sqrt(2 * np.pi * np.e) / step))


def best_prior_sd(mean: ArrayLike, sd: ArrayLike) -> float:
    """The standard deviation of the prior for which `gaussian_kl_bits` is least: the root of the mean of m^2 + s^2."""
    return float(np.sqrt(np.mean(np.square(mean) + np.square(sd))))


# ---------------------------------------------------------------------------------------------------------- prediction


def label_bits(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """-log2 of the probabilities (N, classes) given to the labels (N,), summed: the cross-entropy in bits."""
    chosen = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels)]
    return float(-np.log2(chosen).sum())


def linear_label_bits(weights: np.ndarray, bias: np.ndarray, x: np.ndarray, labels: np.ndarray) -> float:
    """Bits of the labels under softmax(x @ weights' + bias): weights (classes, features), x (N, features)."""
    return float(-log_softmax(x @ weights.T + bias, axis=1)[np.arange(len(labels)), labels].sum() / np.log(2))


def noisy_bits(
    weights: np.ndarray, bias: np.ndarray, x: np.ndarray, labels: np.ndarray, sd: float, draws: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Bits-back code of a linear classifier whose numbers all get noise of one standard deviation.

    Returns: bits of the weights (`gaussian_kl_bits`, and the prior's 2^(i / 4) by Elias); mean bits of the labels,
    over draws of the noise. The noise's deviation is not told: the receiver finds it, as it finds Q.
    """
    rng, numbers = np.random.default_rng(seed), np.concatenate([weights.ravel(), bias])
    prior = int(np.round(4 * np.log2(best_prior_sd(numbers, sd))))
    told = gaussian_kl_bits(numbers, np.full(len(numbers), sd), 2.0 ** (prior / 4)) + float(integer_bits(prior))
    drawn = [
        linear_label_bits(weights + rng.normal(0, sd, weights.shape), bias + rng.normal(0, sd, bias.shape), x, labels)
        for _ in range(draws)
    ]
    return told, float(np.mean(drawn))


def blocks(n: int, first: int = 10, growth: float = 1.5) -> list[int]:
    """Ends of growing blocks of n examples: `first`, then each about `growth` times as far, the last n."""
    ends = [min(first, n)]
    while ends[-1] < n:
        ends.append(min(n, int(np.ceil(ends[-1] * growth))))
    return ends


def fitted(learner: ClassifierMixin, x: np.ndarray, labels: np.ndarray) -> ClassifierMixin:
    """A trained copy. One that stopped before it converged is as good a code: both sides stop at the same place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(learner).fit(x, labels)


def prequential_bits(
    learner: ClassifierMixin, x: np.ndarray, labels: np.ndarray, ends: Sequence[int], classes: int
) -> np.ndarray:
    """Bits of the labels of each block, predicted by the learner trained on all blocks before it (Dawid 1984).

    The first block, and any as long as only one class was seen, is told by the uniform code. After t labels a share
    1 / (t + 1) of the probability goes to all classes alike, so that no label is impossible. No weight is ever told:
    the receiver trains the same learner on the labels it already has.

    Args:
        learner: a scikit-learn classifier with `predict_proba`; it is cloned for every block.
        x, labels: (N, features); (N,) integers below `classes`.
        ends: where blocks end, as from `blocks`.
    """
    found, start = [], 0
    for end in ends:
        p = np.full((end - start, classes), 1 / classes)
        if len(seen := np.unique(labels[:start])) > 1:
            trained = fitted(learner, x[:start], labels[:start])
            p /= start + 1
            p[:, seen] += start / (start + 1) * trained.predict_proba(x[start:end])
        found.append(label_bits(p, labels[start:end]))
        start = end
    return np.array(found)
