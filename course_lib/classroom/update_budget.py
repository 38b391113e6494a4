"""Experiments on fine-tuning between pruning steps: how much, how often, and what it can repair at all.

Figures 5, 6 and 12 of Molchanov et al. 2017, on the embedded AlexNet. `python -m course_lib.classroom.update_budget`
records them. Taught in: notebooks/10_prune_alexnet.ipynb.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from course_lib import cost, criteria, datasets, models, oracle, pruning, ranking, surgery, training
from course_lib.classroom import baselines, comparison, results, session
from course_lib.datasets import Splits
from course_lib.feature_maps import Chain, Scores
from course_lib.progress import track

# What notebook 10 changes in the profiles. A tenth of the embedded network's 288 maps a step reads the curves where the
# paper's Figure 5 was read. The paper has 10 updates after every single map; so many after 29 maps would repair little.
SIZES = {
    "ci": {"network": "alexnet-petals", "maps_per_step": 58, "updates": 4, "maps_left": 0.4, "curves": ("taylor",)},
    "laptop": {
        "network": "alexnet-petals",
        "maps_per_step": 29,
        "updates": 30,
        "maps_left": 0.2,
        "test_images": 600,
        "curves": ("taylor", "random"),
    },
    "paper": {"network": "alexnet-imagenet", "epochs": 20, "tuning_rate": 1e-3, "updates": 10, "maps_left": 0.2},
}
CRITERIA = ("taylor", "obd", "activation_mean", "apoz", "min_weight", "random")
TABLE1 = (*CRITERIA[:3], "activation_std", "apoz", "mutual_information", "min_weight", "l1_norm", "random")
UPDATES = (0, 3, 10, 30, 100)
STRENGTHS, BITES = (30, 45, 60), 8  # of the penalty and of the choice in one layer


def curve(model: nn.Module, splits: Splits, label: str, **how) -> list[dict]:
    """The rows of one pruning run, each with `curve`, `seed`, `updates` and `maps_per_step`.

    `how`: arguments of `pruning.prune`.
    """
    told = {"curve": label, **{key: how[key] for key in ("seed", "updates", "maps_per_step")}}
    return [told | step.row() for step in pruning.prune(model, splits, **how)]


def same_total(maps: int, steps: int, updates: int, factors: Iterable[float] = (0.5, 1, 2, 8)) -> Iterator[dict]:
    """Settings that remove `steps` times `maps` maps with the same number of updates in all, in fewer or more bites."""
    for factor in factors:
        if factor <= steps:
            yield {"maps_per_step": round(factor * maps), "updates": round(factor * updates)}


def halved(model: nn.Module, seed: int) -> nn.Module:
    """Every second map of each layer, at least one, with random weights: the paper's network "from scratch"."""
    sizes = {name: layer.channels for name, layer in Chain(model).layers.items()}
    small = surgery.remove(model, {name: torch.arange(0, maps, 2)[: maps - 1] for name, maps in sizes.items()})
    torch.manual_seed(seed)
    return models.initialise(small)


def from_scratch(model: nn.Module, splits: Splits, *, updates: int, lr: float, seed: int) -> dict:
    """The halved network after as many updates as a pruned one had, with a cycle of the learning rate of its own."""
    small = halved(model, seed)
    training.fit(small, splits.train, updates=updates, lr=lr, augment=True, seed=seed, label="from scratch")
    return {"curve": "scratch", "seed": seed, "updates": updates, **_measured(small, splits)}


def penalised(
    model: nn.Module, splits: Splits, layer: str, strengths: Iterable[float], *, updates: int, lr: float, seed: int
) -> list[dict]:
    """Group lasso on one layer instead of greedy pruning (Figure 12): a row for each strength.

    The penalty works for two thirds of the updates; then the maps whose kernels have become zero are removed, and the
    rest of the updates goes on without the penalty, which had shortened the surviving kernels too.

    Returns:
        Rows: curve "group_lasso", strength, seed, updates, layer_maps (left in the layer), accuracy_before_tuning (when
        they have gone), accuracy, loss, maps_left, macs, params.
    """
    rows, first = [], updates * 2 // 3
    for strength in track(list(strengths), "training with group lasso"):
        same = surgery.remove(model, {})
        optimizer = baselines.GroupLasso(same, strength, lr=lr, layers=[layer])
        training.fit(same, splits.train, updates=first, optimizer=optimizer, seed=seed, progress=False)
        small = surgery.remove(same, dead_maps(same))
        row = {"curve": "group_lasso", "strength": strength, "seed": seed, "updates": updates}
        rows.append(row | _tuned(small, splits, layer, updates - first, lr, seed + 1))
    return rows


