"""What a run needs, said before it starts: memory, minutes and disk, estimated from sizes and a short measurement.

An estimate, and it says on what it rests. Memory: the tensors that are alive at once, counted without computing any.
Time: MACs, at the rate at which forward passes of this network run here and now. Disk: the checkpoints. A run that
does not fit into the memory or on the disk that is free is refused with a size that does.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from course_lib import cost, datasets, oracle, training
from course_lib.feature_maps import Chain, device_of, evaluating, place
from course_lib.oracle.asked import Choice, choose
from course_lib.oracle.exact import MEMORY_LIMIT
from course_lib.oracle.sampled import CLASSES
from course_lib.pruning import Settings

#: Bytes that are no tensors of ours: working space of convolutions, and what the allocator keeps. `tests/test_needs.py`
#: measures the peak of real runs and holds the estimates between one and three times of it.
BESIDES = 32 << 20
CHECKPOINT = 64 << 10  # bytes of a checkpoint besides weights: names, scores, plan
LONG = 3600  # seconds after which a shorter way is worth offering


@dataclass(frozen=True)
class Needs:
    """Bytes of memory besides what is loaded already, MACs, and bytes of disk."""

    memory: int
    macs: int
    disk: int = 0

    def then(self, next_work: Needs) -> Needs:
        """Of both, one after the other."""
        return Needs(max(self.memory, next_work.memory), self.macs + next_work.macs, self.disk + next_work.disk)


class TooLarge(ValueError):
    """A run that would not fit into memory or on the disk; the message offers one that does."""


def of_pruning(
    model: nn.Module, image_shape: tuple[int, ...], maps_left: float, test: int, settings: Settings
) -> Needs:
    """Of `pruning.prune` that keeps its steps in a folder, at most: every step is counted as large as the first.

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
    states = 4 * _weights(model)  # weights, gradients, momentum, the next network
    evaluation = widest * min(training.AT_ONCE, test)
    kept = 3 if settings.optimizer == "adam" else 2  # the weights, and what the optimizer remembers of each
    disk = (steps + 1) * (kept * _weights(model) + CHECKPOINT)
    return Needs(states + max(2 * each * settings.batch_size, evaluation) + BESIDES, macs, disk)


def of_tuning(model: nn.Module, image_shape: tuple[int, ...], images: int, epochs: float) -> Needs:
    """Of `training.fit_head` and `training.fit` with augmentation, on so many images."""
    each, widest = activations(model, image_shape)
    macs = round(cost.macs(model, image_shape) * images * (1 + 3 * epochs))
    states = 4 * _weights(model)  # weights, gradients and AdamW's two moments
    features = 2 * images * training.head(model).in_features * 4  # gathered in parts, then joined
    head = widest * training.SEEN_AT_ONCE + features
    return Needs(states + max(2 * each * datasets.BATCH_SIZE, head) + BESIDES, macs)


def of_oracle(
    model: nn.Module, images: torch.Tensor, examples: int, layers: Choice = None, method: str = "exact"
) -> Needs:
    """Of `oracle.effects` for so many examples; `images` (1, C, H, W): one of them."""
    chain, batch = Chain(model), min(examples, datasets.BATCH_SIZE)
    with evaluating(model), torch.inference_mode():
        network = oracle.METHODS[method].Network(chain, place(images, device_of(model)))
        asked = [(len(maps), network.macs_per_map(layer)) for layer, maps in choose(chain, layers)]
    if method == "exact":
        memory = _exact(network, batch, max(maps for maps, _ in asked))
    else:
        memory = 2 * batch * activations(model, images.shape[1:])[1]  # a step, and the same after the gate
    return Needs(_weights(model) + memory + BESIDES, examples * sum(maps * macs for maps, macs in asked))


