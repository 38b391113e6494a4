"""Exercises of notebook 11: the density of a mixture, and the places of non-zero weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib import weight_code, weight_sharing
from course_lib.classroom.checks.engine import add
from course_lib.weight_sharing import Components


def random_mixtures(generator: torch.Generator) -> Iterator[tuple[Tensor, Components]]:
    """Weights and mixtures of several sizes; some weights lie 60 deviations away from every mean."""
    for count, size in ((7, 4), (3, 1), (1, 2), (5, 17)):
        means = torch.randn(size, generator=generator, dtype=torch.float64) / 3
        log_variances = torch.randn(size, generator=generator, dtype=torch.float64) - 3
        log_shares = torch.randn(size, generator=generator, dtype=torch.float64).log_softmax(0)
        weights = torch.randn(count, generator=generator, dtype=torch.float64) / 3
        weights[0] = 60 * float((log_variances / 2).exp().max()) + float(means.abs().max())
        yield weights, Components(means, log_variances, log_shares)


def _joint(w: Tensor, c: Components, squared: Tensor, halves: float = 2, normaliser: Tensor | float = 0.0) -> Tensor:
    distance = (w[:, None] - c.means).square() / squared
    return c.log_shares - (math.log(2 * math.pi) + normaliser) / 2 - distance / halves


add(
    "log_density",
    weight_sharing.log_density,
    inputs=random_mixtures,
    mistakes={
        "you left the logarithms before summing: far from all means every density rounds to 0, and its log to minus "
        "infinity; use logsumexp": lambda w, c: weight_sharing.log_joint(w, c).exp().sum(1).log(),
        "you summed the logarithms; the density is a sum, so its logarithm is a logsumexp": lambda w, c: (
            weight_sharing.log_joint(w, c).sum(1)
        ),
        "you took the largest term only: all components contribute": lambda w, c: (
            weight_sharing.log_joint(w, c).max(1).values
        ),
        "you divided the squared distance by the deviation; it is the variance": lambda w, c: _joint(
            w, c, c.deviations, normaliser=c.log_variances
        ).logsumexp(1),
        "you forgot the half before the squared distance": lambda w, c: _joint(
            w, c, c.variances, halves=1, normaliser=c.log_variances
        ).logsumexp(1),
        "you left the deviation out of the normaliser 1 / (sqrt(2 pi) sigma)": lambda w, c: _joint(
            w, c, c.variances
        ).logsumexp(1),
        "you left out the shares pi_j": lambda w, c: (weight_sharing.log_joint(w, c) - c.log_shares).logsumexp(1),
        "you left 2 pi out of the normaliser 1 / (sqrt(2 pi) sigma)": lambda w, c: (
            weight_sharing.log_density(w, c) + math.log(2 * math.pi) / 2
        ),
        "that is the density; its logarithm is asked for": lambda w, c: weight_sharing.log_density(w, c).exp(),
        "the sign is the wrong way round: log p, not -log p": lambda w, c: -weight_sharing.log_density(w, c),
        "you summed over the weights, axis 0; sum over the components": lambda w, c: weight_sharing.log_joint(
            w, c
        ).logsumexp(0),
        "you summed over the weights; return one number for each weight": lambda w, c: weight_sharing.log_density(
            w, c
        ).sum(),
    },
    shows=(weight_sharing.log_joint, weight_sharing.log_density),
)


def random_rows(generator: torch.Generator) -> Iterator[tuple[list[int], int]]:
    """Rows of indices, mostly zero, with long gaps, and rows that are empty, full, or end in zeros."""
    yield [0, 0, 5, 0, 0, 0, 0, 3, 0], 2
    yield [0] * 9 + [1], 1
    yield [2, 1, 3], 2
    yield [0] * 12, 2
    for length, bits in ((40, 2), (60, 3), (25, 1)):
        kept = torch.rand(length, generator=generator) < 0.15
        yield (torch.randint(1, 8, (length,), generator=generator) * kept).tolist(), bits


def _coded(row: list[int], most: int, *, filler: int, first: int = 0, absolute: bool = False) -> list:
    """Entries as `weight_code.relative` makes them, but for what the arguments say."""
    entries, last = [], -1
    for place, index in enumerate(row):
        if index == 0:
            continue
        while not absolute and place - last - 1 > most:
            entries.append((most + first, 0))
            last += filler
        entries.append((place if absolute else place - last - 1 + first, index))
        last = place
    return entries


def _with_tail(row: list[int], bits: int) -> list:
    entries = weight_code.relative(row, bits)
    left = len(row) - sum(skipped + 1 for skipped, _ in entries)
    return entries + [(2**bits - 1, 0)] * (left // 2**bits)


add(
    "relative",
    weight_code.relative,
    inputs=random_rows,
    mistakes={
        "you stored columns; a gap counts from the entry before": lambda row, bits: _coded(
            row, 2**bits - 1, filler=2**bits, absolute=True
        ),
        "you used no fillers: with so few bits a gap cannot say more than 2^gap_bits - 1": lambda row, bits: _coded(
            row, len(row), filler=len(row)
        ),
        "you allowed gaps of 2^gap_bits; the largest number of so many bits is one less": lambda row, bits: _coded(
            row, 2**bits, filler=2**bits + 1
        ),
        "you forgot that a filler is itself a zero of the row: it takes a place": lambda row, bits: _coded(
            row, 2**bits - 1, filler=2**bits - 1
        ),
        "you counted the distance to the entry before; it is the number of zeros between": lambda row, bits: _coded(
            row, 2**bits - 1, filler=2**bits, first=1
        ),
        "you wrote fillers for the zeros at the end of the row; they need none": _with_tail,
        "your pairs are the wrong way round: first the zeros skipped, then the index": lambda row, bits: [
            entry[::-1] for entry in weight_code.relative(row, bits)
        ],
    },
)
