"""Exercises of notebook 03: separability by a linear program, and the VC dimension of a family of labellings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linprog

from course_lib.classroom.checks.engine import add
from course_lib.theory import vc_dimension


def labelled_points(generator: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points and labels: separable ones away from the origin, crossed, repeated and collinear ones, and one point."""
    rng = np.random.default_rng(int(torch.randint(1 << 30, (1,), generator=generator)))
    for p in (1, 2, 2, 3, 4):
        X = rng.standard_normal((2 * p + 3, p)) + 3
        along = X @ rng.standard_normal(p)
        yield X, np.where(along > np.sort(along)[p], 1, -1)
        yield X, rng.choice([-1, 1], len(X))
    square = np.array([[0.0, 0], [1, 1], [1, 0], [0, 1]])
    yield square, np.array([1, 1, -1, -1])
    yield square, np.array([1, -1, -1, -1])
    yield np.array([[1.0, 2], [1, 2], [3, 4]]), np.array([1, -1, 1])  # one place, two labels
    yield np.array([[0.0, 0], [1, 1], [2, 2]]), np.array([1, -1, 1])
    yield np.array([[1.0], [2], [3], [100]]), np.array([-1, -1, 1, 1])  # least squares looks at the far one
    yield np.array([[3.0, 1]]), np.array([-1])


def random_families(generator: torch.Generator) -> Iterator[tuple[np.ndarray]]:
    """Families of different labellings, of several sizes; one and all among them, and one with repeated rows."""
    for m, size in ((1, 1), (1, 2), (3, 8), (3, 3), (4, 7), (4, 11), (5, 9), (5, 20), (6, 13), (6, 40)):
        rows = torch.randperm(2**m, generator=generator)[:size].numpy()
        yield (vc_dimension.labellings(m)[rows],)
    yield (np.repeat([[1, -1, 1], [1, 1, 1]], 4, axis=0),)


def _program(X, y, *, bias=True, least=1.0, bounds=(None, None)) -> bool:
    lifted = y[:, None] * (np.column_stack([X, np.ones(len(X))]) if bias else X)
    found = linprog(np.zeros(lifted.shape[1]), A_ub=-lifted, b_ub=np.full(len(X), -least), bounds=bounds)
    return found.status == 0


def _least_squares(X, y) -> bool:
    lifted = np.column_stack([X, np.ones(len(X))])
    return bool((np.sign(lifted @ np.linalg.lstsq(lifted, y, rcond=None)[0]) == y).all())


def _on_the_margin(X, y) -> bool:
    lifted = np.column_stack([X, np.ones(len(X))])
    return linprog(np.zeros(lifted.shape[1]), A_eq=lifted, b_eq=y, bounds=(None, None)).status == 0


add(
    "separable",
    vc_dimension.separable,
    inputs=labelled_points,
    mistakes={
        "linprog takes its unknowns to be at least 0 unless you say bounds=(None, None)": lambda X, y: _program(
            X, y, bounds=(0, None)
        ),
        "you left out b, so that only lines through the origin are tried": lambda X, y: _program(X, y, bias=False),
        "yours always finds a line. Either w = 0, b = 0 satisfies your inequalities (ask for >= 1, and mind that "
        "linprog takes A v <= b), or the labels y are not in them": lambda X, y: True,
        "you returned the status as it is; it is 0 if there is a line: compare": lambda X, y: 2 * (not _program(X, y)),
        "you fitted by least squares, which may miss a line that is there; ask only for the right side": _least_squares,
        "you asked for w x + b = y; a point may lie farther from the line: y (w x + b) >= 1": _on_the_margin,
        "true and false are exchanged: status 0 means that there is a line": lambda X, y: not _program(X, y),
    },
    shows=(vc_dimension.separable, vc_dimension.separator),
)


def _every_set(family) -> int:
    """The largest k such that all sets of k points are shattered."""
    m = family.shape[1]
    full = [k for k in range(m + 1) if all(vc_dimension.is_shattered(family, s) for s in combinations(range(m), k))]
    return max(full)


def _first_points(family) -> int:
    return max(k for k in range(family.shape[1] + 1) if vc_dimension.is_shattered(family, tuple(range(k))))


def _repeated_rows(family) -> int:
    m = family.shape[1]
    return max(k for k in range(m + 1) if len(family) >= 2**k)


add(
    "family_dimension",
    vc_dimension.family_dimension,
    inputs=random_families,
    mistakes={
        "you want every set of that size to be shattered; one is enough": _every_set,
        "you looked at the first points only; any set of points counts": _first_points,
        "you took the logarithm of the number of labellings: that is an upper bound only": lambda family: int(
            np.log2(len(np.unique(family, axis=0)))
        ),
        "you counted rows; on a set of points many rows are the same, and equal rows count once": _repeated_rows,
        "you counted the points that have both labels; all combinations must occur": lambda family: int(
            (np.abs(family.sum(0)) < len(family)).sum()
        ),
        "you counted the shattered sets; the size of the largest is asked for": lambda family: len(
            vc_dimension.shattered_sets(family)
        ),
        "you counted the shattered sets, all but the empty one; the size of the largest is asked for": lambda family: (
            len(vc_dimension.shattered_sets(family)) - 1
        ),
    },
    shows=(vc_dimension.family_dimension, vc_dimension.shattered_sets, vc_dimension.is_shattered),
)
