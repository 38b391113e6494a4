"""The oracle: what the loss really does when a feature map is taken away, one map at a time.

`method="naive"` says what is meant: close the gate, run the whole network, compare. `method="exact"` gives the same
numbers with a fraction of the arithmetic, because nothing before the gate changes and, right behind it, the next
layer is linear: its output without map c is its output with all maps, minus what map c alone contributes.

Section 2.2 and appendix A.3 of Molchanov et al. 2017. Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import loss
from course_lib.feature_maps import Chain, Layer, Scores, device_of, evaluating, place
from course_lib.names import UnknownName
from course_lib.progress import track

METHODS = ("exact", "naive")
Choice = Iterable[str] | Mapping[str, Iterable[int]] | None


def ablate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    layers: Choice = None,
    method: str = "exact",
    *,
    memory_limit: int = 256 << 20,
    progress: bool = True,
) -> Scores:
    """Signed change of the mean loss, in nats, when one feature map is set to zero: C(g_i = 0) - C.

    The paper's oracle-loss; its oracle-abs, the yardstick of Table 1, is the absolute value of this.

    Args:
        batches: (images (N, C, H, W), labels (N,)): training images, centre-cropped, un-augmented (A.3).
        layers: None for every layer; names of layers; or {name: indices} for some maps of some layers.
        method: "exact" (fast) or "naive" (the definition, one full evaluation for every map).
        memory_limit: bytes that the stacked feature maps may take; decides how many maps run at once.

    Returns:
        {layer: (C,)} float64 on the CPU; NaN for a map that was not asked for.

    Raises:
        KeyError: unknown layer or method, with the nearest names.
        IndexError: a map that the layer does not have.
        ValueError: no batches; FloatingPointError: a loss that is infinite or not a number.
    """
    changes = effects(model, batches, layers, method, memory_limit=memory_limit, progress=progress)
    return {name: change.mean(0) for name, change in changes.items()}


def effects(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    layers: Choice = None,
    method: str = "exact",
    *,
    memory_limit: int = 256 << 20,
    progress: bool = True,
) -> Scores:
    """As `ablate`, for every example by itself: {layer: (N, C)}. Its spread over examples gives the error bars."""
    if method not in METHODS:
        raise UnknownName("oracle method", method, METHODS)
    measure = _exact if method == "exact" else _naive
    chain, device = Chain(model), device_of(model)
    chosen = _choose(chain, layers)
    found: dict[str, list[Tensor]] = {layer.name: [] for layer, _ in chosen}
    work = [(images, labels, layer, maps) for images, labels in batches for layer, maps in chosen]
    if not work:
        raise ValueError("There are no examples to measure on: `batches` is empty, or an iterator already used up.")
    with evaluating(model), torch.inference_mode():
        for images, labels, layer, maps in track(work, "oracle") if progress else work:
            images, labels = place(images, device), labels.to(device)
            change = torch.full((len(images), layer.channels), torch.nan, dtype=torch.float64)
            change[:, maps] = measure(chain, layer, maps, images, labels, memory_limit).cpu()
            found[layer.name].append(change)
    return {name: torch.cat(changes) for name, changes in found.items()}


def _naive(chain: Chain, layer: Layer, maps: Tensor, images: Tensor, labels: Tensor, _: int) -> Tensor:
    """(N, K): the definition. Close one gate, run everything, subtract the loss with all gates open."""
    base = _losses(chain.run(images), labels)
    changes = []
    for index in maps.tolist():
        gate = torch.ones(layer.channels, device=images.device)
        gate[index] = 0.0
        changes.append(_losses(chain.run(images, gates={layer.name: gate}), labels) - base)
    return torch.stack(changes, dim=1)


def _exact(chain: Chain, layer: Layer, maps: Tensor, images: Tensor, labels: Tensor, memory_limit: int) -> Tensor:
    """(N, K): the same numbers. What comes before the reader of the maps is run once, and so is the reader."""
    read = chain.run(images, stop=layer.reader_at)
    output, sizes = _run_and_measure(chain, layer.reader_at, read)
    base = _losses(chain.run(output, start=layer.reader_at + 1), labels)
    alive = maps[_map_of(read, layer.channels).flatten(2).any(2).any(0).cpu()[maps]]
    changes = torch.zeros(len(images), layer.channels, dtype=torch.float64, device=images.device)
    examples, at_once = _chunks(memory_limit, sizes, len(images), max(len(alive), 1))
    for rows in torch.arange(len(images)).split(examples):
        for some in alive.split(at_once):
            share = contribution(chain.steps[layer.reader_at].module, read[rows], some, layer.channels)
            without = (output[rows].unsqueeze(1) - share).flatten(0, 1)  # (n * K, ...)
            logits = chain.run(without, start=layer.reader_at + 1)
            losses = _losses(logits, labels[rows].repeat_interleave(len(some)))
            changes[rows[:, None], some] = losses.view(len(rows), len(some)) - base[rows, None]
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


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    # In double precision: effects can be a millionth of the loss, and the logits carry more than float32 can subtract.
    return loss.per_example(logits.double(), labels)


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


def _choose(chain: Chain, layers: Choice) -> list[tuple[Layer, Tensor]]:
    chosen = []
    for layer in chain.select(layers):
        maps = torch.arange(layer.channels)
        if isinstance(layers, Mapping):
            maps = torch.as_tensor(layers[layer.name], dtype=torch.long)
            if maps.numel() and (int(maps.min()) < 0 or int(maps.max()) >= layer.channels):
                raise IndexError(
                    f"Layer {layer.name!r} has feature maps 0 to {layer.channels - 1}; asked for {maps.tolist()}."
                )
        chosen.append((layer, maps))
    return chosen
