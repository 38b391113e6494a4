"""Codes and their lengths in bits: integers, patterns, sequences of symbols. Every one of them satisfies Kraft.

A length that is not a whole number is -log2 of a probability; an arithmetic coder reaches the sum over a whole message
to within two bits.

Taught in: notebooks/02_description_length.ipynb.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln


def kraft_sum(lengths: ArrayLike) -> float:
    """Sum of 2^-length: at most 1 for the words of a prefix code (Kraft 1949)."""
    return float(np.sum(2.0 ** -np.asarray(lengths, dtype=float)))


def words(lengths: Sequence[int]) -> list[list[int]]:
    """A prefix code with words of these lengths, in their order: Kraft's inequality is enough for one.

    Intervals of length 2^-length lie side by side from 0 on, the longest interval (the shortest word) first. A word is
    the binary digits of its interval's left end. ValueError: the intervals do not fit into [0, 1].
    """
    if (total := kraft_sum(lengths)) > 1:
        raise ValueError(f"The Kraft sum of these lengths is {total:.3f}, above 1: no prefix code has them.")
    made: list[list[int]] = [[] for _ in lengths]
    left = 0.0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        made[i] = [int(left * 2**digit) % 2 for digit in range(1, lengths[i] + 1)]
        left += 2.0 ** -lengths[i]
    return made


def elias_gamma(n: int) -> list[int]:
    """The word of an integer n >= 1: its binary digits, after as many zeros as they are more than one (Elias 1975)."""
    digits = [int(digit) for digit in f"{_positive(n):b}"]
    return [0] * (len(digits) - 1) + digits


def elias_delta(n: int) -> list[int]:
    """The word of an integer n >= 1: how many binary digits, by `elias_gamma`, then all of them but the first."""
    digits = [int(digit) for digit in f"{_positive(n):b}"]
    return elias_gamma(len(digits)) + digits[1:]


def _positive(n: int) -> int:
    if n < 1:
        raise ValueError(f"Elias' codes are for integers from 1 on, not {n}. For signed integers: integer_bits.")
    return n


def read_delta(bits: Sequence[int]) -> Iterator[int]:
    """The integers of a stream of `elias_delta` words, which needs no commas: each word says where it ends."""
    at = 0
    while at < len(bits):
        zeros = 0
        while bits[at + zeros] == 0:
            zeros += 1
        end = at + 2 * zeros + 1
        digits = _value(bits[at + zeros : end])  # how many digits the integer has
        yield _value([1, *bits[end : end + digits - 1]])
        at = end + digits - 1


def _value(digits: Sequence[int]) -> int:
    return int("".join(map(str, digits)), 2)


def integer_bits(integers: ArrayLike) -> np.ndarray:
    """Length of the `elias_delta` word of each signed integer, numbered 0, 1, -1, 2, -2, ... from 1 on; same shape."""
    z = np.asarray(integers)
    n = np.where(z > 0, 2 * z, 1 - 2 * z)
    digits = np.frexp(n)[1]  # of n in binary
    return digits - 1 + 2 * (np.frexp(digits)[1] - 1) + 1


def huffman_lengths(probabilities: Sequence[float]) -> list[int]:
    """Word lengths of an optimal code for symbols of these probabilities (Huffman 1952); two symbols or more."""
    lengths = [0] * len(probabilities)
    heap = [(p, i, [i]) for i, p in enumerate(probabilities)]  # probability, a tie-breaker, the symbols below
    heapq.heapify(heap)
    while len(heap) > 1:
        (p, _, left), (q, tie, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (p + q, tie, left + right))
    return lengths


def entropy_bits(probabilities: ArrayLike) -> float:
    """-sum p log2 p: no code for one symbol has a smaller mean length (Shannon 1948)."""
    p = np.asarray(probabilities, dtype=float)
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def pattern_bits(n: int, k: int) -> float:
    """Which k of n: one of n + 1 counts, then one of n choose k patterns, each equally long. For instance a mask."""
    if not 0 <= k <= n:
        raise ValueError(f"Of {n} things 0 to {n} can be chosen, not {k}.")
    return float(np.log2(n + 1) + (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / np.log(2))


def adaptive_bits(counts: ArrayLike) -> float:
    """A sequence in which symbol s occurs counts[s] times, without a table sent ahead (Krichevsky, Trofimov 1981).

    Each symbol is predicted by (occurrences so far + 1/2) / (symbols so far + alphabet / 2). The product of these does
    not depend on the order; nor does it need to be known how often each will occur.
    """
    counts = np.asarray(counts, dtype=float)
    n, half = counts.sum(), len(counts) / 2
    return float((gammaln(n + half) - gammaln(half) - (gammaln(counts + 0.5) - gammaln(0.5)).sum()) / np.log(2))


def array_bits(integers: ArrayLike) -> float:
    """An array of integers whose shape is known: the largest size first (Elias), then all of them (`adaptive_bits`)."""
    z = np.asarray(integers, dtype=int).ravel()
    top = int(np.abs(z).max(initial=0))
    return float(integer_bits(top)) + adaptive_bits(np.bincount(z + top, minlength=2 * top + 1))
