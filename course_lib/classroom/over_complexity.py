"""Networks that are too big: labels learnt by heart, double descent, feature maps that say the same, subsets.

Taught in: notebooks/01_over_complexity.ipynb.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import models
from course_lib.classroom import capacity
from course_lib.feature_maps import Chain, copy_with, evaluating
from course_lib.progress import track
from course_lib.theory import description_length, double_descent, evidence, risk_bounds

# ------------------------------------------------------------------------------------------------- learning by heart

DISTURBANCES = ("true labels", "shuffled pixels", "random pixels", "random labels")


def disturbed(kind: str, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """The digits, 'train' and 'test', as they are or disturbed as in Zhang et al. 2017.

    'shuffled pixels': one order of the pixels for all images; 'random pixels': another order for each image.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(64, generator=generator)

    def change(X: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if kind == "shuffled pixels":
            X = X[:, order]
        elif kind == "random pixels":
            X = X.gather(1, torch.rand(X.shape, generator=generator).argsort(1))
        elif kind == "random labels":
            labels = torch.randint(10, labels.shape, generator=generator)
        return X, labels

    return {part: change(*data) for part, data in capacity.digits().items()}


def learn_by_heart(seeds: int, images: int = 300, updates: int = 150, every: int = 10, seed: int = 0) -> pd.DataFrame:
    """LeNet-300-100 on some digits of every kind of disturbance, Adam on all images at once.

    Returns:
        A row for each kind, seed and every so many updates: data, seed, updates, train and test (accuracies).
    """
    rows = []
    for kind, s in track(list(itertools.product(DISTURBANCES, range(seed, seed + seeds))), "learning by heart"):
        data = disturbed(kind, s)
        data["train"] = tuple(part[:images] for part in data["train"])
        torch.manual_seed(s)
        network = models.lenet_300_100(10, pixels=64)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for update in range(updates + 1):
            if update % every == 0:
                found = {part: _accuracy(network, *examples) for part, examples in data.items()}
                rows.append({"data": kind, "seed": s, "updates": update, **found})
            optimizer.zero_grad()
            F.cross_entropy(network(data["train"][0]), data["train"][1]).backward()
            optimizer.step()
    return pd.DataFrame(rows)


def _accuracy(network: nn.Module, X: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return float((network(X).argmax(1) == labels).double().mean())


# ---------------------------------------------------------------------------------------------------- double descent


def width_errors(widths: Iterable[int], seeds: int, n: int = 200, seed: int = 0) -> pd.DataFrame:
    """Random ReLU features of the digits, fitted by `double_descent.least_norm` to n images, classes as 0.9 and -0.1.

    Returns:
        A row for each width and draw: width, seed, train and test (errors), norm (length of the weights).
    """
    data = {part: [array.numpy() for array in both] for part, both in capacity.digits().items()}
    rows = []
    for width, s in track(list(itertools.product(widths, range(seed, seed + seeds))), "widths"):
        some = np.random.default_rng(s).permutation(len(data["train"][1]))[:n]
        parts = {"train": [array[some] for array in data["train"]], "test": data["test"]}
        hidden = {part: double_descent.random_relu(X.astype(float), width, s) for part, (X, _) in parts.items()}
        weights = double_descent.least_norm(hidden["train"], np.eye(10)[parts["train"][1]] - 0.1)
        errors = {part: np.mean((hidden[part] @ weights).argmax(1) != y) for part, (_, y) in parts.items()}
        rows.append({"width": width, "seed": s, **errors, "norm": np.linalg.norm(weights)})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------ feature maps


def correlations(z: Tensor) -> Tensor:
    """Pearson correlation of every two maps over all examples and positions: z (N, C, H, W) -> (C, C).

    A map that never changes correlates with nothing: zero.
    """
    values = z.transpose(0, 1).flatten(1).double()
    values = values - values.mean(1, keepdim=True)
    values = F.normalize(values, dim=1)  # a row of zeros stays so
    return values @ values.T


def census(taps: dict[str, Tensor], threshold: float = 0.9) -> pd.DataFrame:
    """By layer: maps, how many never fire, how many are in a pair that correlates above the threshold, the largest."""
    rows = []
    for name, z in taps.items():
        r = correlations(z).fill_diagonal_(-1)
        fires = (z > 0).transpose(0, 1).flatten(1).double().mean(1)
        counts = {"never fire": int((fires == 0).sum()), "in a pair": int((r > threshold).any(1).sum())}
        rows.append({"layer": name, "maps": len(r), **counts, "largest": float(r.max()), "fires": float(fires.mean())})
    return pd.DataFrame(rows).set_index("layer")


def pairs(taps: dict[str, Tensor]) -> pd.DataFrame:
    """Every two maps of the same layer, the most correlated first: columns layer, a, b, correlation."""
    found = []
    for name, z in taps.items():
        a, b = torch.triu_indices(z.shape[1], z.shape[1], 1)
        r = correlations(z)[a, b]
        found.append(pd.DataFrame({"layer": name, "a": a.numpy(), "b": b.numpy(), "correlation": r.numpy()}))
    return pd.concat(found).sort_values("correlation", ascending=False, ignore_index=True)


def folded(model: nn.Module, layer: str, a: int, b: int, slope: float) -> nn.Module:
    """A copy in which nobody reads map b any more: whoever read it reads `slope` times map a in its place.

    Exact where z_b = slope z_a with slope >= 0: then pooling keeps the relation.
    """
    chain = Chain(model)
    reader = chain.steps[chain.layers[layer].reader_at]
    weight = reader.module.weight.detach().clone()
    by_map = weight.view(len(weight), chain.layers[layer].channels, -1)  # (outputs, C, kernel or positions)
    by_map[:, a] += slope * by_map[:, b]
    by_map[:, b] = 0
    return copy_with(model, {f"{reader.name}.weight": weight})


def slope(z: Tensor, a: int, b: int) -> float:
    """The s for which s z_a is nearest to z_b, in squares over all examples and positions: z (N, C, H, W)."""
    return float((z[:, a] * z[:, b]).sum() / z[:, a].square().sum().clamp(min=1e-12))


class Reader:
    """What comes after a layer: the loss, nats, as a function of that layer's maps."""

    def __init__(self, model: nn.Module, layer: str, images: Tensor, labels: Tensor):
        self.model, self.chain, self.labels = model, Chain(model), labels
        self.after = self.chain.layers[layer].gate_at + 1
        with evaluating(model), torch.inference_mode():
            self.z = self.chain.run(images, stop=self.after)

    def loss(self, closed: Sequence[int] = (), replaced: Sequence[tuple[int, int, float]] = ()) -> float:
        """Some maps closed; and for every (a, b, s) map b replaced by s times map a."""
        z = self.z.clone()
        for a, b, s in replaced:
            z[:, b] = s * self.z[:, a]
        z[:, list(closed)] = 0
        with evaluating(self.model), torch.inference_mode():
            return float(F.cross_entropy(self.chain.run(z, start=self.after), self.labels))


def close_pairs(
    model: nn.Module, table: pd.DataFrame, taps: dict[str, Tensor], images: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Change of the loss, nats, when of each pair in `pairs` map b is closed, both are, or b is folded into a.

    Args:
        taps: feature maps of the examples from which slopes are taken.
        images, labels: the examples of the loss.

    Returns:
        The table with columns one, both, folded.
    """
    rows = []
    readers = {name: Reader(model, name, images, labels) for name in table.layer.unique()}
    whole = {name: reader.loss() for name, reader in readers.items()}
    for pair in track(list(table.itertuples()), "pairs"):
        loss, (a, b) = readers[pair.layer].loss, (pair.a, pair.b)
        fold = (a, b, slope(taps[pair.layer], a, b))
        found = {"one": loss([b]), "both": loss([a, b]), "folded": loss(replaced=[fold])}
        rows.append({way: value - whole[pair.layer] for way, value in found.items()})
    return table.reset_index(drop=True).join(pd.DataFrame(rows))


def give_up_twins(
    model: nn.Module,
    table: pd.DataFrame,
    taps: dict[str, Tensor],
    thresholds: Iterable[float],
    images: Tensor,
    labels: Tensor,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """In one layer, b of every pair above a threshold given up at once, unless one of the two is gone or needed.

    Args:
        table: pairs of one layer, as from `pairs`.

    Returns:
        Index threshold; columns closed (maps), and the change of the loss, nats, when they are folded into their
        twins, when they are only closed, and when as many random maps of the layer are closed (mean over draws).
    """
    (layer,), rows = table.layer.unique(), []
    reader, random = Reader(model, layer, images, labels), np.random.default_rng(seed)
    whole, channels = reader.loss(), taps[layer].shape[1]
    for threshold in thresholds:
        folds = disjoint(table[table.correlation > threshold])
        gone = [b for _, b in folds]
        others = [reader.loss(random.permutation(channels)[: len(gone)].tolist()) for _ in range(draws)]
        losses = {
            "folded": reader.loss(replaced=[(a, b, slope(taps[layer], a, b)) for a, b in folds]),
            "twins closed": reader.loss(gone),
            "random maps closed": np.mean(others),
        }
        changes = {way: loss - whole for way, loss in losses.items()}
        rows.append({"threshold": threshold, "closed": len(gone), **changes})
    return pd.DataFrame(rows).set_index("threshold")


def disjoint(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs (a, b) in the table's order, without those whose b is kept for another or gone, or whose a is gone."""
    kept, gone, found = set(), set(), []
    for a, b in zip(table.a.tolist(), table.b.tolist(), strict=True):
        if a not in gone and b not in gone | kept:
            kept.add(a), gone.add(b), found.append((a, b))
    return found


# ----------------------------------------------------------------------------------------------------------- subsets


def every_subset(model: nn.Module, layer: str, maps: Sequence[int], images: Tensor, labels: Tensor) -> Tensor:
    """Loss with every subset of some maps closed, all other maps of the layer being closed for good: (2^k,).

    Bit i of the index says that maps[i] is closed.
    """
    reader = Reader(model, layer, images, labels)
    others = [c for c in range(reader.z.shape[1]) if c not in maps]
    subsets = [[m for i, m in enumerate(maps) if subset >> i & 1] for subset in range(2 ** len(maps))]
    return torch.tensor([reader.loss(others + closed) for closed in track(subsets, "subsets")])


def searches(losses: Tensor) -> pd.DataFrame:
    """Three ways to close 0 ... k maps, from `every_subset`: the best subset, greedily, by the effects of one alone.

    Returns:
        Index: maps closed; columns best, greedy, ranked: the loss.
    """
    values = losses.tolist()
    k = len(values).bit_length() - 1
    best = [min(v for subset, v in enumerate(values) if subset.bit_count() == m) for m in range(k + 1)]
    greedy, ranked = [0], [0]
    alone = sorted((1 << i for i in range(k)), key=lambda bit: values[bit])
    for m in range(k):
        left = [bit for bit in alone if not greedy[-1] & bit]
        greedy.append(min((greedy[-1] | bit for bit in left), key=lambda subset: values[subset]))
        ranked.append(ranked[-1] | alone[m])
    paths = {"best": best, "greedy": [values[s] for s in greedy], "ranked": [values[s] for s in ranked]}
    return pd.DataFrame(paths).rename_axis("closed")


# -------------------------------------------------------------------------------------------------- three principles

RESOLUTION = 0.01  # to which the measurements of `principles` are known


def principles(sizes: Iterable[int], draws: int, degrees: Iterable[int] = range(13), seed: int = 0) -> pd.DataFrame:
    """Polynomials of every degree on n points, judged by description length, evidence, a VC bound and new data.

    Returns:
        A row for each n, draw and degree: description length and evidence (bits, the evidence as the code
        length -log2 P(D | degree) of the measurements at `RESOLUTION`), bound and test error (mean squared error).
    """
    rows = []
    for n, draw in track(list(itertools.product(sizes, range(seed, seed + draws))), "three principles"):
        x, y = evidence.example(n, seed=draw)
        y = np.round(y / RESOLUTION) * RESOLUTION
        for degree in degrees:
            rows.append({"n": n, "draw": draw, "degree": degree, **judged(x, y, degree)})
    return pd.DataFrame(rows)


def judged(x: np.ndarray, y: np.ndarray, degree: int) -> dict[str, float]:
    """One degree, judged in all four ways; columns of `principles`."""
    lengths = [description_length.polynomial_code(x, y, degree, digits, RESOLUTION).bits for digits in range(8)]
    design = evidence.legendre(x, degree)
    fit = evidence.fixed_point(design, y, tolerance=1e-3, steps=500)
    nats = evidence.log_evidence(design, y, fit.alpha, fit.beta).total
    weights = double_descent.least_norm(design, y)
    grid = np.linspace(-1, 1, 401)
    missed = evidence.legendre(grid, degree) @ weights - evidence.curve(grid)
    return {
        "description length": min(lengths),
        "evidence": -nats / np.log(2) - len(y) * np.log2(RESOLUTION),
        "VC bound": np.mean((y - design @ weights) ** 2) * risk_bounds.regression_factor(degree + 1, len(y)),
        "test error": np.mean(missed**2),
    }


def choices(table: pd.DataFrame, judges: Sequence[str]) -> pd.DataFrame:
    """What each judge chooses: for every n, draw and judge the degree, and its test error over the least there is."""
    rows = []
    for (n, draw), part in table.groupby(["n", "draw"]):
        for judge in judges:
            best = part.loc[part[judge].idxmin()]
            ratio = best["test error"] / part["test error"].min()
            rows.append({"n": n, "draw": draw, "judge": judge, "degree": int(best.degree), "error / least": ratio})
    return pd.DataFrame(rows)
