"""One run on several processes, GPUs and machines, launched by torchrun: the numbers of one process, sooner.

Every process runs the same program, with the same data and the same seed, and holds the whole network. What takes long
is divided: the oracle by images, a training batch and an evaluation by examples. What the processes found is added up
before anything is decided, so that all go on alike; files are written by the first, progress is shown by the first.
Not launched by torchrun, a program is the only process, and everything here leaves its numbers as they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import paths
from course_lib.feature_maps import NORMS

T = TypeVar("T")
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# The launcher notices a process that has died. One that waits for the others' longer shares is to wait.
PATIENCE = timedelta(days=7)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """While the block lasts, this process is one of those that torchrun has launched; without torchrun, the only one.

    They talk through gloo about what is on a CPU and through NCCL about what is on a GPU. "cuda" means a GPU of its own
    for each process of a machine. What the others print is dropped.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with _together():
        dist.init_process_group(timeout=PATIENCE)
    with contextlib.ExitStack() as silent:
        if rank():
            os.environ["COURSE_LIB_PROGRESS"] = "0"
            silent.enter_context(contextlib.redirect_stdout(silent.enter_context(open(os.devnull, "w"))))
        yield
    dist.destroy_process_group()  # not after an error: the others may be gone


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; 0 is the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_mine(number: int) -> bool:
    """Whether the piece of work of this number, 0, 1, 2, ..., is for this process."""
    return number % size() == rank()


def first(function: Callable[..., T], *args, **options) -> T:
    """The first process calls the function, for instance to write a file; all of them get what it returns."""
    if size() == 1:
        return function(*args, **options)
    found = [function(*args, **options) if rank() == 0 else None]
    with _together():
        dist.broadcast_object_list(found)
    return found[0]


def add_up(tensors: list[Tensor], weight: float = 1.0) -> None:
    """Put in the place of each tensor the sum of what all processes have there, each times its weight."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors]).mul_(weight)
    with _together():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """`paths.alone` for the processes of one run together: the first one holds the lock."""
    with contextlib.ExitStack() as held:
        first(lambda: held.enter_context(paths.alone(folder)))
        yield


@contextlib.contextmanager
def dividing(model: nn.Module, whole: bool = False) -> Iterator[Callable[[Tensor, Tensor], tuple]]:
    """A function that gives this process its share of a training batch: (images, labels, weight).

    The gradient of the whole batch's mean loss is the sum over processes of weight times the gradient of the share's
    mean loss (`add_up`). Dropout draws its mask for the whole batch, as one process does, and keeps the share's rows.

    Batch norm needs statistics of the whole batch. A network that has it is trained on the whole batch by every
    process: the same numbers, no sooner. So it is with `whole`, and with a batch of fewer examples than processes.
    """
    rows, examples = slice(None), 0
    whole = whole or any(isinstance(module, NORMS) for module in model.modules())

    def share(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
        nonlocal rows, examples
        examples = len(labels)
        if whole or examples < size():
            rows = slice(0, examples)
            return images, labels, 1 / size()
        rows = slice(examples * rank() // size(), examples * (rank() + 1) // size())
        return images[rows], labels[rows], (rows.stop - rows.start) / examples

    def widen(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return F.pad(inputs[0], [0, 0] * (inputs[0].dim() - 1) + [rows.start, examples - rows.stop])

    def narrow(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output[rows]

    hooks = []
    for module in model.modules() if size() > 1 else []:
        if isinstance(module, DROPOUTS):
            hooks += [module.register_forward_pre_hook(widen), module.register_forward_hook(narrow)]
    try:
        yield share
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """An error of a process that waits for another one, in words."""
    try:
        yield
    except RuntimeError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the launcher sends now; this process ends in any case
        raise ConnectionError(
            "Another process of this run has ended, or cannot be reached. What was finished before is kept; the same "
            f"command again goes on from there. ({str(error).split('. ')[0]})"
        ) from error
