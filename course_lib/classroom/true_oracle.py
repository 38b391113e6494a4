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

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from course_lib import cost, criteria, datasets, oracle, pruning, ranking, surgery, training
from course_lib.classroom import comparison, results, session
from course_lib.datasets import Splits
from course_lib.feature_maps import Scores
from course_lib.progress import track

CRITERIA = ("linear_logits", "second_order", "taylor", "obd", "activation_mean", "min_weight")
NOISE = (0.5, 1.0, 2.0)
MOMENTS = (30, 100, 300)  # updates of retraining after which the accuracy is measured
#: What is known before retraining -> its column, and the sign with which more of it should be better.
KNOWN = {"lower loss right after the cut": ("loss_after_cut", -1), "nearer to the oracle": ("spearman", 1)}
LEAST = 4  # cuts, to speak of an order


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
    found |= criteria.score(model, shown, CRITERIA, draws=comparison.DRAWS, seed=seed)
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


def order(table: pd.DataFrame, known: str, updates: int) -> float:
    """Spearman's correlation of what is known (a key of `KNOWN`) with the accuracy after so many updates.

    Within each seed, whose images, noise and retraining are its own, then the mean over seeds.
    """
    return float(np.mean([comparison.rank_correlation(*pair) for pair in _pairs(table, known, updates)]))


def _pairs(table: pd.DataFrame, known: str, updates: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each seed's cuts, what is known of them and their accuracy; with more of both being better."""
    column, sign = KNOWN[known]
    seeds = [one for _, one in table.groupby("seed")] if "seed" in table else [table]
    return [(sign * one[column].to_numpy(), one[f"accuracy_{updates}"].to_numpy()) for one in seeds]


def predictions(table: pd.DataFrame, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How well what is known before retraining orders the accuracies after it, by kind of cut.

    Args:
        table: of `study`, cuts to one share of the MACs.
        draws: of the bootstrap, which redraws the cuts of each seed with replacement.

    Returns:
        Columns cuts ('all cuts'; 'criteria as they are', without noise and random cuts; and each family, whose
        cuts differ by noise alone), updates, known (a key of `KNOWN`), number (of cuts), spearman, low and high: nine
        draws in ten lie between. Kinds of fewer than four cuts a seed are left out.
    """
    rows = []
    for kind, part in _kinds(table).items():
        for updates, known in itertools.product(moments_of(part), KNOWN):
            pairs = _pairs(part, known, updates)
            if min(len(x) for x, _ in pairs) < LEAST:
                continue
            generator = np.random.default_rng(seed)
            spread = np.mean([_bootstrap_spearman(x, y, draws, generator) for x, y in pairs], axis=0)
            ordered = spread[~np.isnan(spread)]  # of a family that all ends alike there may be none
            low, high = np.quantile(ordered, [0.05, 0.95]) if len(ordered) else (np.nan, np.nan)
            rows.append((kind, updates, known, len(part), order(part, known, updates), low, high))
    return pd.DataFrame(rows, columns=["cuts", "updates", "known", "number", "spearman", "low", "high"])


def _kinds(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    families = {str(name): part for name, part in table.groupby("family", sort=False)}
    return {
        "all cuts": table,
        "criteria as they are": table[(table.noise == 0) & (table.family != "random")],
        **families,
    }


def _bootstrap_spearman(a: np.ndarray, b: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Spearman's correlation of a and b, (K,) both, redrawn with replacement: (draws,), NaN where there is no order.

    `comparison.rank_correlation`, of all draws at once.
    """
    rows = generator.integers(len(a), size=(draws, len(a)))
    a, b = (stats.rankdata(x[rows], axis=1) - (len(x) + 1) / 2 for x in (a, b))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def answer(row: pd.Series) -> str:
    """Whether what is known beforehand says who is better after retraining, from a row of `predictions`."""
    said = "yes" if row.low > 0 else "the reverse" if row.high < 0 else "not told from chance"
    return f"{said} ({row.spearman:+.2f}, [{row.low:+.2f}, {row.high:+.2f}], {row.number} cuts)"


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
