"""Derivatives by gates: what happens to the logits, and with them to the loss, when a gate moves a little.

Everything here is a backward pass that stops at feature maps: no gradient of a weight is computed, which would cost as
much again as the gradients of the maps. One pass serves all gates of all layers and all examples at once, because an
example's outputs depend on no other example's gates.

Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib import loss
from course_lib.feature_maps import Chain


def run(chain: Chain, images: Tensor, layers: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward pass to differentiate: logits (N, classes) and feature maps {layer: (N, C, H, W)}, with their graph.

    The graph is there with frozen weights, too; it is not under `torch.no_grad`.
    """
    taps: dict[str, Tensor] = {}
    logits = chain.run(images.detach().requires_grad_(torch.is_grad_enabled()), taps=taps)
    return logits, {name: taps[name] for name in layers}


def walk_back(
    logits: Tensor, directions: Iterable[Tensor], taps: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """Several backward passes side by side, from the last layer to the first.

    Only one layer's gradients exist at a time, and whatever comes after that layer is freed: `taps` and the graph are
    used up on the way.

    Args:
        logits: (N, classes), in the graph of `taps`.
        directions: (N, classes) for each pass, which differentiates the sum of direction times logits.
        taps: layer name -> (N, C, H, W), in the order of the network.

    Yields:
        Layer name, its feature maps (N, C, H, W), and for each pass the derivative by them, (N, C, H, W).
    """
    above, gradients = logits, list(directions)
    while taps:
        name, z = taps.popitem()
        gradients = [
            torch.autograd.grad(above, z, gradient, retain_graph=number < len(gradients))[0]  # the last one frees it
            for number, gradient in enumerate(gradients, start=1)
        ]
        above = z
        yield name, z.detach(), gradients


def by_gates(gradient: Tensor, z: Tensor) -> Tensor:
    """Derivative by the gates, (N, C), from the derivative by their feature maps, (N, C, H, W).

    A gate multiplies all positions of its map z, so the chain rule adds them up: the sum over positions of dO/dz z.
    """
    return (gradient * z).sum(tuple(range(2, z.dim())))


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
    """Derivative of some logits of each example by every gate: {layer: (N, R, C)}, R backward passes.

    Args:
        logits: (N, outputs), in the graph of `taps`, which is used up.
        taps: layer name -> (N, C, H, W); both as `run` returns them.
        classes: (N, R), which logits; see `most_probable`.
    """
    walk = walk_back(logits, one_logit_each(classes, logits), dict(taps))
    slopes = {name: torch.stack([by_gates(g, z) for g in gradients], dim=1) for name, z, gradients in walk}
    return {name: slopes[name] for name in taps}


def one_logit_each(classes: Tensor, logits: Tensor) -> list[Tensor]:
    """R directions (N, outputs) for `walk_back`, each picking one logit of every example; `classes` is (N, R)."""
    return list(F.one_hot(classes, logits.shape[1]).to(logits.dtype).unbind(1))


def closed(logits: Tensor, slopes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the logits would be with each gate closed, if they were linear in it, and what the softmax divides by.

    Args:
        logits: (N, outputs) with all gates open.
        slopes: (N, R, C), derivative of R of them by every gate; the other logits are taken to stay.
        classes: (N, R), which ones.

    Returns:
        Logits after closing, (N, R, C); log of the sum of exponentials over the logits that stay, (N, 1), and over all
        of them, (N, C).
    """
    after = logits.gather(1, classes)[:, :, None] - slopes
    others = logits.scatter(1, classes, -torch.inf).logsumexp(1)[:, None]
    return after, others, torch.logaddexp(after.logsumexp(1), others)


def linear_change(logits: Tensor, slopes: Tensor, classes: Tensor) -> Tensor:
    """Change of each example's loss when a gate closes, (N, C) in nats, if the logits were linear in gates.

    Arguments as for `closed`, with the label's class first in `classes`.
    """
    after, _, total = closed(logits, slopes, classes)
    return total - after[:, 0] - loss.per_example(logits, classes[:, 0])[:, None]


def curvature_directions(
    p: Tensor, labels: Tensor, classes: int, draws: int, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """A few directions d, (N, K) each, whose (J'd)^2 add up to the second derivative of the loss by the gates.

    The logits of a ReLU network are linear in a gate (piecewise), so the second derivative is J'(diag p - p p')J, with
    J the derivative of the logits and p the softmax: the variance of J among the classes. (For smooth activations this
    is the Gauss-Newton part.) The law of total variance takes it apart: the variance between one class and the rest is
    the square of one direction; the variance within the rest is taken apart in the same way. The label goes first,
    because its direction is, up to a factor, that of the loss, p - e_label, in which Taylor has been already; the most
    probable classes follow. What is left is estimated without bias from random signs u: E[(J'Su)^2], where S S' is
    diag p - p p' of the rest.

    Args:
        p: (N, K), the probabilities.
        labels: (N,).
        classes: how many classes to take out besides the label's; K - 2 leave nothing to estimate.
        draws: how many sign vectors for those that are left; 0 leaves them out.

    Returns:
        Factor (N, 1) of the loss's own (J'd)^2, and the other directions, classes + draws of them.
    """
    directions, rest, outputs = [], p, p.shape[1]
    for index in most_probable(p, min(classes, outputs - 2), labels).unbind(1):
        one = F.one_hot(index, outputs).to(p)
        share, rest = (rest * one).sum(1, keepdim=True), rest * (1 - one)
        left = _mass(rest)
        directions.append((share / (share + left) * left).sqrt() * (rest / left - one))
    if len(directions) + 1 < outputs:  # one class alone has no variance
        directions += [_signed_root(rest, generator) / draws**0.5 for _ in range(draws)]
    own = F.one_hot(labels, outputs).to(p)
    return (p * own).sum(1, keepdim=True) / _mass(p * (1 - own)), directions[1:]


def _mass(rest: Tensor) -> Tensor:
    """The probability of some classes together, (N, 1), never quite zero."""
    return rest.sum(1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)


def _signed_root(rest: Tensor, generator: torch.Generator) -> Tensor:
    """S u for random signs u, with S = diag sqrt(r) - r sqrt(r)' / sum(r)."""
    signs = (torch.rand(rest.shape, generator=generator) < 0.5).to(rest) * 2 - 1
    root = rest.sqrt() * signs
    return root - rest / _mass(rest) * root.sum(1, keepdim=True)
