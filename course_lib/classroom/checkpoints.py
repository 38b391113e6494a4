"""Train the embedded networks from this repository alone: `make checkpoints`.

A plain VGG-16 does not start from random weights in reasonable time, so we go the way of practice: a network with
batch norm learns a wide world of invented species, its batch norm is folded into the convolutions (exactly), and the
plain network is fine-tuned to the ten species of the course. That makes the course's transfer learning as real as
the paper's, from ImageNet to flowers. The smaller AlexNet learns the ten species at once, with batch norm that is
folded in the same way.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from course_lib import cost, datasets, models, paths, residual, training
from course_lib.feature_maps import Chain

WIDTH, IMAGE_SIZE, WORLD = 0.25, 32, 96
NETWORKS = {13: "VGG-16", 5: "AlexNet"}  # by their number of layers with feature maps


def fold_batch_norm(model: nn.Module, plain: nn.Module) -> nn.Module:
    """Give `plain` the weights of `model` with batch norm folded into the convolutions: the same function."""
    sources, targets = Chain(model).steps, Chain(plain).steps
    norms = {at: step.module for at, step in enumerate(sources) if step.kind == "norm"}
    weighted = [(at, step.module) for at, step in enumerate(sources) if step.kind in ("conv", "linear")]
    receivers = [step.module for step in targets if step.kind in ("conv", "linear")]
    for (at, source), target in zip(weighted, receivers, strict=True):
        folded = fuse_conv_bn_eval(source.eval(), norms[at + 1].eval()) if at + 1 in norms else source
        target.load_state_dict(folded.state_dict())
    return plain.eval()


def with_batch_norm(model: nn.Module) -> nn.Module:
    """The model with a new batch norm after every convolution of its `features`; all layers are shared with it."""
    parts = []
    for layer in model.features:
        parts += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    others = {name: part for name, part in model.named_children() if name != "features"}
    return nn.Sequential(OrderedDict(features=nn.Sequential(*parts), **others))


def world(seed: int) -> tuple[nn.Module, datasets.Splits, dict]:
    """VGG-16 at quarter width on 96 invented species."""
    splits = datasets.load("petals", world=WORLD, image_size=IMAGE_SIZE, train=20_000, test=2_000, seed=seed)
    torch.manual_seed(seed)
    model = models.vgg16(WORLD, width=WIDTH, batch_norm=True, compact=True)
    training.fit(model, splits.train, epochs=14, lr=2e-3, batch_size=64, augment=True, seed=seed, label="world")
    folded = fold_batch_norm(model, models.vgg16(WORLD, width=WIDTH, compact=True))
    recipe = "14 epochs of 20,000 images, batch norm, AdamW 2e-3, one cycle, flips and shifts; batch norm folded"
    return folded, splits, {"recipe": recipe}


def petals(seed: int) -> tuple[nn.Module, datasets.Splits, dict]:
    """The world's network fine-tuned to the ten species of the course."""
    splits = datasets.load("petals", image_size=IMAGE_SIZE, seed=seed)
    model = models.fresh_head(models.trained("vgg16-world"), len(splits.classes), seed)
    training.fit(model, splits.train, epochs=6, lr=1e-3, augment=True, seed=seed, label="petals")
    recipe = "vgg16-world with a new output layer, 6 epochs of 5,000 images, AdamW 1e-3, one cycle, flips and shifts"
    return model, splits, {"recipe": recipe}


def residual_petals(seed: int) -> tuple[nn.Module, datasets.Splits, dict]:
    """A small residual network, which needs no pre-training: trained on the ten species from random weights."""
    splits = datasets.load("petals", image_size=IMAGE_SIZE, seed=seed)
    torch.manual_seed(seed)
    model = residual.resnet(len(splits.classes))
    training.fit(model, splits.train, epochs=12, lr=4e-3, augment=True, seed=seed, label="residual network")
    recipe = "random weights, 12 epochs of 5,000 images, AdamW 4e-3, one cycle, flips and shifts"
    return model, splits, {"recipe": recipe}