def one_layer(
    model: nn.Module, splits: Splits, layer: str, bites: int, *, updates: int, lr: float, images: int, seed: int
) -> list[dict]:
    """Greedy pruning by Taylor in one layer, all but the last of so many equal bites, each with its share of updates.

    Returns:
        Rows as of `penalised`, curve "taylor": number (of bites so far) instead of strength, and in `updates` those
        that the network has had so far.
    """
    rows, small = [], model
    maps, each = Chain(model).layers[layer].channels, updates // bites
    for number in range(1, bites):
        batches = datasets.batches(splits.train, images, seed=seed + number)
        scores = criteria.score(small, batches, "taylor", progress=False)["taylor"][layer]
        left = maps - number * maps // bites
        small = surgery.remove(small, ranking.lowest({layer: scores}, len(scores) - left))
        row = {"curve": "taylor", "number": number, "seed": seed, "updates": number * each}
        rows.append(row | _tuned(small, splits, layer, each, lr, seed + number))
    return rows


def _tuned(model: nn.Module, splits: Splits, layer: str, updates: int, lr: float, seed: int) -> dict:
    """Fine-tune in place with Adam and measure before and after."""
    cut = training.evaluate(model, splits.test).accuracy
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    training.fit(model, splits.train, updates=updates, optimizer=optimizer, seed=seed, progress=False)
    left = {"layer_maps": Chain(model).layers[layer].channels, "accuracy_before_tuning": cut}
    return left | _measured(model, splits)


def dead_maps(model: nn.Module) -> dict[str, Tensor]:
    """The maps whose kernel and bias are all zero; of a layer without any other, its last map stays."""
    plan = {}
    for name, layer in Chain(model).layers.items():
        dead = (baselines.kernel_lengths(layer.conv) == 0).nonzero().flatten()
        plan[name] = dead[: layer.channels - 1]
    return {name: maps for name, maps in plan.items() if len(maps)}


def cuts(
    model: nn.Module,
    scores: Mapping[str, Scores],
    dataset: Dataset,
    shares: Iterable[float],
    floors: Iterable[int] = (1,),
    *,
    seconds: float = 0.1,
) -> pd.DataFrame:
    """One cut of the whole network for every criterion, share and floor: what it leaves, and how it answers then.

    Args:
        scores: {criterion: {layer: (C,)}}, normalised.
        dataset: to measure accuracy on; nothing is tuned.
        shares: of the feature maps that are left; floors: every layer keeps so many.
        seconds: of measuring the time of each network, one thread, 16 images.

    Returns:
        Rows: criterion, share, floor, macs, params, ms (as shares of the whole network's), accuracy, and a column of
        surviving maps for each layer. `attrs["maps"]`: the whole network's.
    """
    shape, total, rows = tuple(dataset[0][0].shape), cost.feature_maps(model), []

    def sizes(net: nn.Module) -> np.ndarray:
        clock = cost.latency(net, shape, seconds=seconds).median_ms
        return np.array([cost.macs(net, shape), cost.parameters(net), clock])

    whole, asked = sizes(model), list(itertools.product(scores, shares, floors))
    for criterion, share, floor in track(asked, "cutting"):
        n = total - round(share * total)
        small = surgery.remove(model, ranking.lowest(scores[criterion], n, keep_at_least=floor))
        left = dict(zip(("macs", "params", "ms"), sizes(small) / whole, strict=True))
        left |= {name: layer.channels for name, layer in Chain(small).layers.items()}
        found = training.evaluate(small, dataset).accuracy
        rows.append({"criterion": criterion, "share": share, "floor": floor, "accuracy": found, **left})
    table = pd.DataFrame(rows)
    table.attrs["maps"] = {name: layer.channels for name, layer in Chain(model).layers.items()}
    return table


