"""The pruning loop: what a step spends on anything but running and training the network."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from functools import wraps
from unittest import mock

from course_lib import cost, criteria, datasets, models, pruning, ranking, surgery, training

PARTS = {
    "scoring": [(criteria, "score")],
    "ranking": [(ranking, "normalize"), (ranking, "lowest")],
    "surgery": [(surgery, "remove"), (surgery, "carry_optimizer")],
    "counting": [(cost, "macs"), (cost, "feature_maps")],
    "checkpoint": [(models, "write_safetensors")],
    "fine-tuning": [(training, "fit")],
    "evaluation": [(training, "evaluate")],
}


def run(options: argparse.Namespace) -> list[dict]:
    """Share of each part in the CPU time of a step, in the sizes of profile `laptop`; and the whole step's seconds.

    `outside` is all but fine-tuning and evaluation: what the choice of the maps costs besides the training.
    """
    model, splits = models.trained("vgg16-petals"), datasets.load("petals", train=2000, test=1500)
    settings = {"maps_per_step": 44, "updates": 30, "images": 256, "optimizer": "adam", "lr": 2e-4}
    found = []
    for work, while_tuning in (("scoring in a pass of its own", False), ("scoring while tuning", True)):
        seconds, steps = _profile(model, splits, score_while_tuning=while_tuning, **settings)
        whole = seconds.pop("step")
        shares = {part: seconds[part] / whole for part in PARTS}
        outside = sum(share for part, share in shares.items() if part not in ("fine-tuning", "evaluation"))
        found.append({"work": work, "step_seconds": whole / steps, **shares, "outside": outside})
    return found


def _profile(model, splits, **settings) -> tuple[Counter, int]:
    """CPU seconds of each part over the steps of a run, "step" being all of them together; and how many steps."""
    seconds: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for part, functions in PARTS.items():
            for module, name in functions:
                timed = _timed(getattr(module, name), part, seconds)
                stack.enter_context(mock.patch.object(module, name, timed))
        steps = pruning.prune(model, splits, maps_left=0.75, folder=folder, progress=False, **settings)
        next(steps)  # the network as given
        next(steps)  # the first step scores in a pass of its own in any case
        seconds.clear()
        began = time.process_time()
        number = sum(1 for _ in steps)
        seconds["step"] = time.process_time() - began
    return seconds, number


def _timed(function, part: str, seconds: Counter):
    @wraps(function)
    def timed(*args, **kwargs):
        began = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - began

    return timed
