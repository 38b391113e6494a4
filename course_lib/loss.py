"""The cost C of the paper: cross-entropy in nats, one number for every example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each example, in nats.

    Args:
        logits: (N, classes).
        labels: (N,) integers in 0 .. classes - 1.

    Returns:
        (N,) losses.

    Raises:
        ValueError: a label that the network has no output for; logits or labels of another shape or type.
        FloatingPointError: a loss that is infinite or not a number.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"Outputs of shape {tuple(logits.shape)} do not go with labels of shape {tuple(labels.shape)} and type "
            f"{labels.dtype}: each example has one row of outputs, (N, classes), and one whole number, (N,) of type "
            "torch.int64 (labels.long())."
        )
    classes = logits.shape[1]
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(
            f"Labels run from {int(labels.min())} to {int(labels.max())}, but the network has {classes} outputs "
            f"(labels 0 to {classes - 1}). Give the network as many outputs as the data set has classes."
        )
    losses = F.cross_entropy(logits, labels, reduction="none")
    if not bool(torch.isfinite(losses.detach()).all()):
        raise FloatingPointError(
            "The loss is infinite or not a number. Weights or images may hold NaN, or the learning rate was too "
            "high: reload the network, check the images, and try a tenth of the learning rate."
        )
    return losses
