"""The oracle by definition: close one gate, run the whole network, compare the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib import loss
from course_lib.feature_maps import Chain, Layer


def measure(chain: Chain, layer: Layer, maps: Tensor, images: Tensor, labels: Tensor, _: int) -> Tensor:
    """(N, K): the definition. Close one gate, run everything, subtract the loss with all gates open."""
    base = losses(chain.run(images), labels)
    changes = []
    for index in maps.tolist():
        gate = torch.ones(layer.channels, device=images.device)
        gate[index] = 0.0
        changes.append(losses(chain.run(images, gates={layer.name: gate}), labels) - base)
    return torch.stack(changes, dim=1)


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    # In double precision: effects can be a millionth of the loss, and the logits carry more than float32 can subtract.
    return loss.per_example(logits.double(), labels)
