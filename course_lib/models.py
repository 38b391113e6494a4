"""The networks of the course: VGG-16, AlexNet and two LeNets, plus trained ones by name.

Every network is a plain `nn.Sequential` of `nn.Sequential`s whose parts carry torchvision's names, so torchvision's
weights load, `print(model)` shows everything there is, and a pruned network needs no class of its own: its
architecture is a list, saved beside its weights. The one exception, a residual network, is in residual.py.

Taught in: notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections import OrderedDict
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from course_lib import paths
from course_lib.feature_maps import KINDS, Step, trace
from course_lib.names import UnknownName
from course_lib.residual import ResNet

VGG16_CHANNELS = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
FORMAT = "course_lib 1"
TORCHVISION = {"vgg16-imagenet": "vgg16", "vgg16_bn-imagenet": "vgg16_bn", "alexnet-imagenet": "alexnet"}


def vgg16(
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    batch_norm: bool = False,
    compact: bool = False,
    in_channels: int = 3,
    trunk: str | Path | None = None,
) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015): 13 convolutional layers, 4,224 feature maps at width 1.

    Args:
        num_classes: number of outputs.
        width: factor on the number of feature maps of every layer.
        batch_norm: batch norm after every convolution, as in torchvision's vgg16_bn.
        compact: global average pooling and one linear layer instead of three, for small images.
        in_channels: 3 for colour images, 1 for grey ones.
        trunk: file with weights for `features.*` (safetensors, or a state dict that loads with weights_only).

    Returns:
        A network for images (N, in_channels, H, W) with H and W at least 32; logits (N, num_classes).
    """
    features, channels = [], in_channels
    for item in VGG16_CHANNELS:
        if item == "M":
            features.append(nn.MaxPool2d(2, 2))
            continue
        maps = max(1, round(item * width))
        features.append(nn.Conv2d(channels, maps, 3, padding=1))
        features += [nn.BatchNorm2d(maps)] if batch_norm else []
        features.append(nn.ReLU())
        channels = maps
    head = _linear_head(channels, num_classes) if compact else _vgg_head(channels, num_classes, round(4096 * width))
    model = initialise(nn.Sequential(OrderedDict(features=nn.Sequential(*features), **head)))
    if trunk is not None:
        load_trunk(model, trunk)
    return model


def alexnet(
    num_classes: int = 1000, *, width: float = 1.0, compact: bool = False, in_channels: int = 3
) -> nn.Sequential:
    """AlexNet as torchvision has it: five convolutional layers, 1,152 feature maps at width 1.

    `compact` is for images of 32 to 64 pixels: a 3 x 3 first layer of stride 1 and one linear layer at the end.
    Images (N, in_channels, H, W); logits (N, num_classes).
    """
    a, b, c, d, e = (max(1, round(maps * width)) for maps in (64, 192, 384, 256, 256))
    first = nn.Conv2d(in_channels, a, 3, padding=1) if compact else nn.Conv2d(in_channels, a, 11, 4, 2)
    pool = (lambda: nn.MaxPool2d(2, 2)) if compact else (lambda: nn.MaxPool2d(3, 2))
    features = [first, nn.ReLU(), pool(), nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), pool()]
    features += [nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU()]
    features += [nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), pool()]
    head = _linear_head(e, num_classes) if compact else _alexnet_head(e, num_classes, round(4096 * width))
    return initialise(nn.Sequential(OrderedDict(features=nn.Sequential(*features), **head)))


def lenet_300_100(
    num_classes: int = 10, *, pixels: int = 28 * 28, hidden: tuple[int, int] = (300, 100)
) -> nn.Sequential:
    """LeNet-300-100: images (N, 1, H, W) with H W = pixels; logits (N, num_classes). It has no feature maps.

    `hidden`: units of the two hidden layers; smaller ones for smaller images.
    """
    first, second = hidden
    layers = [("flatten", nn.Flatten()), ("fc1", nn.Linear(pixels, first)), ("relu1", nn.ReLU())]
    layers += [("fc2", nn.Linear(first, second)), ("relu2", nn.ReLU()), ("fc3", nn.Linear(second, num_classes))]
    return initialise(nn.Sequential(OrderedDict(layers)))


def lenet_5(num_classes: int = 10) -> nn.Sequential:
    """LeNet-5 in the form of Caffe, the one that Ullrich et al. compress: images (N, 1, 28, 28); 70 feature maps."""
    layers = [("conv1", nn.Conv2d(1, 20, 5)), ("pool1", nn.MaxPool2d(2, 2))]
    layers += [("conv2", nn.Conv2d(20, 50, 5)), ("pool2", nn.MaxPool2d(2, 2)), ("flatten", nn.Flatten())]
    layers += [("fc1", nn.Linear(800, 500)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(500, num_classes))]
    return initialise(nn.Sequential(OrderedDict(layers)))


