"""Criteria: cheap guesses of how much the network would miss each feature map.

A criterion is one short function. It is shown what one batch of examples does in one layer (`Maps`) and answers with
one number for every example and feature map, (N, C), which `score` averages over all examples; or, if it needs only
the weights, with one number for every feature map, (C,). `score` gathers for all criteria at once in a single pass.

Definitions: section 2.2 of Molchanov et al. 2017. Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import loss
from course_lib.feature_maps import Chain, Scores, device_of, evaluating, place
from course_lib.names import UnknownName
from course_lib.progress import track

NEEDS = ("weights", "activations", "gradients", "curvature")  # each includes those before it


@dataclass
class Maps:
    """What one batch of N examples shows of one layer with C feature maps.

    Attributes:
        z: (N, C, H, W) feature maps, after the ReLU and the gate.
        gradient: (N, C, H, W), the derivative of each example's own loss by z.
        curvature: (N, C), an unbiased estimate of the second derivative of each example's loss by the gate.
        labels: (N,) the right answers, 0 .. classes - 1.
        classes: number of the network's outputs.
        weight: (C, C_in, K, K) of the layer's convolution.
        memory: a dict of this layer and criterion that lasts from the first batch to the last.
        generator: source of random numbers, seeded.
    """

    weight: Tensor
    generator: torch.Generator
    z: Tensor | None = None
    gradient: Tensor | None = None
    curvature: Tensor | None = None
    labels: Tensor | None = None
    classes: int = 0
    memory: dict = field(default_factory=dict)

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of z that run over positions in the map."""
        return tuple(range(2, self.z.dim()))


class Criterion(NamedTuple):
    """A criterion and what it needs: 'weights', 'activations', 'gradients' or 'curvature'.

    `finish` turns the average over examples, (C, ...), into the scores, (C,).
    """

    function: Callable[[Maps], Tensor]
    needs: str
    finish: Callable[[Tensor], Tensor] | None = None


CRITERIA: dict[str, Criterion] = {}


def register(name: str, *, needs: str, finish: Callable[[Tensor], Tensor] | None = None) -> Callable:
    """Decorator that adds a criterion to `CRITERIA`: from then on it is in every table, curve and widget."""
    if needs not in NEEDS:
        raise UnknownName("kind of need", needs, NEEDS)

    def add(function: Callable[[Maps], Tensor]) -> Callable[[Maps], Tensor]:
        CRITERIA[name] = Criterion(function, needs, finish)
        return function

    return add


@register("random", needs="weights")
def random(maps: Maps) -> Tensor:
    """Uniform numbers on the same scale in every layer: the baseline that any criterion has to beat."""
    return torch.rand(len(maps.weight), generator=maps.generator)


@register("min_weight", needs="weights")
def min_weight(maps: Maps) -> Tensor:
    """Mean square of the kernel's weights, without the bias (section 2.2, 'Minimum weight')."""
    return maps.weight.square().flatten(1).mean(1)


@register("l1_norm", needs="weights")
def l1_norm(maps: Maps) -> Tensor:
    """Sum of the kernel's absolute weights (Li et al. 2017, 'Pruning Filters for Efficient ConvNets')."""
    return maps.weight.abs().flatten(1).sum(1)


@register("activation_mean", needs="activations")
def activation_mean(maps: Maps) -> Tensor:
    """Mean activation after the ReLU, over positions and examples (section 2.2, 'Activation')."""
    return maps.z.mean(maps.positions)


@register("activation_std", needs="activations", finish=lambda m: (m[:, 1] - m[:, 0] ** 2).clamp(min=0).sqrt())
def activation_std(maps: Maps) -> Tensor:
    """Standard deviation of the activation over positions and examples: gathers E[z] and E[z^2]."""
    return torch.stack([maps.z.mean(maps.positions), maps.z.square().mean(maps.positions)], dim=-1)


