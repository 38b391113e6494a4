"""Surgery: 512 random feature maps out of torchvision's VGG-16, 138 million parameters."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torchvision
from torch import nn

from benchmarks.timing import REPEATS, rows
from course_lib import surgery
from course_lib.feature_maps import Chain, Plan, mask

MAPS = 512
IMAGES = (4, 3, 64, 64)


def run(options: argparse.Namespace) -> list[dict]:
    """In one pass, against Torch-Pruning (with and without building its graph) and against one map at a time."""
    torch.manual_seed(0)
    model = torchvision.models.vgg16(weights=None).eval()
    plan = random_plan(model, MAPS)
    # One at a time is measured half-way, on the size that the network has on average, and once for each layer.
    half = surgery.remove(model, random_plan(model, MAPS // 2))
    works = {
        "ours": lambda: lambda: surgery.remove(model, plan),
        "torch-pruning, with its graph": lambda: with_graph(copy.deepcopy(model), plan),
        "torch-pruning, graph at hand": lambda: graph_at_hand(copy.deepcopy(model), plan),
    }
    works |= {("as in 2017", name): partial(as_in_2017, half, name) for name in plan}
    works |= {
        ("ours", name): lambda name=name: lambda: surgery.remove(half, {name: torch.tensor([1])}) for name in plan
    }
    taken = seconds(works)
    one_by_one = {
        f"one at a time, {how}": sum(taken.pop((how, name)) * len(maps) for name, maps in plan.items())
        for how in ("as in 2017", "ours")
    }
    return rows(f"{MAPS} maps out of VGG-16", taken | one_by_one, error=error(model, plan))


def random_plan(model: nn.Module, maps: int) -> Plan:
    """So many maps of a network, drawn from all layers."""
    owners = [(name, at) for name, layer in Chain(model).layers.items() for at in range(layer.channels)]
    plan: dict[str, list[int]] = {}
    for at in torch.randperm(len(owners), generator=torch.Generator().manual_seed(0))[:maps].tolist():
        plan.setdefault(owners[at][0], []).append(owners[at][1])
    return {name: torch.tensor(sorted(maps)) for name, maps in plan.items()}


def seconds(works: dict[object, Callable[[], Callable]]) -> dict[object, float]:
    """Median CPU seconds; each work is prepared first, which is not timed, and then done."""
    taken: dict[object, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, prepare in works.items():
            work = prepare()
            np.ones(3 << 26, np.float32)  # all sides begin with memory that a virtual machine's host has handed out
            began = time.process_time()
            result = work()
            taken[name].append(time.process_time() - began)
            del work, result
    return {name: statistics.median(times) for name, times in taken.items()}


def with_graph(model: nn.Module, plan: Plan) -> Callable:
    """Torch-Pruning as a user calls it: find the dependencies, then remove group by group, in place."""
    return lambda: graph_at_hand(model, plan)()


def graph_at_hand(model: nn.Module, plan: Plan) -> Callable:
    """Torch-Pruning's removal alone."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, torch.rand(1, 3, 32, 32))
    modules = dict(model.named_modules())

    def work():
        for name, maps in plan.items():
            prune = torch_pruning.prune_conv_out_channels
            graph.get_pruning_group(modules[name], prune, idxs=maps.tolist()).prune()

    return work


def as_in_2017(model: nn.Module, name: str) -> Callable:
    """One map of a layer as the well-known code of 2017 removes it; the given model stays as it is."""
    victim = surgery.remove(model, {})
    return lambda: remove_one(victim, name, 1)


def remove_one(model: nn.Module, name: str, index: int) -> None:
    """One map out of torchvision's VGG-16, in place, in the manner of that code.

    A new, smaller layer is made (and initialised), its neighbour too, NumPy copies the weights on both sides of the
    gap, and the list of layers is built again. Written from a description of that code, not taken from it.
    """
    at, features = int(name.split(".")[1]), list(model.features)
    conv = features[at]
    smaller = nn.Conv2d(conv.in_channels, conv.out_channels - 1, conv.kernel_size, padding=conv.padding)
    _copy_without(conv.weight, smaller.weight, 0, index)
    _copy_without(conv.bias, smaller.bias, 0, index)
    features[at] = smaller
    reader = next((i for i in range(at + 1, len(features)) if isinstance(features[i], nn.Conv2d)), None)
    if reader is not None:
        conv = features[reader]
        features[reader] = nn.Conv2d(conv.in_channels - 1, conv.out_channels, conv.kernel_size, padding=conv.padding)
        _copy_without(conv.weight, features[reader].weight, 1, index)
        features[reader].bias.data = conv.bias.data
    else:
        linear, block = model.classifier[0], model.classifier[0].in_features // (smaller.out_channels + 1)
        narrower = nn.Linear(linear.in_features - block, linear.out_features)
        _copy_without(linear.weight, narrower.weight, 1, index * block, block)
        narrower.bias.data = linear.bias.data
        model.classifier = nn.Sequential(narrower, *list(model.classifier)[1:])
    model.features = nn.Sequential(*features)


def _copy_without(old: nn.Parameter, new: nn.Parameter, axis: int, index: int, block: int = 1) -> None:
    source, target = (np.moveaxis(tensor.detach().numpy(), axis, 0) for tensor in (old, new))
    target[:index] = source[:index]
    target[index:] = source[index + block :]


@torch.no_grad()
def error(model: nn.Module, plan: Plan) -> float:
    """Largest difference of a logit between the smaller network and the masked one, relative to the largest logit."""
    images = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))
    expected = Chain(model).run(images, gates=mask(plan, model))
    return float((surgery.remove(model, plan)(images) - expected).abs().max() / expected.abs().max())
