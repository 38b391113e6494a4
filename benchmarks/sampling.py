"""The sampled oracle: how near it comes to the exact one on the same images, and what it costs."""

from __future__ import annotations

import argparse

import torch

from benchmarks.timing import cpu_seconds, rows
from course_lib import datasets, models, oracle, ranking, training
from course_lib.feature_maps import Chain, Scores, evaluating
from course_lib.oracle import sampled, sampling
from course_lib.oracle.asked import choose

SHARES = (0.05, 0.1, 0.2)
SEEDS = 20
ROUNDING = 1e-12  # nats
IMAGES, BIG_IMAGES = 640, 256


def run(options: argparse.Namespace) -> list[dict]:
    """Accuracy on the petals and, with --photographs, on those; CPU time with VGG-16 as published."""
    model, splits = models.trained("vgg16-petals"), datasets.load("petals")
    found = nearness("vgg16-petals", model, list(datasets.batches(splits.train, IMAGES)))
    model, batches = full_width(options)
    some = {name: list(range(0, layer.channels, layer.channels // 16)) for name, layer in Chain(model).layers.items()}
    if options.photographs:
        found += nearness("VGG-16, Flowers-102, 16 maps a layer", model, batches, some, torch.bfloat16)
    return found + against_naive(model, batches[:1])


def full_width(options: argparse.Namespace) -> tuple[torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """VGG-16 with 4,224 maps at 64 pixels, its output layer trained on photographs if there are any, and batches."""
    if options.photographs:
        splits = datasets.load("flowers102", root=options.photographs, image_size=64, on_bad="skip", in_memory=True)
    else:
        splits = datasets.load("petals", image_size=64, train=BIG_IMAGES, val=10, test=10)
    torch.manual_seed(0)
    model = models.vgg16(len(splits.classes), compact=True, trunk=options.trunk)
    training.fit_head(model, splits.train)
    return model, list(datasets.batches(splits.train, BIG_IMAGES))


def nearness(work: str, model, batches: list, layers=None, dtype: torch.dtype | None = None) -> list[dict]:
    """Estimates of many seeds against the exact oracle, each effect measured once and the sampling repeated."""
    effects = oracle.effects(model, batches, layers, dtype=dtype)
    effects = {name: e[:, ~e[0].isnan()] for name, e in effects.items()}
    truth = {name: e.mean(0) for name, e in effects.items()}
    chain = Chain(model)
    with evaluating(model):
        guesses, _ = sampled.guess_all(chain, batches, choose(chain, layers), next(model.parameters()).device)
    halves = oracle.split_half(effects)
    found = []
    for share in SHARES:
        several = [once(effects, guesses, share, seed) for seed in range(SEEDS)]
        near = [ranking.spearman({n: s.abs() for n, s in one.scores.items()}, truth) for one in several]
        hits = {
            n: torch.stack([(one.low[n] <= truth[n]) & (truth[n] <= one.high[n]) for one in several]) for n in truth
        }
        found.append(
            {
                "work": f"{work}, {len(next(iter(effects.values())))} images",
                "budget": share,
                "evaluations": several[0].evaluations,
                "spearman_all": mean(one.all_layers for one in near),
                "spearman_mean_of_layers": mean(one.mean for one in near),
                "spearman_worst_layer": mean(min(one.per_layer.values()) for one in near),
                "coverage": float(torch.cat([h.flatten() for h in hits.values()]).double().mean()),
                "coverage_lowest_layer": min(float(h.double().mean()) for h in hits.values()),
                "coverage_highest_layer": max(float(h.double().mean()) for h in hits.values()),
                "split_half_all": halves.all_layers,
                "split_half_mean_of_layers": halves.mean,
            }
        )
    return found


def once(effects: Scores, guesses: dict, share: float, seed: int) -> oracle.Estimate:
    """What `oracle.estimate` does, with the effects that are drawn looked up instead of measured."""
    generator, scores, errors, evaluations = torch.Generator().manual_seed(seed), {}, {}, 0
    for name, (guess, doubt) in guesses.items():
        p = sampling.chances(doubt, share)
        drawn = sampling.draw(p, generator)
        rest, errors[name] = sampling.horvitz_thompson(effects[name] - guess, doubt, p, drawn)
        scores[name] = guess.double().mean(0) + rest
        evaluations += int(drawn.sum())
    return oracle.Estimate(scores, errors, 0.95, evaluations, evaluations / sum(e.numel() for e in effects.values()))


def holds(one: oracle.Estimate, truth: Scores, name: str) -> torch.Tensor:
    """(C,) whether the interval has the exact value in it; a point where all was measured has, up to rounding."""
    return (one.low[name] - ROUNDING <= truth[name]) & (truth[name] <= one.high[name] + ROUNDING)


def against_naive(model: torch.nn.Module, batches: list) -> list[dict]:
    """CPU time of a tenth of the evaluations of all maps, against the definition on one map of every layer."""
    layers = Chain(model).layers
    one = {name: [0] for name in layers}
    works = {
        "ours": lambda: oracle.estimate(model, batches, 0.1, dtype=torch.bfloat16, progress=False),
        "naive": lambda: oracle.ablate(model, batches, one, method="naive", progress=False),
    }
    share = {"naive": len(one) / sum(layer.channels for layer in layers.values())}
    images = sum(len(labels) for _, labels in batches)
    return rows(f"VGG-16, 4,224 maps, {images} images of 64 x 64, budget 0.1", cpu_seconds(works, 1), share=share)


def mean(numbers) -> float:
    return float(torch.tensor(list(numbers)).mean())
