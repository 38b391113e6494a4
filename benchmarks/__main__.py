"""Ratios, taken in one run: ours against the naive way and against a peer. `python -m benchmarks` prints the table.

Each comparison does the same work on both sides, in turn, several times; the median of CPU time is compared, with one
thread. Absolute seconds are not worth much on a shared machine, ratios are.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pandas as pd
import torch

from course_lib import paths
from course_lib.classroom import results

TOPICS = ("oracle", "sampling", "criteria", "surgery", "latency", "loop", "start", "widgets")


def main() -> None:
    """Run the chosen comparisons and print one table."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[[], *TOPICS], help="which comparisons; all if none is named")
    parser.add_argument("--trunk", type=Path, help="weights of VGG-16's convolutions; initial ones if not given")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="Flowers-102, for sampling and criteria")
    parser.add_argument("--save", action="store_true", help="record in data/results/benchmark_<topic>.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for topic in options.topics or TOPICS:
        table = pd.DataFrame(importlib.import_module(f"benchmarks.{topic}").run(options))
        print(f"\n{topic}\n{table.dropna(axis='columns', how='all').to_string(index=False, float_format='%.4g')}")
        if options.save:
            given = {"--trunk": options.trunk, "--photographs": options.photographs}
            command = " ".join([f"python -m benchmarks {topic}", *(f"{k} {v.name}" for k, v in given.items() if v)])
            results.record(table, paths.data_dir() / "results" / f"benchmark_{topic}.csv", command=command, seed=0)
    print("\nratio: how many times our CPU time the other side needs for the same work; one thread.")


if __name__ == "__main__":
    main()
