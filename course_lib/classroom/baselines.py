"""Experiments with the cheapest criteria: what they overlook, what they are made of, and what a mask does not do.

Taught in: notebooks/05_baselines.ipynb.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import Dataset

from course_lib import cost, criteria, datasets, surgery, training
from course_lib.datasets import Splits
from course_lib.feature_maps import Batches, Chain, Plan, Scores, copy_with, device_of, evaluating, place
from course_lib.progress import track


def rescaled(model: nn.Module, layer: str, factor: float) -> nn.Module:
    """The same function in other numbers: a layer's weights and biases times `factor`, its reader's weights through it.

    ReLU and pooling pass a positive factor on, so the next layer can take it back. A batch norm in between would
    swallow it: ValueError.
    """
    found = Chain(model).select([layer])[0]
    if factor <= 0:
        raise ValueError(f"The factor is {factor}; a ReLU passes on positive factors only.")
    if found.norm is not None:
        raise ValueError(f"Layer {layer!r} has a batch norm after it, which undoes any scale: choose another network.")
    same = copy_with(model, {})
    chain = Chain(same)
    found = chain.layers[layer]
    with torch.no_grad():
        for parameter in found.conv.parameters():
            parameter.mul_(factor)
        chain.steps[found.reader_at].module.weight.div_(factor)
    return same


def mean_activations(model: nn.Module, batches: Batches, layer: str) -> tuple[Tensor, Tensor]:
    """The mean over positions of each map on each example, (N, C), and the labels, (N,)."""
    chain, device = Chain(model), device_of(model)
    stop, seen, answers = chain.select([layer])[0].gate_at + 1, [], []
    with evaluating(model), torch.inference_mode():
        for images, labels in batches:
            z = chain.run(place(images, device), stop=stop)
            seen.append(z.flatten(2).mean(2).cpu())
            answers.append(labels)
    return torch.cat(seen), torch.cat(answers)


def browsed(splits: Splits, n: int = 7) -> tuple[Tensor, Tensor, list[str]]:
    """A photograph and the first `n` test images, to look into a network with: (n + 1, 3, H, W), (n + 1,) and names.

    The photograph is of a dahlia; its label is -1 where that is none of the classes.
    """
    images, labels = zip(*(splits.test[at] for at in range(n)), strict=True)
    dahlia = splits.classes.index("dahlia") if "dahlia" in splits.classes else -1
    names = ["photograph", *(splits.classes[label] for label in labels)]
    return torch.stack([datasets.photograph(splits), *images]), torch.tensor([dahlia, *labels]), names


def information(x: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Information gain about the label, in nats, of each column of x (N, C) cut into `bins` of equal counts: (C,).

    H(x) + H(y) - H(x, y) of the observed frequencies, which is too large by about
    (bins - 1) (classes - 1) / (2 N) where there is nothing to know (Miller 1955).
    """
    ranks = x.argsort(dim=0, stable=True).argsort(dim=0, stable=True)
    binned = ranks * bins // len(x)  # (N, C)
    classes = int(labels.max()) + 1
    cells = binned * classes + labels[:, None]
    joint = torch.stack([torch.bincount(column, minlength=bins * classes) for column in cells.T])
    return criteria.information_gain(joint.view(-1, bins, classes).double() / len(x))


