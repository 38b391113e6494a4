"""Faults: a command killed at a random moment, by SIGKILL and SIGTERM, and a disk that is full.

The command runs in a process of its own that is forked from this one, so a hundred kills need no hundred imports.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch

from course_lib import cost, models, pruning
from course_lib.__main__ import main
from course_lib.classroom import needs, runner
from drills.scenes import Scene

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


@contextlib.contextmanager
def stage(notebooks: Path, cache: Path) -> Iterator[None]:
    """One thread, a clock that stands still (its seconds are in the checkpoints), these notebooks and this cache.

    Nor does a command look beforehand whether the disk is large enough: ours is, until somebody else fills it.
    """
    before = torch.get_num_threads(), pruning.time, runner.paths.notebooks_dir, cost.latency, needs.room
    variables = os.environ.copy()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    pruning.time = SimpleNamespace(perf_counter=lambda: 0.0)
    runner.paths.notebooks_dir = lambda: notebooks
    cost.latency = lambda *_, **__: cost.Latency(0.0, 0.0, 16, 1)
    needs.room = lambda *_: None
    os.environ |= {"COURSE_LIB_CACHE": str(cache), "COURSE_LIB_PROGRESS": "0"}
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        pruning.time, runner.paths.notebooks_dir, cost.latency, needs.room = before[1:]
        os.environ.clear()
        os.environ.update(variables)


def start(scene: Scene, folder: Path, said: Path) -> int:
    """Start the command in a process of its own; what it says goes to the file `said`. Returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        with open(said, "wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            code = main([argument.replace("{}", str(folder)) for argument in scene.arguments])
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}".encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, within: float | None = None) -> int | None:
    """The exit code of a process (negative: the signal that ended it), or None if it still runs after `within` s."""
    until = time.monotonic() + (1e9 if within is None else within)
    try:
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                return None
            time.sleep(0.002)
    except KeyboardInterrupt:  # or SIGTERM: nobody else would end the command
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def kills(scene: Scene, folder: Path, count: int, seed: int = 0) -> list[dict]:
    """Kill the command `count` times at random moments, in turn by SIGKILL and SIGTERM; a row for each kill.

    After a kill the same command goes on in the same folder, until it comes to its end; then its outcome is compared
    with that of a run that nobody disturbed, and the next round begins in a new folder.
    """
    chance, rows, began = random.Random(seed), [], time.monotonic()
    _finish(scene, folder / "whole")
    expected, length = scene.outcome(folder / "whole"), time.monotonic() - began
    for number in range(10 * count):
        here, in_round = folder / f"round-{number}", []
        while True:
            before, child = _checkpoints(here), start(scene, here, folder / "said")
            is_last = len(rows) + len(in_round) >= count
            code = ended(child, None if is_last else length * chance.random() * 0.8)
            if code is not None:
                break
            fault = list(SIGNALS)[len(rows + in_round) % len(SIGNALS)]
            os.kill(child, SIGNALS[fault])
            code = ended(child, 60)
            in_round.append({"fault": fault, "wrong": _after(fault, code, before, here, folder / "said")})
        same = code == 0 and scene.outcome(here) == expected
        said = "" if same else f"another result, exit code {code}: {(folder / 'said').read_text()[-300:]}"
        rows += [row | {"wrong": row["wrong"] or said} for row in in_round]
        if len(rows) >= count:
            break
    return rows


def full_disks(scene: Scene, folder: Path, count: int, seed: int = 0) -> list[dict]:
    """Run the command `count` times on a small disk of its own that fills up, make room, run it again; a row each.

    PermissionError where no file system may be mounted.
    """
    chance, rows = random.Random(seed), []
    _finish(scene, folder / "whole")
    expected, needed = scene.outcome(folder / "whole"), _size(folder / "whole")
    for _ in range(count):
        with small_disk(max(4096, int(chance.random() * needed))) as (disk, enlarge):
            here = disk / "out"
            code = ended(start(scene, here, folder / "said"))
            said, wrong = (folder / "said").read_text(), ""
            if code == 0 or "Traceback: " in said:
                wrong = f"exit code {code}: {said[-300:]}"
            elif "No space left" not in said:
                wrong = f"not said: {said[-300:]}"
            wrong = wrong or _unreadable(here)
            enlarge()
            code = ended(start(scene, here, folder / "said"))
            if code != 0 or scene.outcome(here) != expected:
                wrong = wrong or f"another result, exit code {code}: {(folder / 'said').read_text()[-300:]}"
        rows.append({"fault": "full disk", "wrong": wrong})
    return rows


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[tuple[Path, object]]:
    """A file system of so many bytes, and a function that makes room on it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise PermissionError("a small file system can be mounted by root on Linux only")
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o"]
        larger = [*mount, "remount,size=200m", "tmpfs", folder]
        try:
            try:
                subprocess.run([*mount, f"size={size}", "tmpfs", folder], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise PermissionError("no file system may be mounted here") from error
            yield Path(folder), lambda: subprocess.run(larger, check=True, capture_output=True)
        finally:  # also where SIGTERM came while it was being mounted
            if os.path.ismount(folder):
                subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


def _finish(scene: Scene, folder: Path) -> None:
    said = folder.with_name("said")
    said.parent.mkdir(parents=True, exist_ok=True)
    if code := ended(start(scene, folder, said)):
        raise RuntimeError(f"{scene.arguments[0]} cannot be drilled, it ends with {code}: {said.read_text()[-2000:]}")


def _after(fault: str, code: int | None, before: dict[Path, dict], folder: Path, said: Path) -> str:
    """What is wrong right after a kill; empty if nothing is."""
    kept = "Terminated. What was finished before is kept." in said.read_text()
    if fault == "SIGTERM" and not (code == 143 and kept) and code != 0:  # 0: it came to its end in the same moment
        return f"exit code {code} after SIGTERM: {said.read_text()[-300:]}"
    if wrong := _unreadable(folder):
        return wrong
    now = _checkpoints(folder)
    for path, tensors in before.items():
        kept = now.get(path, {})
        if any(
            name not in kept or not torch.equal(kept[name].nan_to_num(), t.nan_to_num()) for name, t in tensors.items()
        ):
            return f"{path.name} has lost something"
    return ""


def _unreadable(folder: Path) -> str:
    try:
        _checkpoints(folder)
    except ValueError as error:
        return str(error)
    return ""


def _checkpoints(folder: Path) -> dict[Path, dict]:
    return {path: models.read_safetensors(path)[0] for path in sorted(folder.rglob("[!.]*.safetensors"))}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
