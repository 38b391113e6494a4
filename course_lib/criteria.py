"""Criteria: cheap guesses of how much the network would miss each feature map.

A criterion is one short function. It is shown what one batch of examples does in one layer (`Maps`) and answers with
one number for every example and feature map, (N, C), which `score` averages over all examples; or, if it needs only
the weights, with one number for every feature map, (C,). `score` gathers for all criteria at once in a single pass,
which costs less than a training step: the backward pass stops at feature maps, and only sums are kept of a batch.

Definitions: section 2.2 of Molchanov et al. 2017. Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib import derivatives, loss
from course_lib.feature_maps import Batches, Chain, Scores, device_of, evaluating, placed
from course_lib.names import UnknownName
from course_lib.progress import track

NEEDS = ("weights", "activations", "gradients", "curvature", "logits")  # each includes those before it
LIKELIEST = 5  # classes whose logits are differentiated, besides the label's, where a criterion needs them


@dataclass
class Maps:
    """What one batch of N examples shows of one layer with C feature maps.

    Attributes:
        z: (N, C, H, W) feature maps, after the ReLU and the gate.
        gradient: (N, C, H, W), the derivative of each example's own loss by z.
        curvature: (N, C), an estimate of the second derivative of each example's loss by the gate, unbiased if draws
            were asked for.
        labels: (N,) the right answers, 0 .. classes - 1.
        classes: number of the network's outputs.
        weight: (C, C_in, K, K) of the layer's convolution.
        memory: a dict of this layer and criterion that lasts from the first batch to the last.
        generator: source of random numbers, seeded.
        slopes: (N, R, C), the derivative of R of each example's logits by the gate.
        likeliest: (N, R), which logits: the label's first, then those of the most probable other classes.
        logits: (N, classes), with all gates open.
    """

    weight: Tensor
    generator: torch.Generator
    z: Tensor | None = None
    gradient: Tensor | None = None
    curvature: Tensor | None = None
    labels: Tensor | None = None
    classes: int = 0
    memory: dict = field(default_factory=dict)
    slopes: Tensor | None = None
    likeliest: Tensor | None = None
    logits: Tensor | None = None

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of z that run over positions in the map."""
        return tuple(range(2, self.z.dim()))

    @cached_property
    def mean(self) -> Tensor:
        """(N, C), the mean of z over positions; worked out once, whoever asks."""
        return self.z.mean(self.positions)


class Criterion(NamedTuple):
    """A criterion and what it needs: 'weights', 'activations', 'gradients', 'curvature' or 'logits'.

    A function that gathers more than one number a map answers with (N, C, ...), or with (1, C, ...) if it has added up
    the batch itself; `finish` turns the average over examples, (C, ...), into the scores, (C,).
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
    return maps.mean


@register("activation_std", needs="activations", finish=lambda m: (m[:, 1] - m[:, 0] ** 2).clamp(min=0).sqrt())
def activation_std(maps: Maps) -> Tensor:
    """Standard deviation of the activation over positions and examples: gathers E[z] and E[z^2]."""
    return torch.stack([maps.mean, maps.z.square().mean(maps.positions)], dim=-1)


@register("apoz", needs="activations")
def apoz(maps: Maps) -> Tensor:
    """Share of positive activations: 1 - APoZ of Hu et al. 2016, so that more is more important."""
    return maps.z.sign().clamp_(min=0).mean(maps.positions)  # a third of the time of z > 0, which makes booleans


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
    mean over positions, quantised at the octiles of the first batch; counts the joint histogram of the batch,
    (1, C, bins, classes).
    """
    x = maps.mean.float().T.contiguous()  # (C, N)
    if "edges" not in maps.memory:
        octiles = torch.linspace(0, 1, BINS + 1, device=x.device)[1:-1]
        maps.memory["edges"] = torch.quantile(x, octiles, dim=1).T.contiguous()  # (C, bins - 1)
    bins = torch.searchsorted(maps.memory["edges"], x)
    joint = torch.zeros(len(x), BINS * maps.classes, device=x.device)
    joint.scatter_add_(1, bins * maps.classes + maps.labels, torch.ones_like(x))
    return joint.view(1, len(x), BINS, maps.classes)


