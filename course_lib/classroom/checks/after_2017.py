"""Exercises of notebook 12: the criterion of 2019 from batch norm's gradients, and a block that loses channels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib.classroom.checks.engine import add

Weights = dict[str, Tensor]


def norm_taylor(gamma: Tensor, beta: Tensor, d_gamma: Tensor, d_beta: Tensor) -> Tensor:
    """Importance of each feature map (C,) after a batch norm, as in Molchanov et al. 2019.

    `gamma`, `beta`: (C,); `d_gamma`, `d_beta`: (batches, C), their gradients in each. The derivative by a gate
    after the norm is gamma d_gamma + beta d_beta; it is squared, then averaged over batches.
    """
    return (gamma * d_gamma + beta * d_beta).square().mean(0)


def without_channels(weights: Weights, drop: Tensor) -> Weights:
    """The four kernels around a residual sum without some channels of the stream; each is (out, in, K, K).

    `stem` makes the stream, `first` and `second` are the block, which adds to it, `reader` comes after. What is made of
    the stream's channels loses rows, what reads them loses columns; the maps inside the block stay.
    """
    keep = torch.ones(len(weights["stem"]), dtype=torch.bool)
    keep[drop] = False
    return {
        "stem": weights["stem"][keep],
        "first": weights["first"][:, keep],
        "second": weights["second"][keep],
        "reader": weights["reader"][:, keep],
    }


def random_gradients(generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
    """gamma and beta (C,), and their gradients in each batch (batches, C); once a single batch, once a single map."""
    for batches, maps in ((4, 5), (1, 3), (6, 1)):
        gamma, beta = torch.randn(2, maps, generator=generator, dtype=torch.float64)
        yield gamma, beta, *torch.randn(2, batches, maps, generator=generator, dtype=torch.float64)


def random_blocks(generator: torch.Generator) -> Iterator[tuple[Weights, Tensor]]:
    """Kernels around a residual sum, with as many maps inside the block as in the stream once; channels to drop."""
    for stream, inner, drop in ((5, 5, [1, 3]), (4, 7, [0]), (3, 2, [2, 1])):
        shapes = {"stem": (stream, 3), "first": (inner, stream), "second": (stream, inner), "reader": (6, stream)}
        kernels = {name: torch.randn(*shape, 3, 3, generator=generator) for name, shape in shapes.items()}
        yield kernels, torch.tensor(drop)


def _kept(weights: Weights, drop: Tensor) -> Tensor:
    return torch.tensor([c for c in range(len(weights["stem"])) if c not in drop.tolist()])


def _closed(weights: Weights, drop: Tensor) -> Weights:
    found = {name: weight.clone() for name, weight in weights.items()}
    for name, axis in (("stem", 0), ("first", 1), ("second", 0), ("reader", 1)):
        found[name].index_fill_(axis, drop, 0.0)
    return found


add(
    "norm_taylor",
    norm_taylor,
    inputs=random_gradients,
    mistakes={
        "you left beta out: a gate after the norm multiplies the shift as well as the scale": lambda g, b, dg, db: (
            (g * dg).square().mean(0)
        ),
        "you squared the two parts one by one; they are parts of one derivative, add them first": lambda g, b, dg, db: (
            (g * dg).square() + (b * db).square()
        ).mean(0),
        "you averaged over batches before squaring; near a minimum that average is nothing": lambda g, b, dg, db: (
            (g * dg + b * db).mean(0).square()
        ),
        "this is the absolute value, of 2017; in 2019 the derivative is squared": lambda g, b, dg, db: (
            (g * dg + b * db).abs().mean(0)
        ),
        "you added over batches; the mean does not grow with their number": lambda g, b, dg, db: (
            (g * dg + b * db).square().sum(0)
        ),
        "the square is missing: signed slopes cancel, and near a minimum nothing is left": lambda g, b, dg, db: (
            g * dg + b * db
        ).mean(0),
        "these are the parameters' own gradients; the gate's is gradient times parameter": lambda g, b, dg, db: (
            (dg + db).square().mean(0)
        ),
    },
)

add(
    "without_channels",
    without_channels,
    inputs=random_blocks,
    mistakes={
        "the block's last convolution still makes the channels: the sum would not fit": lambda w, drop: (
            without_channels(w, drop) | {"second": w["second"]}
        ),
        "the layers that read the stream still expect the channels; they lose columns": lambda w, drop: (
            without_channels(w, drop) | {"first": w["first"], "reader": w["reader"]}
        ),
        "the layer after the block reads the stream, too; it loses the same columns": lambda w, drop: (
            without_channels(w, drop) | {"reader": w["reader"]}
        ),
        "the block's first convolution reads the stream, too; it loses the same columns": lambda w, drop: (
            without_channels(w, drop) | {"first": w["first"]}
        ),
        "the stem makes the stream: it loses rows": lambda w, drop: without_channels(w, drop) | {"stem": w["stem"]},
        "you kept the channels that should go": lambda w, drop: without_channels(w, _kept(w, drop)),
        "you closed the channels, a mask; take them out, so that the kernels are smaller": _closed,
    },
)
