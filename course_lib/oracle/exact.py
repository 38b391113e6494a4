"""The oracle, fast: the numbers of the definition (naive.py), with a fraction of the arithmetic.

Why it is exact: nothing before a gate changes, so a batch is run once and what every layer reads is kept. Closing the
gate of map c changes what the next layer reads by -x_c. From there only the *change* travels on, by the rules of
stages.py, and in the end it is added to the logits of the unpruned network. The changes that many maps of one image
make are stacked as if they were a batch.

Rounding is relative to the change, never to the much larger activations. So bfloat16 is good enough for changes, and
twice as fast where the processor multiplies in it (avx512_bf16 or amx; elsewhere it is slower than float32).

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from course_lib.feature_maps import Chain, Layer
from course_lib.oracle.naive import losses
from course_lib.oracle.stages import by_image, stages

MEMORY_LIMIT = 256 << 20  # bytes


class Network:
    """A chain made ready for changes, on images of one shape.

    Args:
        chain: of a model in evaluation mode (`feature_maps.evaluating`).
        image: (1, C, H, W), any image of that shape, on the model's device.
        dtype: of the changes; None: of the weights.
        memory_limit: bytes for what is kept of the images and for the stacked changes, half each.

    Attributes:
        image_bytes: what is kept of one image.
        images_at_once: number of images that one `Base` should hold.
    """

    def __init__(self, chain: Chain, image: Tensor, dtype: torch.dtype | None = None, memory_limit: int = MEMORY_LIMIT):
        self.chain, self.shape, self.dtype = chain, image.shape[1:], dtype or image.dtype
        self.stages, self.macs, self.pair_bytes, kept = [], [], [], 0
        for stage, x, y in stages(chain, image, self.dtype):
            self.stages.append(stage)
            self.macs.append(stage.weights * y[0, 0].numel())
            self.pair_bytes.append(max(x.numel(), y.numel()) * self.dtype.itemsize)
            minus_y = -y.to(self.dtype)
            kept += sum(tensor.nbytes for tensor in {minus_y, *stage.keep(x, y, minus_y)})
        self.image_bytes, self.images_at_once = kept, max(1, memory_limit // (2 * kept))
        # While one stage works, the others may each hold a part that waits for more.
        self.part_bytes = memory_limit // (2 * len(self.stages))

    def reader(self, layer: Layer) -> int:
        """Which stage reads the feature maps of the layer."""
        step = self.chain.steps[layer.reader_at]
        return next(at for at, stage in enumerate(self.stages) if step in stage.steps)

    def macs_per_map(self, layer: Layer) -> int:
        """MACs of one change: of one map on one image."""
        at = self.reader(layer)
        return self.macs[at] // layer.channels + sum(self.macs[at + 1 :])


class Base:
    """Some images run once by the unpruned network, with what the changes need.

    Attributes:
        logits: (N, classes) float64. losses: (N,) float64, nats.
    """

    def __init__(self, network: Network, images: Tensor, labels: Tensor):
        self.network, self.labels, self._minus, self._kept = network, labels, [-images.to(network.dtype)], []
        x = images
        for stage in network.stages:
            y = stage.run(x)
            self._minus.append(-y.to(network.dtype))
            self._kept.append(stage.keep(x, y, self._minus[-1]))
            x = y
        self.logits = x.double()
        self.losses = losses(self.logits, labels)

    def changes(
        self,
        layer: Layer,
        maps: Tensor,
        rows: Tensor | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Tensor:
        """Change of the loss of chosen images when each of some maps of one layer is set to zero.

        To be called, like the constructor, within `evaluating(model)` and `torch.inference_mode()`.

        Args:
            maps: (K,) indices of feature maps.
            rows: (R,) which of the images; None: all.
            advance: called now and then with the number of MACs done since.

        Returns:
            (R, K) float64, nats. A map that is zero everywhere on an image changes nothing and is not computed.
        """
        rows = torch.arange(len(self.labels)) if rows is None else rows
        at, maps = self.network.reader(layer), maps.to(self.labels.device)
        found = torch.zeros(len(rows), len(maps), dtype=torch.float64, device=self.labels.device)
        widest = max(self.network.pair_bytes[at:])
        for some in torch.arange(len(rows)).split(max(1, self.network.part_bytes // widest)):
            read = self._minus[at][rows[some]].reshape(len(some), layer.channels, -1)
            alive = read[:, maps].any(2).any(0).nonzero().flatten()
            advance(len(some) * (len(maps) - len(alive)) * self.network.macs_per_map(layer))
            if len(alive):
                found[some[:, None], alive] = self._measure(at, layer, maps[alive], rows[some], advance)
        return found

    def _measure(self, at: int, layer: Layer, maps: Tensor, rows: Tensor, advance: Callable) -> Tensor:
        """(n, K): changes of few enough images for one map of all of them to fit where they are widest."""
        parts = self._first(at, layer, maps, rows, advance)
        for later in range(at + 1, len(self.network.stages)):
            parts = self._flow(later, parts, rows)
        before, labels, found = self.logits[rows], self.labels[rows], []
        for part in parts:
            logits = (by_image(part.double(), len(rows)) + before).flatten(0, 1)
            after = losses(logits, labels.repeat(len(part) // len(rows)))
            found.append(by_image(after, len(rows)) - self.losses[rows])
        return torch.cat(found).T

    def _first(self, at: int, layer: Layer, maps: Tensor, rows: Tensor, advance: Callable) -> Iterator[Tensor]:
        """What the next layer makes of the loss of each map, in parts of as many maps as fit."""
        minus_x, stage = self._minus[at][rows], self.network.stages[at]
        weight_bytes = stage.weights * self.network.dtype.itemsize // layer.channels
        most = max(1, min(self._maps_at_once(at, len(rows)), self.network.part_bytes // weight_bytes))
        for some in maps.split(most):
            yield stage.first(minus_x, some, layer.channels)
            advance(len(some) * len(rows) * self.network.macs_per_map(layer))

    def _flow(self, at: int, parts: Iterable[Tensor], rows: Tensor) -> Iterator[Tensor]:
        """Each part through one stage. Maps shrink on their way, so parts are joined until they are worth while."""
        stage, kept = self.network.stages[at], [tensor[rows] for tensor in self._kept[at]]
        for part in _joined(parts, len(rows) * self._maps_at_once(at, len(rows))):
            yield stage.change(part, *kept)

    def _maps_at_once(self, at: int, images: int) -> int:
        return max(1, self.network.part_bytes // (images * self.network.pair_bytes[at]))


def _joined(parts: Iterable[Tensor], most: int) -> Iterator[Tensor]:
    """Neighbouring parts together, and parts that are too long cut up: at most so many rows each."""
    waiting: list[Tensor] = []
    for part in parts:
        for piece in part.split(most):
            if sum(map(len, waiting)) + len(piece) > most:
                yield _cat(waiting)
                waiting = []
            waiting.append(piece)
    if waiting:
        yield _cat(waiting)


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
