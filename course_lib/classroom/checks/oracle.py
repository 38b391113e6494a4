"""Exercises of notebook 06: the oracle of one feature map, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from course_lib import loss
from course_lib.classroom import ablations
from course_lib.classroom.checks.engine import add
from course_lib.feature_maps import Chain


def random_gates(generator: torch.Generator) -> Iterator[tuple[Chain, Tensor, Tensor, str, int]]:
    """A small network as a chain, images, labels, and the layer and index of one of its feature maps."""
    for n, maps, layer, index in ((5, 3, "0", 1), (4, 2, "2", 0), (1, 4, "2", 3), (2, 1, "0", 0)):
        layers = [nn.Conv2d(2, maps, 3), nn.ReLU(), nn.Conv2d(maps, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
        model = nn.Sequential(*layers).double().requires_grad_(False)
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        images = torch.randn(n, 2, 6, 6, generator=generator, dtype=torch.float64)
        yield Chain(model), images, torch.randint(3, (n,), generator=generator), layer, index


def _losses(chain: Chain, images: Tensor, labels: Tensor, layer: str, closed: Iterable[int]) -> Tensor:
    gate = torch.ones(chain.layers[layer].channels)
    gate[list(closed)] = 0.0
    return loss.per_example(chain.run(images, gates={layer: gate}), labels)


add(
    "change_of_loss",
    ablations.change_of_loss,
    inputs=random_gates,
    mistakes={
        "you returned the loss with the gate closed; subtract the loss with all gates open": lambda *case: _losses(
            *case[:4], [case[4]]
        ).mean(),
        "you subtracted the wrong way round: more loss without the map is a positive number": lambda *case: (
            -ablations.change_of_loss(*case)
        ),
        "you summed over the pictures; the cost is their mean": lambda *case: (
            len(case[1]) * ablations.change_of_loss(*case)
        ),
        "you closed all gates of the layer but this one": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, set(range(chain.layers[layer].channels)) - {index})
            - _losses(chain, x, y, layer, [])
        ).mean(),
        "you closed the whole layer": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, range(chain.layers[layer].channels)) - _losses(chain, x, y, layer, [])
        ).mean(),
        "you took the absolute value: the sign is wanted here": lambda *case: abs(ablations.change_of_loss(*case)),
        "you returned one number for each picture; the cost is their mean": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, [index]) - _losses(chain, x, y, layer, [])
        ),
    },
)


def random_effects(generator: torch.Generator) -> Iterator[tuple[Tensor]]:
    """Changes of loss, (N, C), of at least two pictures."""
    for shape in ((5, 3), (2, 4), (9, 2), (4, 4)):
        yield (torch.randn(shape, generator=generator, dtype=torch.float64),)


add(
    "standard_error",
    ablations.standard_error,
    inputs=random_effects,
    mistakes={
        "this is the standard deviation of one picture; the mean of N scatters less, by the root of N": lambda e: e.std(
            0
        ),
        "you divided by N; the standard error goes with the root of N": lambda e: e.std(0) / len(e),
        "you divided the sum of squares by N; the unbiased estimate divides by N - 1": lambda e: (
            e.std(0, correction=0) / len(e) ** 0.5
        ),
        "you divided by the root of the number of maps; the sample is the pictures": lambda e: (
            e.std(0) / e.shape[1] ** 0.5
        ),
        "you took one standard deviation of everything; every map has its own": lambda e: e.std() / len(e) ** 0.5,
        "you went along the maps; the pictures are the rows": lambda e: e.std(1) / e.shape[1] ** 0.5,
        "you took the variance; the standard error is its root": lambda e: e.var(0) / len(e),
    },
)
