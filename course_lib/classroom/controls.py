"""What a figure to play with is told to vary: ``k=(low, high, default)``, a list of choices, True or False."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable

import numpy as np

from course_lib.names import unknown


def check_names(fn: Callable, names: list[str], asked: str) -> None:
    """TypeError unless `fn` takes these arguments and needs no others; `asked` is what the reader called."""
    parameters = inspect.signature(fn).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        for name in names:
            if name not in named:
                raise TypeError(unknown(f"argument of {called(fn)}()", name, named))
    missing = [p.name for p in parameters if p.name in named and p.default is p.empty and p.name not in names]
    if missing:
        raise TypeError(f"{asked}({called(fn)}, ...) needs a control for each of: {', '.join(missing)}.")


def called(fn: Callable) -> str:
    """The name of a function, also of one with some arguments filled in."""
    return getattr(getattr(fn, "func", fn), "__name__", type(fn).__name__)


def default(name: str, control):
    """The value that a control begins with. ValueError, saying what a control may be, for anything else."""
    if isinstance(control, bool):
        return control
    if isinstance(control, list) and control:
        return control[0]
    if isinstance(control, tuple) and len(control) in (3, 4) and all(isinstance(x, int | float) for x in control):
        low, high, first = control[0], control[1], control[-1]
        if low <= first <= high and low < high:
            _check_steps(name, control)
            return first
    raise ValueError(
        f"The control {name}={control!r} is none of: (low, high, default) or (low, high, step, default), numbers with "
        "low <= default <= high; a list of choices; True or False."
    )


def _check_steps(name: str, control: tuple) -> None:
    low, _, step, _ = slider(control)
    steps = (control[-1] - low) / step if step > 0 else 0.5
    if abs(steps - round(steps)) > 1e-6:  # a front end would round it, and show another picture
        raise ValueError(f"The control {name}={control!r} goes up from {low} in steps of {step}, past its default.")


def slider(control: tuple) -> tuple[float, float, float, bool]:
    """Lowest and highest value of a slider, its step, and whether it counts in whole numbers."""
    low, high, *step, _ = control
    whole = all(isinstance(x, int) for x in control)
    return low, high, step[0] if step else 1 if whole else _round_step((high - low) / 100), whole


def _round_step(most: float) -> float:
    """The largest of ..., 0.1, 0.2, 0.5, 1, ... that is at most so much: a default given in few digits lies on it."""
    power = 10.0 ** math.floor(math.log10(most) + 1e-9)
    return float(f"{max(m * power for m in (1, 2, 5) if m * power <= most * (1 + 1e-9)):.6g}")


def decimals(step: float) -> int:
    """How many digits after the point tell the values of a slider apart."""
    return len(f"{step:.10f}".rstrip("0").partition(".")[2])


def values(control, most: int) -> list:
    """At most so many values of a control, in order: the ends, the default, and others evenly between."""
    if isinstance(control, bool):
        return [False, True]
    if isinstance(control, list):
        every, keep = control, control[0]
    else:
        (low, high, step, whole), keep = slider(control), control[-1]
        every = [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]
        every = every if whole else [float(f"{x:.6g}") for x in every]
    places = np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int)
    chosen = [every[i] for i in dict.fromkeys(places.tolist())]
    if keep not in chosen:  # in the place of the nearest, if it can be of one that is no end
        near = min(range(1, len(chosen) - 1) or range(len(chosen)), key=lambda i: abs(chosen[i] - keep))
        chosen[near] = keep
    return chosen


def handful(controls: dict, pictures: int) -> dict[str, list]:
    """A few values of each control, so few that all combinations are at most so many pictures."""
    most = {name: len(values(control, pictures)) for name, control in controls.items()}
    while np.prod(list(most.values())) > pictures and max(most.values()) > 1:
        most[max(most, key=most.get)] -= 1
    return {name: values(control, most[name]) for name, control in controls.items()}


def combinations(lists: dict[str, list]) -> list[dict]:
    """Every choice of one value from each list."""
    return [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]