@register("apoz", needs="activations")
def apoz(maps: Maps) -> Tensor:
    """Share of positive activations: 1 - APoZ of Hu et al. 2016, so that more is more important."""
    return (maps.z > 0).to(maps.z.dtype).mean(maps.positions)


BINS = 8


def information_gain(joint: Tensor) -> Tensor:
    """H(x) + H(y) - H(x, y) in nats, from joint probabilities (C, bins, classes)."""

    def entropy(p: Tensor) -> Tensor:
        return torch.special.entr(p).flatten(1).sum(1)

    return entropy(joint.sum(2)) + entropy(joint.sum(1)) - entropy(joint)


@register("mutual_information", needs="activations", finish=information_gain)
def mutual_information(maps: Maps) -> Tensor:
    """Information that a map's mean activation, in eight bins, gives about the label.

    The paper names the information gain on quantised variables but neither bins nor the number per map. Ours: the
    mean over positions, quantised at the octiles of the first batch; gathers the joint histogram (N, C, bins, classes).
    """
    x = maps.z.mean(maps.positions)
    if "edges" not in maps.memory:
        octiles = torch.linspace(0, 1, BINS + 1, device=x.device)[1:-1]
        maps.memory["edges"] = torch.quantile(x.float(), octiles, dim=0).T.contiguous()  # (C, bins - 1)
    bins = torch.searchsorted(maps.memory["edges"], x.float().T.contiguous()).T
    return torch.einsum("ncb,ny->ncby", F.one_hot(bins, BINS).float(), F.one_hot(maps.labels, maps.classes).float())


@register("obd", needs="curvature")
def obd(maps: Maps) -> Tensor:
    """Optimal brain damage for a gate: theta^2 H with theta = g = 1 and H the second derivative by the gate.

    LeCun et al. 1990. The diagonal comes from random signs, as in appendix A.6; see `hessian_diagonal`. The usual
    factor 1/2 does not change a ranking.
    """
    return maps.curvature


@register("taylor", needs="gradients")
def taylor(maps: Maps) -> Tensor:
    """|mean over positions of dC/dz z|, for each example (eq. 8): signed inside a map, absolute across examples."""
    return (maps.gradient * maps.z).mean(maps.positions).abs()


def score(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    names: Iterable[str] | str,
    *,
    layers: Iterable[str] | None = None,
    draws: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Scores]:
    """Scores of every feature map by several criteria, in one pass over the data, without dropout.

    Args:
        batches: (images (N, C, H, W), labels (N,)), un-augmented training images; may be None if only weights count.
        names: keys of `CRITERIA`.
        layers: names of layers; None for all that have feature maps.
        draws: random sign vectors for each batch, for 'obd' (the paper takes 10 at first, then 1).
        seed: decides the random numbers of 'random' and 'obd'.

    Returns:
        {criterion: {layer: (C,)}}: float64 on the CPU, more is more important.

    Raises:
        KeyError: an unknown criterion or layer, with the nearest names.
        ValueError: no batches, or labels beyond the network's outputs.
        FloatingPointError: a loss that is infinite or not a number.
    """
    names = [names] if isinstance(names, str) else list(names)
    criteria = {name: find(name) for name in names}
    chain, device = Chain(model), device_of(model)
    generator = torch.Generator().manual_seed(seed)
    chosen = {layer.name: layer for layer in chain.select(layers)}
    needs = max((NEEDS.index(criterion.needs) for criterion in criteria.values()), default=0)
    totals = {name: dict.fromkeys(chosen, 0.0) for name in names}
    memory = {name: {layer: {} for layer in chosen} for name in names}
    for name in [name for name in names if criteria[name].needs == "weights"]:
        for layer in chosen:
            maps = Maps(chosen[layer].conv.weight.detach(), generator)
            totals[name][layer] = criteria[name].function(maps).detach().double().cpu()
    if needs == 0:
        return totals
    examples = 0
    with evaluating(model):
        for images, labels in track(batches, "scoring") if progress else batches:
            seen = observe(
                chain, place(images, device), labels.to(device), list(chosen), NEEDS[needs], generator, draws
            )
            for layer, maps in seen:
                for name in [name for name in names if criteria[name].needs != "weights"]:
                    maps.memory = memory[name][layer]
                    totals[name][layer] += criteria[name].function(maps).detach().double().sum(0).cpu()
            examples += len(images)
    if examples == 0:
        raise ValueError("There are no examples to score on: `batches` is empty, or an iterator already used up.")
    return {name: {k: _finish(criteria[name], v, examples) for k, v in totals[name].items()} for name in names}


