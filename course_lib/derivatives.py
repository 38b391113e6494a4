"""Derivatives by gates: what happens to the logits, and with them to the loss, when a gate moves a little.

Everything here is a backward pass that stops at feature maps: no gradient of a weight is computed, which would cost as
much again as the gradients of the maps. One pass serves all gates of all layers and all examples at once, because an
example's outputs depend on no other example's gates.

Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from course_lib.feature_maps import Chain


def run(chain: Chain, images: Tensor, layers: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward pass to differentiate: logits (N, classes) and feature maps {layer: (N, C, H, W)}, with their graph."""
    taps: dict[str, Tensor] = {}
    with torch.enable_grad():
        logits = chain.run(images.detach().requires_grad_(), taps=taps)
    return logits, {name: taps[name] for name in layers}


def by_maps(outputs: Tensor, taps: dict[str, Tensor], *, again: bool = False) -> dict[str, Tensor]:
    """Derivative of each example's output by its feature maps: {layer: (N, C, H, W)}, one backward pass.

    Args:
        outputs: (N,), in the graph of `taps`.
        again: keep the graph for another pass.
    """
    found = torch.autograd.grad(outputs.sum(), list(taps.values()), retain_graph=again)
    return dict(zip(taps, found, strict=True))


def by_gates(outputs: Tensor, taps: dict[str, Tensor], *, again: bool = False) -> dict[str, Tensor]:
    """Derivative of each example's output by its gates, where they are open: {layer: (N, C)}.

    The gate multiplies all positions of its map, so the chain rule adds them up: sum over positions of dO/dz z.
    """
    gradients = by_maps(outputs, taps, again=again)
    return {name: over_positions(gradients.pop(name), z) for name, z in taps.items()}


def over_positions(a: Tensor, b: Tensor) -> Tensor:
    """The sum over positions of a b, for two feature maps (N, C, ...): (N, C)."""
    return (a.detach() * b.detach()).flatten(2).sum(2)


def most_probable(logits: Tensor, classes: int, labels: Tensor | None = None) -> Tensor:
    """Each example's most probable classes, the first one first: (N, R).

    With labels, the label's class stands first and is followed by the most probable other ones: R = classes + 1.
    R is never more than the number of outputs.
    """
    order = logits.detach().clone()
    if labels is not None:
        order.scatter_(1, labels[:, None], torch.inf)
        classes += 1
    return order.topk(min(classes, logits.shape[1]), dim=1).indices


def logit_slopes(logits: Tensor, taps: dict[str, Tensor], classes: Tensor) -> dict[str, Tensor]:
    """Derivative of some logits of each example by every gate: {layer: (N, R, C)}, R backward passes on one graph.

    Args:
        logits: (N, outputs), in the graph of `taps`.
        taps: layer name -> (N, C, H, W); both as `run` returns them.
        classes: (N, R), which logits; see `most_probable`.
    """
    passes = [by_gates(output, taps, again=True) for output in logits.gather(1, classes).unbind(1)]
    return {name: torch.stack([found[name] for found in passes], dim=1) for name in taps}
