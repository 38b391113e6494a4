"""`prune` and `oracle` on the command line: the library's own functions, with a table before and after."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import torch
from torch import nn

from course_lib import cost, datasets, distributed, export, models, oracle, paths, pruning, training
from course_lib.classroom import needs, results
from course_lib.criteria import CRITERIA
from course_lib.datasets import Splits

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def plainly(command: Callable[[list[str] | None], None]) -> Callable[[list[str] | None], int]:
    """A command whose expected errors are one sentence and exit code 2, not a traceback; torchrun may launch it."""

    @wraps(command)
    def run(argv: list[str] | None = None) -> int:
        try:
            with distributed.joined():
                command(argv)
        except (datasets.DataError, KeyError, ValueError, OSError, FloatingPointError) as error:
            print(error.args[-1] if isinstance(error, KeyError) else error, file=sys.stderr)
            return 2
        return 0

    return run


@plainly
def prune(argv: list[str] | None = None) -> None:
    """``python -m course_lib prune``: prune a trained network; the same command again goes on where it was killed."""
    parser = _parser("prune", "Prune a trained network. Run the same command again to go on with one that was killed.")
    parser.add_argument("--trunk", type=Path, metavar="FILE", help="a VGG-16 with these convolutions, not --model")
    parser.add_argument("--epochs", type=float, default=0, metavar="N", help="of fine-tuning to the images beforehand")
    parser.add_argument("--criterion", default="taylor", choices=CRITERIA, help="(%(default)s)")
    parser.add_argument(
        "--maps-per-step", type=int, default=64, metavar="N", help="feature maps to remove (%(default)s)"
    )
    parser.add_argument("--updates", type=int, default=30, metavar="N", help="of fine-tuning after each step (30)")
    parser.add_argument("--epochs-per-step", type=float, metavar="N", help="the same in epochs, instead of --updates")
    parser.add_argument(
        "--until-maps", type=float, default=0.5, metavar="SHARE", help="feature maps left at the end (%(default)s)"
    )
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate of fine-tuning (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/prune"), help="folder of what is made (%(default)s)")
    options = parser.parse_args(argv)
    splits = _data(options)
    model, needed = _to_prune(options, splits)
    if options.epochs_per_step is not None:
        options.updates = math.ceil(options.epochs_per_step * len(splits.train) / pruning.Settings.batch_size)
    settings = pruning.Settings(
        options.criterion, options.maps_per_step, options.updates, images=options.examples, lr=options.lr
    )
    loop = needs.of_pruning(model, splits.train[0][0].shape, options.until_maps, len(splits.test), settings)
    needs.room(loop, options.out / "steps")
    shorter = "Larger --maps-per-step or fewer --updates; a killed run goes on."
    print(needs.said(needed.then(loop), model, splits.train, shorter), flush=True)
    with distributed.alone(options.out):
        _prune_into(options, model, splits, _typed("prune", argv))


def _prune_into(options: argparse.Namespace, model: nn.Module, splits: Splits, command: str) -> None:
    """Fine-tune and prune, and write everything into the output folder."""
    if options.epochs:
        model = _fine_tuned(model, options, splits)
    steps = []
    for step in pruning.prune(
        model,
        splits,
        options.criterion,
        maps_left=options.until_maps,
        maps_per_step=options.maps_per_step,
        updates=options.updates,
        lr=options.lr,
        images=options.examples,
        seed=options.seed,
        folder=options.out / "steps",
    ):
        steps.append(step.row())
        print(f"step {step.number}: {step.maps_left} feature maps, {step.macs:,} MACs, accuracy {step.accuracy:.1%}")
    write, image_shape = distributed.first, tuple(splits.test[0][0].shape)
    small = write(models.save, step.model, options.out / "pruned.safetensors", notes=steps[-1])
    plain = write(export.program, step.model, image_shape, options.out / "pruned.pt2")
    write(results.record, steps, options.out / "steps.csv", command=command, seed=options.seed)
    print(
        f"\n{_before_and_after(model, step.model, splits)}\nThe small network is {small} (models.load); for plain "
        f"PyTorch it is {plain} (torch.export.load)."
    )


@plainly
def measure_oracle(argv: list[str] | None = None) -> None:
    """``python -m course_lib oracle``: measure what the loss does when each feature map alone is taken away."""
    parser = _parser("oracle", "Change of the loss, in nats, when each feature map alone is set to zero.")
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="names of layers (all)")
    parser.add_argument("--method", default="exact", choices=oracle.METHODS)
    parser.add_argument("--budget", type=float, metavar="SHARE", help="measure only this share, with error bars")
    parser.add_argument("--dtype", choices=DTYPES, help="of what changes; bfloat16 is fast where the processor has it")
    parser.add_argument("--folder", type=Path, help="keep what is measured there: the same command again goes on")
    parser.add_argument("--out", type=Path, default=Path("build/oracle.csv"), help="table to write (%(default)s)")
    options = parser.parse_args(argv)
    paths.writable(options.out.parent)
    splits = _data(options)
    model = _fitting(_network(options, splits), splits, options)
    batches = datasets.batches(splits.train, options.examples, seed=options.seed)
    asked = model, splits.train[0][0][None], options.examples
    if options.budget is None:
        needed = needs.of_oracle(*asked, options.layers, options.method)
    else:
        needed = needs.of_estimate(*asked, options.budget, options.layers)
    print(needs.said(needed, model, splits.train, "--budget 0.1 needs a tenth."), flush=True)
    found = (_measured if options.budget is None else _estimated)(model, batches, options)
    rows = [
        {"layer": name, "map": at} | {heading: float(column[at]) for heading, column in columns.items()}
        for name, columns in found.items()
        for at in range(len(columns["change"]))
    ]
    command = _typed("oracle", argv)
    path = distributed.first(results.record, rows, options.out, command=command, seed=options.seed)
    print(f"{len(rows)} feature maps on {options.examples} examples: {path}")


def _measured(model: nn.Module, batches, options: argparse.Namespace) -> dict[str, dict[str, torch.Tensor]]:
    dtype = DTYPES.get(options.dtype)
    effects = oracle.effects(model, batches, options.layers, options.method, dtype=dtype, folder=options.folder)
    return {name: {"change": e.mean(0), "standard_error": e.std(0) / len(e) ** 0.5} for name, e in effects.items()}


def _estimated(model: nn.Module, batches, options: argparse.Namespace) -> dict[str, dict[str, torch.Tensor]]:
    if options.method == "naive":
        raise ValueError("--budget measures part of the exact oracle: leave out --method naive, or leave out --budget.")
    if options.folder is not None:
        raise ValueError("--folder keeps the exact oracle, layer by layer: leave out --budget, or leave out --folder.")
    dtype = DTYPES.get(options.dtype)
    found = oracle.estimate(model, batches, options.budget, layers=options.layers, seed=options.seed, dtype=dtype)
    sides = {"change": found.scores, "sampling_error": found.standard_error, "low": found.low, "high": found.high}
    return {name: {heading: side[name] for heading, side in sides.items()} for name in found.scores}


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"course-lib {command}", description=description)
    parser.add_argument("--model", default="vgg16-petals", metavar="NAME|FILE", help="a trained one (%(default)s)")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", default="petals", metavar="NAME", help="a data set (%(default)s)")
    data.add_argument("--images", type=Path, metavar="FOLDER", help="your own: train/CLASS/*.jpg, test/CLASS/*.jpg")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="of a data set that is not embedded")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="height and width (the data set's own)")
    parser.add_argument("--examples", type=int, default=256, metavar="N", help="to score with (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _data(options: argparse.Namespace) -> Splits:
    name, root = ("folder", options.images) if options.images else (options.data, options.data_root)
    return datasets.load(name, image_size=options.image_size, root=root, seed=options.seed)


def _network(options: argparse.Namespace, splits: Splits) -> nn.Module:
    if getattr(options, "trunk", None):
        torch.manual_seed(options.seed)
        return models.vgg16(len(splits.classes), compact=True, trunk=options.trunk).to(options.device)
    is_file = Path(options.model).suffix == ".safetensors"
    return (models.load if is_file else models.trained)(options.model).to(options.device)


def _fitting(model: nn.Module, splits: Splits, options: argparse.Namespace) -> nn.Module:
    """The network itself, if it tells the classes of the data apart."""
    with torch.inference_mode():
        outputs = model(splits.train[0][0][None].to(options.device)).shape[1]
    if outputs != len(splits.classes):
        raise ValueError(
            f"{options.model} tells {outputs} classes apart, {splits.name} has {len(splits.classes)}. Fine-tune it on "
            "these images first: `prune --epochs 10` does, and keeps what it made as network.safetensors."
        )
    return model


def _to_prune(options: argparse.Namespace, splits: Splits) -> tuple[nn.Module, needs.Needs]:
    """The network to prune, and what `_fine_tuned` will need: with --epochs it has a new output layer to be tuned."""
    if not options.epochs:
        return _fitting(_network(options, splits), splits, options), needs.Needs(0, 0)
    kept = _kept(options)
    if distributed.first(kept.exists):
        return models.load(kept).to(options.device), needs.Needs(0, 0)
    model = models.fresh_head(_network(options, splits), len(splits.classes), options.seed)
    return model, needs.of_tuning(model, splits.train[0][0].shape, len(splits.train), options.epochs)


def _kept(options: argparse.Namespace) -> Path:
    return options.out / "network.safetensors"


def _fine_tuned(model: nn.Module, options: argparse.Namespace, splits: Splits) -> nn.Module:
    """The network of `_to_prune` fine-tuned to the images; made once, then read from the output folder."""
    kept = _kept(options)
    made_of = {"data": splits.name, "classes": splits.classes, "images": len(splits.train), "seed": options.seed}
    made_of |= {"from": Path(options.trunk or options.model).name, "epochs": options.epochs, "lr": options.lr}
    if not distributed.first(kept.exists):
        training.fit_head(model, splits.train, seed=options.seed)
        how = {"epochs": options.epochs, "lr": options.lr, "augment": True, "seed": options.seed}
        training.fit(model, splits.train, label="fine-tuning to the images", **how)
        distributed.first(models.save, model, kept, notes=made_of)
    if models.notes(kept) != made_of:
        raise ValueError(f"{kept} was made by other settings: {models.notes(kept)}. Give another folder with --out.")
    return models.load(kept).to(options.device)


def _before_and_after(before: nn.Module, after: nn.Module, splits: Splits) -> str:
    image_shape = tuple(splits.test[0][0].shape)

    def column(model: nn.Module) -> list[str]:
        latency = distributed.first(cost.latency, model, image_shape, threads=torch.get_num_threads())
        return [
            f"{training.evaluate(model, splits.test).accuracy:.1%}",
            f"{cost.feature_maps(model):,}",
            f"{cost.parameters(model):,}",
            f"{sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6:.2f} MB",
            f"{cost.macs(model, image_shape):,}",
            f"{latency.median_ms:.1f} ms",
        ]

    names = ["accuracy", "feature maps", "parameters", "size", "MACs an image", "16 images take"]
    rows = zip(names, column(before), column(after), strict=True)
    return "\n".join(f"{name:14} {was:>16} {now:>16}" for name, was, now in [("", "before", "after"), *rows])


def _typed(command: str, argv: list[str] | None) -> str:
    return shlex.join(["python", "-m", "course_lib", command, *(argv or [])])
