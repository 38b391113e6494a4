"""What a network costs: parameters, multiply-accumulates (MACs), and measured time.

One MAC is one multiplication and one addition; the paper counts it as two FLOPs (appendix A.1).
Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.feature_maps import Chain, Step, copy_with, device_of, evaluating, trace


class Latency(NamedTuple):
    """Measured time of one forward pass: median and interquartile range in milliseconds, and how it was taken."""

    median_ms: float
    iqr_ms: float
    batch_size: int
    threads: int


def parameters(model: nn.Module) -> int:
    """Number of trainable and fixed weights and biases."""
    return sum(parameter.numel() for parameter in model.parameters())


def feature_maps(model: nn.Module) -> int:
    """Number of feature maps that can be pruned: 4,224 for VGG-16."""
    return sum(layer.channels for layer in Chain(model).layers.values())


def macs(model: nn.Module, image_shape: tuple[int, ...]) -> int:
    """MACs of one forward pass of one image of this shape (C, H, W)."""
    return sum(macs_per_layer(model, image_shape).values())


def macs_per_layer(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
    """MACs of every convolutional and linear layer for one image of shape (C, H, W), by torch's own counter."""
    steps = ((step, x) for step, x, _ in shapes(model, image_shape) if step.kind in ("conv", "linear"))
    return {step.name: macs_of(step, x) for step, x in steps}


def macs_of(function: Callable[[Tensor], object], x: Tensor) -> int:
    """MACs that a function spends on x, as torch counts them while it runs."""
    from torch.utils.flop_counter import FlopCounterMode  # a slow import

    with FlopCounterMode(display=False) as counter:
        function(x)
    return counter.get_total_flops() // 2


def mflops_of_a_map(positions: int, weights: int) -> float:
    """Millions of FLOPs of one feature map: 2 H W (C_in K^2 + 1), appendix A.1.

    `positions`: H W of the map; `weights`: C_in K^2 of its kernel. The bias is the one more, and a MAC is two FLOPs.
    """
    return 2 * positions * (weights + 1) / 1e6


def mflops_per_map(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, float]:
    """`mflops_of_a_map` for each layer with feature maps, on images of shape (C, H, W).

    The paper lists 57.8 for VGG-16's second layer at 224 pixels; what the next layer would save is not in it.
    """
    layers = Chain(model).layers
    return {
        step.name: mflops_of_a_map(output[0, 0].numel(), step.module.weight[0].numel())
        for step, _, output in shapes(model, image_shape)
        if step.name in layers
    }


def latency(
    model: Callable[[Tensor], Tensor],
    image_shape: tuple[int, ...],
    *,
    batch_size: int = 16,
    threads: int = 1,
    seconds: float = 1.0,
) -> Latency:
    """Time of one forward pass of a batch, measured after a warm-up for about `seconds`, with so many threads.

    A network runs in channels-last memory, in which convolutions are fastest on a CPU. Any other function of images,
    such as `export.load` returns, runs as it is and with threads of its own; say in `threads` how many those are.
    """
    # A slow import, and one that complains where it finds a CUDA compiler but no GPU: hence here, and in silence.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    images = torch.rand(batch_size, *image_shape)
    with contextlib.ExitStack() as stack:
        if isinstance(model, nn.Module):
            macs(model, image_shape)  # it says in words if the images do not fit
            images = images.to(device_of(model), next(model.parameters()).dtype)
            if images.dim() == 4:
                images = images.contiguous(memory_format=torch.channels_last)
                model = copy_with(model, {}).to(memory_format=torch.channels_last)
            stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        timer = Timer("model(images)", globals={"model": model, "images": images}, num_threads=threads)
        timer.timeit(2)  # warm-up: the first passes choose kernels and touch new memory
        measured = timer.blocked_autorange(min_run_time=seconds)
    return Latency(measured.median * 1e3, measured.iqr * 1e3, batch_size, threads)


def shapes(model: nn.Module, image_shape: tuple[int, ...]) -> Iterator[tuple[Step, Tensor, Tensor]]:
    """Yield (step, input, output) of a forward pass without numbers: tensors on the meta device have only shapes.

    ValueError, with the layer, where images of this shape (C, H, W) do not fit.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    ghost = copy_with(model, {name: torch.empty_like(tensor, device="meta") for name, tensor in named})
    dtype = next(model.parameters()).dtype
    x: Tensor = torch.empty(1, *image_shape, device="meta", dtype=dtype)
    with evaluating(ghost), torch.no_grad():
        for step in trace(ghost):
            try:
                output = step(x)
            except RuntimeError as error:
                raise ValueError(
                    f"Images of shape {tuple(image_shape)} do not fit layer {step.name!r}: {error}"
                ) from None
            yield step, x, output
            x = output
