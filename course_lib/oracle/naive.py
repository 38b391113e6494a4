"""The oracle by definition: close one gate, run the whole network, subtract the loss with all gates open.

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib import cost, loss
from course_lib.feature_maps import Chain, Layer


class Network:
    """A chain, and what one evaluation of it costs. Takes what exact.Network takes; any memory limit will do."""

    def __init__(self, chain: Chain, image: Tensor, dtype: torch.dtype | None = None, memory_limit: int = 0):
        self.chain, self.shape, self.images_at_once = chain, image.shape[1:], 1 << 30
        self._macs = cost.macs_of(chain.run, image)

    def macs_per_map(self, layer: Layer) -> int:
        """MACs of one evaluation: of one map on one image."""
        return self._macs


class Base:
    """A batch, and its losses (N,) with all gates open."""

    def __init__(self, network: Network, images: Tensor, labels: Tensor):
        self.network, self.images, self.labels = network, images, labels
        self.losses = losses(network.chain.run(images), labels)

    def changes(self, layer: Layer, maps: Tensor, advance: Callable[[int], object] = lambda _: None) -> Tensor:
        """(N, K) float64, nats: change of each image's loss when one of K maps of a layer is set to zero."""
        found = torch.empty(len(self.images), len(maps), dtype=torch.float64, device=self.images.device)
        for at, index in enumerate(maps.tolist()):
            gate = torch.ones(layer.channels, device=self.images.device)
            gate[index] = 0.0
            logits = self.network.chain.run(self.images, gates={layer.name: gate})
            found[:, at] = losses(logits, self.labels) - self.losses
            advance(len(self.images) * self.network.macs_per_map(layer))
        return found


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each example, in double precision: effects can be a millionth of it."""
    return loss.per_example(logits.double(), labels)
