"""Soft weight-sharing as an experiment: a small network from training to stored bits, and a rival by magnitude.

``python -m course_lib.classroom.weight_sharing --data mnist --root FOLDER --epochs 20 --seeds 0 1`` records a table.

Taught in: notebooks/11_soft_weight_sharing.ipynb.
"""

from __future__ import annotations

import argparse
import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.utils import parametrize

from course_lib import datasets, models, paths, training, weight_code
from course_lib import weight_sharing as ws
from course_lib.classroom import description_length, results
from course_lib.datasets import Splits
from course_lib.weight_sharing import Components, Width


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
    "mnist": Recipe(pixels=28 * 28, hidden=(300, 100), training_epochs=10, zero_share=0.999, tau=0.05, batch_size=500),
}


def train(splits: Splits, recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The network before: trained in the ordinary way, without any prior."""
    torch.manual_seed(seed)
    model = models.lenet_300_100(len(splits.classes), pixels=recipe.pixels, hidden=recipe.hidden).to(device)
    how = {"epochs": recipe.training_epochs, "batch_size": recipe.training_batch, "seed": seed}
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.training_rate)
    training.fit(model, splits.train, optimizer=optimizer, label="training", **how)
    return model


def mixture(model: nn.Module, recipe: Recipe) -> ws.Prior:
    """The recipe's prior for a trained model."""
    sizes = {"free": recipe.free, "zero_share": recipe.zero_share}
    widths = {"zero_width": recipe.zero_width, "free_width": recipe.free_width}
    return ws.Prior(ws.flat_weights(model).detach(), **sizes, **widths)


def share(model: nn.Module, splits: Splits, recipe: Recipe, epochs: int, seed: int) -> nn.Module:
    """The whole way: a copy of the model, retrained with the mixture, its components merged, quantised."""
    retrained, prior = copy.deepcopy(model), mixture(model, recipe)
    how = {"tau": recipe.tau, "rates": recipe.rates, "batch_size": recipe.batch_size, "seed": seed}
    *_, last = ws.retrain(retrained, splits.train, prior, epochs=epochs, **how)
    return ws.quantise(retrained, ws.merge(last.components, recipe.threshold))


def magnitude(model: nn.Module, splits: Splits, share: float, values: int, recipe: Recipe, epochs: int, seed: int):
    """The rival: a copy of the model, its smallest weights pruned, the others clustered by k-means.

    As Han et al. (2015, 2016): the smallest, in units of their layer's standard deviation, are cut in five rounds, down
    to the given share of the weights, with training after each, in which pruned weights stay zero. Then each weight
    becomes the centre of its cluster, one of `values`, and the centres are trained; `epochs` in all. (Han et al. have
    clusters of their own for every layer.)
    """
    unit = torch.cat([matrix.detach().std().expand(matrix.numel()) for matrix in ws.matrices(model).values()])
    how = {"epochs": epochs / 6, "batch_size": recipe.batch_size, "seed": seed}
    for left in np.geomspace(1, share, 6)[1:]:
        weights = ws.flat_weights(model).detach()
        kept = (weights / unit).abs().argsort(descending=True)[: round(float(left) * len(weights))]
        model = ws.with_weights(model, torch.zeros_like(weights).index_copy(0, kept, weights[kept]))
        _freeze_zeros(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rates[0])
        training.fit(model, splits.train, optimizer=optimizer, label=f"magnitude, {left:.0%} left", **how)
    model = ws.with_weights(model, clustered(ws.flat_weights(model).detach(), values, seed))
    return tune_values(model, splits, recipe.rates[0], how)


def _freeze_zeros(model: nn.Module) -> None:
    """Weights that are zero now get no gradient; Adam, which starts anew each round, leaves them alone."""
    for parameter in model.parameters():
        parameter.register_hook((parameter.detach() != 0).mul)


class _Lookup(nn.Module):
    """Weights read from a table of values: what is trained is the table."""

    def __init__(self, values: Tensor, weights: Tensor):
        super().__init__()
        self.values, self.places = values, torch.searchsorted(values.detach(), weights.detach())

    def forward(self, _) -> Tensor:
        return self.values[self.places]


def tune_values(model: nn.Module, splits: Splits, rate: float, how: dict) -> nn.Module:
    """Train the different values of a quantised model, in place: weights of one value move together, zero stays."""
    values = nn.Parameter(ws.flat_weights(model).detach().unique())
    values.register_hook((values.detach() != 0).mul)
    layers = [(layer, name) for layer in model.modules() for name, _ in layer.named_parameters(recurse=False)]
    for layer, name in layers:
        parametrize.register_parametrization(layer, name, _Lookup(values, getattr(layer, name)))
    training.fit(model, splits.train, optimizer=torch.optim.Adam([values], lr=rate), label="training the values", **how)
    for layer, name in layers:
        parametrize.remove_parametrizations(layer, name)
    return model


def clustered(weights: Tensor, values: int, seed: int) -> Tensor:
    """Each weight (W,) that is not zero replaced by the centre of its k-means cluster, of which there are `values`."""
    kept = weights != 0
    found = KMeans(values, n_init=4, random_state=seed).fit(weights[kept].cpu().numpy()[:, None])
    centres = torch.from_numpy(found.cluster_centers_[found.labels_, 0]).to(weights)
    return weights.masked_scatter(kept, centres)


def row(method: str, before: nn.Module, after: nn.Module, splits: Splits, seed: int) -> dict:
    """What a method made of a network, as one line of a table. Errors and shares from 0 to 1, on the test set."""
    weights, stored = ws.flat_weights(after), weight_code.encode(ws.matrices(after))
    return {
        "method": method,
        "data": splits.name,
        "seed": seed,
        "error_before": 1 - training.evaluate(before, splits.test).accuracy,
        "error_after": 1 - training.evaluate(after, splits.test).accuracy,
        "non_zero": float((weights != 0).float().mean()),
        "weights": len(weights),
        "values": len(weights.unique()),
        "rate": weight_code.rate(stored, len(weights)),
        "network_bits": len(stored.bits),
        "label_bits_before": description_length.label_bits(before, splits.train),
        "label_bits": description_length.label_bits(after, splits.train),
        "uniform_bits": len(splits.train) * math.log2(len(splits.classes)),
    }


def study(splits: Splits, recipe: Recipe, epochs: int, seed: int, device: torch.device) -> list[dict]:
    """One seed from the beginning: soft weight-sharing, and the rival at the same share of non-zero weights."""
    trained = train(splits, recipe, seed, device)
    shared = row("soft weight-sharing", trained, share(trained, splits, recipe, epochs, seed), splits, seed)
    return [shared, rival_row(trained, shared, splits, recipe, epochs, seed)]


def rival_row(trained: nn.Module, shared: dict, splits: Splits, recipe: Recipe, epochs: int, seed: int) -> dict:
    """The rival with as many non-zero weights and as many values as the row of soft weight-sharing says."""
    rival = magnitude(trained, splits, shared["non_zero"], shared["values"] - 1, recipe, epochs, seed)
    return row("magnitude and k-means", trained, rival, splits, seed)


def thresholds(retrained: nn.Module, components: Components, splits: Splits, values: list[float]) -> pd.DataFrame:
    """What merging at each threshold (nats, the index) gives: components left, test error, compression rate."""
    found = {}
    for threshold in values:
        merged = ws.merge(components, threshold)
        line = row("", retrained, ws.quantise(retrained, merged), splits, 0)
        found[threshold] = {"components": len(merged.means), "error_after": line["error_after"], "rate": line["rate"]}
    return pd.DataFrame(found).T.astype({"components": int})


def gap_sizes(model: nn.Module) -> pd.DataFrame:
    """Bits of each part of the stored form, for every width of the gaps; index `gap_bits`."""
    parts = {gap: weight_code.encode(ws.matrices(model), gap).parts for gap in weight_code.GAP_BITS}
    return pd.DataFrame(parts).T.rename_axis("gap_bits")


def recorded() -> pd.DataFrame:
    """The recorded rows of all data sets: data/results/*_weight_sharing.csv."""
    found = sorted((paths.data_dir() / "results").glob("*_weight_sharing.csv"))
    return pd.concat([results.read(path.stem) for path in found], ignore_index=True)


def papers() -> pd.DataFrame:
    """Table 1 of Ullrich et al. 2017, and the authors' tutorial: a row for each method.

    Returns:
        Columns network, data, method, error_before and error_after (from 0 to 1), lost (points of accuracy), non_zero
        (share of the weights), rate (of compression).
    """
    table = pd.read_csv(paths.data_dir() / "paper" / "weight_sharing.csv").drop(columns="source")
    table.insert(5, "lost", 100 * (table.error_after - table.error_before))
    return table


def main(arguments: list[str] | None = None) -> None:
    """Run `study` for some seeds and record the rows."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.classroom.weight_sharing", description=main.__doc__)
    parser.add_argument("--data", choices=RECIPES, default="digits", help="data set (default: digits)")
    parser.add_argument("--root", help="folder of MNIST; without it, it is downloaded")
    parser.add_argument("--epochs", type=int, default=200, help="epochs of retraining (default: 200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("results/weight_sharing.csv"), help="the table to write")
    given = parser.parse_args(arguments)
    splits, rows = datasets.load(given.data, root=given.root), []
    command = f"{parser.prog} --data {given.data} --epochs {given.epochs} --seeds {' '.join(map(str, given.seeds))}"
    command += f" --root {Path(given.root).name}" if given.root else ""
    for seed in given.seeds:
        rows += study(splits, RECIPES[given.data], given.epochs, seed, torch.device("cpu"))
        results.record(rows, given.out, command=command, seed=None)  # after every seed: nothing is lost
        print(pd.DataFrame(rows).to_string(float_format="{:.4f}".format), flush=True)


if __name__ == "__main__":
    main()
