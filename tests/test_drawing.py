"""Every figure is drawn by a test, and `drawn`, by which tests judge figures, sees what is wrong with one."""

import re
import typing
from pathlib import Path

import pytest
from drawing import drawn
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_lib.classroom import figures

pytestmark = pytest.mark.usefixtures("figure_style")


def test_a_small_text_is_named():
    figure, axes = plt.subplots(figsize=(10, 5))
    axes.text(0.5, 0.5, "the small print", fontsize=8.9)
    with pytest.raises(AssertionError, match="the small print"):
        drawn(figure)
    axes.texts[0].set_size(9)
    assert drawn(figure) is figure


def test_a_wide_figure_needs_larger_texts():
    figure, axes = plt.subplots(figsize=(15, 5))
    axes.set_title("a heading", fontsize=13)
    with pytest.raises(AssertionError, match="a heading"):
        drawn(figure)


def test_a_background_that_lets_a_dark_page_through_is_refused():
    figure, _ = plt.subplots()
    figure.set_facecolor("none")
    with pytest.raises(AssertionError, match="dark page"):
        drawn(figure)


def test_every_figure_is_drawn_by_a_test():
    tests = "\n".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    found = set(re.findall(r"drawn\(\s*figures\.(\w+)", tests))
    every = {name for name in figures.__all__ if _returns(getattr(figures, name)) is Figure}
    assert len(every) > 80 and not every - found


def _returns(function):
    try:
        return typing.get_type_hints(function).get("return")
    except NameError:  # a name that only type checkers know
        return None
