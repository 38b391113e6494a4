"""Kill the commands, fill their disk, repeat them, run many kernels at once, and count: `python -m drills`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from course_lib import paths
from course_lib.__main__ import stoppable
from course_lib.classroom import results
from drills import faults, load, repeat, scenes

NAMES = ("prune", "oracle", "run", "reproduce")
MEASURED = ("repeat", "load")  # without faults


def main() -> int:
    """Run the drills and print one table. Exit code 1 if anything was not survived."""
    parser = argparse.ArgumentParser("python -m drills", description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[[], *NAMES, *MEASURED], help="which; all if none is named")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each command (%(default)s)")
    parser.add_argument("--full-disks", type=int, default=5, metavar="N", help="of each command (%(default)s)")
    parser.add_argument("--kernels", type=int, default=load.KERNELS, metavar="N", help="of load (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="record in data/results/drill_<command>.csv")
    options = parser.parse_args()
    tables, well = [], True
    for name in options.commands or [*NAMES, *MEASURED]:
        if name in NAMES:
            found = drill(name, options.kills, options.full_disks, options.seed)
            tables.append(survived(name, found))
            command = f"python -m drills {name} --kills {options.kills} --full-disks {options.full_disks}"
            _show(tables[-1], name, command, options)
            for row in found:
                if row["wrong"]:
                    print(f"{name}, {row['fault']}: {row['wrong']}", file=sys.stderr)
        elif name == "repeat":
            _show(pd.DataFrame(repeat.measure()), name, "python -m drills repeat", options)
        else:
            table = pd.DataFrame(load.measure(options.kernels))
            _show(table, name, f"python -m drills load --kernels {options.kernels}", options)
            well &= bool((table["survived"] == table["kernels"]).all())
    if tables:
        table = pd.concat(tables)
        print(f"\n{table['injected'].sum()} faults injected, {table['survived'].sum()} survived.")
        well &= bool((table["survived"] == table["injected"]).all())
    return int(not well)


def _show(table: pd.DataFrame, name: str, command: str, options: argparse.Namespace) -> None:
    print(f"\n{table.to_string(index=False)}", flush=True)
    if options.save:
        path = paths.data_dir() / "results" / f"drill_{name}.csv"
        results.record(table, path, command=command, seed=options.seed)


def drill(name: str, kills: int, full_disks: int, seed: int = 0) -> list[dict]:
    """A row for each fault: its name, and what went wrong, if anything."""
    with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as folder:
        here = Path(folder)
        scene = scenes.scenes(here / "material")[name]
        with faults.stage(scenes.notebooks(here / "notebooks"), here / "cache"):
            rows = faults.kills(scene, here / "kills", kills, seed) if kills else []
            try:
                rows += faults.full_disks(scene, here / "disks", full_disks, seed) if full_disks else []
            except PermissionError as reason:
                print(f"{name}: no full disk, {reason}.", file=sys.stderr)
    return rows


def survived(name: str, rows: list[dict]) -> pd.DataFrame:
    """How many faults of each kind were injected into a command, and how many survived."""
    groups = pd.DataFrame(rows).assign(drill=name).groupby(["drill", "fault"], sort=False)["wrong"]
    return groups.agg(injected="size", survived=lambda wrong: (wrong == "").sum()).reset_index()


if __name__ == "__main__":
    sys.exit(stoppable(main))
