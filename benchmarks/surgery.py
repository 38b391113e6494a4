"""Surgery."""

from __future__ import annotations

import argparse

import torch
import torchvision

from benchmarks.timing import REPEATS, cpu_seconds, rows
from course_lib import surgery
from course_lib.feature_maps import Chain


def run(options: argparse.Namespace) -> list[dict]:
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
    return rows(
        "surgery: 512 maps out of VGG-16", cpu_seconds(works), share={"ours, one at a time": len(one_by_one) / 512}
    )