def information_by_bins(x: Tensor, labels: Tensor, bins: Iterable[int], images: Iterable[int], seed: int = 0):
    """Mean information of a layer's maps for several numbers of bins and images, with true and with shuffled labels.

    Returns:
        Table with columns bins, images, labels ("true" or "shuffled") and information, the mean over maps in nats.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    shuffled = labels[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + 1))]
    rows = []
    for n in images:
        for count in bins:
            for what, y in (("true", labels), ("shuffled", shuffled)):
                found = float(information(x[order[:n]], y[order[:n]], count).mean())
                rows.append({"bins": count, "images": n, "labels": what, "information": found})
    return pd.DataFrame(rows)


class GroupLasso(torch.optim.Adam):
    """Adam, and after each step every kernel is shortened by the same length; one that is shorter becomes zero.

    The shortening is the proximal step of strength * sum over kernels of ||(w, b)||, an L1 norm of lengths: it takes
    whole feature maps to exactly zero, where a plain gradient step would only swing about it (Parikh and Boyd 2014,
    section 6.5.1). `layers`: names of those that are penalised, all if not given.
    """

    def __init__(self, model: nn.Module, strength: float, lr: float = 1e-3, layers: Iterable[str] | None = None):
        super().__init__(model.parameters(), lr=lr)
        self.strength, self.convs = strength, [layer.conv for layer in Chain(model).select(layers)]

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for conv in self.convs:
            shorten(conv, self.param_groups[0]["lr"] * self.strength)


@torch.no_grad()
def shorten(conv: nn.Module, length: float) -> None:
    """Make every kernel with its bias, as one vector, shorter by `length`, but not shorter than nothing; in place."""
    keep = (1 - length / kernel_lengths(conv).clamp(min=1e-12)).clamp(min=0)
    conv.weight.mul_(keep.view(-1, *[1] * (conv.weight.dim() - 1)))
    if conv.bias is not None:
        conv.bias.mul_(keep)


def kernel_lengths(conv: nn.Module) -> Tensor:
    """Euclidean length of each kernel with its bias: (C,)."""
    squares = conv.weight.detach().square().flatten(1).sum(1)
    return (squares if conv.bias is None else squares + conv.bias.detach().square()).sqrt()


def small_network(dataset: Dataset, seed: int = 0) -> nn.Module:
    """Three convolutions for the 8 x 8 digits, more than they need."""
    torch.manual_seed(seed)
    layers, channels = [], dataset[0][0].shape[0]
    for maps, pool in ((32, False), (64, True), (64, True)):
        layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.ReLU()] + [nn.MaxPool2d(2)] * pool
        channels = maps
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4, 10))


def dying_maps(
    train: Dataset, test: Dataset, strengths: Iterable[float], *, rounds: int = 8, updates: int = 60, seed: int = 0
) -> pd.DataFrame:
    """Train a small network with group lasso of several strengths and count the feature maps that are left.

    Returns:
        One row for each strength, round and layer: strength, updates, layer, maps, alive, accuracy (of the test set).
    """
    rows = []
    for strength in track(list(strengths), "training with group lasso"):
        model = small_network(train, seed)
        optimizer = GroupLasso(model, strength)
        for number in range(rounds + 1):
            if number:
                training.fit(
                    model, train, updates=updates, optimizer=optimizer, seed=seed + 1000 * number, progress=False
                )
            accuracy = training.evaluate(model, test).accuracy
            for name, layer in Chain(model).layers.items():
                alive = int((kernel_lengths(layer.conv) > 0).sum())
                row = {"strength": strength, "updates": number * updates, "layer": name, "maps": layer.channels}
                rows.append(row | {"alive": alive, "accuracy": accuracy})
    return pd.DataFrame(rows)


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy masked with torch.nn.utils.prune, as many tutorials end: every kernel of the plan is multiplied by zero.

    The kernel's bias is masked too; else the map would be a constant, not silent.
    """
    same = copy_with(model, {})
    for name, layer in Chain(same).layers.items():
        if name in plan:
            for parameter in [key for key, value in layer.conv.named_parameters() if value is not None]:
                mask = torch.ones_like(getattr(layer.conv, parameter))
                mask[plan[name]] = 0
                prune.custom_from_mask(layer.conv, parameter, mask)
    return same


def mask_or_surgery(model: nn.Module, plan: Plan, images: Tensor, *, rounds: int = 10) -> pd.DataFrame:
    """What is gained by a mask and by surgery: stored numbers, file size, time, and the difference of their outputs.

    Args:
        images: (N, C, H, W); the batch that is timed, and whose outputs are compared with the mask's.
        rounds: passes of each network that are timed, in turn; the fastest one counts, for others were disturbed.

    Returns:
        One row a network ("whole", "masked", "after surgery"): network, parameters (stored numbers), MACs of an image,
        megabytes, ms (a pass of the batch), difference (largest, of the outputs to the masked network's).
    """
    small = surgery.remove(model, plan)
    networks = {"whole": model, "masked": masked(model, plan), "after surgery": small}
    outputs, taken = {}, {what: [] for what in networks}
    for _ in range(rounds + 1):
        for what, network in networks.items():
            with evaluating(network), torch.inference_mode():
                began = time.perf_counter()
                outputs[what] = network(images)
                taken[what].append(1e3 * (time.perf_counter() - began))
    shape, rows = tuple(images.shape[1:]), []
    for what, network in networks.items():
        state = network.state_dict()
        written = io.BytesIO()
        torch.save(state, written)
        row = {"network": what, "parameters": sum(tensor.numel() for tensor in state.values())}
        row |= {"MACs": cost.macs(small if network is small else model, shape), "megabytes": written.tell() / 1e6}
        difference = float((outputs[what] - outputs["masked"]).abs().max())
        rows.append(row | {"ms": min(taken[what][1:]), "difference": difference})  # the first pass warms up
    return pd.DataFrame(rows)


def below(scores: Scores, threshold: float) -> dict[str, int]:
    """How many maps of each layer score below a threshold."""
    return {name: int((values < threshold).sum()) for name, values in scores.items()}


def histogram(scores: Scores, bins: int = 40) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Edges, evenly spaced in the logarithm, and counts {layer: (bins,)} of the positive scores of each layer."""
    every = torch.cat(list(scores.values()))
    positive = every[every > 0]
    edges = np.geomspace(float(positive.min()), float(positive.max()) * 1.0001, bins + 1)
    return edges, {name: np.histogram(values.numpy(), edges)[0] for name, values in scores.items()}
