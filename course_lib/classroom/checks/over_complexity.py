"""Exercises of notebook 01: weights of least norm, and correlations of feature maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from course_lib.classroom import over_complexity
from course_lib.classroom.checks.engine import add
from course_lib.theory import double_descent


def random_systems(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Designs (n, p) and targets: too many weights, as many as examples, too few, and a single one."""
    for n, p in ((4, 9), (5, 5), (7, 3), (1, 3), (3, 1)):
        yield tuple(torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in ((n, p), (n,)))


def random_maps(generator: torch.Generator) -> Iterator[tuple[Tensor]]:
    """Maps (N, C, H, W), not square; related ones, one that never fires, a single example, a single map."""
    for shape in ((3, 4, 5, 2), (1, 3, 4, 4), (6, 1, 2, 3)):
        z = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
        z += torch.rand(shape[0], 1, 1, 1, generator=generator, dtype=torch.float64)  # some images are brighter
        if shape[1] > 2:
            z[:, 1] = 2 * z[:, 0] + 0.3 * z[:, 1]
            z[:, 2] = 0
        yield (z,)


def _basic(design, targets):
    n, p = design.shape
    used = min(n, p)
    weights = np.zeros(p)
    weights[:used] = np.linalg.lstsq(design[:, :used], targets, rcond=None)[0]
    return weights


def _ridge(design, targets):
    return np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ targets)


def _uninverted(design, targets):
    return design.T @ targets


def _cut_off(design, targets):
    return np.linalg.lstsq(design, targets, rcond=0.5)[0]


add(
    "least_norm",
    double_descent.least_norm,
    inputs=random_systems,
    mistakes={
        "you solved with the first n features and left the others at zero: it fits, but it is not the shortest": _basic,
        "you added a penalty; without one the training error must be zero for p >= n": _ridge,
        "you returned design' targets: the inverse of design design' is missing": _uninverted,
        "you dropped singular values that are small but not zero: rcond is too large": _cut_off,
    },
)


def _cosine(z):
    values = torch.nn.functional.normalize(z.transpose(0, 1).flatten(1).double(), dim=1)
    return values @ values.T


def _of_means(z):
    return over_complexity.correlations(z.mean((2, 3), keepdim=True))


def _image_by_image(z):
    return torch.stack([over_complexity.correlations(one[None]) for one in z]).mean(0)


def _covariance(z):
    values = z.transpose(0, 1).flatten(1).double()
    values = values - values.mean(1, keepdim=True)
    return values @ values.T / values.shape[1]


def _not_transposed(z):
    return over_complexity.correlations(z.reshape(1, z.shape[1], -1, 1))


def _dead_is_nan(z):
    r = over_complexity.correlations(z)
    dead = r.diagonal() < 0.5
    return r.masked_fill(dead[:, None] | dead, float("nan"))


add(
    "correlations",
    over_complexity.correlations,
    inputs=random_maps,
    mistakes={
        "you did not subtract each map's mean: that is the cosine, not the correlation": _cosine,
        "you averaged over positions first; two maps may agree on the average and not in any place": _of_means,
        "you took the correlation image by image and averaged; take all examples together": _image_by_image,
        "you did not divide by the standard deviations: that is the covariance": _covariance,
        "a map that never changes gives 0/0 = NaN in yours; it should correlate with nothing: zero": _dead_is_nan,
        "corrcoef gives NaN for a map that never changes, where zero is wanted, and no matrix for a single map": (
            lambda z: torch.corrcoef(z.transpose(0, 1).flatten(1))
        ),
        "you set the whole diagonal to one; a map that never changes has zero there too": lambda z: (
            over_complexity.correlations(z).fill_diagonal_(1)
        ),
        "you flattened before the axis of maps was in front, so a row has numbers of several maps": _not_transposed,
    },
)