@register("obd", needs="curvature")
def obd(maps: Maps) -> Tensor:
    """Optimal brain damage for a gate: theta^2 H with theta = g = 1 and H the second derivative by the gate.

    LeCun et al. 1990. Part of the diagonal is exact and the rest comes from random signs, as all of it does in appendix
    A.6; see `derivatives.curvature_directions`. The usual factor 1/2 does not change a ranking.
    """
    return maps.curvature


@register("taylor", needs="gradients")
def taylor(maps: Maps) -> Tensor:
    """|mean over positions of dC/dz z|, for each example (eq. 8): signed inside a map, absolute across examples."""
    return (maps.gradient * maps.z).mean(maps.positions).abs()


@register("second_order", needs="curvature", finish=torch.abs)
def second_order(maps: Maps) -> Tensor:
    """Tangent and curvature together: |mean over examples of (C''/2 - C')|, a guess of oracle-abs in its own nats.

    The loss along a gate g is C(1) + C' (g - 1) + C'' (g - 1)^2 / 2 near the open gate; this is it at g = 0. Signed for
    each example, because the oracle is the absolute value of a mean, too.
    """
    return maps.curvature / 2 - derivatives.by_gates(maps.gradient, maps.z)


@register("linear_logits", needs="logits", finish=torch.abs)
def linear_logits(maps: Maps) -> Tensor:
    """|mean over examples of C(o - J) - C(o)|: the logits o are taken to be linear in the gate, the loss is not.

    J is their derivative by the gate (the other classes are taken to stay). The logits of a ReLU network are linear
    until a unit switches, so that kinks alone are left out; Taylor and OBD leave out the bend of the softmax, too.
    """
    return derivatives.linear_change(maps.logits.double(), maps.slopes.double(), maps.likeliest)


@torch.inference_mode(False)  # gradients are needed, also where the caller has switched them off
def score(
    model: nn.Module,
    batches: Batches,
    names: Iterable[str] | str,
    *,
    layers: Iterable[str] | None = None,
    draws: int = 1,
    classes: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Scores]:
    """Scores of every feature map by several criteria, in one pass over the data, without dropout.

    Args:
        batches: (images (N, C, H, W), labels (N,)), un-augmented training images; may be None if only weights count.
        names: keys of `CRITERIA`.
        layers: names of layers; None for all that have feature maps.
        draws: for curvature ('obd', 'second_order'), random sign vectors for each batch (the paper takes 10 at first,
            then 1). They estimate all but the label's share of the curvature, which Taylor's pass gives for nothing; 0
            leaves it at that share.
        classes: for curvature, how many of the most probable other classes are taken exactly, too. Each class and
            each draw costs a backward pass; two classes fewer than the network has make it exact.
        seed: decides the random numbers of 'random' and of curvature.

    Returns:
        {criterion: {layer: (C,)}}: float64 on the CPU, more is more important.

    Raises:
        KeyError: an unknown criterion or layer, with the nearest names.
        ValueError: no batches, labels beyond the network's outputs, or negative `draws` or `classes`.
        TypeError: images of another type than the weights; a batch by itself instead of a list of them.
        FloatingPointError: a loss that is infinite or not a number.
    """
    if draws < 0 or classes < 0:
        raise ValueError(f"draws={draws}, classes={classes}: 'obd' takes numbers of backward passes, zero or more.")
    names = [names] if isinstance(names, str) else list(names)
    chain, device, dtype = Chain(model), device_of(model), next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(seed)
    tally = Tally(names, chain, layers, generator)
    if tally.needs == "weights":
        return tally.scores()
    with evaluating(model):
        for images, labels in placed(track(batches, "scoring") if progress else batches, device, dtype):
            for layer, maps in observe(
                chain, images, labels, list(tally.layers), tally.needs, generator, draws, classes
            ):
                tally.add(layer, maps)
    return tally.scores()


