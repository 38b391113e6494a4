"""Experiments with closed gates around the oracle: many at once, in pairs, on few pictures, against the clock.

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from course_lib import cost, loss, oracle, ranking
from course_lib.feature_maps import Batches, Chain, Layer, Plan, Scores, device_of, evaluating, mask, place
from course_lib.oracle import asked, sampled, sampling
from course_lib.progress import track
from course_lib.training import Evaluation

SHARES = (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def change_of_loss(chain: Chain, images: Tensor, labels: Tensor, layer: str, index: int) -> float:
    """C(g = 0) - C in nats, the mean over the examples, for the gate of one feature map: the oracle, by definition."""
    gate = torch.ones(chain.layers[layer].channels, device=images.device)
    gate[index] = 0.0
    with torch.no_grad():
        before = loss.per_example(chain.run(images), labels).mean()
        after = loss.per_example(chain.run(images, gates={layer: gate}), labels).mean()
    return float(after - before)


def standard_error(effects: Tensor) -> Tensor:
    """Standard error of the mean over examples: effects (N, C), N at least 2 -> (C,)."""
    return effects.std(0, correction=1) / len(effects) ** 0.5


def random_samples(values: Tensor, n: int, draws: int = 10_000, *, replace: bool = True, seed: int = 0) -> Tensor:
    """Samples of n of the values (N,), again and again: (draws, n). With replacement (the bootstrap) or without."""
    generator = torch.Generator().manual_seed(seed)
    if replace:
        return values[torch.randint(len(values), (draws, n), generator=generator)]
    return values[torch.rand(draws, len(values), generator=generator).argsort(1)[:, :n]]


def guesses(model: nn.Module, batches: Batches, layer: str, maps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What `oracle.estimate` knows of some maps of a layer before it measures: changes in nats, and their doubts.

    Returns:
        (N, K) and (N, K) float64, for K maps on N pictures; a doubt of 0 where a map is silent.
    """
    chain = Chain(model)
    with evaluating(model):
        found, _ = sampled.guess_all(chain, batches, asked.choose(chain, {layer: maps}), device_of(model), False)
    guess, doubt = found[layer]
    return guess.double(), doubt.double()


