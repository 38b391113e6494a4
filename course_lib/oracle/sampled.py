"""The oracle from a tenth of its evaluations, with error bars.

An evaluation is a pair: one picture with one gate closed. Six backward passes guess the results of all pairs. The
guesses are added up, and what they leave out, the residuals, is estimated from a sample of pairs that are measured:

    Delta_i = mean over n of guess_ni  +  mean over n of (delta_ni - guess_ni)

The guesses may be as wrong as they like, the estimate stays unbiased. They decide how large the error bars are, twice
over: good guesses leave small residuals, and a guess says where it is in doubt, so that the sample is drawn where the
residuals are. The statistics are in sampling.py, the measuring in exact.py.

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib import derivatives, distributed, ranking
from course_lib.feature_maps import Batches, Chain, Layer, Scores, device_of, evaluating, placed
from course_lib.oracle import exact, sampling
from course_lib.oracle.asked import Choice, check_dtype, choose, portions
from course_lib.oracle.naive import losses
from course_lib.progress import meter, track

Chosen = list[tuple[Layer, Tensor]]
CLASSES = 5  # whose logits are differentiated, besides the label's
FEWEST = 2  # evaluations of a map: a spread needs two


class Interval(NamedTuple):
    """A rank correlation with the exact oracle on the same pictures: the estimate, and bounds for each of its parts."""

    value: ranking.Correlation
    low: ranking.Correlation
    high: ranking.Correlation


@dataclass(frozen=True)
class Estimate:
    """An oracle from a sample of evaluations.

    Attributes:
        scores: {layer: (C,)} as `oracle.ablate` returns them, up to the sampling error.
        standard_error: {layer: (C,)}, nats, of the choice of evaluations: 0 for a map measured on every picture. The
            choice of the pictures is not in it: it is the error with which the exact oracle *on these* is known.
        confidence: of the intervals from `low` to `high`.
        evaluations: how many pairs of a picture and a map were measured.
        share: of the evaluations of the exact oracle.
    """

    scores: Scores
    standard_error: Scores
    confidence: float
    evaluations: int
    share: float

    @property
    def low(self) -> Scores:
        """{layer: (C,)} lower bounds."""
        return {name: s - self._z * self.standard_error[name] for name, s in self.scores.items()}

    @property
    def high(self) -> Scores:
        """{layer: (C,)} upper bounds."""
        return {name: s + self._z * self.standard_error[name] for name, s in self.scores.items()}

    @property
    def _z(self) -> float:
        return NormalDist().inv_cdf((1 + self.confidence) / 2)

    def spearman(self, scores: Scores, *, absolute: bool = True, draws: int = 100, seed: int = 0) -> Interval:
        """Spearman correlation of a criterion with the *exact* oracle on the same pictures, and its interval.

        Errors in an oracle draw rank correlations towards zero. Adding as much noise once more shows by how much: that
        loss is given back to the estimate, and its full size counts as a source of error besides the noise's spread.
        The interval is approximate, more so over all layers than within them: a rank is no smooth function.

        Args:
            scores: {layer: (C,)} of a criterion.
            absolute: as for `ranking.spearman`.
            draws: of the noise.
        """
        generator = torch.Generator().manual_seed(seed)
        found = _numbers(ranking.spearman(scores, self.scores, absolute=absolute))
        noisy = [_numbers(ranking.spearman(scores, self._noisy(generator), absolute=absolute)) for _ in range(draws)]
        noisy = torch.stack(noisy)
        lost = found - noisy.mean(0)
        error = self._z * (noisy.var(0) + lost.square()).sqrt()
        value = found + lost
        return Interval(*(_correlation(scores, n.clamp(-1, 1)) for n in (value, value - error, value + error)))

    def _noisy(self, generator: torch.Generator) -> Scores:
        return {
            name: s + self.standard_error[name] * torch.randn(s.shape, generator=generator, dtype=s.dtype)
            for name, s in self.scores.items()
        }


def estimate(
    model: nn.Module,
    batches: Batches,
    budget: float = 0.1,
    *,
    layers: Choice = None,
    seed: int = 0,
    confidence: float = 0.95,
    dtype: torch.dtype | None = None,
    memory_limit: int = exact.MEMORY_LIMIT,
    progress: bool = True,
) -> Estimate:
    """The oracle of `oracle.ablate` from part of its evaluations: unbiased, with error bars.

    Every map gets the same number of evaluations, each map on pictures of its own.

    Args:
        batches: as for `oracle.ablate`, but read twice: a list or a loader that gives the same pictures every time.
        budget: share of all evaluations (at most 1), or how many (more than 1).
        layers, dtype: as for `oracle.ablate`.
        seed: decides which evaluations are drawn.
        confidence: of the intervals.
        memory_limit: bytes for the measuring, as for `oracle.ablate`. Statistics take 30 bytes a pair besides.

    Raises:
        TypeError: `batches` is an iterator, which can be read only once.
        ValueError: no pictures, or others in the second pass; a budget of less than two evaluations of every map.
        KeyError, IndexError, FloatingPointError: as `oracle.ablate`.
    """
    if isinstance(batches, Iterator):
        raise TypeError("`batches` is read twice, but an iterator can be read only once: give list(batches).")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but a probability between 0 and 1 is needed, such as 0.95.")
    check_dtype(dtype, "exact")
    chain, device, generator = Chain(model), device_of(model), torch.Generator().manual_seed(seed)
    chosen = choose(chain, layers)
    with evaluating(model):
        guesses, before = guess_all(chain, batches, chosen, device, progress)
        share = _share(budget, len(before), sum(len(maps) for _, maps in chosen))
        chances = {name: sampling.chances(doubt, share) for name, (_, doubt) in guesses.items()}
        drawn = {name: sampling.draw(p, generator) for name, p in chances.items()}
        pieces = portions(batches, exact, chain, device, dtype=dtype, memory_limit=memory_limit)
        measured = _measure(pieces, chosen, drawn, before, progress)
    return _weigh(chosen, guesses, measured, chances, drawn, confidence)


def _weigh(
    chosen: Chosen, guesses: dict, measured: Scores, chances: Scores, drawn: Scores, confidence: float
) -> Estimate:
    """The guesses and what the measured pairs say that they left out."""
    scores, errors = {}, {}
    for layer, maps in chosen:
        name, (guess, doubt) = layer.name, guesses[layer.name]
        left_out, error = sampling.horvitz_thompson(measured[name] - guess, doubt, chances[name], drawn[name])
        scores[name] = _among_all(guess.double().mean(0) + left_out, maps, layer)
        errors[name] = _among_all(error, maps, layer)
    evaluations = sum(int(each.sum()) for each in drawn.values())
    return Estimate(scores, errors, confidence, evaluations, evaluations / sum(map(torch.numel, drawn.values())))


@torch.inference_mode(False)  # gradients are needed, also where the caller has switched them off
def guess_all(
    chain: Chain, batches: Batches, chosen: Chosen, device: torch.device, progress: bool = True
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """{layer: guessed changes and their doubts, (N, K) float32 each}, and the unpruned network's losses (N,)."""
    found: dict[str, list[tuple[Tensor, ...]]] = {layer.name: [] for layer, _ in chosen}
    before = []
    for images, labels in placed(track(batches, "guessing") if progress else batches, device, chain.dtype):
        logits, taps = derivatives.run(chain, images, found)
        outputs = logits.detach().double()
        before.append(losses(outputs, labels).cpu())
        classes = derivatives.most_probable(logits, CLASSES, labels)
        slopes = derivatives.logit_slopes(logits, taps, classes)
        for layer, maps in chosen:
            some = maps.to(device)
            guess, doubt = sampling.guess(outputs, slopes[layer.name][..., some].double(), classes)
            alive = (taps[layer.name].detach()[:, some] != 0).flatten(2).any(2)
            found[layer.name].append(((guess * alive).float().cpu(), doubt.float().cpu(), alive.cpu()))
    if not before:
        raise ValueError("There are no examples to measure on: `batches` is empty.")
    joined = {name: [torch.cat(part) for part in zip(*parts, strict=True)] for name, parts in found.items()}
    return {name: (guess, sampling.with_floor(*rest)) for name, (guess, *rest) in joined.items()}, torch.cat(before)