class Tally:
    """Criteria in the making: what they say of one batch after another, added up layer by layer.

    Args:
        names, layers: as `score` takes them.

    Attributes:
        needs: the most that one of the criteria needs.
        layers: {name: Layer} of the layers that are scored.
    """

    def __init__(self, names: list[str], chain: Chain, layers: Iterable[str] | None, generator: torch.Generator):
        self.criteria, self._generator = {name: find(name) for name in names}, generator
        self.layers = {layer.name: layer for layer in chain.select(layers)}
        self.needs = NEEDS[max((NEEDS.index(c.needs) for c in self.criteria.values()), default=0)]
        self._memory = {name: {layer: {} for layer in self.layers} for name in names}
        self._totals = {name: dict.fromkeys(self.layers, 0.0) for name in names}
        self._examples = dict.fromkeys(self.layers, 0)
        for name, criterion in self.criteria.items():
            if criterion.needs == "weights":
                for layer, found in self.layers.items():
                    maps = Maps(found.conv.weight.detach(), generator)
                    self._totals[name][layer] = criterion.function(maps).detach().double().cpu()

    def add(self, layer: str, maps: Maps) -> None:
        """Take note of one layer of one batch. Only sums are kept."""
        self._examples[layer] += len(maps.z)
        for name, criterion in self.criteria.items():
            if criterion.needs != "weights":
                maps.memory = self._memory[name][layer]
                found = criterion.function(maps).detach()
                self._totals[name][layer] += found.sum(0, dtype=torch.float64).cpu()

    def watch(self, taps: dict[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        """Take note of a training update, as `training.fit(watch=...)` shows it: no pass of its own is needed."""
        for name, layer in self.layers.items():
            z = taps[name]
            gradient = z.grad * len(labels)  # the update's loss is a mean, a criterion asks for each example's own
            weight = layer.conv.weight.detach()
            self.add(name, Maps(weight, self._generator, z.detach(), gradient, None, labels, logits.shape[1]))

    def scores(self) -> dict[str, Scores]:
        """{criterion: {layer: (C,)}}, averages over all examples so far. ValueError if there were none."""
        if self.needs != "weights" and not all(self._examples.values()):
            raise ValueError("There are no examples to score on: `batches` is empty, or an iterator already used up.")
        return {name: {k: self._finish(name, k) for k in self.layers} for name in self.criteria}

    def _finish(self, name: str, layer: str) -> Tensor:
        criterion, total = self.criteria[name], self._totals[name][layer]
        if criterion.needs == "weights":
            return total
        mean = total / self._examples[layer]
        return mean if criterion.finish is None else criterion.finish(mean)


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
    classes: int = 0,
) -> Iterator[tuple[str, Maps]]:
    """One forward pass, and as much backward as needed: yields (layer name, Maps) for every layer, the last one first.

    The backward pass stops at feature maps: no gradient of a weight is computed. One layer's gradients exist at a time.
    """
    graded, curved, linear = (NEEDS.index(needs) >= NEEDS.index(n) for n in ("gradients", "curvature", "logits"))
    with torch.set_grad_enabled(graded):
        logits, taps = derivatives.run(chain, images, layers)
        losses = loss.per_example(logits, labels)
    directions, factor, likeliest = [], None, None
    if graded:
        directions += torch.autograd.grad(losses.sum(), logits, retain_graph=True)
    if curved:
        p = logits.detach().softmax(1)
        factor, others = derivatives.curvature_directions(p, labels, classes, draws, generator)
        directions += others
    curving = len(directions)
    if linear:
        likeliest = derivatives.most_probable(logits, LIKELIEST, labels)
        directions += derivatives.one_logit_each(likeliest, logits)
    for name, z, gradients in derivatives.walk_back(logits, directions, taps):
        maps = Maps(chain.layers[name].conv.weight.detach(), generator, z, labels=labels, classes=logits.shape[1])
        if graded:
            maps.gradient = gradients[0]
        if curved:
            first, *others = (derivatives.by_gates(gradient, z).square() for gradient in gradients[:curving])
            maps.curvature = sum(others, factor * first)
        if linear:
            maps.slopes = torch.stack([derivatives.by_gates(gradient, z) for gradient in gradients[curving:]], dim=1)
            maps.logits, maps.likeliest = logits.detach(), likeliest
        yield name, maps
