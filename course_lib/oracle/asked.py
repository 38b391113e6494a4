"""What an oracle is asked for: which feature maps, on which pictures, computed in which type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

import torch
from torch import Tensor

from course_lib.feature_maps import Batches, Chain, Layer, indices, placed

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
Choice = Iterable[str] | Mapping[str, Iterable[int]] | None


def choose(chain: Chain, layers: Choice) -> list[tuple[Layer, Tensor]]:
    """The layers, each with the indices (K,) of its maps that were asked for.

    KeyError: unknown layers. What `indices` raises: for maps that are not there, named twice, or no numbers.
    """
    chosen = []
    for layer in chain.select(layers):
        maps = torch.arange(layer.channels)
        if isinstance(layers, Mapping):
            maps = indices(layer.name, layer.channels, layers[layer.name])
        chosen.append((layer, maps))
    return chosen


def portions(batches: Batches, way: ModuleType, chain: Chain, device: torch.device, **options) -> Iterator[tuple]:
    """(network, images, labels): the batches on the device, in pieces of as many images as may be kept at a time."""
    network = None
    for images, labels in placed(batches, device, chain.dtype):
        if network is None or network.shape != images.shape[1:]:
            network = way.Network(chain, images[:1], **options)
        n = network.images_at_once
        for piece in zip(images.split(n), labels.split(n), strict=True):
            yield network, *piece


def check_dtype(dtype: torch.dtype | None, method: str) -> None:
    """ValueError for a type in which the method does not compute."""
    if dtype is None or (dtype in DTYPES and method == "exact"):
        return
    raise ValueError(
        f'dtype={dtype} with method="{method}": the exact method computes changes in torch.float32, torch.float64 or '
        "torch.bfloat16, the naive one runs the network as it is. Leave dtype out for the network's own type."
    )
