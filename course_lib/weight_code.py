"""The stored form of a network with few different weights, bit by bit: sparse rows and a codebook.

After Han, Mao and Dally, Deep Compression (ICLR 2016), as used by Ullrich et al. (2017): of every non-zero weight its
place, relative to the one before, and its index in a codebook are kept. What is counted here is what `decode` needs,
and nothing else is given to it.

The format: sizes; the codebook in float32; then of every layer its sizes, how many entries each row has, of each entry
the number of zeros skipped before it, in `gap_bits` bits, and its codebook index. Index 0 is the number zero: where
more zeros must be skipped than a gap can say, a filler entry of index 0 stands among them.

Taught in: notebooks/11_soft_weight_sharing.ipynb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = ("header", "codebook", "row counts", "gaps", "indices")
GAP_BITS = range(1, 9)
MOST = 2**16  # different values, and rows or columns of a layer: what the header's 16 bits can say


class Stored(NamedTuple):
    """An encoded network: its bits, and {part: number of bits}; the parts are `PARTS`."""

    bits: str
    parts: dict[str, int]


def relative(row: Sequence[int], gap_bits: int) -> list[tuple[int, int]]:
    """A row of codebook indices as entries (zeros skipped, index); index 0 is zero.

    A gap is at most 2^gap_bits - 1. If more zeros lie before the next non-zero, a filler (2^gap_bits - 1, 0) skips as
    many and is a zero itself. Zeros at the end of the row cost nothing.
    """
    most, entries, skipped = 2**gap_bits - 1, [], 0
    for index in row:
        if index == 0 and skipped < most:
            skipped += 1
            continue
        entries.append((skipped, int(index)))
        skipped = 0
    while entries and entries[-1][1] == 0:  # fillers that nothing follows
        entries.pop()
    return entries


def spread_out(entries: Sequence[tuple[int, int]], length: int) -> list[int]:
    """The row that `relative` made the entries from; `length` is its number of columns."""
    row = []
    for skipped, index in entries:
        row += [0] * skipped + [index]
    return row + [0] * (length - len(row))


def encode(matrices: Mapping[str, Tensor], gap_bits: int | None = None) -> Stored:
    """Matrices of few different values (rows, columns) -> their stored form.

    Args:
        gap_bits: bits of a gap, the same in all layers; None: for every layer what makes it shortest.

    Raises:
        ValueError: more than 65,535 different values: quantise first.
    """
    values = torch.cat([matrix.detach().cpu().float().flatten() for matrix in matrices.values()])
    codebook = np.unique(values[values != 0].numpy())
    if len(codebook) + 1 > MOST or max(max(matrix.shape) for matrix in matrices.values()) >= MOST:
        raise ValueError(
            f"{len(codebook):,} different values, or a layer of too many rows or columns: at most {MOST - 1:,} of each "
            "can be numbered. Quantise the weights first (weight_sharing.quantise)."
        )
    parts = dict.fromkeys(PARTS, "")
    parts["header"] = _number(len(matrices), 16) + _number(len(codebook), 16)
    parts["codebook"] = "".join(_number(int(code), 32) for code in codebook.view(np.uint32))
    bits = parts["header"] + parts["codebook"]
    for matrix in matrices.values():
        rows = _indices(matrix, codebook)
        choices = [_layer(rows, gap, _width(len(codebook))) for gap in ([gap_bits] if gap_bits else GAP_BITS)]
        layer = min(choices, key=lambda sections: sum(map(len, sections.values())))
        for part, section in layer.items():
            parts[part] += section
            bits += section
    return Stored(bits, {part: len(section) for part, section in parts.items()})


def _indices(matrix: Tensor, codebook: np.ndarray) -> list[list[int]]:
    values = matrix.detach().cpu().float().numpy()
    return np.where(values == 0, 0, np.searchsorted(codebook, values) + 1).tolist()


def _layer(rows: list[list[int]], gap_bits: int, index_bits: int) -> dict[str, str]:
    """The sections of one layer, in the order in which they are stored."""
    coded = [relative(row, gap_bits) for row in rows]
    entries = [entry for row in coded for entry in row]
    count_bits = _width(max(map(len, coded)))
    return {
        "header": "".join(_number(n, 16) for n in (len(rows), len(rows[0]), gap_bits, count_bits)),
        "row counts": "".join(_number(len(row), count_bits) for row in coded),
        "gaps": "".join(_number(skipped, gap_bits) for skipped, _ in entries),
        "indices": "".join(_number(index, index_bits) for _, index in entries),
    }


def _width(largest: int) -> int:
    """Bits for a whole number from 0 to `largest`."""
    return max(1, largest.bit_length())


def _number(number: int, width: int) -> str:
    return format(number, f"0{width}b")


def decode(bits: str) -> list[Tensor]:
    """The matrices, exactly as they were encoded (zero is +0), in float32 and in order; from the bits alone."""
    reader = _Reader(bits)
    layers, colours = reader.numbers(2, 16)
    codes = np.array([0, *reader.numbers(colours, 32)], dtype=np.uint32).view(np.float32)
    found = []
    for _ in range(layers):
        rows, columns, gap_bits, count_bits = reader.numbers(4, 16)
        counts = reader.numbers(rows, count_bits)
        entries = zip(reader.numbers(sum(counts), gap_bits), reader.numbers(sum(counts), _width(colours)), strict=True)
        entries = list(entries)
        ends = np.cumsum(counts)
        coded = [entries[end - count : end] for end, count in zip(ends, counts, strict=True)]
        found.append(torch.from_numpy(codes[[spread_out(row, columns) for row in coded]]))
    return found


class _Reader:
    """Reads numbers of given widths from a text of bits, one after the other."""

    def __init__(self, bits: str):
        self.bits, self.at = bits, 0

    def numbers(self, count: int, width: int) -> list[int]:
        begin, self.at = self.at, self.at + count * width
        return [int(self.bits[i : i + width], 2) for i in range(begin, self.at, width)]


def rate(stored: Stored, weights: int) -> float:
    """Compression rate: 32 bits for each of the weights, by what is stored."""
    return 32 * weights / sum(stored.parts.values())
