"""Measured capacity: how many random labels a network fits, and how few bits it can be told in.

Many small ReLU networks are trained at once: weights of a layer have shape (B, in, out), a row each; a pruned weight is
one that a mask holds at zero. No biases: a column of ones in the inputs serves for the first layer.
Taught in: notebooks/03_vc_dimension.ipynb.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib import datasets
from course_lib.progress import track
from course_lib.theory import exact_fits, risk_bounds, vc_dimension

Layers = list[Tensor]

FALSE_LABELS = 0.1  # share of the labels that `sign_change_risks` turns round


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """The embedded digits: {'train' | 'test': (pixels (N, 64), labels (N,))}."""
    splits = datasets.load("digits")
    return {name: _stacked(part) for name, part in (("train", splits.train), ("test", splits.test))}


def _stacked(part) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(part[i] for i in range(len(part))), strict=True)
    return torch.stack(images).flatten(1), torch.tensor(labels)


def principal_components(X: Tensor, d: int) -> Tensor:
    """The first d principal components of X (N, D), each of variance one, and a column of ones: (N, d + 1)."""
    U = torch.linalg.svd(X - X.mean(0), full_matrices=False).U[:, :d]
    return torch.cat([U * len(X) ** 0.5, torch.ones(len(X), 1)], dim=1)


def draw(sizes: Sequence[int], copies: int, generator: torch.Generator) -> Layers:
    """Kaiming-normal weights of `copies` networks with these numbers of units, input first."""
    shapes = zip(sizes, sizes[1:], strict=False)
    return [torch.randn(copies, a, b, generator=generator) * (2 / a) ** 0.5 for a, b in shapes]


def outputs(X: Tensor, layers: Layers) -> Tensor:
    """Outputs (B, N, out) of B networks on inputs (N, in) or, each on its own, (B, N, in)."""
    for weight in layers[:-1]:
        X = F.relu(X @ weight)
    return X @ layers[-1]


def train(X: Tensor, layers: Layers, loss: Callable[[Tensor], Tensor], used: Callable, steps: int, lr: float) -> Layers:
    """Adam on all examples at once, the rate falling to zero; returns the weights as they are used.

    `used` turns what is trained into the weights in use, for instance by masking; `loss`: outputs (B, N, out) -> (B,).
    """
    layers = [weight.clone().requires_grad_() for weight in layers]
    optimizer = torch.optim.Adam(layers, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(outputs(X, used(layers))).sum().backward()
        optimizer.step()
        schedule.step()
    return [weight.detach() for weight in used(layers)]


def masked(masks: Layers) -> Callable[[Layers], Layers]:
    """For `train`: the weights that the masks leave."""
    return lambda layers: [weight * mask for weight, mask in zip(layers, masks, strict=True)]


def largest(layers: Layers, kept: Sequence[int]) -> Layers:
    """Masks of magnitude pruning: for every number k in `kept` the k largest weights of one network, (len(kept), ...).

    Sizes are compared after l2 normalisation of each layer; otherwise a layer may go altogether.
    `layers`: of a single network, shapes (1, in, out).
    """
    sizes = torch.cat([(weight / weight.norm()).abs().flatten() for weight in layers])
    ranks = sizes.argsort(descending=True, stable=True).argsort()
    masks = torch.stack([(ranks < k).float() for k in kept]).split([weight.numel() for weight in layers], dim=1)
    return [mask.view(len(kept), *weight.shape[1:]) for mask, weight in zip(masks, layers, strict=True)]


def trained_on_parity(X: Tensor, labels: Tensor, width: int, seed: int, steps: int = 300) -> Layers:
    """One network with a hidden layer that tells odd from even digits: its sizes of weights say what to prune."""
    layers = draw([X.shape[1], width, 1], 1, torch.Generator().manual_seed(seed))
    odd = (2 * (labels % 2) - 1).float()
    return train(X, layers, lambda out: F.softplus(-odd * out[..., 0]).mean(1), list, steps, lr=0.03)


def fit_random_labels(
    X: Tensor, networks: Mapping[str, Layers], counts: Sequence[int], *, seeds: int, seed: int = 0, steps: int = 600
) -> pd.DataFrame:
    """How many of n random labels can each network be trained to?

    Args:
        X: inputs (N, in); the n examples are drawn from them.
        networks: {name: masks}, shapes (in, width) and (width, 1), all of the same shapes.
        counts: the numbers n.
        seeds: draws of examples, labels and first weights; the same examples and labels for every network.

    Returns:
        A row for each network, n and draw: network, weights, labels, draw, fitted (share of the labels).
    """
    masks = [torch.stack(list(layer)).repeat_interleave(seeds, 0) for layer in zip(*networks.values(), strict=True)]
    rows = []
    for n in track(counts, "random labels"):
        fitted = _share_fitted(X, masks, n, seeds, torch.Generator().manual_seed(seed + n), steps)
        for i, (name, layers) in enumerate(networks.items()):
            about = {"network": name, "weights": sum(int(mask.sum()) for mask in layers), "labels": n}
            rows += [about | {"draw": j, "fitted": float(fitted[i * seeds + j])} for j in range(seeds)]
    return pd.DataFrame(rows)


def _share_fitted(X: Tensor, masks: Layers, n: int, seeds: int, generator: torch.Generator, steps: int) -> Tensor:
    repeats = len(masks[0]) // seeds
    chosen = torch.stack([torch.randperm(len(X), generator=generator)[:n] for _ in range(seeds)]).repeat(repeats, 1)
    labels = (2 * torch.randint(2, (seeds, n), generator=generator) - 1).float().repeat(repeats, 1)
    sizes = [masks[0].shape[1], *(mask.shape[2] for mask in masks)]
    first = draw(sizes, len(chosen), generator)

    def loss(out):
        return F.softplus(-labels * out[..., 0]).mean(1)

    layers = train(X[chosen], first, loss, masked(masks), steps, lr=0.03)
    return ((outputs(X[chosen], layers)[..., 0] > 0) == (labels > 0)).double().mean(1)  # a dead network says -1


def rounded(masks: Layers, bits: int) -> Callable[[Layers], Layers]:
    """For `train`: masked weights rounded to 2^bits levels +-1, +-3, ... times a step of their network and layer.

    The gradient passes the rounding as if it were not there. The step need not be told: without biases it scales the
    outputs, and the largest stays the largest.
    """

    def used(layers):
        return [_rounded(weight * mask, mask, bits) for weight, mask in zip(layers, masks, strict=True)]

    return used


def _rounded(weight: Tensor, mask: Tensor, bits: int) -> Tensor:
    value = weight.detach()
    step = value.abs().sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True).clamp(min=1) / 2 ** (bits - 1)
    odd = (2 * torch.round((value.abs() / step - 1) / 2) + 1).clamp(1, 2**bits - 1)
    level = torch.where(value < 0, -odd, odd) * step * mask
    return weight + (level - value)


def short_codes(kept: Sequence[int], bits: Sequence[int], *, seed: int = 0, steps: int = 200) -> pd.DataFrame:
    """One layer on the digits, pruned by size, rounded, trained on: errors and code length for each number of weights.

    Returns:
        A row for each of `kept` and `bits`: kept, total, bits_per_weight, bits, train_error, test_error, bound, n. The
        code names the row too, log2 of the number of `bits`: it is part of what was chosen after seeing the data.
    """
    data = digits()
    X, labels = data["train"]
    loss = _cross_entropy(labels)
    dense = train(X, draw([64, 10], 1, torch.Generator().manual_seed(seed)), loss, list, steps, lr=0.01)
    total = sum(weight.numel() for weight in dense)
    masks, rows = largest(dense, kept), []
    # In two stages: what is to go is held at zero first, then the rest is rounded.
    pruned = train(X, [weight.repeat(len(kept), 1, 1) for weight in dense], loss, masked(masks), steps, lr=0.01)
    for width in track(bits, "rounding"):
        layers = train(X, pruned, loss, rounded(masks, width), steps, lr=0.01)
        errors = {part: _errors(layers, *data[part]) for part in data}
        for i, k in enumerate(kept):
            told = risk_bounds.sparse_code_bits(k, total, width) + np.log2(len(bits))
            found = {f"{part}_error": float(error[i]) for part, error in errors.items()}
            about = {"kept": k, "total": total, "bits_per_weight": width, "bits": told, "n": len(labels)}
            rows.append(about | found | {"bound": risk_bounds.occam_bound(found["train_error"], told, len(labels))})
    return pd.DataFrame(rows)


def _cross_entropy(labels: Tensor) -> Callable[[Tensor], Tensor]:
    rows = torch.arange(len(labels))
    return lambda out: (out.logsumexp(2) - out[:, rows, labels]).mean(1)


def _errors(layers: Layers, X: Tensor, labels: Tensor) -> Tensor:
    return (outputs(X, layers).argmax(2) != labels).double().mean(1)


def network_gaps(described: Mapping[str, tuple[int, int, int]]) -> pd.DataFrame:
    """What the VC dimension of networks says, from {name: (weights, layers, images)}.

    Returns:
        Index name; columns weights, layers, images; lower and upper (orders of the dimension, without constants), bits
        (of float32 weights, a bound on it); gap (test above training error by `lower`), allowed (the largest dimension
        with a gap of one) and room (the weights that this would be).
    """
    table = pd.DataFrame(described, index=["weights", "layers", "images"]).T
    table["lower"], table["upper"] = risk_bounds.network_dimension(table.weights, table.layers)
    table["bits"] = 32 * table.weights
    table["gap"] = [risk_bounds.vc_gap(row.lower, int(row.images)) for row in table.itertuples()]
    table["allowed"] = [risk_bounds.largest_dimension(1.0, int(images)) for images in table.images]
    table["room"] = [risk_bounds.largest_network(row.allowed, int(row.layers)) for row in table.itertuples()]
    return table


def sign_change_risks(n: int, most: int = 12, *, seed: int = 0) -> pd.DataFrame:
    """Structural risk minimisation on a line: classes with at most k = 0 ... most changes of sign, fitted exactly.

    x is uniform on [0, 1], the label is the sign of sin(6 pi x), five changes, and `FALSE_LABELS` of them are turned.

    Returns:
        Index k; columns training, test (the exact error on new noisy data, to 1e-5) and bound.
    """
    generator = np.random.default_rng(seed)
    x = np.sort(generator.random(n))
    y = np.where(generator.random(n) < FALSE_LABELS, -1, 1) * _true_label(x)
    best = exact_fits.fewest_errors(y, most)
    grid = (np.arange(100_000) + 0.5) / 100_000
    nearest = np.searchsorted((x[1:] + x[:-1]) / 2, grid)  # between two training points the sign changes half-way
    wrong = (best[:, nearest] != _true_label(grid)).mean(1)
    training = (best != y).mean(1)
    growths = np.array([math.log(vc_dimension.half_space_growth(n, k)) for k in range(most + 1)])
    bound = risk_bounds.structural_risk(training, growths, n)
    test = FALSE_LABELS + (1 - 2 * FALSE_LABELS) * wrong
    return pd.DataFrame({"training": training, "test": test, "bound": bound}).rename_axis("k")


def _true_label(x: np.ndarray) -> np.ndarray:
    return np.where(np.sin(6 * np.pi * x) > 0, 1, -1)
