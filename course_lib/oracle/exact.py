"""The oracle, fast: the same numbers as by definition, with a fraction of the arithmetic.

Nothing before the gate changes, and right behind it the next layer is linear: its output without map c is its output
with all maps, minus what map c alone contributes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.feature_maps import Chain, Layer
from course_lib.oracle.naive import losses


def measure(chain: Chain, layer: Layer, maps: Tensor, images: Tensor, labels: Tensor, memory_limit: int) -> Tensor:
    """(N, K): the same numbers. What comes before the reader of the maps is run once, and so is the reader."""
    read = chain.run(images, stop=layer.reader_at)
    output, sizes = _run_and_measure(chain, layer.reader_at, read)
    base = losses(chain.run(output, start=layer.reader_at + 1), labels)
    alive = maps[_map_of(read, layer.channels).flatten(2).any(2).any(0).cpu()[maps]]
    changes = torch.zeros(len(images), layer.channels, dtype=torch.float64, device=images.device)
    examples, at_once = _chunks(memory_limit, sizes, len(images), max(len(alive), 1))
    for rows in torch.arange(len(images)).split(examples):
        for some in alive.split(at_once):
            share = contribution(chain.steps[layer.reader_at].module, read[rows], some, layer.channels)
            without = (output[rows].unsqueeze(1) - share).flatten(0, 1)  # (n * K, ...)
            logits = chain.run(without, start=layer.reader_at + 1)
            after = losses(logits, labels[rows].repeat_interleave(len(some)))
            changes[rows[:, None], some] = after.view(len(rows), len(some)) - base[rows, None]
    return changes[:, maps]


def contribution(reader: nn.Module, read: Tensor, maps: Tensor, channels: int) -> Tensor:
    """What each of some feature maps alone adds to the output of the layer that reads them.

    Args:
        reader: a convolution or a linear layer.
        read: its input, (n, C, H, W) or flattened (n, C H W).
        maps: (K,) indices of feature maps.
        channels: C.

    Returns:
        (n, K, C_out, H', W') or (n, K, units).
    """
    maps = maps.to(read.device)
    if isinstance(reader, nn.Linear):
        columns = _map_of(read, channels)[:, maps]  # (n, K, H W)
        weight = reader.weight.unflatten(1, (channels, -1))[:, maps]  # (units, K, H W)
        return torch.einsum("nkp,ukp->nku", columns, weight)
    weight = reader.weight[:, maps].transpose(0, 1).flatten(0, 1).unsqueeze(1)  # (K C_out, 1, kernel)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[read.dim() - 2]
    padded, padding = _pad(reader, read[:, maps])
    share = convolve(padded, weight, None, reader.stride, padding, reader.dilation, groups=len(maps))
    return share.unflatten(1, (len(maps), reader.out_channels))


def _pad(reader: nn.Module, x: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
    if reader.padding_mode == "zeros":
        return x, reader.padding
    return F.pad(x, reader._reversed_padding_repeated_twice, mode=reader.padding_mode), (0,) * (x.dim() - 2)


def _map_of(read: Tensor, channels: int) -> Tensor:
    """(n, C, positions), whether or not a flatten has come in between."""
    return read.reshape(len(read), channels, -1)


def _run_and_measure(chain: Chain, reader_at: int, read: Tensor) -> tuple[Tensor, int]:
    """The reader's output, and the bytes that one example needs at the widest place behind it."""
    output = chain.steps[reader_at](read)
    widest, x = output[0].nbytes, output[:1]
    for step in chain.steps[reader_at + 1 :]:
        x = step(x)
        widest = max(widest, x.nbytes)
    return output, widest


def _chunks(memory_limit: int, widest: int, examples: int, maps: int) -> tuple[int, int]:
    """How many examples and maps to stack: three copies of the widest place have to fit, one pair always runs."""
    pairs = max(1, memory_limit // (3 * widest))
    at_once = min(maps, pairs)
    return max(1, min(examples, pairs // at_once)), at_once
