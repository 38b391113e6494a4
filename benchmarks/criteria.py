"""All criteria in one pass."""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from benchmarks.timing import cpu_seconds, rows
from course_lib import criteria, datasets, models


def run(options: argparse.Namespace) -> list[dict]:
    """Every criterion in one pass, against one bare training step with gradients of the weights."""
    model, splits = models.trained("vgg16-petals"), datasets.load("petals", train=256, val=10, test=10)
    batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in datasets.batches(splits.train)]
    without_obd = [name for name in criteria.CRITERIA if name != "obd"]

    def bare():
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
            model.zero_grad()

    found = []
    for work, names in (("without OBD", without_obd), ("with OBD", list(criteria.CRITERIA))):
        score = {"ours": lambda names=names: criteria.score(model, batches, names, progress=False)}
        found += rows(f"all criteria {work}, 256 images of 32 x 32", cpu_seconds(score | {"bare training step": bare}))
    return found
