"""Feature maps and the gates on them: the one mechanism behind oracle, criteria, masks and surgery.

A network that can be pruned here is a *chain*: every module takes the output of the one before. The chain is found
by tracing, so torchvision's VGG and AlexNet work as they come, and so does any network of the same kind. Each
convolutional layer has one gate for every feature map,

    z = g * ReLU(norm(conv(x)))                       (eq. 2 of Molchanov et al. 2017)

and everything the course does is something done to gates: closing one (the oracle), differentiating by one (Taylor),
looking at what it lets through (the activation criteria), removing it for good (surgery).

Taught in: notebooks/06_oracle.ipynb and notebooks/07_taylor.ipynb.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from course_lib.names import UnknownName

Scores = dict[str, Tensor]  # layer name -> (C,): one number for every feature map of that layer
Plan = dict[str, Tensor]  # layer name -> (K,) indices of feature maps
Batches = Iterable[tuple[Tensor, Tensor]]  # images (N, C, H, W) and labels (N,)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Every activation here maps 0 to 0: a silenced map stays silent all the way to the next layer.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh)
POOLINGS = tuple(
    getattr(nn, f"{kind}Pool{d}d") for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for d in (1, 2, 3)
)
PASSES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity)
KINDS = {
    "conv": CONVOLUTIONS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "pool": POOLINGS,
    "pass": PASSES,
    "flatten": (nn.Flatten,),
    "linear": (nn.Linear,),
}


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Flatten:
    return nn.Flatten(start_dim, end_dim)  # which begins at axis 1 where torch.flatten begins at 0


FUNCTIONS = {
    torch.relu: nn.ReLU,
    F.relu: nn.ReLU,
    torch.flatten: _flatten,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    "relu": nn.ReLU,
    "flatten": _flatten,
}


# What hides a network from tracing: its type, and where the network is. By name, as torch keeps one of them to itself.
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


class UnsupportedModel(ValueError):
    """The network is not a chain that this course can gate and prune; the message names the module and the way out."""


def _refuse(what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{what} This course prunes chains of convolution, batch norm, activation, pooling, dropout, flatten and "
        "linear layers, such as VGG and AlexNet. For residual, depthwise or branching networks see notebook 12 "
        "(dependency graphs with Torch-Pruning)."
    )


@dataclass(frozen=True)
class Step:
    """One module of the chain, with its dotted name and its kind (a key of `KINDS`)."""

    name: str
    module: nn.Module
    kind: str

    def __call__(self, x: Tensor) -> Tensor:
        if not getattr(self.module, "inplace", False):
            return self.module(x)
        # An in-place module would overwrite the feature maps that somebody may be looking at.
        return F.relu(x) if isinstance(self.module, nn.ReLU) else self.module(x.clone())


@dataclass(frozen=True)
class Layer:
    """A convolutional layer whose feature maps can be gated.

    The three positions index `Chain.steps`: the convolution, the step after which the gate acts (the last norm or
    activation before the next layer), and the layer that reads the feature maps.
    """

    name: str
    conv: nn.Module
    norm: nn.Module | None
    conv_at: int
    gate_at: int
    reader_at: int

    @property
    def channels(self) -> int:
        """Number of feature maps, C."""
        return self.conv.out_channels


class Chain:
    """A network as a list of steps, with a gate for every feature map.

    Attributes:
        steps: list of `Step`, in the order of execution.
        layers: dict name -> `Layer`, in order. The output layer has no gates: its maps are the answer.

    Raises:
        UnsupportedModel: if the network is not a chain (residual, grouped or shared layers, unknown modules) or has
            no feature maps.
    """

    def __init__(self, model: nn.Module):
        self.steps = trace(model)
        self.layers = {layer.name: layer for layer in _find_layers(self.steps)}
        if not self.layers:
            raise UnsupportedModel(
                f"{type(model).__name__} has no feature maps to prune: no convolution has another layer after it."
            )
        self._gated = {layer.gate_at: layer.name for layer in self.layers.values()}

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the images that the network takes."""
        return next(iter(self.layers.values())).conv.weight.dtype

    def select(self, names: Iterable[str] | None) -> list[Layer]:
        """The layers of these names in order (None: all). KeyError with the nearest names for an unknown one."""
        wanted = list(self.layers) if names is None else list(names)
        for name in wanted:
            if name not in self.layers:
                raise UnknownName("layer", name, self.layers)
        return [layer for name, layer in self.layers.items() if name in wanted]

    def run(
        self,
        x: Tensor,
        start: int = 0,
        stop: int | None = None,
        gates: dict[str, Tensor] | None = None,
        taps: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Run steps `start` to `stop` on x.

        Args:
            x: (N, C, H, W) input of step `start`.
            gates: layer name -> (C,) or (N, C); feature maps are multiplied by them. Missing layers stay open.
            taps: an empty dict, filled with layer name -> (N, C, H, W), the feature maps after their gates.

        Returns:
            Output of the last step: logits (N, classes) for the whole chain.

        Raises:
            KeyError: a gate of an unknown layer, with the nearest names.
        """
        if gates is not None:
            self.select(gates)
        for at in range(start, len(self.steps) if stop is None else stop):
            x = self.steps[at](x)
            name = self._gated.get(at)
            if name is not None and gates is not None and name in gates:
                x = x * spread(gates[name], x)
            if name is not None and taps is not None:
                taps[name] = x
        return x


def spread(gate: Tensor, z: Tensor) -> Tensor:
    """A gate (C,) or (N, C) with the missing spatial axes appended, ready to multiply maps z (N, C, ...)."""
    return gate.to(z.dtype).reshape(*gate.shape, *[1] * (z.dim() - 2))


def indices(layer: str, channels: int, maps: Iterable[int] | Tensor) -> Tensor:
    """Feature maps of a layer of so many, as they were named, (K,) int64 on the CPU.

    Raises:
        TypeError: what are no whole numbers, such as a mask of booleans. IndexError: a map that the layer does not
        have. ValueError: one named twice.
    """
    found = torch.as_tensor(maps).flatten().cpu()
    if not found.numel():
        return found.long()
    if found.dtype == torch.bool or found.is_floating_point():
        raise TypeError(
            f"Feature maps of layer {layer!r} are given as {found.dtype}: give their numbers, whole ones; those of a "
            "mask of booleans are mask.nonzero().flatten()."
        )
    if int(found.min()) < 0 or int(found.max()) >= channels:
        raise IndexError(f"Layer {layer!r} has feature maps 0 to {channels - 1}, not all of {found.tolist()}.")
    if len(found.unique()) < len(found):
        raise ValueError(f"A feature map of layer {layer!r} is named twice: {sorted(found.tolist())}.")
    return found.long()


def mask(plan: Plan, model: nn.Module) -> dict[str, Tensor]:
    """Gates (C,) of zeros and ones that close the maps of a plan: what surgery will remove for good.

    Errors of the plan are those of `Chain.select` and `indices`.
    """
    chain = Chain(model)
    gates = {}
    for layer in chain.select(plan):
        gates[layer.name] = torch.ones(layer.channels, device=layer.conv.weight.device)
        gates[layer.name][indices(layer.name, layer.channels, plan[layer.name])] = 0.0
    return gates


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode (no dropout, running batch-norm statistics) for a while; then every module's own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter; refuses half precision on a CPU, where sums of gradients overflow."""
    parameter = next(model.parameters())
    if parameter.dtype == torch.float16 and parameter.device.type == "cpu":
        raise TypeError(
            "The model is in half precision (torch.float16) on a CPU, where training and scoring are slow and "
            "overflow. Call model.float() first; models.save(..., dtype=torch.float16) stores it in half again."
        )
    return parameter.device


def place(images: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Images on the device, in channels-last memory, in which convolutions on a CPU run up to a third faster.

    `dtype`: of the network's weights; TypeError, with the way out, for images of another.
    """
    if dtype is not None and images.dtype != dtype:
        raise TypeError(
            f"The images are {images.dtype}, the weights of the network {dtype}. Give both the same type: "
            f"images.to({dtype}) or model.to({images.dtype})."
        )
    layout = torch.channels_last if images.dim() == 4 else torch.preserve_format
    return images.to(device, memory_format=layout)


def placed(batches: Batches, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (images, labels) on the device, images as `place` puts them; those without an example are left out.

    TypeError for a batch by itself, where a list of batches is expected.
    """
    for batch in batches:
        if isinstance(batch, Tensor):
            raise TypeError("`batches` are pairs (images, labels); of a single one make a list, [(images, labels)].")
        images, labels = batch
        if len(labels):
            yield place(images, device, dtype), labels.to(device)


def trace(model: nn.Module) -> list[Step]:
    """The steps of a chain, by symbolic tracing: no data needed, and functional ReLU and flatten are seen too.

    Raises:
        UnsupportedModel: naming the module where the network is not a chain.
    """
    if inside := WRAPPERS.get(type(model).__name__):
        raise UnsupportedModel(f"{type(model).__name__} is wrapped around the network: give model.{inside} instead.")
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        raise _refuse(f"{type(model).__name__} cannot be traced ({type(error).__name__}: {error}).") from error
    modules, steps, previous = dict(model.named_modules()), [], None
    for node in graph.nodes:
        if _asks_size(node):
            continue
        if node.op == "output":
            if node.args[0] is not previous:
                raise _refuse(f"{type(model).__name__} returns something other than the output of its last layer.")
            break
        inputs = [source for source in node.all_input_nodes if not _asks_size(source)]
        expected = [] if previous is None else [previous]
        if inputs != expected or len([user for user in node.users if not _asks_size(user)]) != 1:
            name = getattr(node.target, "__name__", node.target)  # a function's repr is an address in memory
            raise _refuse(f"{name!r} joins, splits or skips: the network is not a chain there.")
        if previous is not None:
            steps.append(_step(node, modules, {step.name for step in steps}))
        previous = node
    _refuse_shared(steps)
    return steps


def _asks_size(node: fx.Node) -> bool:
    """`x.size(0)` and `x.shape`, as in x.view(x.size(0), -1): they look at the chain without being part of it."""
    reads_shape = node.op == "call_function" and "shape" in node.args[1:]
    reads_item = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    return (node.op == "call_method" and node.target == "size") or reads_shape or reads_item


def _step(node: fx.Node, modules: dict[str, nn.Module], taken: set[str]) -> Step:
    if node.op == "call_module":
        module = modules[node.target]
    elif node.target in ("view", "reshape") and len(node.args) == 3 and node.args[2] == -1:
        module = nn.Flatten()
    elif node.target in FUNCTIONS:
        arguments = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        module = FUNCTIONS[node.target](*node.args[1:], **arguments)
    else:
        raise _refuse(f"The operation {getattr(node.target, '__name__', node.target)!r} is not known here.")
    # One ReLU or pooling may serve in several places: from the second on it goes by its unique name in the graph.
    name = node.target if node.op == "call_module" and node.target not in taken else node.name
    for kind, types in KINDS.items():
        if type(module) in types:
            _check_module(name, module)
            return Step(name, module, kind)
    raise _refuse(f"Module {name!r} is a {type(module).__name__}, which is not known here.")


def _check_module(name: str, module: nn.Module) -> None:
    if getattr(module, "groups", 1) != 1:
        raise _refuse(f"Module {name!r} is a grouped (perhaps depthwise) convolution with groups={module.groups}.")
    if hasattr(module, "weight") and "weight" not in module._parameters:
        raise _refuse(
            f"Module {name!r} computes its weight anew in each pass, as torch.nn.utils.prune and weight_norm do; make "
            "it permanent first (prune.remove, remove_weight_norm)."
        )
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise _refuse(f"Module {name!r} flattens other axes than all but the first.")


def _refuse_shared(steps: list[Step]) -> None:
    seen: dict[int, str] = {}
    for step in steps:
        for parameter in step.module.parameters():
            if id(parameter) in seen:
                raise _refuse(f"Module {step.name!r} shares its weights with {seen[id(parameter)]!r}.")
            seen[id(parameter)] = step.name


def _find_layers(steps: list[Step]) -> Iterator[Layer]:
    """Every convolution that another layer reads, with the last norm or activation in between as its gate's place."""
    positions = [at for at, step in enumerate(steps) if step.kind in ("conv", "linear")]
    for at, reader_at in zip(positions, positions[1:], strict=False):
        if steps[at].kind != "conv":
            continue
        between = range(at + 1, reader_at)
        flat_at = next((i for i in between if steps[i].kind == "flatten"), reader_at)
        if flat_at == reader_at and steps[reader_at].kind == "linear":
            raise _refuse(f"Module {steps[reader_at].name!r} reads feature maps that were not flattened.")
        late_norm = next((i for i in between if i > flat_at and steps[i].kind == "norm"), None)
        if late_norm is not None:
            raise _refuse(f"Module {steps[late_norm].name!r} normalises after flattening.")
        gate_at = max((i for i in between if i < flat_at and steps[i].kind in ("norm", "activation")), default=at)
        norm = next((steps[i].module for i in between if steps[i].kind == "norm"), None)
        yield Layer(steps[at].name, steps[at].module, norm, at, gate_at, reader_at)


def copy_with(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A copy of the model whose parameters and buffers are these tensors, by name; the others are copied.

    The replaced weights are never copied first, so a large network needs no second set of them. Gradients, and hooks
    that somebody has left on a module, stay behind.
    """
    memo: dict[int, object] = {}
    for name, parameter in model.named_parameters():
        data = tensors[name] if name in tensors else parameter.detach().clone()
        memo[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    for name, buffer in model.named_buffers():
        memo[id(buffer)] = tensors[name] if name in tensors else buffer.detach().clone()
    for module in model.modules():
        memo |= {id(hooks): type(hooks)() for key, hooks in vars(module).items() if key.endswith("_hooks")}
    return copy.deepcopy(model, memo)