def alexnet(seed: int) -> tuple[nn.Module, datasets.Splits, dict]:
    """AlexNet at quarter width, from random weights to the ten species of the course."""
    splits = datasets.load("petals", image_size=IMAGE_SIZE, train=10_000, seed=seed)
    torch.manual_seed(seed)
    plain = models.alexnet(len(splits.classes), width=WIDTH, compact=True)
    model = with_batch_norm(plain)
    training.fit(model, splits.train, epochs=6, lr=2e-3, batch_size=64, augment=True, seed=seed, label="alexnet")
    recipe = "6 epochs of 10,000 images, batch norm, AdamW 2e-3, one cycle, flips and shifts; batch norm folded"
    return fold_batch_norm(model, plain), splits, {"recipe": recipe}


RECIPES = {"vgg16-world": world, "vgg16-petals": petals, "resnet-petals": residual_petals, "alexnet-petals": alexnet}


def make(name: str, folder: Path, seed: int) -> Path:
    """Train one network, save it in half precision, measure the saved one, write its card and its checksum."""
    began = time.perf_counter()
    model, splits, facts = RECIPES[name](seed)
    seconds = time.perf_counter() - began
    path = models.save(model, folder / f"{name}.safetensors", dtype=torch.float16)
    found = training.evaluate(models.load(path), splits.test)
    facts |= {"seed": seed, "seconds": round(seconds), "torch": torch.__version__, "test_images": len(splits.test)}
    facts |= {"test_accuracy": round(found.accuracy, 4), "test_loss": round(found.loss, 4)}
    models.save(model, path, dtype=torch.float16, notes=facts)
    _write_card(path, model, facts)
    _write_checksums(folder)
    print(f"{name}: test accuracy {found.accuracy:.1%}, {path.stat().st_size / 1e6:.2f} MB, {seconds:.0f} s")
    return path


def describe(model: nn.Module) -> str:
    """A network in numbers: what kind, parameters, MACs."""
    if isinstance(model, residual.ResNet):
        kind = f"residual network with streams of {', '.join(map(str, model.sizes['streams']))} feature maps"
    else:
        name = NETWORKS[len(Chain(model).layers)]
        kind = f"{name}, width {WIDTH}, {cost.feature_maps(model):,} feature maps"
    macs = residual.macs(model, (3, IMAGE_SIZE, IMAGE_SIZE))
    work = f"{macs / 1e6:.1f} million MACs for an image of {IMAGE_SIZE} x {IMAGE_SIZE}"
    return f"{kind}, {cost.parameters(model):,} parameters, {work}"


def _write_card(path: Path, model: nn.Module, facts: dict) -> None:
    rows = {
        "file": f"`{path.name}`, {path.stat().st_size / 1e6:.2f} MB, weights in float16",
        "network": describe(model),
        "recipe": facts["recipe"],
        "test accuracy": f"{facts['test_accuracy']:.1%} on {facts['test_images']:,} images (of the file as stored)",
        "trained": f"in {facts['seconds']} s with seed {facts['seed']} and torch {facts['torch']}",
        "rebuilt by": f"`python -m course_lib checkpoints --only {path.stem}`",
    }
    lines = [f"# {path.stem}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _write_checksums(folder: Path) -> None:
    lines = [f"{models.sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.safetensors"))]
    with paths.atomic(folder / "SHA256SUMS") as temporary:
        temporary.write_text("".join(lines))


def main(arguments: list[str] | None = None) -> int:
    """The command line `python -m course_lib checkpoints`."""
    parser = argparse.ArgumentParser(prog="course-lib checkpoints", description="Train the embedded networks.")
    parser.add_argument("--only", choices=RECIPES, help="train this network only")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    folder = paths.data_dir() / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for name in [given.only] if given.only else RECIPES:
        make(name, folder, given.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
