"""The recorded studies at their smallest sizes, to be repeated: ``python -m drills.studies NAME FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from course_lib import datasets
from course_lib.classroom import results, rethinking, session, true_oracle, update_budget, weight_sharing


def _update_budget() -> dict[str, pd.DataFrame]:
    lab = session.start("ci", train_images=64, test_images=32, score_images=16)
    lab = lab.adapted(**update_budget.SIZES["ci"] | {"maps_per_step": 87, "updates": 1})
    splits = lab.splits()
    model = lab.network(splits)
    steps = pd.concat(update_budget.study(lab, splits, model, seed=0))
    return {"criteria": update_budget.table1(model, splits, images=16, seed=0), "pruning": steps}


def _true_oracle() -> dict[str, pd.DataFrame]:
    lab = session.start("ci", train_images=64, test_images=32, network="alexnet-petals")
    splits = lab.splits()
    few = {"images": 8, "moments": (1, 2), "noise": (1.0,), "draws": 1, "unscored": 1}
    return {"cuts": pd.DataFrame(true_oracle.study(lab.network(splits), splits, share=0.75, **few))}


def _weight_sharing() -> dict[str, pd.DataFrame]:
    recipe = replace(weight_sharing.RECIPES["digits"], hidden=(8, 6), training_epochs=2)
    rows = weight_sharing.study(datasets.load("digits"), recipe, epochs=2, seed=0, device=torch.device("cpu"))
    return {"rows": pd.DataFrame(rows)}


def _rethinking() -> dict[str, pd.DataFrame]:
    splits = datasets.load("digits", train=640, test=100)
    return {
        "lottery": rethinking.lottery(splits, (0.5,), updates=8, early=4),
        "scratch": pd.DataFrame(rethinking.scratch(splits, epochs=1, few=1)),
    }


#: module of `course_lib.classroom` that records a study -> its tables at the smallest sizes.
STUDIES: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
    "update_budget": _update_budget,
    "true_oracle": _true_oracle,
    "weight_sharing": _weight_sharing,
    "rethinking": _rethinking,
}


def main() -> None:
    """Write the tables of a study into a folder."""
    name, folder = sys.argv[1:]
    for what, table in STUDIES[name]().items():
        results.record(table.assign(seed=0), Path(folder) / f"{what}.csv", command="drill", seed=None)


if __name__ == "__main__":
    main()