def find(name: str) -> Criterion:
    """The criterion of this name; KeyError with the nearest names for an unknown one."""
    if name not in CRITERIA:
        raise UnknownName("criterion", name, CRITERIA)
    return CRITERIA[name]


def observe(
    chain: Chain,
    images: Tensor,
    labels: Tensor,
    layers: list[str],
    needs: str,
    generator: torch.Generator,
    draws: int = 1,
) -> Iterator[tuple[str, Maps]]:
    """One forward pass, and as much backward as needed: yields (layer name, Maps) for every layer.

    The backward pass stops at feature maps: no gradient of a weight is computed.
    """
    curved, graded = needs == "curvature", needs in ("gradients", "curvature")
    taps: dict[str, Tensor] = {}
    with torch.set_grad_enabled(graded):
        logits = chain.run(images.detach().requires_grad_(graded), taps=taps)
        losses = loss.per_example(logits, labels)
    taps = {name: taps[name] for name in layers}
    gradients, curvature = {}, {}
    if curved:
        curvature = hessian_diagonal(logits, taps, generator, draws)
    if graded:
        found = torch.autograd.grad(losses.sum(), list(taps.values()))
        gradients = dict(zip(taps, found, strict=True))
    for name, z in taps.items():
        weight = chain.layers[name].conv.weight.detach()
        yield (
            name,
            Maps(weight, generator, z.detach(), gradients.get(name), curvature.get(name), labels, logits.shape[1]),
        )


def hessian_diagonal(
    logits: Tensor, taps: dict[str, Tensor], generator: torch.Generator, draws: int
) -> dict[str, Tensor]:
    """Second derivative of each example's loss by each gate, estimated with random signs: {layer: (N, C)}.

    The logits of a ReLU network are linear in a gate (piecewise), so the second derivative is J' (diag p - p p') J,
    with J the derivative of the logits and p the softmax. For random signs u, E[(J' S u)^2] is its diagonal when
    S S' = diag p - p p', as for S = diag(sqrt p) - p sqrt(p)'. Appendix A.6 draws its signs for the gates instead;
    signs for the classes have the same mean, far less variance, and need no second-order derivatives. For smooth
    activations this is the Gauss-Newton part of the diagonal.

    Args:
        logits: (N, classes), with their graph.
        taps: layer name -> (N, C, H, W), in that graph.
        draws: sign vectors for each example.
    """
    p = logits.detach().softmax(1)
    total = {name: torch.zeros(z.shape[:2], dtype=z.dtype, device=z.device) for name, z in taps.items()}
    for _ in range(draws):
        signs = (torch.rand(p.shape, generator=generator) < 0.5).to(p) * 2 - 1
        root = p.sqrt() * signs
        direction = root - p * root.sum(1, keepdim=True)  # S u
        found = torch.autograd.grad((logits * direction).sum(), list(taps.values()), retain_graph=True)
        for (name, z), gradient in zip(taps.items(), found, strict=True):
            by_gate = (z.detach() * gradient).flatten(2).sum(2)
            total[name] += by_gate.square() / draws
    return total


def _finish(criterion: Criterion, total: Tensor, examples: int) -> Tensor:
    if criterion.needs == "weights":
        return total
    mean = total / examples
    return mean if criterion.finish is None else criterion.finish(mean)
