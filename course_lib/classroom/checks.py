"""Exercises: a student's function against the library's own, and an answer that names the mistake.

In a notebook: ``checks.check("taylor", taylor)`` in the cell below the student's stub, ``checks.solution("taylor")`` in
the next. An exercise is one call of `add`: the library's function, random inputs, and the mistakes that are typical.
"""

from __future__ import annotations

import copy
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import cost, criteria, loss, ranking, surgery
from course_lib.classroom import ablations
from course_lib.criteria import Maps
from course_lib.feature_maps import Chain, Scores
from course_lib.names import UnknownName

SHAPES = ((3, 4, 5, 6), (5, 2, 3, 3), (1, 4, 2, 3), (4, 1, 3, 2), (1, 1, 1, 1))  # N, C, H, W: H is not W, and ones


class Exercise(NamedTuple):
    """What `check` needs to know; made by `add`."""

    reference: Callable
    inputs: Callable[[torch.Generator], Iterable[tuple]]
    mistakes: Mapping[str, Callable]
    shows: tuple[object, ...]


class Verdict(NamedTuple):
    """`kind`: 'not started', 'raised', 'mistake', 'wrong shape', 'wrong values' or 'right'; and a sentence."""

    kind: str
    sentence: str


EXERCISES: dict[str, Exercise] = {}


def add(
    name: str, reference: Callable, *, inputs: Callable, mistakes: Mapping[str, Callable], shows: tuple = ()
) -> None:
    """Add an exercise.

    Args:
        reference: the right function: the library's, or a slow and independent one.
        inputs: generator of random numbers -> argument tuples, of several sizes, ones among them.
        mistakes: what a typical mistake is, said to the student ("you ..."), -> a function that makes it.
        shows: functions or classes whose source is the solution; the reference if not given.
    """
    EXERCISES[name] = Exercise(reference, inputs, mistakes, shows or (reference,))


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
    expected = [_run(exercise.reference, case) for case in cases]
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
    return getattr(case, "__name__", None) or (repr(case) if len(repr(case)) < 60 else type(case).__name__)


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


# The exercises. Inputs first, for others to use too.


