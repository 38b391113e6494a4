"""Surgery: remove for good what a closed gate silences.

The smaller network answers exactly as the masked one does. All maps go in one pass: for every weight we list which
rows and columns stay, and select them once.

Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import copy
import inspect

import torch
from torch import Tensor, nn

from course_lib.feature_maps import Chain, Plan, copy_with

Selection = list[tuple[int, Tensor]]  # (axis of the tensor, indices that stay)


def remove(model: nn.Module, plan: Plan) -> nn.Module:
    """A smaller copy of the model without the feature maps of a plan; the given model is untouched.

    Args:
        plan: {layer: (K,) indices of feature maps to remove}.

    Returns:
        A network of the same class, dtype, device and mode, whose outputs equal those of the masked one. Parameters
        that did not require gradients still do not. Gradients and hooks stay behind.

    Raises:
        KeyError: unknown layer. IndexError: a map that the layer does not have. ValueError: a map named twice, or a
        layer that would be left with no map.
        UnsupportedModel: a network that is not a chain.
    """
    selections = select(model, plan)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    small = copy_with(model, {name: _pick(state[name].detach(), chosen) for name, chosen in selections.items()})
    for step in Chain(small).steps:
        _resize(step.module)
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
        cut = name in selections
        twin.state[new[name]] = {
            key: _pick(value, selections[name]) if cut and _is_like(value, parameter) else copy.deepcopy(value)
            for key, value in state.items()
        }
    return twin


def select(model: nn.Module, plan: Plan) -> dict[str, Selection]:
    """What stays of every weight that the plan touches: {parameter or buffer name: [(axis, indices)]}."""
    chain = Chain(model)
    kept = {layer.name: _kept(layer.name, layer.channels, plan[layer.name]) for layer in chain.select(plan)}
    selections: dict[str, Selection] = {}
    flowing, channels = None, 0  # which of the channels reach this step: None for all
    for step in chain.steps:
        if step.kind == "norm":
            for name, _ in [*step.module.named_parameters(), *step.module.named_buffers()]:
                if name != "num_batches_tracked":
                    _add(selections, f"{step.name}.{name}", 0, flowing)
        elif step.kind in ("conv", "linear"):
            reads = flowing
            if step.kind == "linear" and flowing is not None:
                reads = columns(flowing, step.module.in_features // channels)
            flowing, channels = kept.get(step.name), step.module.weight.shape[0]
            _add(selections, f"{step.name}.weight", 0, flowing)
            _add(selections, f"{step.name}.weight", 1, reads)
            if step.module.bias is not None:
                _add(selections, f"{step.name}.bias", 0, flowing)
    return selections


def columns(channels: Tensor, block: int) -> Tensor:
    """Columns of a linear layer that belong to these channels: `block` = H W neighbouring ones for each channel."""
    return (channels[:, None] * block + torch.arange(block, device=channels.device)).flatten()


def _kept(name: str, channels: int, removed: Tensor) -> Tensor:
    removed = torch.as_tensor(removed, dtype=torch.long).flatten().cpu()
    if removed.numel() and (int(removed.min()) < 0 or int(removed.max()) >= channels):
        raise IndexError(f"Layer {name!r} has feature maps 0 to {channels - 1}; the plan names {removed.tolist()}.")
    keep = torch.ones(channels, dtype=torch.bool)
    keep[removed] = False
    if int(keep.sum()) != channels - removed.numel():
        raise ValueError(f"The plan names a feature map of layer {name!r} twice: {sorted(removed.tolist())}.")
    if not keep.any():
        raise ValueError(
            f"The plan removes all {channels} feature maps of layer {name!r}, and the network would be cut in two. "
            "Keep at least one: ranking.lowest(..., keep_at_least=1) sees to it."
        )
    return keep.nonzero().flatten()


def _add(selections: dict[str, Selection], name: str, axis: int, indices: Tensor | None) -> None:
    if indices is not None:
        selections.setdefault(name, []).append((axis, indices))


def _pick(tensor: Tensor, selection: Selection) -> Tensor:
    picked = tensor
    for axis, indices in selection:
        picked = picked.index_select(axis, indices.to(tensor.device))
    channels_last = tensor.dim() == 4 and not tensor.is_contiguous()
    return picked.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


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
