"""Is this machine ready for the course? One [OK] or [FAIL] line for each thing that matters, with what to do.

Run it with ``python -m course_lib doctor``, or in a notebook with ``course_lib.doctor()``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from course_lib import paths

DISK_GB = 1  # for the downloads' folder and the working folder, each


class Result(NamedTuple):
    """One thing that was looked at: whether it is well, and in words what was found and what to do."""

    ok: bool
    message: str

    def __str__(self):
        return f"[{'OK' if self.ok else 'FAIL'}] {self.message}"


def doctor() -> list[Result]:
    """Look at everything the course needs, print a line for each and return the results."""
    results = [result for check in CHECKS for result in _run(check)]
    for result in results:
        print(result)
    failed = sum(not result.ok for result in results)
    print(f"{failed} of {len(results)} need attention." if failed else f"All {len(results)} are well.")
    return results


def _run(check: Callable[[], Iterator[Result]]) -> Iterator[Result]:
    try:
        yield from check()
    except Exception as error:  # a broken machine breaks in ways nobody thought of; the other checks still help
        yield Result(False, f"{check.__name__.strip('_')}: {error}")


def _python() -> Iterator[Result]:
    yield Result(sys.version_info >= (3, 10), f"Python {platform.python_version()} (3.10 or newer is needed)")


def _packages() -> Iterator[Result]:
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in importlib.metadata.requires("course-lib")]
    for requirement in requirements:
        if requirement.marker is None:
            yield _package(requirement.name, requirement.specifier)
    lab = [r for r in requirements if r.marker and r.marker.evaluate({"extra": "lab"})]
    missing = [r.name for r in lab if not _package(r.name, r.specifier).ok]
    note = f"not here: {', '.join(missing)}. {_pip('course-lib[lab]')}" if missing else "all here"
    yield Result(True, f"for opening and executing notebooks outside Colab: {note}")


def _package(name: str, needed) -> Result:
    repair = f"{name} {needed} is needed. {_pip(f'{name}{needed}')}"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Result(False, f"{name} is not installed; {repair}")
    if not needed.contains(version, prereleases=True):
        return Result(False, f"{name} {version}: {repair}")
    return Result(True, f"{name} {version}")


def _pip(what: str) -> str:
    return f'Try: {Path(sys.executable).name} -m pip install "{what}"'


def _torch_works() -> Iterator[Result]:
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)  # fails where the two do not match
    yield Result(True, "torch and torchvision work together")


def _hardware() -> Iterator[Result]:
    import psutil

    yield Result(True, f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB of memory")


def _profiles() -> Iterator[Result]:
    import psutil

    from course_lib.classroom import needs, results, session

    there = psutil.virtual_memory().total
    for name in session.PROFILES:
        if not results.recorded(f"run_{name}"):
            yield Result(
                True,
                f"profile {name}: never recorded, so its time and memory are not known. The commands prune, oracle "
                "and reproduce say what they need before they start, and so do the notebooks of profile paper",
            )
            continue
        run = results.read(f"run_{name}")
        most = 1e6 * run.peak_mb.max()
        verdict = "this machine has that" if there >= most else f"too little memory here ({needs.gigabytes(there)})"
        yield Result(
            there >= most,
            f"profile {name}: {len(run)} notebooks took {needs.duration(run.seconds.sum())} and at most "
            f"{needs.gigabytes(most)} of memory where they were recorded ({run.machine[0]}); {verdict}",
        )


def _gpu() -> Iterator[Result]:
    import torch

    if torch.cuda.is_available():
        yield Result(True, f"GPU: {torch.cuda.get_device_name()}")
    elif torch.backends.mps.is_available():
        yield Result(True, "GPU: Apple's, used when asked for (device='mps')")
    else:
        yield Result(True, "no GPU, and none is needed; profile 'paper' is then for small subsets")


def _storage() -> Iterator[Result]:
    cache = paths.cache_dir()
    yield Result(True, f"downloads are kept in {cache}")
    for folder in {cache, Path.cwd()}:
        free = shutil.disk_usage(folder).free / 1e9
        yield Result(free >= DISK_GB, f"{free:.0f} GB free in {folder} (at least {DISK_GB} are needed)")


def _checkpoints() -> Iterator[Result]:
    from course_lib import models

    folder = paths.data_dir() / "checkpoints"
    listed = models.checksums()
    for name, expected in listed.items():
        if not (folder / name).exists():
            yield Result(False, f"checkpoint {name} is missing. Clone or install the course again.")
        elif models.sha256(folder / name) != expected:
            yield Result(False, f"checkpoint {name} is damaged (wrong sha256). Clone or install the course again.")
        else:
            yield Result(True, f"checkpoint {name}")
    if not listed:
        yield Result(False, "no embedded checkpoints are listed. Make them with: python -m course_lib checkpoints")


def _course_files() -> Iterator[Result]:
    cards = sorted(paths.data_dir().rglob("*.md"))
    yield Result(bool(cards), f"{len(cards)} data cards in {paths.data_dir()}")
    found = sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
    yield Result(bool(found), f"{len(found)} notebooks in {paths.notebooks_dir()}")


def _kernel() -> Iterator[Result]:
    from jupyter_client.kernelspec import KernelSpecManager

    there = "python3" in KernelSpecManager().find_kernel_specs()
    yield Result(there, "Jupyter kernel python3" if there else "no Jupyter kernel python3. Try: pip install ipykernel")
    yield _jupyters_folder()


def _jupyters_folder() -> Result:
    """JupyterLab does not start where it cannot keep its files; executing notebooks by `run` needs none of them."""
    from jupyter_core.paths import jupyter_runtime_dir

    folder = jupyter_runtime_dir()
    try:
        return Result(True, f"JupyterLab keeps its files in {paths.writable(folder)}")
    except OSError as error:
        return Result(
            False,
            f"JupyterLab cannot keep its files in {folder} ({(error.__cause__ or error).strerror}). "
            "Set the environment variables JUPYTER_DATA_DIR and JUPYTER_CONFIG_DIR to folders that you can write to",
        )


CHECKS = (_python, _packages, _torch_works, _hardware, _profiles, _gpu, _storage, _checkpoints, _course_files, _kernel)


def main(argv: list[str] | None = None) -> int:
    """``python -m course_lib doctor``: exit code 1 if anything failed."""
    description = "Look whether this machine is ready for the course, and say what to do where it is not."
    argparse.ArgumentParser(prog="course-lib doctor", description=description).parse_args(argv)
    return int(any(not result.ok for result in doctor()))