def random_maps(generator: torch.Generator) -> Iterator[tuple[Maps]]:
    """What a criterion is shown: feature maps after the ReLU, the last of them dead, and their gradients."""
    for shape in SHAPES:
        z = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
        z[:, 1:][:, -1:] = 0
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
        weight = torch.randn(shape[1], 2, 3, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(5, shape[:1], generator=generator)
        yield (Maps(weight, torch.Generator(), z, gradient, torch.rand(shape[:2]), labels, 5),)


def random_scores(generator: torch.Generator) -> Iterator[tuple[Scores]]:
    """Scores of networks of several sizes; one of them has a layer that is all zero."""
    for sizes in ((4, 3, 6), (1, 5), (1,)):
        yield ({f"conv{i}": torch.rand(n, generator=generator) * 10.0**-i for i, n in enumerate(sizes, 1)},)
    yield ({"conv1": torch.rand(3, generator=generator), "conv2": torch.zeros(2)},)


def _each_layer(how: Callable[[Tensor], Tensor]) -> Callable[[Scores], Scores]:
    return lambda scores: {name: how(s) for name, s in scores.items()}


def l2(scores: Scores) -> Scores:
    """The reference of exercise 'l2': `ranking.normalize` with its default."""
    return ranking.normalize(scores, "l2")


add(
    "taylor",
    criteria.taylor,
    inputs=random_maps,
    mistakes={
        "you took the absolute value at every position; inside a map the signs must be allowed to cancel": lambda m: (
            (m.gradient * m.z).abs().mean(m.positions)
        ),
        "you averaged over examples before taking the absolute value": lambda m: (
            (m.gradient * m.z).mean((0, *m.positions)).abs()
        ),
        "you averaged over examples; return one number for each example and map, `score` averages them": lambda m: (
            (m.gradient * m.z).mean(m.positions).abs().mean(0)
        ),
        "you summed over positions; eq. 8 divides by their number M": lambda m: (
            (m.gradient * m.z).sum(m.positions).abs()
        ),
        "you left out the absolute value": lambda m: (m.gradient * m.z).mean(m.positions),
        "you left out z: this is the gradient alone": lambda m: m.gradient.mean(m.positions).abs(),
        "you multiplied the averages; the product comes first, position by position": lambda m: (
            m.gradient.mean(m.positions) * m.z.mean(m.positions)
        ).abs(),
    },
)

add(
    "l2",
    l2,
    inputs=random_scores,
    mistakes={
        "you divided by the norm over all layers; each layer has its own": lambda scores: {
            name: s / torch.cat(list(scores.values())).norm() for name, s in scores.items()
        },
        "you divided by the sum of absolute values: that is l1": _each_layer(
            lambda s: s / s.abs().sum().clamp(min=1e-30)
        ),
        "you forgot the root: the sum of squares is the norm squared": _each_layer(
            lambda s: s / s.square().sum().clamp(min=1e-30)
        ),
        "you divided by the root of the mean square; the paper takes the sum": _each_layer(
            lambda s: s / s.square().mean().sqrt().clamp(min=1e-30)
        ),
        "a layer whose scores are all zero became NaN; it should stay zero": _each_layer(lambda s: s / s.norm()),
    },
    shows=(ranking.normalize, ranking._divide),
)


def random_channels(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Channels that stay, (K,), and the columns that each of them owns in the next linear layer."""
    for channels, block in ((6, 4), (5, 1), (9, 9), (1, 3)):
        some = torch.randperm(channels, generator=generator)[: max(1, channels // 2)]
        yield some.sort().values, block


def random_layers(generator: torch.Generator) -> Iterator[tuple[int, int]]:
    """Positions of a map and weights of its kernel; the first is VGG-16's second layer at 224 pixels."""
    yield 224 * 224, 64 * 9
    for _ in range(3):
        yield tuple(torch.randint(1, 1000, (2,), generator=generator).tolist())


add(
    "columns",
    surgery.columns,
    inputs=random_channels,
    mistakes={
        "you interleaved the channels; after flatten a channel's columns are neighbours": lambda c, b: (
            c[None] + torch.arange(b)[:, None] * (int(c.max()) + 1)
        ).flatten(),
        "you took only the first column of each channel": lambda c, b: c * b,
        "you forgot that channel c begins at column c times block": lambda c, b: (
            c[:, None] + torch.arange(b)
        ).flatten(),
        "right columns, but position by position; flatten lays one whole map after the other": lambda c, b: (
            c[None] * b + torch.arange(b)[:, None]
        ).flatten(),
        "return the indices in one row: flatten the table": lambda c, b: c[:, None] * b + torch.arange(b),
    },
)

add(
    "mflops_of_a_map",
    cost.mflops_of_a_map,
    inputs=random_layers,
    mistakes={
        "these are MACs: one MAC is two FLOPs": lambda positions, weights: positions * (weights + 1) / 1e6,
        "you left out the bias, which counts as one more input": lambda positions, weights: (
            2 * positions * weights / 1e6
        ),
        "these are FLOPs; asked for are millions of them": lambda positions, weights: 2 * positions * (weights + 1),
        "you left out the positions: every one of them is computed": lambda positions, weights: 2 * (weights + 1) / 1e6,
    },
)


def random_gates(generator: torch.Generator) -> Iterator[tuple[Chain, Tensor, Tensor, str, int]]:
    """A small network as a chain, images, labels, and the layer and index of one of its feature maps."""
    for n, maps, layer, index in ((5, 3, "0", 1), (4, 2, "2", 0), (1, 4, "2", 3), (2, 1, "0", 0)):
        layers = [nn.Conv2d(2, maps, 3), nn.ReLU(), nn.Conv2d(maps, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
        model = nn.Sequential(*layers).double().requires_grad_(False)
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        images = torch.randn(n, 2, 6, 6, generator=generator, dtype=torch.float64)
        yield Chain(model), images, torch.randint(3, (n,), generator=generator), layer, index


def _losses(chain: Chain, images: Tensor, labels: Tensor, layer: str, closed: Iterable[int]) -> Tensor:
    gate = torch.ones(chain.layers[layer].channels)
    gate[list(closed)] = 0.0
    return loss.per_example(chain.run(images, gates={layer: gate}), labels)


add(
    "change_of_loss",
    ablations.change_of_loss,
    inputs=random_gates,
    mistakes={
        "you returned the loss with the gate closed; subtract the loss with all gates open": lambda *case: _losses(
            *case[:4], [case[4]]
        ).mean(),
        "you subtracted the wrong way round: more loss without the map is a positive number": lambda *case: (
            -ablations.change_of_loss(*case)
        ),
        "you summed over the pictures; the cost is their mean": lambda *case: (
            len(case[1]) * ablations.change_of_loss(*case)
        ),
        "you closed all gates of the layer but this one": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, set(range(chain.layers[layer].channels)) - {index})
            - _losses(chain, x, y, layer, [])
        ).mean(),
        "you closed the whole layer": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, range(chain.layers[layer].channels)) - _losses(chain, x, y, layer, [])
        ).mean(),
        "you took the absolute value: the sign is wanted here": lambda *case: abs(ablations.change_of_loss(*case)),
        "you returned one number for each picture; the cost is their mean": lambda chain, x, y, layer, index: (
            _losses(chain, x, y, layer, [index]) - _losses(chain, x, y, layer, [])
        ),
    },
)


def random_effects(generator: torch.Generator) -> Iterator[tuple[Tensor]]:
    """Changes of loss, (N, C), of at least two pictures."""
    for shape in ((5, 3), (2, 4), (9, 2), (4, 4)):
        yield (torch.randn(shape, generator=generator, dtype=torch.float64),)


add(
    "standard_error",
    ablations.standard_error,
    inputs=random_effects,
    mistakes={
        "this is the standard deviation of one picture; the mean of N scatters less, by the root of N": lambda e: e.std(
            0
        ),
        "you divided by N; the standard error goes with the root of N": lambda e: e.std(0) / len(e),
        "you divided the sum of squares by N; the unbiased estimate divides by N - 1": lambda e: (
            e.std(0, correction=0) / len(e) ** 0.5
        ),
        "you went along the maps; the pictures are the rows": lambda e: e.std(1) / e.shape[1] ** 0.5,
        "you took the variance; the standard error is its root": lambda e: e.var(0) / len(e),
    },
)
