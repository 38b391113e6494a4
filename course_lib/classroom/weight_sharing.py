"""Soft weight-sharing as an experiment: a small network from training to stored bits, and a rival by magnitude.

Taught in: notebooks/11_soft_weight_sharing.ipynb.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from course_lib import models, training, weight_code
from course_lib import weight_sharing as ws
from course_lib.datasets import Splits
from course_lib.weight_sharing import Components, Epoch, Width


@dataclass(frozen=True)
class Recipe:
    """What soft weight-sharing needs to know for one data set.

    Attributes:
        pixels, hidden: sizes of the network, as in `models.lenet_300_100`.
        training_epochs, training_rate, training_batch: of the network before, with `training.fit`.
        free, zero_share, zero_width, free_width: of the mixture, as in `weight_sharing.Prior`.
        tau, rates, batch_size: of retraining, as in `weight_sharing.retrain`.
        threshold: of merging, in nats.
    """

    pixels: int
    hidden: tuple[int, int]
    training_epochs: float
    training_rate: float = 2e-3
    training_batch: int = 128
    free: int = 16
    zero_share: float = 0.98
    zero_width: Width = Width(deviation=0.005, strength=5e3)
    free_width: Width = Width(deviation=0.02, strength=250)
    tau: float = 0.01
    rates: tuple[float, float, float] = (1e-3, 2e-3, 1e-2)
    batch_size: int = 200
    threshold: float = 0.1


# Found by trial on these data sets; how, and what failed, is told in notebook 11.
RECIPES = {
    "digits": Recipe(pixels=8 * 8, hidden=(100, 50), training_epochs=60),
    "mnist": Recipe(pixels=28 * 28, hidden=(300, 100), training_epochs=10, zero_share=0.99, batch_size=500),
}


class Run(NamedTuple):
    """One network on its way: trained, after every epoch of retraining, quantised, stored.

    `components` are those after merging; `retrained` is the network before it was quantised.
    """

    trained: nn.Module
    epochs: list[Epoch]
    retrained: nn.Module
    components: Components
    quantised: nn.Module
    stored: weight_code.Stored


def train(splits: Splits, recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The network before: trained in the ordinary way, without any prior."""
    torch.manual_seed(seed)
    model = models.lenet_300_100(len(splits.classes), pixels=recipe.pixels, hidden=recipe.hidden).to(device)
    how = {"epochs": recipe.training_epochs, "batch_size": recipe.training_batch, "seed": seed}
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.training_rate)
    training.fit(model, splits.train, optimizer=optimizer, label="training", **how)
    return model


def share(model: nn.Module, splits: Splits, recipe: Recipe, epochs: int, seed: int) -> Run:
    """Retrain a copy of the model with the mixture, merge, quantise and store it."""
    retrained = copy.deepcopy(model)
    prior = ws.Prior(
        ws.flat_weights(model).detach(),
        free=recipe.free,
        zero_share=recipe.zero_share,
        zero_width=recipe.zero_width,
        free_width=recipe.free_width,
    )
    how = {"tau": recipe.tau, "rates": recipe.rates, "batch_size": recipe.batch_size}
    seen = list(ws.retrain(retrained, splits.train, prior, epochs=epochs, seed=seed, **how))
    components = ws.merge(seen[-1].components, recipe.threshold)
    quantised = ws.quantise(retrained, components)
    return Run(model, seen, retrained, components, quantised, weight_code.encode(ws.matrices(quantised)))


def magnitude(model: nn.Module, splits: Splits, share: float, values: int, recipe: Recipe, epochs: int, seed: int):
    """The rival: a copy of the model, its smallest weights pruned, the others clustered by k-means.

    As Han et al. (2015): the smallest are cut in five rounds, down to the given share of the weights, with `epochs` of
    training in all between them, in which pruned weights stay zero. Then each weight becomes the centre of its cluster,
    one of `values`. (Han et al. also train the centres and cut every layer at a threshold of its own.)
    """
    for left in np.geomspace(1, share, 6)[1:]:
        weights = ws.flat_weights(model).detach()
        kept = weights.abs().argsort(descending=True)[: round(float(left) * len(weights))]
        model = ws.with_weights(model, torch.zeros_like(weights).index_copy(0, kept, weights[kept]))
        _freeze_zeros(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rates[0])
        how = {"batch_size": recipe.batch_size, "seed": seed, "label": f"magnitude, {left:.0%} left"}
        training.fit(model, splits.train, epochs=epochs / 5, optimizer=optimizer, **how)
    return ws.with_weights(model, clustered(ws.flat_weights(model).detach(), values, seed))


def _freeze_zeros(model: nn.Module) -> None:
    """Weights that are zero now get no gradient; Adam, which starts anew each round, leaves them alone."""
    for parameter in model.parameters():
        parameter.register_hook((parameter.detach() != 0).mul)


def clustered(weights: Tensor, values: int, seed: int) -> Tensor:
    """Each weight (W,) that is not zero replaced by the centre of its k-means cluster, of which there are `values`."""
    kept = weights != 0
    found = KMeans(values, n_init=4, random_state=seed).fit(weights[kept].cpu().numpy()[:, None])
    centres = torch.from_numpy(found.cluster_centers_[found.labels_, 0]).to(weights)
    return weights.masked_scatter(kept, centres)


def row(method: str, before: nn.Module, after: nn.Module, splits: Splits, seed: int) -> dict:
    """What a method made of a network, as one line of a table. Errors and shares from 0 to 1, on the test set."""
    weights, stored = ws.flat_weights(after), weight_code.encode(ws.matrices(after))
    judged = training.evaluate(after, splits.train)
    return {
        "method": method,
        "data": splits.name,
        "seed": seed,
        "error_before": 1 - training.evaluate(before, splits.test).accuracy,
        "error_after": 1 - training.evaluate(after, splits.test).accuracy,
        "non_zero": float((weights != 0).float().mean()),
        "values": len(weights.unique()),
        "rate": weight_code.rate(stored, len(weights)),
        "network_bits": len(stored.bits),
        "label_bits": judged.loss * len(splits.train) / math.log(2),
        "uniform_bits": len(splits.train) * math.log2(len(splits.classes)),
    }


def thresholds(run: Run, splits: Splits, values: list[float]) -> pd.DataFrame:
    """What merging at other thresholds would have given; index the threshold in nats."""
    found = []
    for threshold in values:
        components = ws.merge(run.epochs[-1].components, threshold)
        line = row("", run.trained, ws.quantise(run.retrained, components), splits, 0)
        found.append({"threshold": threshold, "components": len(components.means), **line})
    return pd.DataFrame(found).set_index("threshold")[["components", "error_after", "non_zero", "rate"]]


def gap_sizes(model: nn.Module) -> pd.DataFrame:
    """Bits of each part of the stored form, for every width of the gaps; index `gap_bits`."""
    parts = {gap: weight_code.encode(ws.matrices(model), gap).parts for gap in weight_code.GAP_BITS}
    return pd.DataFrame(parts).T.rename_axis("gap_bits")