def of_estimate(model: nn.Module, images: torch.Tensor, examples: int, budget: float, layers: Choice = None) -> Needs:
    """Of `oracle.estimate`: backward passes that guess, then a share of the exact oracle. Arguments as `of_oracle`."""
    whole = of_oracle(model, images, examples, layers)
    pairs = examples * sum(len(maps) for _, maps in choose(Chain(model), layers))
    image_shape = images.shape[1:]
    each, batch = activations(model, image_shape)[0], min(examples, datasets.BATCH_SIZE)
    guessing = Needs(
        _weights(model) + 3 * each * batch + BESIDES, (2 * CLASSES + 3) * examples * cost.macs(model, image_shape)
    )
    share = min(1, budget / pairs if budget > 1 else budget)
    both = guessing.then(Needs(whole.memory, round(share * whole.macs)))
    return Needs(both.memory + 30 * pairs, both.macs)  # its statistics


def _exact(network, images: int, maps: int) -> int:
    """Bytes of what the exact oracle keeps of the images, and of the changes: a stage's input and output."""
    images, widest = min(images, network.images_at_once), max(network.pair_bytes)
    return images * network.image_bytes + 2 * max(widest, min(MEMORY_LIMIT // 2, images * maps * widest))


def _weights(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def activations(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of one image's activations: of all steps together, and of the step with the largest input and output."""
    sizes = [(x.nbytes, y.nbytes) for _, x, y in cost.shapes(model, image_shape)]
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
        instead = f"At {fitting} pixels it should fit" if fitting >= 32 else "Only a smaller network will fit"
        raise TooLarge(
            f"This run needs about {gigabytes(needs.memory)} of memory at {image_size} pixels (counted from the sizes "
            f"of its tensors), and {gigabytes(free)} are free. Nothing was begun. {instead}; or close other programs."
        )
    seconds = needs.macs / macs_per_second
    basis = f"{needs.macs / 1e9:,.0f} GMACs at the {macs_per_second / 1e9:,.0f} a second that forward passes reach here"
    disk = f", and {gigabytes(needs.disk)} of disk" if needs.disk else ""
    line = f"Needs at most about {duration(seconds)} ({basis}) and {gigabytes(needs.memory)} of memory{disk}."
    return f"{line} Too long? {shorter}" if seconds > LONG else line


def _here(model: nn.Module, dataset: Dataset) -> tuple[float, float]:
    """MACs a second at which images of the data set pass through the network now, and free memory, bytes."""
    images = torch.stack([dataset[at][0] for at in range(min(8, len(dataset)))])
    return rate(model, images), available(device_of(model))


def said(needs: Needs, model: nn.Module, dataset: Dataset, shorter: str) -> str:
    """`statement` for this machine, at the rate at which images of the data set pass through the network now."""
    return statement(needs, *_here(model, dataset), dataset[0][0].shape[-1], shorter)


def foretold(parts: dict[str, Needs], model: nn.Module, dataset: Dataset) -> str:
    """One line on what each of several pieces of work needs here, wherever it is done; measures the rate as `said`."""
    macs_per_second, free = _here(model, dataset)
    times = "; ".join(f"{name}: {duration(needs.macs / macs_per_second)}" for name, needs in parts.items())
    memory, disk = (max(getattr(needs, what) for needs in parts.values()) for what in ("memory", "disk"))
    line = (
        f"At most about, each where it is done: {times} (MACs, at the {macs_per_second / 1e9:,.0f} billion a second "
        f"that forward passes reach here). {gigabytes(memory)} of memory, {gigabytes(disk)} of disk."
    )
    if memory > free:
        line += f" Only {gigabytes(free)} of memory are free: choose a smaller image_size."
    return line


def room(needs: Needs, folder: Path) -> None:
    """Whether a folder has room for the checkpoints, those that it holds already included. TooLarge if it has not."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free + sum(file.stat().st_size for file in folder.rglob("*"))
    if needs.disk > free:
        raise TooLarge(
            f"The checkpoints of this run take up to {gigabytes(needs.disk)}, and {folder} has room for "
            f"{gigabytes(free)}. Nothing was begun. With more feature maps a step there are fewer; or give a folder on "
            "another disk with --out."
        )


def gigabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """A time in words, in the unit that fits."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"
