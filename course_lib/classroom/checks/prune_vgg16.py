"""Exercises of notebook 09: what surgery selects, and what a feature map costs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib import cost
from course_lib.classroom.checks.engine import add


def columns(channels: Tensor, block: int) -> Tensor:
    """Columns of a linear layer that belong to these channels: `block` = H W neighbouring ones for each channel."""
    return (channels[:, None] * block + torch.arange(block, device=channels.device)).flatten()


def random_channels(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Channels that stay, (K,), and the columns that each of them owns in the next linear layer."""
    for channels, block in ((6, 4), (5, 1), (9, 9), (1, 3)):
        some = torch.randperm(channels, generator=generator)[: max(1, channels // 2)]
        yield some.sort().values, block


def random_layers(generator: torch.Generator) -> Iterator[tuple[int, int]]:
    """Positions of a map and weights of its kernel; the first is VGG-16's second layer at 224 pixels."""
    yield 224 * 224, 64 * 9
    for _ in range(3):
        yield tuple(torch.randint(1, 1000, (2,), generator=generator).tolist())


add(
    "columns",
    columns,
    inputs=random_channels,
    mistakes={
        "you interleaved the channels; after flatten a channel's columns are neighbours": lambda c, b: (
            c[None] + torch.arange(b)[:, None] * (int(c.max()) + 1)
        ).flatten(),
        "you took only the first column of each channel": lambda c, b: c * b,
        "you forgot that channel c begins at column c times block": lambda c, b: (
            c[:, None] + torch.arange(b)
        ).flatten(),
        "right columns, but position by position; flatten lays one whole map after the other": lambda c, b: (
            c[None] * b + torch.arange(b)[:, None]
        ).flatten(),
        "return the indices in one row: flatten the table": lambda c, b: c[:, None] * b + torch.arange(b),
    },
)

add(
    "mflops_of_a_map",
    cost.mflops_of_a_map,
    inputs=random_layers,
    mistakes={
        "these are MACs: one MAC is two FLOPs": lambda positions, weights: positions * (weights + 1) / 1e6,
        "you left out the bias, which counts as one more input": lambda positions, weights: (
            2 * positions * weights / 1e6
        ),
        "these are FLOPs; asked for are millions of them": lambda positions, weights: 2 * positions * (weights + 1),
        "you left out the positions: every one of them is computed": lambda positions, weights: 2 * (weights + 1) / 1e6,
    },
)
