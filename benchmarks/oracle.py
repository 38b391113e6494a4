"""The exact oracle."""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import cpu_seconds, rows
from course_lib import datasets, models, oracle
from course_lib.feature_maps import Chain


def run(options: argparse.Namespace) -> list[dict]:
    """All maps exactly, against the definition and captum on two maps of every layer."""
    model, splits = models.trained("vgg16-petals"), datasets.load("petals", train=8, val=10, test=10)
    batches = list(datasets.batches(splits.train))
    some = {name: [0, 1] for name in Chain(model).layers}
    share = {"naive": 2 * len(some) / 1056, "captum": 3 * len(some) / 1056}  # captum: a third group, all other maps
    works = {
        "ours": lambda: oracle.ablate(model, batches, progress=False),
        "naive": lambda: oracle.ablate(model, batches, some, method="naive", progress=False),
        "captum": lambda: captum_ablation(model, *batches[0], some),
    }
    return rows("exact oracle, 1,056 maps, 8 images of 32 x 32", cpu_seconds(works), share=share)


def captum_ablation(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, some: dict[str, list[int]]) -> None:
    from captum.attr import LayerFeatureAblation

    def losses(x):
        return F.cross_entropy(model(x), labels, reduction="none")

    modules, chain = dict(model.named_modules()), Chain(model)
    for name, maps in some.items():
        channels = chain.layers[name].channels
        mask = torch.full((1, channels, 1, 1), len(maps))
        mask[0, maps, 0, 0] = torch.arange(len(maps))  # all other maps form one last group
        ablation = LayerFeatureAblation(losses, modules[chain.steps[chain.layers[name].gate_at].name])
        with torch.no_grad():
            ablation.attribute(images, layer_baselines=0, layer_mask=mask)
