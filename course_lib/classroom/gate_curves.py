"""The loss as a function of a gate: its curve, its tangent (the Taylor criterion) and its curvature (OBD).

Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import criteria, loss
from course_lib.criteria import Maps
from course_lib.feature_maps import Batches, Chain, Scores, device_of, evaluating, place, spread

GRID = tuple(i / 10 for i in range(16))  # 0 to 1.5


class Curve(NamedTuple):
    """Loss along one gate, the others open, with first and second derivative where it is open.

    Attributes:
        index: which feature map.
        values: (V,) of the gate, 0 and 1 among them.
        losses: (V, N), of every example, in nats.
        slope, curvature: (N,), derivatives of each example's loss by the gate at g = 1.
    """

    index: int
    values: np.ndarray
    losses: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


def per_example(model: nn.Module, batches: Batches, function: Callable[[Maps], Tensor]) -> Scores:
    """What a criterion (Maps -> (N, C)) says of every example, before the average: {layer: (N, C)}, float64, CPU."""
    return all_per_example(model, batches, {"": function})[""]


def all_per_example(
    model: nn.Module,
    batches: Batches,
    functions: Mapping[str, Callable[[Maps], Tensor]],
    needs: str = "gradients",
    seed: int = 0,
) -> dict[str, Scores]:
    """As `per_example` for several criteria in one pass: {name: {layer: (N, C, ...)}}.

    `needs`: the most that one of them needs, as in `criteria.register`; `seed`: of the random signs for curvature.
    """
    chain, device, generator = Chain(model), device_of(model), torch.Generator().manual_seed(seed)
    found = {name: {layer: [] for layer in chain.layers} for name in functions}
    with evaluating(model):
        for images, labels in batches:
            seen = place(images, device), labels.to(device)
            for layer, maps in criteria.observe(chain, *seen, list(chain.layers), needs, generator):
                for name, function in functions.items():
                    found[name][layer].append(function(maps).detach().double().cpu())
    return {name: {layer: torch.cat(parts) for layer, parts in by.items()} for name, by in found.items()}


def curves(model: nn.Module, images: Tensor, labels: Tensor, choice: dict[str, dict[str, int]]) -> dict:
    """Curves of some maps: {layer: {what: index}} -> {layer: {what: Curve}}."""
    found = {}
    for layer, maps in choice.items():
        losses = losses_along(model, images, labels, layer, maps.values(), GRID).numpy()
        slopes, curvatures = derivatives(model, images, labels, layer, maps.values())
        parts = zip(maps.values(), losses, slopes.numpy(), curvatures.numpy(), strict=True)
        made = [Curve(i, np.array(GRID), *rest) for i, *rest in parts]
        found[layer] = dict(zip(maps, made, strict=True))
    return found


def typical_maps(truth: Scores, layers: Iterable[str]) -> dict[str, dict[str, int]]:
    """Of each layer, the maps that the oracle calls critical, typical (the median) and idle: {layer: {what: index}}."""
    choice = {}
    for layer in layers:
        known = torch.nonzero(~truth[layer].isnan()).flatten()
        order = known[truth[layer][known].abs().argsort()].tolist()
        choice[layer] = {"critical": order[-1], "typical": order[len(order) // 2], "idle": order[0]}
    return choice


def losses_along(
    model: nn.Module, images: Tensor, labels: Tensor, layer: str, maps: Iterable[int], values: Iterable[float]
) -> Tensor:
    """Loss of every example for every value of one gate at a time, the others open: (maps, values, N), float64.

    What comes before the gate is run once; all values of a gate are one batch after it.
    """
    values = torch.tensor(list(values), dtype=torch.float64)
    found = []
    with evaluating(model), torch.inference_mode():
        chain, at, z = _until(model, images, layer)
        repeated = labels.to(z.device).repeat(len(values))
        for index in maps:
            gates = torch.ones(len(values), 1, z.shape[1], device=z.device, dtype=z.dtype)
            gates[:, 0, index] = values.to(gates)
            stacked = (gates.reshape(*gates.shape, *[1] * (z.dim() - 2)) * z).flatten(0, 1)  # (values * N, C, H, W)
            losses = loss.per_example(chain.run(stacked, start=at).double(), repeated)
            found.append(losses.view(len(values), -1))
    return torch.stack(found).cpu()


def derivatives(
    model: nn.Module, images: Tensor, labels: Tensor, layer: str, maps: Iterable[int]
) -> tuple[Tensor, Tensor]:
    """First and second derivative of each example's loss by some gates, exactly: two (maps, N), float64."""
    maps = list(maps)
    with evaluating(model):
        gates, logits = _gated(model, images, layer)
        losses = loss.per_example(logits.double(), labels.to(logits.device))
        (slopes,) = torch.autograd.grad(losses.sum(), gates, create_graph=True)
        second = [torch.autograd.grad(slopes[:, i].sum(), gates, retain_graph=True)[0][:, i] for i in maps]
    return slopes.detach()[:, maps].T.double().cpu(), torch.stack(second).double().cpu()


