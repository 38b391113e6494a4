"""The oracle: what the loss really does when a feature map is taken away, one map at a time.

`method="naive"` (naive.py) says what is meant: close the gate, run the whole network, compare. `method="exact"`
(exact.py, stages.py) gives the same numbers with a fraction of the arithmetic: it runs the network once and then only
what a closed gate changes. `estimate` (sampled.py, sampling.py) does only some of it, and says how sure it is.

Section 2.2 and appendix A.3 of Molchanov et al. 2017. Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from course_lib import distributed, models
from course_lib.feature_maps import Batches, Chain, Layer, Scores, device_of, evaluating
from course_lib.names import UnknownName
from course_lib.oracle import exact, naive
from course_lib.oracle.asked import Choice, check_dtype, choose, portions
from course_lib.oracle.pieces import Pieces
from course_lib.oracle.sampled import Estimate, estimate, split_half
from course_lib.oracle.stages import contribution
from course_lib.progress import meter

__all__ = ["METHODS", "Estimate", "ablate", "contribution", "effects", "estimate", "split_half"]

METHODS = {"exact": exact, "naive": naive}


def ablate(model: nn.Module, batches: Batches, layers: Choice = None, method: str = "exact", **options) -> Scores:
    """Signed change of the mean loss, in nats, when one feature map is set to zero: C(g_i = 0) - C.

    The paper's oracle-loss; its oracle-abs, the yardstick of Table 1, is the absolute value of this. Arguments and
    errors are those of `effects`.

    Returns:
        {layer: (C,)} float64 on the CPU; NaN for a map that was not asked for.
    """
    changes = effects(model, batches, layers, method, **options)
    return {name: change.mean(0) for name, change in changes.items()}


def effects(
    model: nn.Module,
    batches: Batches,
    layers: Choice = None,
    method: str = "exact",
    *,
    dtype: torch.dtype | None = None,
    memory_limit: int = exact.MEMORY_LIMIT,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Scores:
    """As `ablate`, for every example by itself. Its spread over examples gives the error bars.

    Args:
        batches: (images (N, C, H, W), labels (N,)): training images, centre-cropped, un-augmented (A.3). They are
            taken one by one and not kept.
        layers: None for every layer; names of layers; or {name: indices} for some maps of some layers.
        method: "exact" (fast) or "naive" (the definition, one full evaluation for every map).
        dtype: in which "exact" computes what changes; None: in the network's own. torch.bfloat16 ranks the maps alike
            and is twice as fast on a processor that multiplies in it (avx512_bf16, amx); elsewhere it is slower.
        memory_limit: bytes that "exact" may take besides the network, half for what it keeps of the images and half
            for changes. One image and one of its maps run in any case. Give a GPU much more.
        folder: keep what is measured there, layer by layer; the same call again goes on, to the same numbers, on any
            number of processes (`distributed`), which share the images.
        progress: show a bar, which counts MACs.

    Returns:
        {layer: (N, C)} float64 on the CPU; NaN for a map that was not asked for.

    Raises:
        KeyError: unknown layer or method, with the nearest names.
        IndexError: a map that the layer does not have. TypeError: maps that are named by no whole numbers.
        ValueError: no batches; a map named twice; a dtype that does not serve; a folder that holds another run.
        UnsupportedModel: batch norm without running statistics, by the exact method.
        FloatingPointError: a loss that is infinite or not a number.
        BlockingIOError: a folder in which another run is at work. OSError: one that cannot be written to.
    """
    if method not in METHODS:
        raise UnknownName("oracle method", method, METHODS)
    check_dtype(dtype, method)
    chain = Chain(model)
    chosen = choose(chain, layers)
    kept = Pieces(folder, _origin(model, chain, chosen, method, dtype, memory_limit) if folder else {})
    found: dict[str, list[Tensor]] = {layer.name: [] for layer, _ in chosen}
    held = nullcontext() if folder is None else distributed.alone(folder)
    with held:
        with evaluating(model), torch.inference_mode(), meter("oracle", "MAC", show=progress) as bar:
            pieces = portions(batches, METHODS[method], chain, device_of(model), dtype=dtype, memory_limit=memory_limit)
            for number, (network, images, labels) in enumerate(pieces):
                bar.total = bar.total or _macs(network, chosen, batches)
                if distributed.is_mine(number):
                    piece = _measure(METHODS[method], network, images, labels, chosen, kept, number, bar)
                else:
                    piece = _left_to_others(network, len(images), chosen, bar)
                for name, change in piece.items():
                    found[name].append(change)
        if not any(found.values()):
            raise ValueError("There are no examples to measure on: `batches` is empty, or an iterator already used up.")
        joined = {name: torch.cat(changes) for name, changes in found.items()}
        distributed.add_up(list(joined.values()))
    return joined


def _measure(way, network, images, labels, chosen, kept: Pieces, number: int, bar) -> Scores:
    """{layer: (N, C)} of one piece of the images; what is kept of it already is not measured again."""
    found, base = kept.open(number, images, labels), None
    for layer, maps in chosen:
        if layer.name in found:
            done = len(images) * len(maps) * network.macs_per_map(layer)
            if not bar.disable:
                bar.initial += done  # it says nothing about the time that the rest will take
            bar.update(done)
            continue
        base = base or way.Base(network, images, labels)
        change = torch.full((len(images), layer.channels), torch.nan, dtype=torch.float64)
        change[:, maps] = base.changes(layer, maps, advance=bar.update).cpu()
        found[layer.name] = change
        kept.save(number, found)
    return found


def _left_to_others(network, images: int, chosen, bar) -> Scores:
    """Zeros in the place of what another process measures, about now."""
    bar.update(sum(images * len(maps) * network.macs_per_map(layer) for layer, maps in chosen))
    return {layer.name: torch.zeros(images, layer.channels, dtype=torch.float64) for layer, _ in chosen}


def _macs(network, chosen: list[tuple[Layer, Tensor]], batches: Batches) -> int | None:
    """MACs of the whole run, None where nobody knows how many examples are to come."""
    if isinstance(batches, (list, tuple)):
        examples = sum(len(labels) for _, labels in batches)
    elif isinstance(batches, DataLoader):
        examples = len(batches.dataset)
    else:
        return None
    return examples * sum(len(maps) * network.macs_per_map(layer) for layer, maps in chosen)


def _origin(model, chain, chosen, method, dtype, memory_limit) -> dict:
    return {
        "weights": models.fingerprint(model.state_dict()),
        "architecture": [repr(step.module) for step in chain.steps],
        "method": method,
        "dtype": str(dtype),
        "memory_limit": memory_limit,
        "maps": {layer.name: maps.tolist() for layer, maps in chosen},
    }
