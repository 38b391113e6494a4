"""Exercises of notebook 09: which feature maps go, what surgery selects; and of 00, what a feature map costs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib import cost
from course_lib.classroom.checks.engine import add
from course_lib.feature_maps import Plan, Scores


def lowest(scores: Scores, n: int) -> Plan:
    """The n lowest maps of all layers, but never the last of a layer: `ranking.lowest` without its options."""
    lowest_first = sorted((value, name, at) for name, s in scores.items() for at, value in enumerate(s.tolist()))
    plan = {name: [] for name in scores}
    for _, name, at in lowest_first:
        if sum(map(len, plan.values())) < n and len(plan[name]) < len(scores[name]) - 1:
            plan[name].append(at)
    return {name: torch.tensor(sorted(maps)) for name, maps in plan.items() if maps}


def random_networks(generator: torch.Generator) -> Iterator[tuple[Scores, int]]:
    """Scores of several layers and how many maps are to go; in some networks a whole layer has low scores."""
    networks = ((4, 6, 5), None, 4), ((3, 4, 9), "conv1", 6), ((1, 5), "conv1", 2), ((2, 2, 8), "conv2", 5)
    for sizes, weak, n in networks:
        scores = {f"conv{i}": 1 + torch.rand(size, generator=generator) for i, size in enumerate(sizes, 1)}
        yield {name: s / 100 if name == weak else s for name, s in scores.items()}, n


def _of_each_layer(scores: Scores, count) -> Plan:
    plan = {name: s.argsort()[: count(s)].sort().values for name, s in scores.items()}
    return {name: maps for name, maps in plan.items() if len(maps)}


def _without_a_floor(scores: Scores, n: int) -> Plan:
    limit = torch.cat(list(scores.values())).sort().values[n - 1]
    return {name: (s <= limit).nonzero().flatten() for name, s in scores.items() if (s <= limit).any()}


def _that_stay(scores: Scores, n: int) -> Plan:
    gone = lowest(scores, n)
    stay = {name: set(range(len(s))) - set(gone.get(name, torch.zeros(0)).tolist()) for name, s in scores.items()}
    return {name: torch.tensor(sorted(maps)) for name, maps in stay.items()}


def _by_score(scores: Scores, n: int) -> Plan:
    return {name: maps[scores[name][maps].argsort()] for name, maps in lowest(scores, n).items()}


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
    "lowest",
    lowest,
    inputs=random_networks,
    mistakes={
        "you emptied a layer; without feature maps it passes nothing on, so each keeps its best one": _without_a_floor,
        "you took n maps of every layer; n counts over all layers": lambda scores, n: _of_each_layer(
            scores, lambda s: min(n, len(s) - 1)
        ),
        "you took the same share of every layer; the lowest of all layers may lie in a few": lambda scores, n: (
            _of_each_layer(scores, lambda s: n * len(s) // sum(map(len, scores.values())))
        ),
        "you took the highest scores; those are the maps to keep": lambda scores, n: lowest(
            {name: -s for name, s in scores.items()}, n
        ),
        "layers that lose nothing are in it, too; leave them out": lambda scores, n: {
            name: lowest(scores, n).get(name, torch.zeros(0)) for name in scores
        },
        "you took n maps of every layer, and emptied some; n counts over all layers": lambda scores, n: _of_each_layer(
            scores, lambda s: n
        ),
        "these are places in one long row of scores; say for each layer which of its maps": lambda scores, n: torch.cat(
            list(scores.values())
        ).argsort()[:n],
        "these are the maps that stay; return those that go": _that_stay,
        "right maps, but within a layer sort the indices": _by_score,
    },
)

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
        "you took the first columns, as many as are wanted; the channels say which": lambda c, b: torch.arange(
            len(c) * b
        ),
        "return the indices in one row: flatten the table": lambda c, b: c[:, None] * b + torch.arange(b),
    },
)

add(
    "mflops_of_a_map",
    cost.mflops_of_a_map,
    inputs=random_layers,
    mistakes={
        "these are MACs: one MAC is two FLOPs": lambda positions, weights: positions * (weights + 1) / 1e6,
        "these are MACs, and the bias is left out; it counts as one weight more": lambda positions, weights: (
            positions * weights / 1e6
        ),
        "the bias counts like a weight, as two FLOPs": lambda positions, weights: positions * (2 * weights + 1) / 1e6,
        "these are billions of FLOPs; asked for are millions": lambda positions, weights: (
            2 * positions * (weights + 1) / 1e9
        ),
        "you left out the bias, which counts as one more input": lambda positions, weights: (
            2 * positions * weights / 1e6
        ),
        "these are FLOPs; asked for are millions of them": lambda positions, weights: 2 * positions * (weights + 1),
        "you left out the positions: every one of them is computed": lambda positions, weights: 2 * (weights + 1) / 1e6,
    },
)