def _measure(
    pieces: Iterable[tuple[exact.Network, Tensor, Tensor]],
    chosen: Chosen,
    drawn: dict[str, Tensor],
    before: Tensor,
    progress: bool,
) -> dict[str, Tensor]:
    """{layer: (N, K)}, changes of the loss where drawn and 0 elsewhere, measured image by image."""
    found = {name: torch.zeros(each.shape, dtype=torch.float64) for name, each in drawn.items()}
    first = 0
    with torch.inference_mode(), meter("measuring", "MAC", show=progress) as bar:
        for number, (network, images, labels) in enumerate(pieces):
            bar.total = bar.total or sum(int(drawn[a.name].sum()) * network.macs_per_map(a) for a, _ in chosen)
            rows, first = slice(first, first + len(images)), first + len(images)
            if not distributed.is_mine(number):  # another process measures it, about now
                bar.update(sum(int(drawn[a.name][rows].sum()) * network.macs_per_map(a) for a, _ in chosen))
                continue
            base = exact.Base(network, images, labels)
            _same(base.losses.cpu(), before[rows])
            for layer, maps in chosen:
                for row, some in enumerate(drawn[layer.name][rows]):
                    changes = base.changes(layer, maps[some], torch.tensor([row]), bar.update)
                    found[layer.name][rows.start + row, some] = changes[0].cpu()
    distributed.add_up(list(found.values()))
    return found


