"""Relevance determination for feature maps: a network, linearised in the gates of one layer, is a linear model.

With the logits linear in the gates, o(g) = o + J (g - 1), the parabola that touches the loss has the Hessian of a
linear model with design Phi = S'J and noise of variance one, where S S' = diag p - p p'. Its targets are the network's
own answers, Phi 1, if the slope by the gates is taken to be zero, as optimal brain damage does. So everything in
`theory.evidence` applies, with the gates of the layer as the weights.

Taught in: notebooks/04_evidence.ipynb.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from course_lib.classroom import ablations, gate_curves
from course_lib.feature_maps import Batches
from course_lib.progress import track
from course_lib.theory import evidence


def design(model: nn.Module, batches: Batches, layer: str) -> tuple[np.ndarray, int]:
    """A (C, C) matrix with the same Phi'Phi as all rows of all examples, and the number of examples."""
    root, examples = None, 0
    for images, _ in track(batches, f"gates of {layer}"):
        slopes, p = gate_curves.logit_slopes(model, images, layer)
        p = p.unsqueeze(2)
        rows = (p.sqrt() * (slopes - (p * slopes).sum(1, keepdim=True))).flatten(0, 1)  # S'J
        rows = rows.double().cpu().numpy()
        root = np.linalg.qr(rows if root is None else np.vstack([root, rows]), mode="r")
        examples += len(images)
    return root, examples


def relevant(root: np.ndarray, weight: float, steps: int = 400) -> np.ndarray:
    """Which maps stay, (C,) of booleans, after relevance determination with an alpha for every gate.

    Args:
        root: of `design`.
        weight: training images for each of those that `design` has seen.
        steps: of the fixed point; maps whose alpha has not passed `evidence.GONE` by then stay.
    """
    alone, alpha = np.arange(root.shape[1]), np.ones(root.shape[1])
    for _ in range(steps):
        alpha, _, _ = evidence.re_estimate(root, root.sum(1), alpha, weight, alone)
    return alpha < evidence.GONE


def anew(root: np.ndarray, kept: np.ndarray, weight: float) -> Tensor:
    """Gates (C,) in which those that stay make up for those that go: the most probable ones, with alpha = 1."""
    gates = torch.zeros(len(kept))
    found = evidence.posterior(root[:, kept], root.sum(1), 1.0, weight).mean
    gates[torch.from_numpy(kept)] = torch.from_numpy(found).float()
    return gates


def best(scores: Tensor, n: int) -> np.ndarray:
    """Which maps stay, (C,) of booleans: the n highest scores."""
    kept = np.zeros(len(scores), bool)
    kept[scores.argsort(descending=True)[:n].numpy()] = True
    return kept


def compare(
    model: nn.Module, batches: Batches, choices: dict[str, dict[str, np.ndarray]], roots: dict, weight: float
) -> pd.DataFrame:
    """Accuracy with one layer pruned at a time, without fine-tuning: the other gates left open, or set anew.

    Args:
        batches: pictures to evaluate on.
        choices: who chose -> {layer: (C,) booleans, which maps stay}.
        roots: {layer: (C, C)}, of `design`.
        weight: as for `relevant`.

    Returns:
        One row for each choice, layer and kind of gates: chosen_by, layer, maps, kept, gates ('open' or 'anew'),
        accuracy, loss.
    """
    rows, batches = [], list(batches)
    pairs = [(who, layer) for who, layers in choices.items() for layer in layers]
    for who, layer in track(pairs, "closing gates"):
        kept = choices[who][layer]
        for kind, gate in (("open", torch.tensor(kept).float()), ("anew", anew(roots[layer], kept, weight))):
            found = ablations.evaluate_gated(model, batches, {layer: gate})
            size = {"chosen_by": who, "layer": layer, "maps": len(kept), "kept": int(kept.sum())}
            rows.append({**size, "gates": kind, "accuracy": found.accuracy, "loss": found.loss})
    return pd.DataFrame(rows)
