"""Export: a network for programs that do not know this course: for plain PyTorch, and for runtimes faster than it.

PyTorch runs a network one module after the other: it brings the weights of a convolution into the order that its
kernel wants at every call, and writes each feature map once more for the ReLU. A runtime that sees the whole network
packs the weights once and joins what can be joined. The thinner the layers, the more that counts: here a pruned network
gets most of the speed back that its MACs promise. `onnx` needs the extra `export`, `program` nothing more.

Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib import paths
from course_lib.feature_maps import copy_with

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Unless told not to before it is first imported, ONNX Runtime gives the machine a number and reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
TOLERANCE = 1e-4  # of the largest logit, or of 1 where all are smaller


def program(model: nn.Module, image_shape: tuple[int, ...], path: str | Path) -> Path:
    """Write a network as a file that plain PyTorch runs: ``torch.export.load(path).module()(images)``.

    In evaluation mode, for any number of images of shape (C, H, W); whole or not at all. Whoever loads it needs
    neither this course nor the network's code.

    Raises:
        ValueError: images of this shape do not fit the network.
    """
    twin = copy_with(model, {}).cpu().eval()
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0)).to(next(twin.parameters()))
    try:
        exported = torch.export.export(twin, (images,), dynamic_shapes=({0: torch.export.Dim("N")},))
    except RuntimeError as error:
        raise ValueError(f"Images of shape {tuple(image_shape)} do not fit the network: {error}") from None
    with paths.atomic(path) as temporary, temporary.open("wb") as file:
        torch.export.save(exported, file)
    return Path(path)


def onnx(model: nn.Module, image_shape: tuple[int, ...], path: str | Path) -> Path:
    """Write a network as one ONNX file, in float32 and evaluation mode, for any number of images of this shape.

    The file is checked before it is there: on random images it answers as the network does, to 1e-4.

    Args:
        model: any network of images; it is not changed.
        image_shape: (C, H, W). Unlike the network, the file takes only this one.
        path: where to write, complete or not at all; at most 2 GB, which is what one ONNX file can hold.

    Raises:
        ImportError: the extra is missing. ValueError: images of this shape do not fit the network.
        ArithmeticError: the exported network answers otherwise.
    """
    _need_packages()
    twin = copy_with(model, {}).cpu().float().eval()
    images = torch.rand(3, *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            expected = twin(images)
        except RuntimeError as error:
            raise ValueError(f"Images of shape {tuple(image_shape)} do not fit the network: {error}") from None
    with paths.atomic(path) as temporary:
        torch.onnx.export(
            twin,
            (images,),
            temporary,
            dynamo=True,
            external_data=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
        _verify(load(temporary), images, expected)
    return Path(path)


def load(path: str | Path, *, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """An ONNX file as a function of images (N, C, H, W) that returns logits (N, classes), run by ONNX Runtime.

    It runs on the CPU with so many threads; `cost.latency` times it as it times a network.

    Raises:
        ImportError: the extra is missing. FileNotFoundError: no such file. ValueError: not an ONNX file; and, when
        called, images of another shape than the file was made for.
    """
    _need_packages()
    import onnxruntime

    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {path}. Write one with export.onnx(model, image_shape, path) first.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        raise ValueError(f"{path} is not a whole ONNX file ({error}). Export it again with export.onnx.") from error
    wanted = session.get_inputs()[0]

    def run(images: Tensor) -> Tensor:
        if list(images.shape[1:]) != wanted.shape[1:]:
            shapes = f"{wanted.shape[1:]}; these are {list(images.shape[1:])}"
            raise ValueError(f"{Path(path).name} was exported for images of shape {shapes}. Export it for them.")
        numbers = images.detach().cpu().float().contiguous().numpy()
        return torch.from_numpy(session.run(None, {wanted.name: numbers})[0])

    return run


def _need_packages() -> None:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f"Exporting needs {', '.join(missing)}, which the course does not install by itself. Install the extra: "
            f"pip install 'course-lib[export]', or pip install {' '.join(PACKAGES)}."
        )


def _verify(run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> None:
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    for some in (slice(None), slice(1)):  # another number of images than the export has seen, too
        difference = float((run(images[some]) - expected[some]).abs().max())
        if not difference <= allowed:
            raise ArithmeticError(
                f"The exported network's answers differ by {difference:.1e} from the network's; at most {allowed:.1e} "
                "is rounding. No file was written. Are weights infinite or not numbers? If not, please report it."
            )
