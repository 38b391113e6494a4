"""What is drilled: each command of the course on material so small that it can be killed many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from course_lib import models
from course_lib.classroom import results

VARYING = ["seconds", "peak_mb", "median_ms", *results.ORIGIN]  # columns that differ from run to run


@dataclass(frozen=True)
class Scene:
    """A command as it is typed, {} for its output folder, and what of that folder must come out the same."""

    arguments: list[str]
    outcome: Callable[[Path], dict[str, object]]


def scenes(material: Path) -> dict[str, Scene]:
    """The commands by name; their images, network and notebooks are made in the folder `material`."""
    images, network = _photographs(material / "images"), _network(material / "network.safetensors")
    given = ["--model", str(network), "--images", str(images), "--image-size", "32", "--examples", "12"]
    loop = ["--maps-per-step", "12", "--updates", "3", "--until-maps", "0.5"]
    sizes = ["dataset=folder", f"data_root={images}", "network=vgg16-world", "epochs=1", "train_images=None"]
    sizes += ["test_images=None", "maps_per_step=150", "updates=2", "score_images=8", "oracle_images=6"]
    sizes += ["oracle_maps=2", "curves=('random',)"]
    reproduce = ["--profile", "ci", "--only", "oracle", "pruning", "--set", *sizes]
    return {
        "prune": Scene(["prune", *given, *loop, "--out", "{}"], _files),
        "oracle": Scene(["oracle", *given, "--folder", "{}/kept", "--out", "{}/oracle.csv"], _files),
        "run": Scene(["run", "--profile", "ci", "--out", "{}"], _shown),
        "reproduce": Scene(["reproduce", *reproduce, "--out", "{}"], _files),
    }


def notebooks(folder: Path) -> Path:
    """Three notebooks that compute something from the seed, show it and record it."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = new_code_cell("profile = 'laptop'\nseed = 0\noverrides = {}", id="parameters")
    parameters.metadata["tags"] = ["parameters"]
    for number in range(1, 4):
        work = f"import numpy\nnumbers = numpy.random.default_rng(seed + {number}).random(1000)\nnumbers.sum()"
        record = (
            "from course_lib.classroom import results\n"
            f"results.record([{{'number': x}} for x in numbers], 'results/{number}.csv', command='drill', seed=seed)\n"
            "'recorded'"
        )
        cells = [parameters, new_code_cell(work, id="work"), new_code_cell(record, id="record")]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"0{number}_drill.ipynb")
    return folder


def _photographs(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name in ("cats", "dogs"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def _network(path: Path) -> Path:
    torch.manual_seed(0)
    return models.save(models.vgg16(2, width=1 / 32, compact=True), path)


def _files(folder: Path) -> dict[str, object]:
    """Every file that a user is meant to see, and every checkpoint: bytes; of a table all but times and machine."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): _content(path) for path in found}


def tables(folder: Path) -> dict[str, object]:
    """The tables among the files, but for times and machine."""
    return {name: content for name, content in _files(folder).items() if name.endswith(".csv")}


def _content(path: Path) -> object:
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table.drop(columns=[name for name in VARYING if name in table]).to_csv()
    return path.read_bytes()


def _shown(folder: Path) -> dict[str, object]:
    """What the executed notebooks show and record; whether each has its page, and the summary's outcomes."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found[path.name] = [[cell.source, [str(out.get("data")) for out in cell.outputs]] for cell in cells]
        found[f"page of {path.name}"] = "</html>" in path.with_suffix(".html").read_text(encoding="utf-8")
    tables = [*sorted(folder.glob("results/*.csv")), *folder.glob("summary.csv")]
    return found | {str(path.relative_to(folder)): _content(path) for path in tables}
