"""Kill the commands at random moments, fill their disk, repeat them, and count: `python -m drills`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from course_lib import paths
from course_lib.__main__ import stoppable
from course_lib.classroom import results
from drills import faults, repeat, scenes

NAMES = ("prune", "oracle", "run", "reproduce")
REPEAT = "repeat"


def main() -> int:
    """Run the drills and print one table. Exit code 1 if anything was not survived."""
    parser = argparse.ArgumentParser("python -m drills", description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[[], *NAMES, REPEAT], help="which; all if none is named")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each command (%(default)s)")
    parser.add_argument("--full-disks", type=int, default=5, metavar="N", help="of each command (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="record in data/results/drill_<command>.csv")
    options = parser.parse_args()
    tables = []
    for name in options.commands or [*NAMES, REPEAT]:
        if name == REPEAT:
            table = pd.DataFrame(repeat.measure())
            print(f"\n{table.to_string(index=False)}", flush=True)
            if options.save:
                path = paths.data_dir() / "results" / "drill_repeat.csv"
                results.record(table, path, command="python -m drills repeat", seed=0)
            continue
        found = drill(name, options.kills, options.full_disks, options.seed)
        tables.append(survived(name, found))
        print(f"\n{tables[-1].to_string(index=False)}", flush=True)
        for row in found:
            if row["wrong"]:
                print(f"{name}, {row['fault']}: {row['wrong']}", file=sys.stderr)
        if options.save:
            command = f"python -m drills {name} --kills {options.kills} --full-disks {options.full_disks}"
            path = paths.data_dir() / "results" / f"drill_{name}.csv"
            results.record(tables[-1], path, command=command, seed=options.seed)
    if not tables:
        return 0
    table = pd.concat(tables)
    injected, well = table["injected"].sum(), table["survived"].sum()
    print(f"\n{injected} faults injected, {well} survived.")
    return int(well < injected)


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
