"""The loss as a function of one gate: the curve whose tangent is the Taylor criterion.

Taught in: notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from course_lib import loss
from course_lib.feature_maps import Chain, device_of, evaluating, place, spread


def losses_along(
    model: nn.Module, images: Tensor, labels: Tensor, layer: str, maps: Iterable[int], values: Iterable[float]
) -> Tensor:
    """Loss of every example for every value of one gate at a time, the others open: (maps, values, N), float64.

    What comes before the gate is run once; all values of a gate are one batch behind it.
    """
    chain, device = Chain(model), device_of(model)
    at = chain.select([layer])[0].gate_at + 1
    values = torch.tensor(list(values), dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        z = chain.run(place(images, device), stop=at)
        curves = []
        for index in maps:
            gates = torch.ones(len(values), 1, z.shape[1], device=device)
            gates[:, 0, index] = values.to(gates)
            stacked = (spread(gates, z.unsqueeze(0)) * z).flatten(0, 1)  # (values * N, C, H, W)
            logits = chain.run(stacked, start=at).double()
            curves.append(loss.per_example(logits, labels.to(device).repeat(len(values))).view(len(values), -1))
    return torch.stack(curves).cpu()


def logit_slopes(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Derivative of every logit by every gate of a layer, (N, classes, C), and the probabilities, (N, classes).

    One backward pass a class, down to the layer's feature maps only.
    """
    chain = Chain(model)
    at = chain.select([layer])[0].gate_at + 1
    with evaluating(model):
        z = chain.run(place(images, device_of(model)), stop=at).detach()
        gates = torch.ones(z.shape[:2], dtype=z.dtype, device=z.device, requires_grad=True)
        logits = chain.run(z * spread(gates, z), start=at)
        slopes = [torch.autograd.grad(column.sum(), gates, retain_graph=True)[0] for column in logits.unbind(1)]
    return torch.stack(slopes, dim=1), logits.detach().softmax(1)


def curvature(slopes: Tensor, p: Tensor) -> Tensor:
    """Second derivative of each example's loss by each gate, J'(diag p - p p')J on its diagonal: (N, C).

    It is the variance, among the classes as the network believes in them, of the logits' derivatives.

    Args:
        slopes: (N, classes, C), derivative of the logits by the gates.
        p: (N, classes), the softmax.
    """
    p = p.unsqueeze(2)
    mean = (p * slopes).sum(1, keepdim=True)
    return (p * (slopes - mean).square()).sum(1)
