"""Residual networks: layers whose feature maps are added up have to lose the same ones.

A residual block computes x + f(x). The two are added map by map, so map c of x and map c of f(x) come and go together,
and with them map c of every other block that adds to the same stream. Which layers are bound in this way is found by
Torch-Pruning (Fang et al., DepGraph, CVPR 2023), which knows what each operation does with channels.

Taught in: notebooks/12_after_2017.ipynb.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib import cost, loss
from course_lib.feature_maps import Batches, Plan, Scores, copy_with, device_of, evaluating, indices, place
from course_lib.names import UnknownName


class Block(nn.Module):
    """ReLU(x' + f(x)): f is two convolutions with batch norm, x' is x, or x through a 1 x 1 convolution where f changes
    the size (He et al. 2016, basic block).
    """

    def __init__(self, channels_in: int, inner: int, channels: int, stride: int, projects: bool):
        super().__init__()
        self.first, self.second = _normed(channels_in, inner, 3, stride), _normed(inner, channels, 3)
        self.shortcut = _normed(channels_in, channels, 1, stride) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


class ResNet(nn.Module):
    """A residual network for images (N, in_channels, H, W) of 32 pixels or fewer; logits (N, num_classes).

    Args:
        streams: feature maps of the stream of each stage; all but the first stage halve the image.
        inner: for each stage the feature maps inside its blocks, one number a block.
    """

    def __init__(self, num_classes: int, streams: Sequence[int], inner: Sequence[Sequence[int]], in_channels: int = 3):
        super().__init__()
        self.stem = _normed(in_channels, streams[0], 3)
        self.stages, channels = nn.Sequential(), streams[0]
        for stage, (width, widths) in enumerate(zip(streams, inner, strict=True)):
            blocks = nn.Sequential()
            for number, maps in enumerate(widths):
                enters = stage > 0 and number == 0
                blocks.append(Block(channels, maps, width, 2 if enters else 1, projects=enters))
                channels = width
            self.stages.append(blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(torch.relu(self.stem(x))).mean((2, 3)))

    @property
    def sizes(self) -> dict:
        """The arguments that build a network of this shape, read from its layers: true after pruning, too."""
        return {
            "num_classes": self.head.out_features,
            "streams": [stage[0].second.conv.out_channels for stage in self.stages],
            "inner": [[block.first.conv.out_channels for block in stage] for stage in self.stages],
            "in_channels": self.stem.conv.in_channels,
        }


def resnet(num_classes: int, *, widths: Sequence[int] = (16, 32, 64), blocks: int = 2, in_channels: int = 3) -> ResNet:
    """A residual network with so many blocks in each stage, inside as wide as the stream; torch's own initialisation.

    With the defaults 14 layers: one, twelve in blocks, one; and two 1 x 1 convolutions.
    """
    return ResNet(num_classes, widths, [[width] * blocks for width in widths], in_channels)


def macs(model: nn.Module, image_shape: tuple[int, ...]) -> int:
    """MACs of one forward pass of one image (C, H, W), of any network."""
    with evaluating(model), torch.no_grad():
        return cost.macs_of(model, _image(model, image_shape))


class Group(NamedTuple):
    """Layers that lose a feature map together.

    Attributes:
        makers: convolutions whose outputs they are.
        norms: batch norms after these.
        readers: layers that read the maps.
    """

    makers: tuple[str, ...]
    norms: tuple[str, ...]
    readers: tuple[str, ...]


def groups(model: nn.Module, image_shape: tuple[int, ...]) -> list[Group]:
    """The groups of coupled layers in the order of the network, but for the output layer's, whose maps are the answer.

    Args:
        image_shape: (C, H, W). The dependency graph is found by running one image.
    """
    tp, graph = _dependencies(model, image_shape)
    name_of = {module: name for name, module in model.named_modules()}
    kinds = {tp.prune_conv_out_channels: 0, tp.prune_batchnorm_out_channels: 1}
    kinds |= dict.fromkeys((tp.prune_conv_in_channels, tp.prune_linear_in_channels), 2)
    found = []
    for coupled in graph.get_all_groups(ignored_layers=_outputs(model)):
        parts: tuple[list[str], ...] = ([], [], [])
        for dependency, _ in coupled:
            if dependency.handler in kinds:
                parts[kinds[dependency.handler]].append(name_of[dependency.target.module])
        order = list(name_of.values()).index
        found.append(Group(*(tuple(sorted(set(part), key=order)) for part in parts)))
    return sorted(found, key=lambda group: order(group.makers[0]))


def remove(model: nn.Module, plan: Plan, image_shape: tuple[int, ...]) -> nn.Module:
    """A smaller copy of any network without these feature maps, and without those that are coupled with them.

    Args:
        plan: {convolution: (K,) indices of maps}; one convolution of a group is enough, the others follow.

    Raises:
        KeyError: unknown convolution. IndexError: a map that it does not have. ValueError: a map named twice, a layer
        that would lose all its maps, or two convolutions of one group.
    """
    of = {maker: group for group in groups(model, image_shape) for maker in group.makers}
    small = copy_with(model, {})
    tp, graph = _dependencies(small, image_shape)
    seen = set()
    for name, maps in plan.items():
        if name not in of:
            raise UnknownName("convolution whose maps may go", name, of)
        if of[name] in seen:
            raise ValueError(
                f"{name!r} is coupled with another layer of the plan: name one layer of {of[name].makers}."
            )
        conv = small.get_submodule(name)
        removed = indices(name, conv.out_channels, maps).tolist()
        if len(removed) == conv.out_channels:
            raise ValueError(f"{name!r} has {conv.out_channels} feature maps: it cannot lose {len(removed)}.")
        seen.add(of[name])
        graph.get_pruning_group(conv, tp.prune_conv_out_channels, idxs=removed).prune()
    return small


def lowest(scores: Scores, share: float) -> Plan:
    """In every group the same share of its maps, those of lowest score, but never all: a plan for `remove`.

    ValueError for a share that is none.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, but a number between 0 and 1 is needed: which part of each layer goes.")
    plan = {}
    for name, s in scores.items():
        count = min(round(share * len(s)), len(s) - 1)
        if count:
            plan[name] = s.argsort()[:count].sort().values
    return plan


def gate_slopes(model: nn.Module, batches: Batches) -> Scores:
    """Derivative of each batch's mean loss by a gate after every batch norm: {norm: (batches, C)}, float64, CPU.

    A gate g after the norm multiplies gamma and beta alike, so its derivative at g = 1 is
    gamma dC/dgamma + beta dC/dbeta: every network with batch norm has its gates already.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    parameters = [parameter for norm in norms.values() for parameter in (norm.weight, norm.bias)]
    found = {name: [] for name in norms}
    with evaluating(model):
        for images, labels in batches:
            logits = model(place(images, device_of(model)))
            mean = loss.per_example(logits, labels.to(logits.device)).mean()
            gradients = torch.autograd.grad(mean, parameters)
            for at, (name, norm) in enumerate(norms.items()):
                slope = norm.weight * gradients[2 * at] + norm.bias * gradients[2 * at + 1]
                found[name].append(slope.detach().double().cpu())
    return {name: torch.stack(rows) for name, rows in found.items()}


def taylor_2019(slopes: Scores, coupled: Iterable[Group]) -> Scores:
    """Importance of Molchanov et al. 2019: the squared derivative by the gate, averaged over batches.

    The maps of a group leave together, so to first order their slopes add up, with their signs, before the square.

    Args:
        slopes: of `gate_slopes`, {norm: (batches, C)}.

    Returns:
        {first convolution of the group: (C,)}.
    """
    joint = {group.makers[0]: sum(slopes[norm] for norm in group.norms) for group in coupled}
    return {name: slope.square().mean(0) for name, slope in joint.items()}


def sparsity(model: nn.Module) -> Tensor:
    """Sum of |gamma| over all batch norms: the penalty of Network Slimming (Liu et al. 2017), for `training.fit`."""
    return sum(module.weight.abs().sum() for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def _normed(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(channels)))


def _outputs(model: nn.Module) -> list[nn.Module]:
    return [[module for module in model.modules() if isinstance(module, nn.Linear)][-1]]


def _dependencies(model: nn.Module, image_shape: tuple[int, ...]):
    import torch_pruning as tp  # a slow import, which only residual networks need

    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp, tp.DependencyGraph().build_dependency(model, example_inputs=_image(model, image_shape))


def _image(model: nn.Module, image_shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(1, *image_shape, device=device_of(model), dtype=next(model.parameters()).dtype)
