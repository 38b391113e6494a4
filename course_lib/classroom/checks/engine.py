"""What every exercise shares: adding one, judging an answer to it, showing its solution."""

from __future__ import annotations

import copy
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.criteria import Maps
from course_lib.names import UnknownName


class Exercise(NamedTuple):
    """What `check` needs to know; made by `add`."""

    reference: Callable
    inputs: Callable[[torch.Generator], Iterable[tuple]]
    mistakes: Mapping[str, Callable]
    shows: tuple[object, ...]
    problem: Callable[[Callable, list[tuple]], str | None] | None = None


class Verdict(NamedTuple):
    """`kind`: 'not started', 'raised', 'mistake', 'wrong shape', 'wrong values' or 'right'; and a sentence."""

    kind: str
    sentence: str


EXERCISES: dict[str, Exercise] = {}


def add(
    name: str,
    reference: Callable,
    *,
    inputs: Callable,
    mistakes: Mapping[str, Callable],
    shows: tuple = (),
    problem: Callable[[Callable, list[tuple]], str | None] | None = None,
) -> None:
    """Add an exercise.

    Args:
        reference: the right function: the library's, or a slow and independent one.
        inputs: generator of random numbers -> argument tuples, of several sizes, ones among them.
        mistakes: what a typical mistake is, said to the student ("you ..."), -> a function that makes it.
        shows: functions or classes whose source is the solution; the reference if not given.
        problem: for an exercise with many right answers: (function, inputs) -> what is wrong with it, or None. The
            reference is then one right answer among many, and nothing is compared with it.
    """
    EXERCISES[name] = Exercise(reference, inputs, mistakes, shows or (reference,), problem)


def find(name: str) -> Exercise:
    """The exercise of this name; KeyError with the nearest names for an unknown one."""
    if name not in EXERCISES:
        raise UnknownName("exercise", name, EXERCISES)
    return EXERCISES[name]


def check(name: str, function: Callable) -> None:
    """Try a student's function on random inputs and print one sentence: right, or what is wrong."""
    print(judge(name, function).sentence)


def judge(name: str, function: Callable, seed: int = 0) -> Verdict:
    """The verdict on a student's function. Every call gets its own copy of the inputs, so it may change them."""
    exercise = find(name)
    cases = list(exercise.inputs(torch.Generator().manual_seed(seed)))
    answers = []
    for case in cases:
        try:
            answers.append(_run(function, case))
        except NotImplementedError:
            answers.append(None)
        except Exception as error:
            return Verdict("raised", f"Your function raised {_where(error, function)}, on {describe(case)}.")
        if answers[-1] is None or answers[-1] is ...:
            return Verdict("not started", "Not started yet: your function returns nothing.")
    if exercise.problem:
        sentence = exercise.problem(function, copy.deepcopy(cases))
        if sentence:
            return Verdict("mistake", f"Not yet: {sentence}.")
        return Verdict("right", f"Right: nothing wrong with it on {len(cases)} random inputs. What is it worth?")
    expected = [_run(exercise.reference, case) for case in cases]
    problems = [_compare(yours, right) for yours, right in zip(answers, expected, strict=True)]
    if not any(problems):
        return Verdict("right", f"Right: the same as the library's on {len(cases)} random inputs.")
    if sentence := _named(exercise, cases, answers):
        return Verdict("mistake", f"Not yet: {sentence}")
    problem, case = next((problem, case) for problem, case in zip(problems, cases, strict=True) if problem)
    return Verdict(problem.kind, f"Not yet: {problem.sentence}, on {describe(case)}.")


def solution(name: str):
    """The library's own code, folded, for the notebook to show."""
    from IPython.display import HTML
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source = "\n\n".join(inspect.getsource(shown) for shown in find(name).shows)
    code = highlight(source, PythonLexer(), HtmlFormatter(noclasses=True, prestyles="padding: 1em; color: #222"))
    return HTML(f"<details><summary>Solution: the library's own code</summary>{code}</details>")


def describe(case: object) -> str:
    """An input in a few words: shapes of tensors, small things as they are."""
    if isinstance(case, tuple):
        return ", ".join(map(describe, case))
    if isinstance(case, Maps):
        return f"maps with z of shape {tuple(case.z.shape)}"
    if isinstance(case, Tensor | np.ndarray):
        return f"an array of shape {tuple(case.shape)}" if case.ndim else f"{float(case):.4g}"
    if isinstance(case, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(value)}" for key, value in case.items()) + "}"
    if isinstance(case, float):
        return f"{case:.4g}"
    tells = len(repr(case)) < 60 and type(case).__repr__ is not object.__repr__
    return getattr(case, "__name__", None) or (repr(case) if tells else type(case).__name__)


def _run(function: Callable, case: tuple) -> Any:
    return function(*copy.deepcopy(case))


def _where(error: Exception, function: Callable) -> str:
    """Type, message and, where it can be found, the student's own line that failed."""
    code = getattr(function, "__code__", None)
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename
    ]
    what = f"{type(error).__name__}: {error}"
    if not lines:
        return what
    return f"{what}; in line {lines[-1].lineno}, `{linecache.getline(code.co_filename, lines[-1].lineno).strip()}`"


def _named(exercise: Exercise, cases: list[tuple], answers: list) -> str | None:
    """The typical mistake that gives the student's answers, everywhere."""
    for sentence, mistaken in exercise.mistakes.items():
        results = (_run(mistaken, case) for case in cases)
        if not any(_compare(yours, result) for yours, result in zip(answers, results, strict=True)):
            return f"{sentence}."
    return None


def _compare(yours: Any, right: Any) -> Verdict | None:
    """None if they are the same to rounding; otherwise 'wrong shape' or 'wrong values' and half a sentence."""
    if isinstance(right, Mapping):
        if not isinstance(yours, Mapping) or set(yours) != set(right):
            keys = list(yours) if isinstance(yours, Mapping) else f"a {type(yours).__name__}"
            return Verdict("wrong shape", f"a dict with keys {list(right)} is expected, yours is {keys}")
        return next(filter(None, (_compare(yours[key], right[key]) for key in right)), None)
    try:
        yours = np.asarray(yours.detach() if isinstance(yours, Tensor) else yours, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        return Verdict("wrong shape", f"numbers are expected, yours is a {type(yours).__name__}")
    right = np.asarray(right, dtype=float)
    if yours.shape != right.shape:
        return Verdict("wrong shape", f"your result has shape {yours.shape}, expected is {right.shape}")
    same = np.isclose(yours, right, rtol=1e-5, atol=1e-8, equal_nan=True)
    if same.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~same)[0])
    place = f" at {list(at)}" if at else ""
    return Verdict(
        "wrong values", f"{place.strip() + ' ' if place else ''}you have {yours[at]:.4g}, expected is {right[at]:.4g}"
    )