def initialise(model: nn.Module) -> nn.Module:
    """Draw all weights anew, in place, from torch's global generator.

    Kaiming-normal weights and zero biases; the output layer at half size, so that a deep plain network starts.
    """
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layers[-1].weight.mul_(0.5 / math.sqrt(2))
    return model


def trained(name: str) -> nn.Module:
    """A trained network by name, in evaluation mode: one of `names()`.

    Embedded networks are read from `data/checkpoints`, their sha256 checked; those that end in `-imagenet` are
    downloaded once by torchvision, hash checked too.

    Raises:
        KeyError: unknown name (the nearest are listed).
        ValueError: a file that does not match its checksum.
        ConnectionError: no network and nothing downloaded before.
    """
    if name in TORCHVISION:
        return _download(name)
    if name not in names():
        raise UnknownName("trained network", name, names())
    path = paths.data_dir() / "checkpoints" / f"{name}.safetensors"
    expected = checksums()[path.name]
    if not path.exists() or sha256(path) != expected:
        raise ValueError(
            f"{path} does not match its sha256 ({expected[:12]}...): the file is missing, damaged or was replaced. "
            "Restore it with 'git checkout -- data/checkpoints', or rebuild it with 'make checkpoints'."
        )
    return load(path)


def names() -> list[str]:
    """Names that `trained` knows: embedded networks first, then those that torchvision downloads."""
    return [Path(file).stem for file in checksums()] + list(TORCHVISION)


def checksums() -> dict[str, str]:
    """File name -> sha256 of the embedded checkpoints, from data/checkpoints/SHA256SUMS."""
    listing = paths.data_dir() / "checkpoints" / "SHA256SUMS"
    lines = listing.read_text().splitlines() if listing.exists() else []
    return {line.split()[1]: line.split()[0] for line in lines if line.strip()}


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def save(model: nn.Module, path: str | Path, *, dtype: torch.dtype | None = None, notes: dict | None = None) -> Path:
    """Save architecture and weights in one safetensors file, whatever its layers' sizes: whole or not at all.

    The architecture is a JSON list in the file's metadata, so `load` rebuilds a pruned network without pruning code; of
    a `residual.ResNet` it is the sizes that build it.

    Args:
        dtype: store the floating-point weights in this type (float16 halves the file); `load` gives float32 back.
        notes: short facts to keep in the file, such as recipe and accuracy; read them with `notes(path)`.

    Raises:
        UnsupportedModel: if the network is neither a chain nor a `residual.ResNet`. ValueError: a weight too large for
            `dtype`.
    """
    residual = isinstance(model, ResNet)
    built_from = {"residual": model.sizes} if residual else {"architecture": architecture(model)}
    state = model.state_dict() if residual else chain_state(model)
    weights = {key: _stored(key, value, dtype) for key, value in state.items()}
    return write_safetensors(path, weights, {**built_from, "notes": notes or {}})


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], header: dict) -> Path:
    """Write tensors and a JSON-able header to a safetensors file that is complete or absent, never half there.

    The same content always makes the same bytes, and a seal over all of it tells damage when it is read again.
    """
    content = {key: value.contiguous() for key, value in tensors.items()}
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in header.items()}}
    metadata["sha256"] = _seal(content, metadata)
    with paths.atomic(path) as temporary:
        temporary.write_bytes(_in_order(safetensors.torch.save(content, metadata)))
    return Path(path)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """Hexadecimal sha256 of named tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _seal(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    forms = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    content = [metadata, forms, fingerprint(dict(sorted(tensors.items())))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata in alphabetical order; otherwise it changes from call to call."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors that follow are aligned
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and header of a file that `write_safetensors` wrote. ValueError for anything else, and for damage."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}. Save a network with models.save(model, path) first.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): copy or save it again.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by this course: it holds weights, but not their architecture.")
    if metadata.pop("sha256", None) != _seal(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content does not match its sha256. Copy or save it again.")
    return tensors, {key: json.loads(value) for key, value in metadata.items() if key != "format"}


def load(path: str | Path) -> nn.Module:
    """The network that `save` wrote, in float32 and evaluation mode."""
    weights, header = read_safetensors(path)
    if "residual" in header:
        model: nn.Module = ResNet(**header["residual"])
    elif "architecture" in header:
        model = build(header["architecture"])
    else:
        raise ValueError(
            f"{path} holds no network, but {' and '.join(sorted(header))}. From the checkpoints of a pruning run, the "
            "same call of pruning.prune makes its networks again; keep one with models.save."
        )
    model.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    )
    return model.eval()


def notes(path: str | Path) -> dict:
    """The facts that `save` kept beside the weights."""
    return read_safetensors(path)[1].get("notes", {})


def architecture(model: nn.Module) -> list[dict]:
    """A chain as a JSON-able list, one entry a module: name, type, and the arguments that build it."""
    return [{"name": step.name, "type": type(step.module).__name__, **_arguments(step)} for step in trace(model)]


def chain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the chain that `build(architecture(model))` makes."""
    return {f"{s.name}.{key}": value for s in trace(model) for key, value in s.module.state_dict().items()}


