"""Latency: how much of the speed that the MACs promise a pruned VGG-16 really has.

Each row is a pruned network against the whole one, by the same means and as PyTorch runs it: `ratio` is the realised
speed-up, `arithmetic_limit` what the MACs promise, `share_of_limit` how much of it is real.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.timing import rows
from course_lib import cost, export, ranking, surgery
from course_lib.feature_maps import Chain, Plan, copy_with

REMOVED = {"-12 %": 512, "-50 %": 2112, "-67 %": 2816}  # of 4,224 maps
SIZES = {64: 32, 224: 4}  # pixels: images in a batch, enough for the linear layers not to wait for their weights
PASSES = 3  # the first chooses kernels
Forward = Callable[[Tensor], Tensor]


def run(options: argparse.Namespace) -> list[dict]:
    """Random maps removed: any counts or multiples of 16, by several means, at 64 and at 224 pixels."""
    torch.manual_seed(0)
    model = torchvision.models.vgg16(weights=None).eval()
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(layer.channels, generator=generator) for name, layer in Chain(model).layers.items()}
    plans = {
        (name, round_to): ranking.lowest(scores, n, round_to=round_to)
        for name, n in REMOVED.items()
        for round_to in (1, 16)
    }
    return [row for pixels, batch in SIZES.items() for row in compare(model, plans, (3, pixels, pixels), batch)]


def compare(model: nn.Module, plans: dict[tuple[str, int], Plan], shape: tuple[int, ...], batch: int) -> list[dict]:
    """All rows of one size of images."""
    images = torch.rand(batch, *shape)
    macs, seconds, found = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        for means, prepare in MEANS.items():  # one after the other: all of them at once fill the memory
            works, errors = {}, {}
            for key, plan in {WHOLE: {}, **plans}.items():
                if means == EAGER or key == WHOLE or key[1] > 1:  # any counts in PyTorch, multiples by all means
                    network = surgery.remove(model, plan) if plan else model
                    macs[key] = cost.macs(network, shape)
                    forward = prepare(network, shape, Path(folder) / f"{key}.onnx")
                    works[key], errors[key] = partial(forward, images), error(forward, network, images[:2])
            taken = fastest(works)
            seconds[means] = taken.pop(WHOLE)
            for key, ours in taken.items():
                work = f"{key[0]} of maps, round_to={key[1]}, {means}; {batch} x {shape[1]} px"
                theirs = {f"whole, {how}": seconds[how] for how in (means, EAGER)}
                limits = dict.fromkeys(theirs, macs[WHOLE] / macs[key])
                found += rows(work, {"ours": ours, **theirs}, limit=limits, error=errors[key])
    return found


def in_layout(layout: torch.memory_format) -> Callable:
    """PyTorch itself, in one of its memory formats; the linear layers' weights are not copied."""

    def prepare(model: nn.Module, shape: tuple[int, ...], path: Path) -> Forward:
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        kernels = {name: w.contiguous(memory_format=layout) for name, w in weights.items() if w.dim() == 4}
        laid_out = copy_with(model, weights | kernels)
        return lambda images: laid_out(images.contiguous(memory_format=layout))

    return prepare


def exported(model: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    """The network's file, written once for all runtimes."""
    return path if path.exists() else export.onnx(model, shape, path)


def onnx_runtime(model: nn.Module, shape: tuple[int, ...], path: Path) -> Forward:
    """What the course offers."""
    return export.load(exported(model, shape, path))


def openvino(model: nn.Module, shape: tuple[int, ...], path: Path) -> Forward:
    """Another runtime, on the same file; where it happens to be installed."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(exported(model, shape, path)), "CPU", settings)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


EAGER, WHOLE = "PyTorch channels last", ("whole", 1)
MEANS = {
    EAGER: in_layout(torch.channels_last),
    "PyTorch NCHW": in_layout(torch.contiguous_format),
    "ONNX Runtime": onnx_runtime,
}
if importlib.util.find_spec("openvino"):
    MEANS["OpenVINO"] = openvino


@torch.inference_mode()
def fastest(works: dict[tuple, Callable[[], Tensor]]) -> dict[tuple, float]:
    """Least CPU seconds of each work, done in turn: whatever else runs on the machine can only add to them."""
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(PASSES):
        for name, work in works.items():
            began = time.process_time()
            work()
            seconds[name] = min(seconds[name], time.process_time() - began)
    return seconds


@torch.inference_mode()
def error(forward: Forward, model: nn.Module, images: Tensor) -> float:
    """Largest difference of a logit, relative to the largest logit of the network as it was made."""
    expected = model(images)
    return float((forward(images) - expected).abs().max() / expected.abs().max())
