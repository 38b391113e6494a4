"""Exercises of notebook 10: what is left after some updates, and the step of a penalty that kills feature maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from course_lib.classroom import repair
from course_lib.classroom.checks.engine import add


def random_valleys(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float, int]]:
    """Curvatures and distances (n,), a rate that converges, a number of updates; one of the numbers is 1."""
    for n, updates in ((4, 3), (1, 1), (7, 10)):
        curvatures = torch.rand(n, generator=generator, dtype=torch.float64).numpy() + 0.1
        distances = torch.randn(n, generator=generator, dtype=torch.float64).numpy()
        yield curvatures, distances, 0.7 / curvatures.max(), updates


def random_kernels(generator: torch.Generator) -> Iterator[tuple[np.ndarray, float]]:
    """Kernels (C, n), long and short ones and one of zeros, and a length; the last kernels are single weights."""
    for maps, n, length in ((4, 9, 0.8), (3, 2, 0.5), (6, 1, 0.4)):
        kernels = torch.randn(maps, n, generator=generator, dtype=torch.float64).numpy() / n**0.5
        kernels[0] *= 0.1
        kernels[1] = 0
        kernels[-1] += np.sign(kernels[-1])
        yield kernels, length


def _lengths(kernels: np.ndarray) -> np.ndarray:
    return np.linalg.norm(kernels, axis=1, keepdims=True)


def _over(numerator: np.ndarray | float, denominator: np.ndarray) -> np.ndarray:
    """A quotient whose zeros nobody minded, as a student's: without the warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(numerator, denominator)


def _turned_round(kernels: np.ndarray, length: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return kernels * (1 - _over(length, _lengths(kernels)))


add(
    "excess",
    repair.excess,
    inputs=random_valleys,
    mistakes={
        "it is the distance that shrinks by (1 - rate c) an update, and it is squared": lambda c, d, r, n: (
            (c * (1 - r * c) ** n * d**2).sum() / 2
        ),
        "you multiplied by the number of updates; the factors multiply, so it is an exponent": lambda c, d, r, n: (
            (c * (n * (1 - r * c) * d) ** 2).sum() / 2
        ),
        "one half is missing: a parabola's height is half its curvature times distance squared": lambda c, d, r, n: (
            c * ((1 - r * c) ** n * d) ** 2
        ).sum(),
        "the distances are not squared": lambda c, d, r, n: (c * (1 - r * c) ** (2 * n) * d).sum() / 2,
        "the curvature is missing in front: a height is half of it times distance squared": lambda c, d, r, n: (
            (((1 - r * c) ** n * d) ** 2).sum() / 2
        ),
        "this is one update, however many were asked for": lambda c, d, r, n: (c * ((1 - r * c) * d) ** 2).sum() / 2,
        "this is what was repaired; asked for is what is left": lambda c, d, r, n: (
            (c * d**2 * (1 - (1 - r * c) ** (2 * n))).sum() / 2
        ),
        "every direction has its own factor: use c, not its largest value": lambda c, d, r, n: (
            (c * ((1 - r * c.max()) ** n * d) ** 2).sum() / 2
        ),
    },
)

add(
    "shortened",
    repair.shortened,
    inputs=random_kernels,
    mistakes={
        "you shortened every weight by itself; a whole kernel is one vector with one length": lambda k, t: (
            np.sign(k) * np.maximum(np.abs(k) - t, 0)
        ),
        "you only removed the short kernels; the long ones become shorter too": lambda k, t: k * (_lengths(k) > t),
        "a kernel shorter than the length has turned round: stop at zero": _turned_round,
        "a kernel of all zeros has no direction to divide out: it stays zero": lambda k, t: (
            _over(k, _lengths(k)) * np.maximum(_lengths(k) - t, 0)
        ),
        "you took one length for the whole array; every kernel, a row, has its own": lambda k, t: (
            k * max(1 - t / np.linalg.norm(k), 0)
        ),
        "you divided all kernels by one factor, as l2 does; then none of them ever becomes zero": lambda k, t: (
            k / (1 + t)
        ),
        "you took the same share of each kernel; take the same length": lambda k, t: k * max(1 - t, 0),
    },
)
