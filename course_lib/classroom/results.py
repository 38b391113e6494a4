"""Recorded results: tables in CSV that carry how they were made.

Long runs are recorded once, in `data/results`; a notebook draws its own short run over them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import torch

import course_lib
from course_lib import paths
from course_lib.names import unknown

#: Columns that `record` adds: how a row was made.
ORIGIN = ["command", "seed", "python", "torch", "course_lib", "machine", "date"]


def record(rows: Iterable[Mapping] | pd.DataFrame, path: str | Path, *, command: str, seed: int | None) -> Path:
    """Write rows to a CSV, together with how they were made; whole or not at all. Returns the path.

    Args:
        rows: mappings of the same columns, or a table.
        command: what a reader types to make these numbers again.
        seed: of the run; None where each row has its own column `seed`.

    Raises:
        ValueError: no rows, no seed, or a column that would hide one of the added ones.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if table.empty:
        raise ValueError(f"There are no rows to record in {path}.")
    origin = {"command": command, **({} if seed is None else {"seed": seed}), **_circumstances()}
    if clash := sorted(set(origin) & set(table.columns)):
        raise ValueError(f"The columns {clash} are added by record(); rename them (or give seed=None for `seed`).")
    if seed is None and "seed" not in table.columns:
        raise ValueError("With seed=None every row must have a column `seed`.")
    with paths.atomic(path) as temporary:
        table.assign(**origin).to_csv(temporary, index=False)
    return Path(path)


def read(name: str) -> pd.DataFrame:
    """A recorded table of `data/results`, by name. FileNotFoundError, with the nearest names, for an unknown one."""
    folder = paths.data_dir() / "results"
    path = folder / f"{name.removesuffix('.csv')}.csv"
    if not path.exists():
        raise FileNotFoundError(unknown("recorded result", name, sorted(found.stem for found in folder.glob("*.csv"))))
    return pd.read_csv(path)


def recorded(name: str) -> bool:
    """Whether `read` would find a table of this name."""
    return (paths.data_dir() / "results" / f"{name}.csv").exists()


def _circumstances() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "course_lib": course_lib.__version__,
        "machine": machine(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def machine() -> str:
    """What this computer is, without saying whose: system, processor family, widest vector instructions, cores, GPU."""
    vectors = torch.backends.cpu.get_cpu_capability()  # what it says of speed: with AVX512 twice that of AVX2
    parts = [platform.system(), platform.machine(), vectors, f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return " ".join(parts)
