"""Many students on one machine: as many kernels at once, each runs a notebook and moves all of its sliders.

The kernels are driven as a front end drives them: cells by execute requests, sliders by comm messages.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil

from course_lib import paths

KERNELS, NOTEBOOK = 10, "05"
MOVES = 5  # of each slider
PATIENCE = 900  # seconds, for a cell or a slider's picture: longer is a deadlock
ADVISED = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # by docs/teaching/hub.md
BETWEEN = 0.1  # seconds between two moves; changes that follow each other faster are drawn once (explore.py)


@dataclass
class Student:
    """A kernel and its client, what was measured of it, and what went wrong; empty if nothing did."""

    kernel: object
    client: object
    process: psutil.Process
    sliders: dict[str, dict] = field(default_factory=dict)  # comm id -> the slider's state
    moves: int = 0
    redrawn: int = 0
    threads: int = 0
    resident: int = 0
    own: int = 0
    wrong: str = "did not end"

    def look(self) -> None:
        """Measure threads, resident memory, and the part of it that is shared with nobody (bytes); keep the most."""
        with contextlib.suppress(psutil.Error), self.process.oneshot():
            memory = self.process.memory_full_info()
            self.threads = max(self.threads, self.process.num_threads())
            self.resident, self.own = max(self.resident, memory.rss), max(self.own, memory.uss)


def measure(kernels: int = KERNELS, notebook: str = NOTEBOOK, profile: str = "ci") -> list[dict]:
    """One row: how many kernels survived, how many moved sliders were answered, and the most that any kernel took."""
    (path,) = paths.notebooks_dir().glob(f"{notebook}*.ipynb")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _students(kernels, Path(folder)) as students:
        threads = [threading.Thread(target=_work, args=(s, path, profile), daemon=True) for s in students]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for student in students:
                student.look()
            time.sleep(2)  # a look is work, too
    for number, student in enumerate(students):
        if student.wrong:
            print(f"kernel {number}: {student.wrong}", flush=True)
    return [
        {
            "notebook": path.stem,
            "profile": profile,
            "kernels": kernels,
            "survived": sum(not student.wrong for student in students),
            "moves": sum(student.moves for student in students),
            "answered": sum(student.redrawn for student in students),
            "threads": max(student.threads for student in students),
            "resident_mb": round(max(student.resident for student in students) / 1e6),
            "own_mb": round(max(student.own for student in students) / 1e6),
            "seconds": round(time.perf_counter() - began),
        }
    ]


@contextlib.contextmanager
def _students(count: int, folder: Path) -> Iterator[list[Student]]:
    """So many kernels, started as on a hub that was set up as advised; at the end they are shut down."""
    from jupyter_client import KernelManager

    checkout = Path(__file__).resolve().parents[1]
    given = os.environ | {"PYTHONPATH": str(checkout), "JUPYTER_PREFER_ENV_PATH": "1"} | ADVISED
    for static in ("COURSE_LIB_STATIC", "COURSE_LIB_FRAMES", "MPLBACKEND"):
        given.pop(static, None)
    with contextlib.ExitStack() as stack:
        students = []
        for _ in range(count):
            kernel = KernelManager(kernel_name="python3")
            kernel.start_kernel(cwd=str(folder), env=given, extra_arguments=["--IPKernelApp.log_level=50"])
            stack.callback(kernel.shutdown_kernel, now=True)
            client = kernel.client()
            client.start_channels()
            stack.callback(client.stop_channels)
            students.append(Student(kernel, client, psutil.Process(kernel.provisioner.pid)))
        yield students


def _work(student: Student, path: Path, profile: str) -> None:
    """Run the notebook in the student's kernel, then move every slider that it showed."""
    try:
        student.client.wait_for_ready(timeout=PATIENCE)
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                chosen = f"\nprofile = {profile!r}" * ("parameters" in cell.metadata.get("tags", []))
                _execute(student, cell.source + chosen, cell.id)
        for slider, state in student.sliders.items():
            for value in _values(state):
                time.sleep(BETWEEN)
                student.moves += 1
                student.redrawn += _move(student, slider, value)
        student.wrong = "" if 0 < student.moves == student.redrawn else "a slider was moved in vain"
    except Exception as error:  # whatever it is, the others go on
        student.wrong = f"{type(error).__name__}: {error}"


def _execute(student: Student, source: str, name: str) -> None:
    for answer in _answers(student, student.client.execute(source)):
        content = answer["content"]
        if answer["msg_type"] == "error":
            raise RuntimeError(f"{name}: {content['ename']}: {content['evalue']}")
        if answer["msg_type"] == "comm_open":
            state = content["data"].get("state", {})
            if state.get("_model_name") in ("IntSliderModel", "FloatSliderModel"):
                student.sliders[content["comm_id"]] = state


def _answers(student: Student, request: str) -> Iterator[dict]:
    """What the kernel says to the request of this id, until it is idle again.

    RuntimeError if it dies: nobody else would tell a front end that waits. TimeoutError if it says nothing for long.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            answer = student.client.get_iopub_msg(timeout=1)
        except queue.Empty:
            if not student.kernel.is_alive():
                raise RuntimeError("its kernel died") from None
            continue
        if answer["parent_header"].get("msg_id") == request:
            yield answer
            if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                return
    raise TimeoutError(f"no answer for {PATIENCE} s")


def _values(state: dict) -> list[float]:
    """Values for a slider, from end to end, of which none is the one before; none where it has only one."""
    low, steps = state["min"], round((state["max"] - state["min"]) / state["step"])
    places = dict.fromkeys(round(steps * move / (MOVES - 1)) for move in range(MOVES))
    values = [low + place * state["step"] for place in places]
    return values if abs(values[0] - state["value"]) > state["step"] / 2 else [*values[1:], values[0]]


def _move(student: Student, slider: str, value: float) -> bool:
    """Whether the kernel answers a moved slider with a new picture, and not with an error in its place."""
    data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
    sent = student.client.session.msg("comm_msg", {"comm_id": slider, "data": data})
    student.client.shell_channel.send(sent)
    drawn = False
    for answer in _answers(student, sent["header"]["msg_id"]):
        if answer["msg_type"] == "comm_msg":
            drawn |= "<img" in str(answer["content"]["data"].get("state", {}).get("value"))
    return drawn
