"""Surgery: remove for good what a closed gate silences.

The smaller network answers exactly as the masked one does. All maps go in one pass: for every weight we list which
rows and columns stay, and select them once.

Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import copy
import inspect
import math

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.feature_maps import Chain, Layer, Plan, copy_with, indices

Selection = list[tuple[int, Tensor]]  # (axis of a tensor, (C,) True for the channels that stay)
HUGE = 1 << 22  # bytes from which NumPy asks the operating system for huge pages
ALIGNMENT = 64  # bytes: torch's own, on which the kernels' speed and the last bits of their sums depend


@torch.inference_mode(False)  # tensors that are made in inference mode could never be trained
def remove(model: nn.Module, plan: Plan) -> nn.Module:
    """A smaller copy of the model without the feature maps of a plan; the given model is untouched.

    Args:
        plan: {layer: (K,) indices of feature maps to remove}. Counts that run fast are made where the scores are known:
            `ranking.lowest(..., round_to=16)`.

    Returns:
        A network of the same class, dtype, device and mode, whose outputs equal those of the masked one. Parameters
        that did not require gradients still do not. Gradients and hooks stay behind.

    Raises:
        KeyError: unknown layer. IndexError: a map that the layer does not have. TypeError: indices that are no whole
        numbers. ValueError: a map named twice, or a layer that would be left with no map.
        UnsupportedModel: a network that is not a chain.
    """
    selections = select(model, plan)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    small = copy_with(model, {name: _pick(value.detach(), selections.get(name, [])) for name, value in state.items()})
    for name in {key.rpartition(".")[0] for key in selections}:
        _resize(small.get_submodule(name))
    return small


def carry_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, small: nn.Module, plan: Plan
) -> torch.optim.Optimizer:
    """An optimizer of the same kind for the smaller model, with momentum and the like of the weights that stay.

    The old optimizer still holds the old weights: going on with it would train a network that nobody uses. Nothing is
    shared between the two. ValueError for an optimizer of another model.
    """
    selections, old, new = select(model, plan), dict(model.named_parameters()), dict(small.named_parameters())
    names = {id(parameter): name for name, parameter in old.items()}
    if any(id(parameter) not in names for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("The optimizer holds weights that the model does not have: give the one that trains it.")
    groups = [
        {**group, "params": [new[names[id(parameter)]] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    accepted = inspect.signature(type(optimizer)).parameters
    defaults = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    twin = type(optimizer)(groups, **defaults)
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        selection = selections.get(name, [])
        twin.state[new[name]] = {
            key: _pick(value, selection) if _is_like(value, parameter) else copy.deepcopy(value)
            for key, value in state.items()
        }
    return twin


def select(model: nn.Module, plan: Plan) -> dict[str, Selection]:
    """What stays of every weight that the plan touches: {parameter or buffer name: [(axis, channels that stay)]}."""
    chain = Chain(model)
    kept = {layer.name: _kept(layer, plan[layer.name]) for layer in chain.select(plan)}
    selections: dict[str, Selection] = {}
    flowing = None  # which of the channels reach this step: None for all
    for step in chain.steps:
        if step.kind == "norm":
            for name, _ in [*step.module.named_parameters(), *step.module.named_buffers()]:
                if name != "num_batches_tracked":
                    _add(selections, f"{step.name}.{name}", 0, flowing)
        elif step.kind in ("conv", "linear"):
            reads, flowing = flowing, kept.get(step.name)
            _add(selections, f"{step.name}.weight", 0, flowing)
            _add(selections, f"{step.name}.weight", 1, reads)
            if step.module.bias is not None:
                _add(selections, f"{step.name}.bias", 0, flowing)
    return selections


def _kept(layer: Layer, maps: Tensor) -> Tensor:
    keep = torch.ones(layer.channels, dtype=torch.bool)
    keep[indices(layer.name, layer.channels, maps)] = False
    if not keep.any():
        raise ValueError(
            f"The plan removes all {layer.channels} feature maps of layer {layer.name!r}, and the network would be cut "
            "in two. Keep at least one: ranking.lowest(..., keep_at_least=1) sees to it."
        )
    return keep


def _add(selections: dict[str, Selection], name: str, axis: int, keep: Tensor | None) -> None:
    if keep is not None:
        selections.setdefault(name, []).append((axis, keep))


def _pick(tensor: Tensor, selection: Selection) -> Tensor:
    """A copy of what stays of a tensor, laid out in memory as it was (channels last, for instance)."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    packed = tensor.permute(order)
    for axis, keep in selection:
        packed = _take(packed, order.index(axis), keep)
    if not selection:
        packed = _empty(packed.shape, tensor).copy_(packed)
    return packed.permute([order.index(axis) for axis in range(tensor.dim())])


def _take(tensor: Tensor, axis: int, keep: Tensor) -> Tensor:
    # After a flatten, a channel owns a block of H W neighbouring columns; elsewhere the block is one.
    blocks = tensor.unflatten(axis, (len(keep), -1))
    indices = keep.nonzero().flatten().to(tensor.device)
    shape = (*blocks.shape[:axis], len(indices), *blocks.shape[axis + 1 :])
    return torch.index_select(blocks, axis, indices, out=_empty(shape, tensor)).flatten(axis, axis + 1)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory that nobody has written to, of the type and on the device of another tensor.

    Surgery is a copy of half a gigabyte, and four fifths of its time went into the operating system handing out that
    memory in pages of 4 kB. NumPy asks for pages of 2 MB where an array is large, torch by itself does not.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < HUGE:
        return like.new_empty(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return torch.from_numpy(memory[start : start + size]).view(like.dtype).view(shape)


def _is_like(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _resize(module: nn.Module) -> None:
    """Bring a module's own record of its sizes in step with its weights."""
    if hasattr(module, "out_channels"):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif hasattr(module, "out_features"):
        module.out_features, module.in_features = module.weight.shape
    elif hasattr(module, "num_features"):
        sized = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        module.num_features = module.num_features if sized is None else len(sized)