def split_half(effects: Scores, *, absolute: bool = True, draws: int = 20, seed: int = 0) -> ranking.Correlation:
    """How far two exact oracles agree that share no picture: the mean Spearman correlation of random halves.

    It is the ceiling for criteria: none can be expected to agree better with an oracle on other pictures than such an
    oracle itself does, up to the square root of this number for one that is free of noise.

    Args:
        effects: {layer: (N, C)} of `oracle.effects`, N at least 2.
        absolute: oracle-abs; otherwise with signs.
        draws: of the halves.
    """
    n = len(next(iter(effects.values())))
    if n < 2:
        raise ValueError(f"Two halves need at least two pictures, but these are effects of {n}: measure more.")
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        order = torch.randperm(n, generator=generator)
        one, other = ({name: e[half].mean(0) for name, e in effects.items()} for half in (order[::2], order[1::2]))
        if absolute:
            one = {name: s.abs() for name, s in one.items()}
        known = {name: ~s.isnan() for name, s in one.items()}
        one, other = ({name: s[known[name]] for name, s in side.items()} for side in (one, other))
        found.append(_numbers(ranking.spearman(one, other, absolute=absolute)))
    return _correlation(effects, torch.stack(found).nanmean(0))


def _share(budget: float, pictures: int, maps: int) -> float:
    """The budget as a share of all evaluations."""
    share = min(1.0, budget / (pictures * maps) if budget > 1 else budget)
    if share * pictures < min(FEWEST, pictures):
        raise ValueError(
            f"A budget of {budget} is {share * pictures:.2g} evaluations of each map on {pictures} pictures. "
            f"Error bars need {FEWEST}: give budget={FEWEST / pictures:.2g} or more, or more pictures."
        )
    return share


def _same(now: Tensor, then: Tensor) -> None:
    if not torch.allclose(now, then, rtol=1e-3, atol=1e-3):
        raise ValueError("`batches` gave other pictures when it was read a second time: give list(batches).")


def _among_all(values: Tensor, maps: Tensor, layer: Layer) -> Tensor:
    """Values (K,) of some maps among those of all maps, (C,); NaN for the others."""
    return torch.full((layer.channels,), torch.nan, dtype=torch.float64).index_copy(0, maps, values)


def _numbers(correlation: ranking.Correlation) -> Tensor:
    return torch.tensor([*correlation.per_layer.values(), correlation.mean, correlation.all_layers])


def _correlation(layers: Iterable[str], numbers: Tensor) -> ranking.Correlation:
    *per_layer, mean, all_layers = numbers.tolist()
    return ranking.Correlation(dict(zip(layers, per_layer, strict=True)), mean, all_layers)
