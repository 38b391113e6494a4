"""Exercises of notebook 02: a code for the integers, and what a noisy weight costs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from course_lib.classroom.checks.engine import add
from course_lib.theory import codes
from course_lib.theory import description_length as theory


def some_integers(generator: torch.Generator) -> Iterator[tuple[int]]:
    """The smallest integers, a power of two, and larger ones."""
    yield from ((n,) for n in (1, 2, 3, 4, 64))
    yield from ((n,) for n in torch.randint(5, 10_000, (4,), generator=generator).tolist())


def _digits(n: int) -> list[int]:
    return [int(digit) for digit in f"{n:b}"]


add(
    "elias_gamma",
    codes.elias_gamma,
    inputs=some_integers,
    mistakes={
        "these are the binary digits alone: 1 begins 10 and 11, so a reader cannot tell where a word ends": _digits,
        "one zero too many: as many zeros as there are digits after the first": lambda n: (
            [0] * len(_digits(n)) + _digits(n)
        ),
        "the zeros come first: they say how many digits to read": lambda n: _digits(n) + [0] * (len(_digits(n)) - 1),
        "you announced the digits with ones; a word could not be told from a longer one's beginning": lambda n: (
            [1] * (len(_digits(n)) - 1) + _digits(n)
        ),
        "you reversed the digits: the first is the highest, and it is always a 1, which ends the zeros": lambda n: (
            [0] * (len(_digits(n)) - 1) + _digits(n)[::-1]
        ),
        "that is the length of the word; return its bits": lambda n: 2 * len(_digits(n)) - 1,
        "that is one text; return a list of bits": lambda n: "".join(map(str, codes.elias_gamma(n))),
        "you wrote as many zeros as the number says; it is as many as it has digits, less one": lambda n: (
            [0] * (n - 1) + [1]
        ),
    },
)


def random_posteriors(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Means and standard deviations of several weights, and the prior's standard deviation."""
    for weights, prior in ((1, 1.0), (4, 0.5), (7, 2.0), (20, 0.1)):
        mean, sd = torch.randn(weights, generator=generator), torch.rand(weights, generator=generator) + 0.05
        yield mean.double().numpy(), sd.double().numpy(), prior


def _nats(mean: np.ndarray, sd: np.ndarray, prior_sd: float) -> np.ndarray:
    return np.log(prior_sd / sd) + (mean**2 + sd**2) / (2 * prior_sd**2) - 0.5


add(
    "gaussian_kl_bits",
    theory.gaussian_kl_bits,
    inputs=random_posteriors,
    mistakes={
        "these are nats; a bit is ln 2 nats": lambda m, s, p: _nats(m, s, p).sum(),
        "you averaged over the weights; every one of them has to be told": lambda m, s, p: (
            _nats(m, s, p).mean() / np.log(2)
        ),
        "you left out the means: a weight far from zero costs more": lambda m, s, p: (
            _nats(0 * m, s, p).sum() / np.log(2)
        ),
        "this is KL(P || Q); the sender draws from Q, so Q is what the average is over": lambda m, s, p: (
            (np.log(s / p) + (m**2 + p**2) / (2 * s**2) - 0.5).sum() / np.log(2)
        ),
        "you forgot the 1/2 that is refunded: at Q = P nothing may be left": lambda m, s, p: (
            (_nats(m, s, p) + 0.5).sum() / np.log(2)
        ),
        "this is one number for every weight; return their sum": lambda m, s, p: _nats(m, s, p) / np.log(2),
        "you multiplied by ln 2; nats become bits by division": lambda m, s, p: _nats(m, s, p).sum() * np.log(2),
        "the logarithm is upside down: a narrow Q costs more, so it is log(sigma / s)": lambda m, s, p: (
            (np.log(s / p) + (m**2 + s**2) / (2 * p**2) - 0.5).sum() / np.log(2)
        ),
        "you forgot the 1/2 at the squares": lambda m, s, p: (
            (np.log(p / s) + (m**2 + s**2) / p**2 - 0.5).sum() / np.log(2)
        ),
    },
)