def build(entries: list[dict]) -> nn.Sequential:
    """The network that an `architecture` list describes: nested nn.Sequentials that carry the dotted names."""
    known = {kind.__name__: kind for kinds in KINDS.values() for kind in kinds}
    root = nn.Sequential()
    for entry in entries:
        arguments = {key: value for key, value in entry.items() if key not in ("name", "type")}
        if entry["type"] not in known:
            raise UnknownName("layer type", entry["type"], known)
        *parents, leaf = entry["name"].split(".")
        parent = root
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, nn.Sequential())
            parent = parent._modules[part]
        parent.add_module(leaf, known[entry["type"]](**arguments))
    return root


def load_trunk(model: nn.Module, path: str | Path) -> nn.Module:
    """Load `features.*` weights from a file into the model, whose classifier stays as it is."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no trunk {path}: give the file with the weights of 'features.*'.")
    state = _read_state(path)
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith("features.")}
    if missing := [key for key in wanted if key not in state]:
        raise ValueError(f"{path} lacks {len(missing)} of the network's weights, the first is {missing[0]!r}.")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            sizes = f"{tuple(state[key].shape)} there, {tuple(value.shape)} in the network"
            raise ValueError(f"{path} is of a network of another size: {key!r} is {sizes}. Give it the same width.")
    model.load_state_dict({key: state[key].float() for key in wanted}, strict=False)
    return model


def _read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors or torch's format; nothing in the file is executed."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files torch's reader raises nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a whole file of weights ({reason}): copy or download it again.") from error
    if not (isinstance(state, dict) and all(torch.is_tensor(value) for value in state.values())):
        raise ValueError(f"{path} holds no named tensors: give a file that torch.save(model.state_dict(), ...) wrote.")
    return state


def fresh_head(model: nn.Module, num_classes: int, seed: int = 0) -> nn.Module:
    """Give the model, in place, a new output layer with small weights: the start of transfer learning."""
    last = [step for step in trace(model) if step.kind == "linear"][-1]
    head = nn.Linear(last.module.in_features, num_classes)
    with torch.no_grad():
        head.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
        head.bias.zero_()
    parent, _, leaf = last.name.rpartition(".")
    model.get_submodule(parent)._modules[leaf] = head.to(last.module.weight)
    return model


ARGUMENTS = {
    "conv": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode"),
    "norm": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "linear": ("in_features", "out_features"),
    "pool": (
        *("kernel_size", "stride", "padding", "dilation", "ceil_mode", "count_include_pad", "divisor_override"),
        "output_size",
    ),
    "pass": ("p",),
    "activation": ("negative_slope", "alpha", "approximate"),
    "flatten": (),
}


def _arguments(step: Step) -> dict:
    arguments = {key: getattr(step.module, key) for key in ARGUMENTS[step.kind] if hasattr(step.module, key)}
    if step.kind in ("conv", "linear"):
        arguments["bias"] = step.module.bias is not None
    return arguments


def _stored(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not value.is_floating_point():
        return value
    stored = value.to(dtype)
    if torch.isfinite(value).sum() != torch.isfinite(stored).sum():
        raise ValueError(f"{name!r} holds numbers too large for {dtype}. Save the network without dtype=....")
    return stored


def _linear_head(channels: int, num_classes: int) -> dict[str, nn.Module]:
    return {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Sequential(nn.Linear(channels, num_classes)),
    }


def _vgg_head(channels: int, num_classes: int, units: int) -> dict[str, nn.Module]:
    layers = [nn.Linear(channels * 49, units), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(units, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, num_classes)]
    return {"avgpool": nn.AdaptiveAvgPool2d(7), "flatten": nn.Flatten(), "classifier": nn.Sequential(*layers)}


def _alexnet_head(channels: int, num_classes: int, units: int) -> dict[str, nn.Module]:
    layers = [nn.Dropout(), nn.Linear(channels * 36, units), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(units, units), nn.ReLU(), nn.Linear(units, num_classes)]
    return {"avgpool": nn.AdaptiveAvgPool2d(6), "flatten": nn.Flatten(), "classifier": nn.Sequential(*layers)}


def _download(name: str) -> nn.Module:
    from urllib.error import URLError

    from torchvision.models import get_model, get_model_weights

    weights = get_model_weights(TORCHVISION[name]).DEFAULT
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise ConnectionError(
            f"{name} could not be downloaded ({error}). Connect once, or put {weights.url.rsplit('/')[-1]} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}; if nothing can be written there, set the environment "
            "variable TORCH_HOME to a folder you can write to. Offline, use one of the embedded networks: "
            f"{', '.join(n for n in names() if n not in TORCHVISION)}."
        ) from error
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{name} is damaged ({str(error).partition(chr(10))[0]}). Remove {weights.url.rsplit('/')[-1]} from "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'} if it is there, and try again."
        ) from error
    model = get_model(TORCHVISION[name], weights=None)
    model.load_state_dict(state)
    return model.eval()
