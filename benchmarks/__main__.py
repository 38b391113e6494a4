"""Ratios, taken in one run: ours against the naive way and against a peer. `python -m benchmarks` prints the table.

Each comparison does the same work on both sides, in turn, several times; the median of CPU time is compared, with one
thread. Absolute seconds are not worth much on a shared machine, ratios are.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from course_lib import criteria, datasets, models, oracle, surgery
from course_lib.classroom import results
from course_lib.feature_maps import Chain

REPEATS = 3


def cpu_seconds(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of each work, run in turn so that all of them see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def row(work: str, seconds: dict[str, float], share: dict[str, float] | None = None) -> list[dict]:
    """One row for each rival. `share`: what part of our work a rival did in its seconds."""
    ours = seconds["ours"]
    rivals = {name: value / (share or {}).get(name, 1.0) for name, value in seconds.items() if name != "ours"}
    return [
        {"work": work, "against": name, "ours_seconds": ours, "theirs_seconds": theirs, "ratio": theirs / ours}
        for name, theirs in rivals.items()
    ]


def exact_oracle() -> list[dict]:
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
    return row("exact oracle, 1,056 maps, 8 images of 32 x 32", cpu_seconds(works), share)


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


def all_criteria() -> list[dict]:
    """Every criterion in one pass, against one bare training step with gradients of the weights."""
    model, splits = models.trained("vgg16-petals"), datasets.load("petals", train=256, val=10, test=10)
    batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in datasets.batches(splits.train)]
    without_obd = [name for name in criteria.CRITERIA if name != "obd"]

    def bare():
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
            model.zero_grad()

    found = []
    for work, names in (("without OBD", without_obd), ("with OBD", list(criteria.CRITERIA))):
        score = {"ours": lambda names=names: criteria.score(model, batches, names, progress=False)}
        found += row(f"all criteria {work}, 256 images of 32 x 32", cpu_seconds(score | {"bare training step": bare}))
    return found


def remove_maps() -> list[dict]:
    """512 random maps out of torchvision's VGG-16, against Torch-Pruning and against one map at a time."""
    import torch_pruning

    model = torchvision.models.vgg16(weights=None).eval()
    layers = Chain(model).layers
    owners = [(name, at) for name, layer in layers.items() for at in range(layer.channels)]
    plan: dict[str, list[int]] = {}
    for at in torch.randperm(len(owners), generator=torch.Generator().manual_seed(0))[:512].tolist():
        plan.setdefault(owners[at][0], []).append(owners[at][1])
    graphs = [
        torch_pruning.DependencyGraph().build_dependency(
            torchvision.models.vgg16(weights=None).eval(), torch.rand(1, 3, 32, 32)
        )
        for _ in range(REPEATS)
    ]

    def peer():
        graph = graphs.pop()
        for name, maps in plan.items():
            module = dict(graph.model.named_modules())[name]
            graph.get_pruning_group(module, torch_pruning.prune_conv_out_channels, idxs=maps).prune()

    one_by_one = [(name, maps[0]) for name, maps in plan.items()]

    def one_at_a_time():
        for name, index in one_by_one:
            surgery.remove(model, {name: torch.tensor([index])})

    tensors = {name: torch.tensor(maps) for name, maps in plan.items()}
    works = {
        "ours": lambda: surgery.remove(model, tensors),
        "torch-pruning": peer,
        "ours, one at a time": one_at_a_time,
    }
    return row("surgery: 512 maps out of VGG-16", cpu_seconds(works), {"ours, one at a time": len(one_by_one) / 512})


def main() -> None:
    """Run all comparisons and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--save", type=Path, help="record the table in this CSV")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [found for compare in (exact_oracle, all_criteria, remove_maps) for found in compare()]
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    print("ratio: how many times our CPU time the other side needs for the same work; one thread.")
    if options.save:
        results.record(table, options.save, command="python -m benchmarks", seed=0)


if __name__ == "__main__":
    main()