def logit_slopes(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Derivative of every logit by every gate of a layer, (N, classes, C), and the probabilities, (N, classes).

    One backward pass a class, down to the layer's feature maps only.
    """
    with evaluating(model):
        gates, logits = _gated(model, images, layer)
        slopes = [torch.autograd.grad(column.sum(), gates, retain_graph=True)[0] for column in logits.unbind(1)]
    return torch.stack(slopes, dim=1), logits.detach().softmax(1)


def curvature(slopes: Tensor, p: Tensor) -> Tensor:
    """Second derivative of each example's loss by each gate, the diagonal of J'(diag p - p p')J: (N, C).

    It is the variance, among the classes as the network believes in them, of the logits' derivatives.

    Args:
        slopes: (N, classes, C), J: derivative of the logits by the gates.
        p: (N, classes), the softmax.
    """
    p = p.unsqueeze(2)
    mean = (p * slopes).sum(1, keepdim=True)
    return (p * (slopes - mean).square()).sum(1)


def curvature_draws(slopes: Tensor, p: Tensor, signs_for: str, draws: int, seed: int = 0) -> Iterator[Tensor]:
    """Estimates of `curvature` from random signs, one (N, C) a draw.

    `signs_for`: 'classes', the square of J'Su with S as in section 7 of the notebook; or 'gates', v * Hv as in appendix
    A.6 of Molchanov et al. 2017.
    """
    generator = torch.Generator().manual_seed(seed)
    size = p.shape if signs_for == "classes" else (len(p), slopes.shape[2])
    for _ in range(draws):
        signs = torch.randint(2, size, generator=generator).to(p) * 2 - 1
        if signs_for == "classes":
            root = p.sqrt() * signs
            yield torch.einsum("nkc,nk->nc", slopes, root - p * root.sum(1, keepdim=True)).square()
        else:
            moved = torch.einsum("nkc,nc->nk", slopes, signs)  # J v
            weighted = p * (moved - (p * moved).sum(1, keepdim=True))  # (diag p - p p') J v
            yield signs * torch.einsum("nkc,nk->nc", slopes, weighted)


def bootstrap_oracles(effects: Scores, draws: int, seed: int) -> Iterator[tuple[Tensor, Scores]]:
    """Bootstrap: the rows of the examples (N,), redrawn with replacement, and the oracle {layer: (C,)} on those."""
    examples = len(next(iter(effects.values())))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        rows = torch.randint(examples, (examples,), generator=generator)
        yield rows, {name: change[rows].mean(0) for name, change in effects.items()}


def _until(model: nn.Module, images: Tensor, layer: str) -> tuple[Chain, int, Tensor]:
    """The chain, the step after a layer's gate, and what arrives there."""
    chain = Chain(model)
    at = chain.select([layer])[0].gate_at + 1
    return chain, at, chain.run(place(images, device_of(model)), stop=at).detach()


def _gated(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """A layer's gates, (N, C), all open, and the logits that depend on them."""
    chain, at, z = _until(model, images, layer)
    gates = torch.ones(z.shape[:2], dtype=z.dtype, device=z.device, requires_grad=True)
    return gates, chain.run(z * spread(gates, z), start=at)
