"""What a run needs, said before it starts: memory and minutes, estimated from sizes and a short measurement.

An estimate, and it says on what it rests. Memory: the tensors that are alive at once, counted without computing any.
Time: MACs, at the rate at which forward passes of this network run here and now. A run that does not fit into the
memory that is free is refused with a size that does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from course_lib import cost
from course_lib.feature_maps import Chain, device_of, evaluating, place
from course_lib.oracle import METHODS
from course_lib.oracle.asked import choose
from course_lib.pruning import Settings

EVALUATED = 256  # images in a batch of training.evaluate
KEPT = 256 << 20  # bytes that oracle.effects takes besides the network
LONG = 3600  # seconds after which a shorter way is worth offering


@dataclass(frozen=True)
class Needs:
    """Bytes of memory besides what is loaded already, and MACs."""

    memory: int
    macs: int


class TooLarge(ValueError):
    """A run that would not fit into memory; the message offers one that does."""


def of_pruning(
    model: nn.Module, image_shape: tuple[int, ...], maps_left: float, test: int, settings: Settings
) -> Needs:
    """Of `pruning.prune`, at most: every step is counted as large as the first.

    Args:
        maps_left: as for `pruning.prune`.
        test: number of images that every step is evaluated on, twice.
    """
    each, widest = activations(model, image_shape)
    now = cost.feature_maps(model)
    steps = -(-(now - round(maps_left * now if maps_left <= 1 else maps_left)) // settings.maps_per_step)
    # A backward pass takes twice the MACs of a forward pass, and as much memory again as what was kept for it.
    images = settings.images + settings.updates * settings.batch_size
    macs = steps * cost.macs(model, image_shape) * (3 * images + 2 * test)
    weights = sum(parameter.nbytes for parameter in model.parameters())  # and gradients, momentum, the next network
    return Needs(4 * weights + max(2 * each * settings.batch_size, widest * min(EVALUATED, test)), macs)


def of_oracle(model: nn.Module, images: torch.Tensor, examples: int, layers=None, method: str = "exact") -> Needs:
    """Of `oracle.effects` for so many examples; `images` (1, C, H, W): one of them."""
    chain = Chain(model)
    with evaluating(model), torch.inference_mode():
        network = METHODS[method].Network(chain, place(images, device_of(model)))
        macs = sum(len(maps) * network.macs_per_map(layer) for layer, maps in choose(chain, layers))
    each, widest = activations(model, images.shape[1:])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    memory = max(KEPT, 4 * each) if method == "exact" else widest * 32
    return Needs(weights + memory, macs * examples)


def activations(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of one image's activations: of all steps together, and of the step with the largest input and output."""
    sizes = [(x.nbytes, y.nbytes) for _, x, y in cost._shapes(model, image_shape)]
    return sum(y for _, y in sizes), max(x + y for x, y in sizes)


def rate(model: nn.Module, images: torch.Tensor, seconds: float = 0.3) -> float:
    """MACs a second of forward passes of these images (N, C, H, W), measured for about so long."""
    macs, done, images = cost.macs(model, tuple(images.shape[1:])) * len(images), 0, place(images, device_of(model))
    with evaluating(model), torch.inference_mode():
        model(images).sum().item()  # the first pass chooses kernels
        began = time.perf_counter()
        while not done or time.perf_counter() - began < seconds:
            model(images).sum().item()  # .item() waits for a GPU
            done += macs
    return done / (time.perf_counter() - began)


def available(device: torch.device | None = None) -> int:
    """Bytes of memory that are free: of the GPU, or of this machine or container."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    free, group = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    try:  # a container may have less than the machine it runs on
        limit, used = (group / name for name in ("memory.max", "memory.current"))
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # none, or "max": no limit
        return free


def statement(needs: Needs, macs_per_second: float, free: int, image_size: int, shorter: str) -> str:
    """One line that says what is needed; `shorter`: what to do where that takes very long.

    Raises:
        TooLarge: more memory than is free, with the image size that would fit.
    """
    if needs.memory > free:
        fitting = int(image_size * (free / needs.memory) ** 0.5) // 16 * 16
        instead = f"--image-size {fitting} should fit" if fitting >= 32 else "Only a smaller network will fit"
        raise TooLarge(
            f"This run needs about {gigabytes(needs.memory)} of memory at {image_size} pixels (counted from the sizes "
            f"of its tensors), and {gigabytes(free)} are free. Nothing was begun. {instead}; or close other programs."
        )
    seconds = needs.macs / macs_per_second
    basis = f"{needs.macs / 1e9:,.0f} GMACs at the {macs_per_second / 1e9:,.0f} a second that forward passes reach here"
    line = f"Needs at most about {duration(seconds)} ({basis}) and {gigabytes(needs.memory)} of memory."
    return f"{line} Too long? {shorter}" if seconds > LONG else line


def gigabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """A time in words, in the unit that fits."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"
