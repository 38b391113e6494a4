"""Does the same seed give the same numbers: in a fresh process, with data workers, with more threads?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from course_lib import datasets, models, oracle, pruning, training
from drills import scenes, studies

IMAGES = 32
#: Notebooks that are repeated, each for the table it records, and their sizes, as small as they run.
NOTEBOOKS = ("06", "11")
SIZES = {"train_images": 200, "test_images": 100, "oracle_images": 32, "score_images": 48, "sharing_epochs": 6}


def measure() -> list[dict]:
    """A row for each comparison: what was compared, how much of it differs, and by how much at most.

    `differs`: share of the compared files or numbers. `largest difference`: as a share of the largest number.
    """
    return [*fresh_processes(), *workers_and_threads()]


def fresh_processes() -> list[dict]:
    """Each program twice, in processes with nothing in common: a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        return [twice(name, words, Path(folder)) for name, words in programs(Path(folder) / "material").items()]


def programs(material: Path) -> dict[str, list[str]]:
    """What is repeated: its words after `python -m`, {} for its output folder: commands, notebooks, studies."""
    commands = {name: ["course_lib", *scene.arguments] for name, scene in scenes.scenes(material).items()}
    sizes = [f"{field}={size}" for field, size in SIZES.items()]
    notebooks = ["course_lib", "run", "--profile", "ci", "--only", *NOTEBOOKS, "--set", *sizes, "--out", "{}"]
    return commands | {"run": notebooks} | {name: ["drills.studies", name, "{}"] for name in studies.STUDIES}


def twice(name: str, words: list[str], folder: Path) -> dict:
    """How many of the tables that a program makes differ from those of another process, but for times."""
    made = []
    for salt in ("1", "2"):
        out = folder / f"{name}-{salt}"
        environment = {"PYTHONHASHSEED": salt, "COURSE_LIB_CACHE": f"{folder}/cache-{salt}", "COURSE_LIB_PROGRESS": "0"}
        command = [sys.executable, "-m", *(word.replace("{}", str(out)) for word in words)]
        here = {"env": os.environ | environment, "cwd": Path(__file__).resolve().parents[1]}
        done = subprocess.run(command, **here, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
        made.append(scenes.tables(out))
    one, other = made
    different = sum(one.get(file) != other.get(file) for file in one | other)
    return {"work": name, "against": "another process", "compared": len(one | other), "differ": different}


def workers_and_threads() -> list[dict]:
    """Oracle, fine-tuning and pruning of the embedded network: with two data workers, and with two threads."""
    splits = datasets.load("petals", train=4 * IMAGES, val=IMAGES, test=2 * IMAGES)
    before, rows = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        alone = {name: work(splits, 0) for name, work in WORK.items()}
        rows += [_compared(name, "two data workers", alone[name], WORK[name](splits, 2)) for name in WITH_WORKERS]
        torch.set_num_threads(2)
        rows += [_compared(name, "two threads", alone[name], work(splits, 0)) for name, work in WORK.items()]
    finally:
        torch.set_num_threads(before)
    return rows


def _oracle(splits: datasets.Splits, workers: int) -> torch.Tensor:
    batches = datasets.batches(splits.train, IMAGES, batch_size=8, workers=workers)
    return torch.cat(list(oracle.ablate(models.trained("vgg16-petals"), batches, progress=False).values()))


def _tuning(splits: datasets.Splits, workers: int) -> torch.Tensor:
    model = models.trained("vgg16-petals")
    training.fit(model, splits.train, updates=10, augment=True, seed=0, workers=workers, progress=False)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _pruning(splits: datasets.Splits, _: int) -> torch.Tensor:
    how = {"maps_left": 0.7, "maps_per_step": 80, "updates": 5, "images": IMAGES, "progress": False}
    steps = list(pruning.prune(models.trained("vgg16-petals"), splits, **how))
    return torch.tensor([[step.maps_left, step.macs, step.accuracy, step.loss] for step in steps], dtype=torch.float64)


WORK = {"oracle": _oracle, "fine-tuning": _tuning, "pruning": _pruning}
WITH_WORKERS = ("oracle", "fine-tuning")


def _compared(work: str, against: str, one: torch.Tensor, other: torch.Tensor) -> dict:
    # Of a table each column by itself: MACs are larger than losses.
    columns = [(one, other)] if one.dim() == 1 else list(zip(one.T, other.T, strict=True))
    largest = max(float((a - b).abs().max() / a.abs().max()) for a, b in columns)
    differ = int((one != other).sum())
    return {"work": work, "against": against, "compared": one.numel(), "differ": differ, "largest difference": largest}
