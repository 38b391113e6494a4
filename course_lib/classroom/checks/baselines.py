"""Exercises of notebook 05: three of the cheap criteria."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib import criteria
from course_lib.classroom.checks.engine import add
from course_lib.classroom.checks.taylor import random_maps


def random_joints(generator: torch.Generator) -> Iterator[tuple[Tensor]]:
    """Joint probabilities (C, bins, classes); in the first one a cell is empty, in the last x and y are independent."""
    for shape in ((3, 4, 5), (2, 2, 2), (1, 8, 3)):
        joint = torch.rand(shape, generator=generator, dtype=torch.float64)
        joint[0, 0, 0] = 0
        yield (joint / joint.sum((1, 2), keepdim=True),)
    x, y = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (3, 4))
    yield (torch.outer(x / x.sum(), y / y.sum())[None],)


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).flatten(1).sum(1)


add(
    "min_weight",
    criteria.min_weight,
    inputs=random_maps,
    mistakes={
        "you summed the squares; the paper divides by the number of weights of the kernel": lambda m: (
            m.weight.square().flatten(1).sum(1)
        ),
        "these are absolute values; the paper squares": lambda m: m.weight.abs().flatten(1).mean(1),
        "you squared the mean; the mean of the squares is wanted": lambda m: m.weight.flatten(1).mean(1).square(),
        "this is the length of the kernel; the paper has the mean of the squares, without a root": lambda m: (
            m.weight.flatten(1).norm(dim=1)
        ),
        "the name misleads: not the smallest number of a kernel, but the mean square, of which the smallest goes": (
            lambda m: m.weight.flatten(1).min(1).values
        ),
        "you took the root at the end; the paper does not": lambda m: m.weight.square().flatten(1).mean(1).sqrt(),
        "you averaged over the maps; each map has its own kernel, the first axis stays": lambda m: (
            m.weight.square().mean((0, 2, 3))
        ),
        "you averaged over everything; one number for each map is wanted": lambda m: m.weight.square().mean(),
    },
)

add(
    "apoz",
    criteria.apoz,
    inputs=random_maps,
    mistakes={
        "this is the share of zeros, Hu's APoZ itself; a silent map would be the most important one": lambda m: (
            (m.z == 0).double().mean(m.positions)
        ),
        "you counted zeros as positive: after the ReLU everything is at least zero": lambda m: (
            (m.z >= 0).double().mean(m.positions)
        ),
        "you averaged the activations; only their sign counts here": lambda m: m.z.mean(m.positions),
        "you counted positions; a share is the count divided by their number": lambda m: (
            (m.z > 0).double().sum(m.positions)
        ),
        "you averaged over examples too; return one number for each example and map, `score` averages them": lambda m: (
            (m.z > 0).double().mean((0, *m.positions))
        ),
    },
)

add(
    "information_gain",
    criteria.information_gain,
    inputs=random_joints,
    mistakes={
        "these are bits; the course counts in nats: the natural logarithm": lambda j: (
            criteria.information_gain(j) / torch.tensor(2.0).log().double()
        ),
        "the sign is the wrong way round: H(x) + H(y) - H(x, y)": lambda j: -criteria.information_gain(j),
        "this is H(y), not what x tells about y": lambda j: _entropy(j.sum(1)),
        "this is H(x), not what x tells about y": lambda j: _entropy(j.sum(2)),
        "this is H(y | x), what is left to guess; what is gained is H(y) minus that": lambda j: (
            _entropy(j) - _entropy(j.sum(2))
        ),
        "0 log 0 became NaN; an empty cell adds nothing: torch.special.entr": lambda j: sum(
            sign * (-p * p.log()).flatten(1).sum(1) for sign, p in ((1, j.sum(2)), (1, j.sum(1)), (-1, j))
        ),
        "you added up the maps; one number for each of them is wanted": lambda j: criteria.information_gain(j).sum(),
    },
)