def resampled(residuals: Tensor, p: Tensor, draws: int = 500, *, seed: int = 0) -> Tensor:
    """Horvitz and Thompson's estimate of the mean over pictures, again and again: (draws, K).

    Args:
        residuals: (N, K), what is measured of a pair of picture and map if it is drawn.
        p: (N, K), the probability that it is.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (sampling.draw(p, generator) for _ in range(draws))
    return torch.stack([torch.where(each, residuals / p, 0.0).mean(0) for each in drawn])


def table(effects: Scores) -> pd.DataFrame:
    """{layer: (N, C)} of `oracle.effects`, as one row for every measured map: layer, map, change, standard_error."""
    rows = [
        {"layer": name, "map": at, "change": change, "standard_error": error}
        for name, e in effects.items()
        for at, (change, error) in enumerate(zip(e.mean(0).tolist(), standard_error(e).tolist(), strict=True))
    ]
    return pd.DataFrame(rows).dropna(subset="change").reset_index(drop=True)


def ranked(oracle_table: pd.DataFrame) -> pd.DataFrame:
    """The table with `rank` over all maps: 1 is the most important, the largest |change|."""
    return oracle_table.assign(rank=oracle_table.change.abs().rank(ascending=False))


def before_pooling(chain: Chain) -> list[str]:
    """Names of the layers whose feature maps are pooled before the next layer reads them."""

    def pooled(layer: Layer) -> bool:
        return any(step.kind == "pool" for step in chain.steps[layer.conv_at : layer.reader_at])

    return [name for name, layer in chain.layers.items() if pooled(layer)]


def evaluate_closed(model: nn.Module, batches: Batches, plan: Plan) -> Evaluation:
    """Accuracy and loss of the network with all maps of the plan closed, without any fine-tuning."""
    return evaluate_gated(model, batches, mask(plan, model))


def evaluate_gated(model: nn.Module, batches: Batches, gates: Mapping[str, Tensor]) -> Evaluation:
    """Accuracy and loss of the network with these gates, {layer: (C,)}; layers that are not named stay open."""
    chain, device = Chain(model), device_of(model)
    gates = {name: gate.to(device) for name, gate in gates.items()}
    correct, total, examples = 0, 0.0, 0
    with evaluating(model), torch.inference_mode():
        for images, labels in batches:
            labels = labels.to(device)
            logits = chain.run(place(images, device), gates=gates)
            correct += int((logits.argmax(1) == labels).sum())
            total += float(loss.per_example(logits.double(), labels).sum())
            examples += len(labels)
    return Evaluation(correct / examples, total / examples)


def close_in_order(
    model: nn.Module,
    pictures: Mapping[str, Batches],
    truth: Scores,
    rankings: Mapping[str, Scores],
    shares: Sequence[float] = SHARES,
) -> pd.DataFrame:
    """Close more and more maps, the lowest scores first, by rankings made once: Figure 3 of Molchanov et al. 2017.

    Args:
        pictures: what they are called -> batches to evaluate on.
        truth: the oracle, {layer: (C,)}; a map that it did not measure (NaN) is never closed.
        rankings: what they are called -> scores.
        shares: of the measured maps, to close; the first is 0.

    Returns:
        One row for each ranking, share and kind of pictures: ranking, pictures, share, maps_left (over all maps),
        accuracy, change (of the loss) and expected, the sum of the closed maps' own changes.
    """
    every, measured = cost.feature_maps(model), sum(int((~t.isnan()).sum()) for t in truth.values())
    rows = []
    for name, share in track(list(itertools.product(rankings, shares)), "closing gates"):
        plan = ranking.lowest(_last_where_unknown(rankings[name], truth), round(share * measured))
        expected = sum(float(truth[layer][maps].sum()) for layer, maps in plan.items())
        left = 1 - sum(map(len, plan.values())) / every
        for kind, batches in pictures.items():
            found = evaluate_closed(model, batches, plan)
            rows.append((name, kind, share, left, found.accuracy, found.loss, expected))
    rows = pd.DataFrame(rows, columns=["ranking", "pictures", "share", "maps_left", "accuracy", "loss", "expected"])
    whole = rows.groupby(["ranking", "pictures"]).loss.transform("first")
    return rows.assign(change=rows.loss - whole).drop(columns="loss")


def _last_where_unknown(scores: Scores, truth: Scores) -> Scores:
    top = 1 + max(float(s.nan_to_num().max()) for s in scores.values())
    return {name: torch.where(truth[name].isnan(), top, s.double()) for name, s in scores.items()}


def pairs(model: nn.Module, batches: Batches, effects: Scores, strongest: int = 4) -> pd.DataFrame:
    """Close two gates at once: all pairs of each layer's strongest maps, and the strongest of neighbouring layers.

    Args:
        batches: the first pictures that `effects` were measured on, in the same order.
        effects: {layer: (N, C)} of `oracle.effects`.

    Returns:
        One row a pair: pair, layers ('one layer' or 'two layers'), together (change of the loss with both closed) and
        expected (the sum of their own changes on the same pictures).
    """
    batches = list(batches)
    examples = sum(len(labels) for _, labels in batches)
    alone = {name: e[:examples].mean(0) for name, e in effects.items()}
    best = {name: strongest_maps(change, strongest) for name, change in alone.items()}
    chosen = [((name, i), (name, j)) for name in best for i, j in itertools.combinations(best[name], 2)]
    chosen += [((a, best[a][0]), (b, best[b][0])) for a, b in itertools.pairwise(best)]
    base, rows = evaluate_closed(model, batches, {}).loss, []
    for first, second in track(chosen, "pairs"):
        plan: dict[str, list[int]] = {}
        for layer, index in (first, second):
            plan.setdefault(layer, []).append(index)
        rows.append(
            {
                "pair": " and ".join(f"{layer} map {index}" for layer, index in (first, second)),
                "layers": "one layer" if len(plan) == 1 else "two layers",
                "together": evaluate_closed(model, batches, plan).loss - base,
                "expected": float(alone[first[0]][first[1]] + alone[second[0]][second[1]]),
            }
        )
    return pd.DataFrame(rows)


def strongest_maps(change: Tensor, n: int | None = None) -> list[int]:
    """Indices of the n maps with the largest |change| (None: all), the largest first; unmeasured ones (NaN) never."""
    known = int((~change.isnan()).sum())
    order = change.abs().nan_to_num(nan=-1.0).argsort(descending=True, stable=True)[:known]
    return order[:n].tolist()


def race(model: nn.Module, batch: tuple[Tensor, Tensor], maps: Mapping[str, list[int]]) -> pd.DataFrame:
    """Both methods of the oracle on the same maps: seconds, their ratio, and the largest difference of an effect.

    The difference is relative to the layer's largest effect. Both run once unmeasured, to warm up.
    """
    rows = []
    for name, few in maps.items():
        took, found = {}, {}
        for method in ("naive", "exact") * 2:
            began = time.perf_counter()
            found[method] = oracle.effects(model, [batch], {name: few}, method, progress=False)[name][:, few]
            took[method] = time.perf_counter() - began
        difference = (found["exact"] - found["naive"]).abs().max() / found["naive"].abs().max()
        row = {"layer": name, "maps": len(few), "naive, s": took["naive"], "exact, s": took["exact"]}
        rows.append(row | {"times faster": took["naive"] / took["exact"], "largest difference": float(difference)})
    return pd.DataFrame(rows).set_index("layer")


def arithmetic(model: nn.Module, image_shape: tuple[int, ...]) -> pd.DataFrame:
    """MACs of the whole oracle for one image, `naive` and `exact`: one forward pass, and the maps of each layer."""
    chain, whole = Chain(model), cost.macs(model, image_shape)
    image = torch.zeros(1, *image_shape, dtype=next(model.parameters()).dtype, device=device_of(model))
    with evaluating(model), torch.inference_mode():
        network = oracle.exact.Network(chain, image)
    rows = {"all gates open": {"naive": whole, "exact": whole}}
    for name, layer in chain.layers.items():
        rows[name] = {"naive": layer.channels * whole, "exact": layer.channels * network.macs_per_map(layer)}
    return pd.DataFrame(rows).T


def agreement(
    effects: Scores, reference: Scores | None = None, *, draws: int = 40, seed: int = 0, smallest: int = 8
) -> pd.DataFrame:
    """How well an oracle of n pictures agrees with another: Spearman correlation, for n = 8, 16, ... N / 2.

    Args:
        effects: {layer: (N, C)} of `oracle.effects`.
        reference: {layer: (C,)} a larger oracle to compare with too.
        draws: random choices of pictures for every n.

    Returns:
        One row a draw: images (n), absolute (oracle-abs, or the signed one), layers ('each' or 'all'), against
        ('another n', disjoint; 'all here', which contain the n; 'the recorded') and spearman.
    """
    measured = {name: ~e[0].isnan() for name, e in effects.items()}
    flat = torch.cat([e[:, measured[name]] for name, e in effects.items()], 1).numpy()
    bounds = np.cumsum([int(m.sum()) for m in measured.values()])[:-1]
    fixed = {"all here": flat.mean(0)}
    if reference is not None:
        fixed["the recorded"] = torch.cat([reference[name][m] for name, m in measured.items()]).numpy()
    generator, rows, n = np.random.default_rng(seed), [], smallest
    while 2 * n <= len(flat):
        orders = [generator.permutation(len(flat)) for _ in range(draws)]
        found = np.stack([flat[order[:n]].mean(0) for order in orders])
        others = {"another n": np.stack([flat[order[n : 2 * n]].mean(0) for order in orders])}
        others |= {name: np.broadcast_to(change, found.shape) for name, change in fixed.items()}
        for (name, other), absolute in itertools.product(others.items(), (True, False)):
            pair = [np.abs(side) if absolute else side for side in (found, other)]
            for layers, cuts in (("each", bounds), ("all", [])):
                for r in _spearman_rows(*pair, cuts):
                    rows.append((n, absolute, layers, name, r))
        n *= 2
    return pd.DataFrame(rows, columns=["images", "absolute", "layers", "against", "spearman"])


def _spearman_rows(a: np.ndarray, b: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Spearman correlation of each row of a with the same row of b, the mean over the blocks between the cuts."""
    blocks = []
    for x, y in zip(np.split(a, cuts, axis=1), np.split(b, cuts, axis=1), strict=True):
        if x.shape[1] < 2:
            continue
        x, y = (stats.zscore(stats.rankdata(side, axis=1), axis=1) for side in (x, y))
        blocks.append((x * y).mean(1))
    return np.nanmean(blocks, axis=0)


def coverage(estimate: oracle.Estimate, truth: Scores) -> float:
    """Share of the maps measured whose interval holds the exact change, which `truth` knows on the same pictures."""
    sides = [torch.cat(list(side.values())) for side in (estimate.low, truth, estimate.high)]
    low, exact, high = (side[~sides[1].isnan()] for side in sides)
    rounding = 1e-12  # an interval is a point where every picture was measured
    return float(((low - rounding <= exact) & (exact <= high + rounding)).double().mean())


def from_table(recorded: pd.DataFrame, like: Scores) -> Scores:
    """A recorded oracle table as {layer: (C,)}, NaN for a map that is not in it; `like` has layers and sizes."""
    found = {name: torch.full((e.shape[-1],), torch.nan, dtype=torch.float64) for name, e in like.items()}
    for name, rows in recorded.groupby("layer"):
        found[name][rows["map"].tolist()] = torch.tensor(rows.change.tolist(), dtype=torch.float64)
    return found
