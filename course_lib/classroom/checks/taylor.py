"""Exercises of notebook 07: the Taylor criterion and the curvature; and of 00, what makes layers comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from course_lib import criteria, ranking
from course_lib.classroom import gate_curves
from course_lib.classroom.checks.engine import add
from course_lib.criteria import Maps
from course_lib.feature_maps import Scores

SHAPES = ((3, 4, 5, 6), (5, 2, 3, 3), (1, 4, 2, 3), (4, 1, 3, 2), (1, 1, 1, 1))  # N, C, H, W: H is not W, and ones


def random_maps(generator: torch.Generator) -> Iterator[tuple[Maps]]:
    """What a criterion is shown: feature maps after the ReLU, the last of them dead, and their gradients."""
    for shape in SHAPES:
        z = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
        z[:, 1:][:, -1:] = 0
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
        weight = torch.randn(shape[1], 2, 3, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(5, shape[:1], generator=generator)
        seen = {"z": z, "gradient": gradient, "curvature": torch.rand(shape[:2]), "labels": labels, "classes": 5}
        yield (Maps(weight, torch.Generator(), **seen),)


def random_scores(generator: torch.Generator) -> Iterator[tuple[Scores]]:
    """Scores of networks of several sizes; one of them has a layer that is all zero."""
    for sizes in ((4, 3, 6), (1, 5), (1,)):
        yield ({f"conv{i}": torch.rand(n, generator=generator) * 10.0**-i for i, n in enumerate(sizes, 1)},)
    yield ({"conv1": torch.rand(3, generator=generator), "conv2": torch.zeros(2)},)


def random_slopes(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Derivatives of the logits by the gates, (N, classes, C), and a softmax, (N, classes)."""
    for shape in ((3, 4, 5), (2, 5, 2), (1, 3, 1), (4, 2, 6)):
        logits = torch.randn(shape[:2], generator=generator, dtype=torch.float64)
        yield torch.randn(shape, generator=generator, dtype=torch.float64), logits.softmax(1)


def _mean_over_classes(slopes: Tensor, p: Tensor) -> Tensor:
    return torch.einsum("nk,nkc->nc", p, slopes)


def _each_layer(how: Callable[[Tensor], Tensor]) -> Callable[[Scores], Scores]:
    return lambda scores: {name: how(s) for name, s in scores.items()}


def l2(scores: Scores) -> Scores:
    """The reference of exercise 'l2': `ranking.normalize` with its default."""
    return ranking.normalize(scores, "l2")


add(
    "taylor",
    criteria.taylor,
    inputs=random_maps,
    mistakes={
        "you took the absolute value at every position; inside a map the signs must be allowed to cancel": lambda m: (
            (m.gradient * m.z).abs().mean(m.positions)
        ),
        "you averaged over examples before taking the absolute value": lambda m: (
            (m.gradient * m.z).mean((0, *m.positions)).abs()
        ),
        "you averaged over examples; return one number for each example and map, `score` averages them": lambda m: (
            (m.gradient * m.z).mean(m.positions).abs().mean(0)
        ),
        "you summed over positions; eq. 8 divides by their number M": lambda m: (
            (m.gradient * m.z).sum(m.positions).abs()
        ),
        "you averaged over maps, too; return one number for each example and map": lambda m: (
            (m.gradient * m.z).mean().abs()
        ),
        "you squared; the paper takes the absolute value": lambda m: (m.gradient * m.z).mean(m.positions).square(),
        "you left out the absolute value": lambda m: (m.gradient * m.z).mean(m.positions),
        "you left out z: this is the gradient alone": lambda m: m.gradient.mean(m.positions).abs(),
        "you multiplied the averages; the product comes first, position by position": lambda m: (
            m.gradient.mean(m.positions) * m.z.mean(m.positions)
        ).abs(),
    },
)

add(
    "l2",
    l2,
    inputs=random_scores,
    mistakes={
        "you divided by the norm over all layers; each layer has its own": lambda scores: {
            name: s / torch.cat(list(scores.values())).norm() for name, s in scores.items()
        },
        "you divided by the sum of absolute values: that is l1": _each_layer(
            lambda s: s / s.abs().sum().clamp(min=1e-30)
        ),
        "you forgot the root: the sum of squares is the norm squared": _each_layer(
            lambda s: s / s.square().sum().clamp(min=1e-30)
        ),
        "you divided by the root of the mean square; the paper takes the sum": _each_layer(
            lambda s: s / s.square().mean().sqrt().clamp(min=1e-30)
        ),
        "a layer whose scores are all zero became NaN; it should stay zero": _each_layer(lambda s: s / s.norm()),
    },
    shows=(ranking.normalize, ranking._divide),
)

add(
    "curvature",
    gate_curves.curvature,
    inputs=random_slopes,
    mistakes={
        "you left out the square of the mean; a variance is the mean of squares minus it": lambda J, p: (
            _mean_over_classes(J.square(), p)
        ),
        "you gave all classes the same weight; the network's own probabilities weigh them": lambda J, p: J.var(
            1, correction=0
        ),
        "the other way round: the mean of squares minus the square of the mean": lambda J, p: (
            -gate_curves.curvature(J, p)
        ),
        "you weighed all classes alike and divided by one less; the probabilities weigh them": lambda J, p: J.var(1),
        "this is the mean of J among the classes; asked for is its variance": _mean_over_classes,
        "you took the root; the curvature is the variance itself": lambda J, p: gate_curves.curvature(J, p).sqrt(),
        "you weighed J before you squared it; the probabilities multiply the squares": lambda J, p: (
            (p[:, :, None] * J).square().sum(1) - _mean_over_classes(J, p).square()
        ),
        "you averaged over examples; every example has a curvature of its own": lambda J, p: gate_curves.curvature(
            J, p
        ).mean(0),
    },
)
