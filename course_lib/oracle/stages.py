"""How a change of its input passes through a part of a network: the rules that make the oracle exact and fast.

Let the unpruned network read x and give y = f(x). A change d of x changes y by f(x + d) - f(x). Of a linear part that
is A d, without the constant term; of a ReLU it is bounded by what the ReLU gave; of anything else it is computed as it
is written. Changes are stacked: for n images and K feature maps d is (K n, ...), map by map.

Taught in: notebooks/06_oracle.ipynb.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.feature_maps import Chain, Step, UnsupportedModel, copy_with, spread

AVERAGES = tuple(getattr(nn, f"{kind}Pool{d}d") for kind in ("Avg", "AdaptiveAvg") for d in (1, 2, 3))
TILINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class Stage:
    """Some steps of the network, and how a change passes through them. This one serves any steps."""

    weights = 0  # multiplications for each position of the output

    def __init__(self, steps: list[Step]):
        self.steps = steps

    def run(self, x: Tensor) -> Tensor:
        """The unpruned network's output y for the input x (n, ...)."""
        for step in self.steps:
            x = step(x)
        return x

    def keep(self, x: Tensor, y: Tensor, minus_y: Tensor) -> tuple[Tensor, ...]:
        """What `change` needs to know of the unpruned network. `minus_y` is -y in the type of the changes."""
        return x, y

    def change(self, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The change of the output, (K n, ...), for a change d (K n, ...) of the input. May overwrite d."""
        after = self.run((x + by_image(d.to(x.dtype), len(x))).flatten(0, 1))
        return (by_image(after, len(y)) - y).flatten(0, 1).to(d.dtype)


class Linear(Stage):
    """Steps without a constant term, such as average pooling and flatten: A d is what they make of d."""

    def keep(self, x: Tensor, y: Tensor, minus_y: Tensor) -> tuple[Tensor, ...]:
        return ()

    def change(self, d: Tensor) -> Tensor:
        return self.run(d)


class Scaling(Linear):
    """Batch norm in evaluation mode: its shift drops out, its factor stays."""

    def __init__(self, steps: list[Step]):
        super().__init__(steps)
        self.factor = factor(steps[0])

    def change(self, d: Tensor) -> Tensor:
        return d.mul_(spread(self.factor, d))


class Reader(Linear):
    """A convolution or linear layer without its bias, and whatever linear steps its weights can take in.

    Batch norm after it is a factor on its outputs. Average pooling before a linear layer, on maps so small that it
    only repeats and mixes positions (VGG-16 at 64 pixels: 2 x 2 to 7 x 7), is a matrix that is multiplied in once.
    """

    def __init__(self, steps: list[Step], x: Tensor, dtype: torch.dtype):
        super().__init__(steps)
        step = next(step for step in steps if step.kind in ("conv", "linear"))
        before, after = steps[: steps.index(step)], steps[steps.index(step) + 1 :]
        weight = _fold(before, step.module.weight, x) if before else step.module.weight
        if after:
            weight = weight * factor(after[0]).reshape(-1, *[1] * (weight.dim() - 1))
        self.module = copy_with(step.module, {"weight": _laid_out(weight.detach().to(dtype))})
        self.module.bias = None
        self.weights = weight.numel()

    def change(self, d: Tensor) -> Tensor:
        return self.module(d.flatten(1) if isinstance(self.module, nn.Linear) else d)

    def first(self, minus_x: Tensor, maps: Tensor, channels: int) -> Tensor:
        """The change (K n, ...) of the output where each of K maps alone is taken out of the input x (n, C, ...)."""
        return contribution(self.module, minus_x, maps, channels).transpose(0, 1).flatten(0, 1)


class Bend(Stage):
    """ReLU and max pooling over separate tiles: max(pool(d + (x - y)), -y), with y repeated over its tile.

    ReLU and pooling may be exchanged, and y, the same number for a whole tile, may be subtracted before the maximum is
    taken instead of after it: relu(pool(x + d)) - y = max(pool(x + d) - y, 0 - y). Written so, no two large numbers
    are subtracted: where x - y or -y decides, it is itself no larger than the change.
    """

    def __init__(self, steps: list[Step]):
        super().__init__(steps)
        self.pool = next((step.module for step in steps if step.kind == "pool"), None)
        self.floor = any(step.kind == "activation" for step in steps)

    @staticmethod
    def fits(steps: list[Step]) -> bool:
        """Whether these steps are of the kind, with one pooling at most."""
        pools = [step.module for step in steps if step.kind == "pool"]
        relus = all(type(step.module) is nn.ReLU for step in steps if step.kind == "activation")
        return relus and len(pools) < 2 and all(_is_tiling(pool) for pool in pools)

    def keep(self, x: Tensor, y: Tensor, minus_y: Tensor) -> tuple[Tensor, ...]:
        return (x - self._repeat(y, x)).to(minus_y.dtype), minus_y

    def change(self, d: Tensor, below: Tensor, minus_y: Tensor) -> Tensor:
        by_image(d, len(below)).add_(below)
        d = self._highest(d)
        if self.floor:
            view = by_image(d, len(below))
            torch.maximum(view, minus_y, out=view)
        return d

    def _highest(self, d: Tensor) -> Tensor:
        """The maximum of each tile, axis by axis: two to three times as fast as torch's pooling, in bfloat16."""
        if self.pool is None:
            return d
        for axis in range(2, d.dim()):
            tile = _along(self.pool.kernel_size, axis - 2)
            d = d.narrow(axis, 0, d.shape[axis] // tile * tile).unflatten(axis, (-1, tile))
            d = reduce(torch.maximum, d.unbind(axis + 1))
        return d

    def _repeat(self, y: Tensor, x: Tensor) -> Tensor:
        """y, with each of its positions repeated over its tile of x. The rest of x, outside the tiles, is not read."""
        if self.pool is None:
            return y
        for axis in range(2, x.dim()):
            y = y.repeat_interleave(_along(self.pool.kernel_size, axis - 2), axis)
        return F.pad(y, [n for axis in range(x.dim() - 1, 1, -1) for n in (0, x.shape[axis] - y.shape[axis])])


def stages(chain: Chain, x: Tensor, dtype: torch.dtype) -> Iterator[tuple[Stage, Tensor, Tensor]]:
    """The chain in stages, each with its input and output for the image x (1, C, H, W).

    Raises:
        UnsupportedModel: batch norm that has no running statistics.
    """
    steps = [step for step in chain.steps if step.kind != "pass"]  # dropout does nothing in evaluation mode
    for group in re.finditer("cn?|b+|[af]*ln?|[af]|n", "".join(map(_letter, steps))):
        for stage in _stage(steps[slice(*group.span())], x, dtype):
            y = stage.run(x)
            yield stage, x, y
            x = y


def contribution(reader: nn.Module, read: Tensor, maps: Tensor, channels: int) -> Tensor:
    """What each of some feature maps alone adds to the output of the layer that reads them.

    Args:
        reader: a convolution or a linear layer.
        read: its input, (n, C, H, W) or flattened (n, C H W).
        maps: (K,) indices of feature maps.
        channels: C.

    Returns:
        (n, K, C_out, H', W') or (n, K, units).
    """
    maps = maps.to(read.device)
    if isinstance(reader, nn.Linear):
        columns = read.reshape(len(read), channels, -1)[:, maps]  # (n, K, H W)
        weight = reader.weight.t().unflatten(0, (channels, -1))[maps]  # (K, H W, units)
        return (columns.transpose(0, 1) @ weight).transpose(0, 1)
    # Under each position of the output lies a patch of the map: taken out by a convolution with unit kernels.
    taps = math.prod(reader.kernel_size)
    units = torch.eye(taps, dtype=read.dtype, device=read.device).view(taps, 1, *reader.kernel_size)
    padded, padding = _pad(reader, read[:, maps].transpose(0, 1).flatten(0, 1).unsqueeze(1))
    patches = CONVOLVE[read.dim()](padded, units, None, reader.stride, padding, reader.dilation)  # (K n, taps, H', W')
    rows = patches.movedim(1, -1).reshape(len(maps), -1, taps)  # (K, n H' W', taps)
    share = rows @ reader.weight[:, maps].flatten(2).permute(1, 2, 0)  # (K, n H' W', C_out)
    return share.view(len(maps), len(read), *patches.shape[2:], -1).movedim(-1, 2).transpose(0, 1)


def by_image(d: Tensor, images: int) -> Tensor:
    """Stacked changes (K n, ...) as (K, n, ...), for something of each image (n, ...) to be added to."""
    return d.unflatten(0, (-1, images))


def factor(norm: Step) -> Tensor:
    """(C,): what batch norm in evaluation mode multiplies each map by."""
    module = norm.module
    if module.running_var is None:
        raise UnsupportedModel(
            f"Module {norm.name!r} normalises with the statistics of the batch itself (track_running_stats=False), so "
            'one image changes with the others. Measure it by definition: method="naive".'
        )
    scale = 1 if module.weight is None else module.weight.detach()
    return scale / (module.running_var + module.eps).sqrt()


def _letter(step: Step) -> str:
    if step.kind == "activation" or step.kind == "pool" and not isinstance(step.module, AVERAGES):
        return "b"  # it bends
    return "a" if step.kind == "pool" else step.kind[0]


def _stage(steps: list[Step], x: Tensor, dtype: torch.dtype) -> list[Stage]:
    kinds = [step.kind for step in steps]
    if "conv" in kinds:
        return [Reader(steps, x, dtype)]
    if "linear" in kinds:
        at = kinds.index("linear")
        if at == 0 or _positions(x) <= steps[at].module.in_features // x.shape[1]:
            return [Reader(steps, x, dtype)]
        return [Linear(steps[:at]), *_stage(steps[at:], x, dtype)]
    if "norm" in kinds:
        return [Scaling(steps)]
    if _letter(steps[0]) == "b":
        if len(steps) > 1 and Bend.fits(steps[:-1]) and not Bend.fits(steps):
            return [Bend(steps[:-1]), *_stage(steps[-1:], x, dtype)]
        return [Bend(steps) if Bend.fits(steps) else Stage(steps)]
    return [Linear(steps)]


def _laid_out(weight: Tensor) -> Tensor:
    """Convolutions run fastest on channels-last weights; `contribution` takes the columns of a linear layer's."""
    if weight.dim() == 2:
        return weight.t().contiguous().t()
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


def _fold(before: list[Step], weight: Tensor, x: Tensor) -> Tensor:
    """Weights (units, C P) of a linear layer that reads the maps themselves, not what the steps before make of them."""
    poolings, size = [step for step in before if step.kind == "pool"], _positions(x)
    if not poolings:
        return weight
    pooled = torch.eye(size, dtype=weight.dtype, device=weight.device).view(size, 1, *x.shape[2:])
    for step in poolings:
        pooled = step(pooled)
    matrix = pooled.flatten(1)  # (positions of x, positions after the pooling)
    if torch.equal(matrix, torch.eye(len(matrix)).to(matrix)):
        return weight
    return (weight.unflatten(1, (x.shape[1], -1)) @ matrix.T).flatten(1)


def _positions(x: Tensor) -> int:
    return math.prod(x.shape[2:])


def _is_tiling(pool: nn.Module) -> bool:
    if not isinstance(pool, TILINGS) or pool.ceil_mode or pool.return_indices:
        return False
    tiles = all(_along(pool.kernel_size, i) == _along(pool.stride, i) for i in range(3))
    return tiles and all(_along(pool.padding, i) == 0 and _along(pool.dilation, i) == 1 for i in range(3))


def _along(size: int | tuple[int, ...], axis: int) -> int:
    """A size that is one number for all axes or a tuple, along one of them."""
    return size if isinstance(size, int) else size[min(axis, len(size) - 1)]


def _pad(reader: nn.Module, x: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
    if reader.padding_mode == "zeros":
        return x, reader.padding
    return F.pad(x, reader._reversed_padding_repeated_twice, mode=reader.padding_mode), (0,) * (x.dim() - 2)
