"""Is the oracle the true oracle? One network cut in many ways to equal MACs, and every cut retrained.

The oracle asks what the loss is right after a cut. What counts is the accuracy after retraining. Whether the first says
anything about the second is the question of Feng, Tao and Wang (arXiv 2412.00143); here it is asked of the embedded
network. Taught in: notebooks/12_after_2017.ipynb.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from course_lib import cost, criteria, datasets, oracle, pruning, ranking, surgery, training
from course_lib.classroom import comparison, results, session
from course_lib.datasets import Splits
from course_lib.feature_maps import Scores
from course_lib.progress import track

CRITERIA = ("linear_logits", "second_order", "taylor", "obd", "activation_mean", "min_weight")
NOISE = (0.5, 1.0, 2.0)
MOMENTS = (30, 100, 300)  # updates of retraining after which the accuracy is measured


class Cut(NamedTuple):
    """Scores to cut a network by: whose they are, how much noise spoils them, and which draw of it."""

    family: str
    noise: float
    draw: int
    scores: Scores


def cuts(
    bases: dict[str, Scores], noise: Sequence[float] = NOISE, draws: int = 2, unscored: int = 6, seed: int = 0
) -> Iterator[Cut]:
    """Every family's own scores and `unscored` random ones, then every family's spoilt more and more.

    Noise s multiplies each score by exp(s n), n standard normal: with it a family reaches from itself nearly to random,
    so that the cuts differ in how near they are to the oracle, not only in who made them. All families come before more
    noise does, so that a recording that was ended early still compares them all.

    Args:
        bases: {family: {layer: (C,)}}, on one scale for all layers.
    """
    generator = torch.Generator().manual_seed(seed)
    for family, scores in bases.items():
        yield Cut(family, 0.0, 0, scores)
    some = next(iter(bases.values()))
    for draw in range(unscored):
        yield Cut("random", 0.0, draw, {k: torch.rand(len(s), generator=generator).double() for k, s in some.items()})
    for spread, draw in itertools.product(noise, range(draws)):
        for family, scores in bases.items():
            factors = {k: torch.randn(len(s), generator=generator, dtype=torch.float64) for k, s in scores.items()}
            yield Cut(family, spread, draw, {k: s * torch.exp(spread * factors[k]) for k, s in scores.items()})


def cut_to_macs(model: nn.Module, scores: Scores, image_shape: tuple[int, ...], share: float) -> nn.Module:
    """The network without its lowest maps, as few as bring its MACs to at most this share.

    Equal MACs for everybody: at equal numbers of maps, whoever takes cheap maps would have more arithmetic left.
    """
    most = cost.feature_maps(model) - len(scores)
    goal, low, high = share * cost.macs(model, image_shape), 0, most
    while low < high:  # MACs only fall with the number of maps that go
        middle = (low + high) // 2
        left = cost.macs(surgery.remove(model, ranking.lowest(scores, middle)), image_shape)
        low, high = (low, middle) if left <= goal else (middle + 1, high)
    return surgery.remove(model, ranking.lowest(scores, low))


def retrained(
    model: nn.Module, splits: Splits, moments: Sequence[int] = MOMENTS, *, optimizer: str, lr: float, seed: int
) -> dict[int, float]:
    """Fine-tune the network in place; {updates: test accuracy} at each of the moments."""
    settings = pruning.Settings(optimizer=optimizer, lr=lr)
    own, done, found = pruning.make_optimizer(model, settings), 0, {}
    for moment in moments:
        how = {"optimizer": own, "seed": seed + done, "progress": False}
        training.fit(model, splits.train, updates=moment - done, **how)
        done, found[moment] = moment, training.evaluate(model, splits.test).accuracy
    return found


def study(
    model: nn.Module,
    splits: Splits,
    *,
    share: float = 0.5,
    images: int = 256,
    moments: Sequence[int] = MOMENTS,
    noise: Sequence[float] = NOISE,
    draws: int = 2,
    unscored: int = 6,
    seed: int = 0,
    optimizer: str = "adam",
    lr: float = 2e-4,
) -> Iterator[dict]:
    """Cut a network in many ways to the same share of its MACs, and retrain every one.

    Yields:
        One row a cut: family, noise, draw; spearman and spearman_all, the rank correlation of the scores with
        oracle-abs within layers and over all layers; maps_left, macs; loss_after_cut, of training images, in nats;
        accuracy_0, the test accuracy right after the cut, and accuracy_<updates> for each of the moments.
    """
    shown = datasets.batches(splits.train, images, seed=seed)
    judged = datasets.subset(splits.train, min(1000, len(splits.train)), seed)
    truth = oracle.ablate(model, shown)
    found = {"oracle": {layer: change.abs() for layer, change in truth.items()}}
    found |= criteria.score(model, shown, CRITERIA, draws=10, seed=seed)
    bases = {family: ranking.normalize(scores, "l2") for family, scores in found.items()}
    every, shape = list(cuts(bases, noise, draws, unscored, seed)), tuple(splits.train[0][0].shape)
    for cut in track(every, "cutting and retraining"):
        near = ranking.spearman(cut.scores, truth)
        small = cut_to_macs(model, cut.scores, shape, share)
        row = {"family": cut.family, "noise": cut.noise, "draw": cut.draw}
        row |= {"spearman": near.mean, "spearman_all": near.all_layers}
        row |= {"maps_left": cost.feature_maps(small), "macs": cost.macs(small, shape)}
        row |= {"loss_after_cut": training.evaluate(small, judged).loss}
        row |= {"accuracy_0": training.evaluate(small, splits.test).accuracy}
        later = retrained(small, splits, moments, optimizer=optimizer, lr=lr, seed=seed)
        yield row | {f"accuracy_{updates}": accuracy for updates, accuracy in later.items()}


def moments_of(table: pd.DataFrame) -> list[int]:
    """The numbers of updates after which `study` measured accuracy, 0 first."""
    return sorted(int(name.removeprefix("accuracy_")) for name in table if name.startswith("accuracy_"))


def predictions(table: pd.DataFrame) -> pd.DataFrame:
    """How well what is known before retraining orders the accuracies after it: Spearman's, a row a moment.

    `table`: cuts to one share of the MACs. Index: updates. Columns 'lower loss right after the cut' and 'nearer to the
    oracle' (within layers).
    """
    known = {"lower loss right after the cut": -table.loss_after_cut, "nearer to the oracle": table.spearman}
    after = {updates: table[f"accuracy_{updates}"].to_numpy() for updates in moments_of(table)}
    rows = {
        updates: {what: comparison.rank_correlation(x.to_numpy(), y) for what, x in known.items()}
        for updates, y in after.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("updates")


def within_families(table: pd.DataFrame, updates: int) -> pd.Series:
    """The same within each family, whose cuts differ by noise alone: is a family as a whole what was predicted?

    Returns:
        {family: rank correlation of a low loss right after the cut with the accuracy after so many updates}; without
        families of fewer than four cuts.
    """
    groups = {name: part for name, part in table.groupby("family", sort=False) if len(part) >= 4}
    pairs = {name: (-part.loss_after_cut, part[f"accuracy_{updates}"]) for name, part in groups.items()}
    return pd.Series({name: comparison.rank_correlation(x.to_numpy(), y.to_numpy()) for name, (x, y) in pairs.items()})


def main(arguments: list[str] | None = None) -> None:
    """Run the study on the embedded network, once for each seed and share, and record the rows."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.classroom.true_oracle", description=main.__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5], help="of the MACs, that cuts leave")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each (default: 0)")
    parser.add_argument("--updates", type=int, nargs="+", default=MOMENTS, help="of retraining, at which to measure")
    parser.add_argument("--out", type=Path, default=Path("results/true_oracle.csv"), help="the table to write")
    given = parser.parse_args(arguments)
    lists = {"shares": given.shares, "seeds": given.seeds, "updates": given.updates}
    command = " ".join([parser.prog, *(f"--{name} {' '.join(map(str, values))}" for name, values in lists.items())])
    rows: list[dict] = []
    for seed in given.seeds:
        lab = session.start("laptop", seed)
        splits = lab.splits()
        model = lab.network(splits)
        for share in given.shares:
            for row in study(model, splits, share=share, moments=given.updates, seed=seed):
                rows.append({"share": share, "seed": seed, **row})
                results.record(rows, given.out, command=command, seed=None)  # after every cut: nothing is lost


if __name__ == "__main__":
    main()
