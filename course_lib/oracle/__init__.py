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

from course_lib.feature_maps import Chain, Layer, Scores, device_of, evaluating, place
from course_lib.names import UnknownName
from course_lib.oracle import exact, naive
from course_lib.oracle.exact import contribution
from course_lib.progress import track

__all__ = ["METHODS", "ablate", "contribution", "effects"]

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
    measure = exact.measure if method == "exact" else naive.measure
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
