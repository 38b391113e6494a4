"""Before any learning: importing the library, and drawing the embedded pictures."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.timing import REPEATS, cpu_seconds, rows
from course_lib import petals

METHOD = "cost, criteria, datasets, models, oracle, pruning, ranking, surgery, training"
IMPORTS = {
    "import course_lib": "import course_lib",
    "import the modules of the method": f"from course_lib import {METHOD}",
    "import course_lib and its start()": "import course_lib; course_lib.start",
}
PICTURES = 10 * petals.CHUNK


def run(options: argparse.Namespace) -> list[dict]:
    """Seconds that imports take beyond torch's own, and petals against a goal of 2,000 pictures a second."""
    torch_alone = _import_seconds("import torch", first="")
    found = []
    for work, code in IMPORTS.items():
        found += rows(work, {"ours": _import_seconds(code), "torch's own import": torch_alone})
    draw = {"ours": lambda: list(petals.chunks(petals.SPECIES[:10], PICTURES, 32, seed=0, stream="train"))}
    seconds = cpu_seconds(draw) | {"2,000 pictures a second": PICTURES / 2000}
    return found + rows(f"petals: {PICTURES} pictures of 32 x 32", seconds)


def _import_seconds(code: str, first: str = "import torch") -> float:
    """CPU seconds of an import in a fresh interpreter, the least of some: the first one reads from disk."""
    script = f"import time\n{first}\nbegan = time.process_time()\n{code}\nprint(time.process_time() - began)"
    command = [sys.executable, "-c", script]
    return min(float(subprocess.check_output(command, text=True)) for _ in range(REPEATS))
