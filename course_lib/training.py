"""Training, fine-tuning and evaluating: one short loop that everything in the course uses.

Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from course_lib import distributed, loss
from course_lib.feature_maps import Chain, device_of, evaluating, place, trace
from course_lib.progress import track

AT_ONCE = 256  # images, to evaluate
SEEN_AT_ONCE = 64  # images, while the inputs of the output layer are gathered


class Evaluation(NamedTuple):
    """Share of correct answers (0 to 1) and mean cross-entropy in nats."""

    accuracy: float
    loss: float


@torch.inference_mode(False)  # gradients are needed, also where the caller has switched them off
def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: float | None = None,
    updates: int | None = None,
    lr: float = 1e-3,
    batch_size: int = 32,
    optimizer: torch.optim.Optimizer | None = None,
    augment: bool = False,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    watch: Callable[[dict[str, Tensor], Tensor, Tensor], None] | None = None,
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
    label: str = "training",
) -> list[float]:
    """Train the model in place and return the mean cross-entropy of every update, in nats.

    It leaves the model in evaluation mode, interrupted or not. Launched by torchrun, processes share every batch.

    Without an optimizer: AdamW (weight decay 0.02) with one cycle of the learning rate, up to `lr` in the first fifth
    and down to zero. With one: that optimizer as it is, at its own constant rate, which is how fine-tuning goes
    between two pruning steps (Molchanov et al. 2017, section 3).

    Args:
        dataset: examples (image (C, H, W), label).
        epochs, updates: how long; give one of them.
        augment: random flips and shifts of every image.
        penalty: added to the loss, a scalar made from the model (a regulariser).
        watch: called after every backward pass with the feature maps {layer: (N, C, H, W)}, each with the gradient of
            the batch's mean loss in `.grad`, the logits and the labels.
        seed: decides the order of examples, the augmentation and dropout: same seed, same result.
        workers: processes that read ahead; the result does not depend on their number.

    Raises:
        ValueError: neither or both of epochs and updates; labels beyond the network's outputs.
        FloatingPointError: the loss became infinite or not a number.
    """
    if (epochs is None) == (updates is None):
        raise ValueError("Give either epochs=... or updates=..., not both.")
    device = device_of(model)
    updates = math.ceil(epochs * len(dataset) / batch_size) if updates is None else updates
    schedule = None
    if optimizer is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
        steps = max(updates, 6)  # with 5 or 2, OneCycleLR has a phase of no length and divides by it
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    torch.manual_seed(seed)  # dropout draws from the global generator
    # Two sources: workers draw the order ahead of time, and must not shift what the augmentation draws.
    order, shifts = (torch.Generator().manual_seed(number) for number in (seed, seed ^ 0xF11B))
    examples = _endless(dataset, batch_size, order, workers)
    chain = None if watch is None else Chain(model)
    losses = []
    model.train()
    with contextlib.ExitStack() as stack:
        stack.callback(model.eval)  # after Ctrl-C too: the next cell must not score a network with dropout
        share = stack.enter_context(distributed.dividing(model, whole=watch is not None))
        for _ in track(range(updates), label) if progress else range(updates):
            images, labels = next(examples)
            images = random_flip_and_shift(images, shifts) if augment else images
            images, labels, weight = share(images, labels)
            images, labels, taps = place(images, device), labels.to(device), {}
            logits = model(images) if chain is None else chain.run(images, taps=taps)
            for z in taps.values():
                z.retain_grad()
            cost = loss.per_example(logits, labels).mean()
            optimizer.zero_grad(set_to_none=True)
            (cost if penalty is None else cost + penalty(model)).backward()
            if watch is not None:
                watch(taps, logits.detach(), labels)
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            distributed.add_up([cost.detach(), *gradients], weight)
            losses.append(cost.item())
            optimizer.step()
            if schedule is not None:
                schedule.step()
    return losses


def fit_head(model: nn.Module, dataset: Dataset, *, epochs: float = 20, lr: float = 1e-3, seed: int = 0) -> None:
    """Train the output layer alone, in place, on what the layers before it say of the un-augmented images.

    A new output layer on trained layers starts here: the images pass through the network once, so it takes seconds,
    and fine-tuning afterwards does not have to pull good features about to please random weights.
    """
    fit(head(model), head_inputs(model, dataset), epochs=epochs, lr=lr, seed=seed, label="output layer")


def head(model: nn.Module) -> nn.Linear:
    """The output layer of a chain: its last linear layer."""
    return [step.module for step in trace(model) if step.kind == "linear"][-1]


def head_inputs(model: nn.Module, dataset: Dataset) -> TensorDataset:
    """What arrives at the output layer for each un-augmented image, (N, features), with the labels (N,); on the CPU."""
    steps, device = trace(model), device_of(model)
    last = max(at for at, step in enumerate(steps) if step.kind == "linear")
    seen = []
    with evaluating(model), torch.inference_mode():
        for images, labels in track(DataLoader(dataset, SEEN_AT_ONCE), "reading features"):
            x = place(images, device)
            for step in steps[:last]:
                x = step(x)
            seen.append((x.cpu().clone(), labels))
    return TensorDataset(torch.cat([x for x, _ in seen]), torch.cat([labels for _, labels in seen]))


def evaluate(model: nn.Module, dataset: Dataset, *, batch_size: int = AT_ONCE, workers: int = 0) -> Evaluation:
    """Accuracy and mean cross-entropy of the model on a data set, without dropout or augmentation."""
    if len(dataset) == 0:
        raise ValueError("The data set to evaluate on is empty.")
    device, correct, total = device_of(model), 0, 0.0
    own = Subset(dataset, range(distributed.rank(), len(dataset), distributed.size()))
    with evaluating(model), torch.inference_mode():
        for images, labels in DataLoader(own, batch_size, num_workers=workers):
            labels = labels.to(device)
            logits = model(place(images, device))
            correct += int((logits.argmax(1) == labels).sum())
            total += float(loss.per_example(logits, labels).double().sum())
    sums = torch.tensor([correct, total], dtype=torch.float64)
    distributed.add_up([sums])
    return Evaluation(*(sums / len(dataset)).tolist())


def random_flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) mirrored with probability 1/2 and shifted by up to an eighth of its size."""
    n, _, height, width = images.shape
    flip = torch.rand(n, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    reach_y, reach_x = height // 8, width // 8
    padded = F.pad(images, (reach_x, reach_x, reach_y, reach_y), mode="reflect")
    top = torch.randint(2 * reach_y + 1, (n,), generator=generator)
    left = torch.randint(2 * reach_x + 1, (n,), generator=generator)
    rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _endless(dataset: Dataset, batch_size: int, generator: torch.Generator, workers: int) -> Iterator:
    """Shuffled batches for ever; the last, smaller batch of an epoch is kept unless it is a single example.

    Of a single example, batch norm cannot estimate a variance.
    """
    if len(dataset) == 0:
        raise ValueError("The training set is empty.")
    drop_last = len(dataset) > batch_size and len(dataset) % batch_size == 1
    loader = DataLoader(
        dataset, batch_size, shuffle=True, drop_last=drop_last, generator=generator, num_workers=workers
    )
    while True:
        yield from loader