def _measured(model: nn.Module, splits: Splits) -> dict:
    found, shape = training.evaluate(model, splits.test), tuple(splits.test[0][0].shape)
    sizes = {"maps_left": cost.feature_maps(model), "macs": cost.macs(model, shape), "params": cost.parameters(model)}
    return {"accuracy": found.accuracy, "loss": found.loss, **sizes}


def study(lab: session.Lab, splits: Splits, model: nn.Module, seed: int) -> Iterator[pd.DataFrame]:
    """All runs of notebook 10 at the session's sizes: a table after each, with `experiment`.

    `seed`: of the pruning loop and of training; the data and the network that is pruned stay the same.
    """
    loop = {**lab.loop, "maps_left": lab.profile.maps_left, "seed": seed}
    for name in CRITERIA:
        yield pd.DataFrame(curve(model, splits, name, criterion=name, **loop)).assign(experiment="criteria")
    for updates in UPDATES:
        if updates != lab.profile.updates:  # that one is among the criteria
            table = pd.DataFrame(curve(model, splits, "taylor", **{**loop, "updates": updates}))
            yield table.assign(experiment="updates")
    removed = (1 - lab.profile.maps_left) * cost.feature_maps(model)
    steps = round(removed / lab.profile.maps_per_step)
    as_many = steps * lab.profile.updates  # as Taylor's curve
    few, layer = {"updates": as_many, "lr": lab.profile.learning_rate, "seed": seed}, list(Chain(model).layers)[-1]
    chosen = one_layer(model, splits, layer, BITES, images=lab.profile.score_images, **few)
    yield pd.DataFrame(chosen).assign(experiment="one layer")
    yield pd.DataFrame(penalised(model, splits, layer, STRENGTHS, **few)).assign(experiment="one layer")
    random = from_scratch(model, splits, **{**few, "lr": lab.profile.tuning_rate})
    yield pd.DataFrame([random]).assign(experiment="scratch")
    for how in same_total(lab.profile.maps_per_step, steps, lab.profile.updates):
        if how["updates"] != lab.profile.updates:
            yield pd.DataFrame(curve(model, splits, "taylor", **{**loop, **how})).assign(experiment="steps")


def table1(model: nn.Module, splits: Splits, images: int, seed: int) -> pd.DataFrame:
    """Table 1's row for a network on `images` training images, drawn by the seed: of `comparison.table1`."""
    batches = datasets.batches(splits.train, images, seed=seed)
    scores = criteria.score(model, batches, TABLE1, seed=seed)
    found = comparison.table1(scores, oracle.ablate(model, batches)).rename_axis("criterion").reset_index()
    return found.assign(seed=seed, images=images, maps=cost.feature_maps(model))


def main(arguments: list[str] | None = None) -> None:
    """Run `table1` and `study` on the embedded AlexNet for some seeds and record the rows."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.classroom.update_budget", description=main.__doc__)
    parser.add_argument("--profile", choices=SIZES, default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of alexnet_*.csv (%(default)s)")
    given, steps = parser.parse_args(arguments), []
    command = f"{parser.prog} --profile {given.profile} --seeds {' '.join(map(str, given.seeds))}"
    lab = session.start(given.profile).adapted(**SIZES[given.profile])
    splits = lab.splits()
    model = lab.network(splits)
    correlations = pd.concat([table1(model, splits, lab.profile.oracle_images, seed) for seed in given.seeds])
    results.record(correlations, given.out / "alexnet_criteria.csv", command=command, seed=None)
    for seed in given.seeds:
        for table in study(lab, splits, model, seed):
            steps.append(table)
            results.record(pd.concat(steps), given.out / "alexnet_pruning.csv", command=command, seed=None)
            print(table.iloc[-1:].to_string(), flush=True)


if __name__ == "__main__":
    main()
