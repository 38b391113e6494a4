"""Figures that move without a kernel: what is in the HTML. How it behaves is tested in test_browser_frames.py."""

import base64
import html
import re

import numpy as np
import pytest
from matplotlib import pyplot as plt

import course_lib
from course_lib.classroom import controls, picture


def line(k=1, style="-"):
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.plot([0, k], style, label=f"slope {k}")
    axes.set(title=f"k is {k}", xlabel="time in s")
    axes.legend()
    return figure


def svg(k=1, word="a", on=False):
    return f'<svg xmlns="http://www.w3.org/2000/svg"><text>{k} {word} {on}</text></svg>'


def pictures(shown):
    """(is it shown, what it says) for each picture."""
    found = re.findall(r'<div class="course-frame"( style="display: none")?><img alt="(.*?)"', shown.data)
    return [(not hidden, html.unescape(alt)) for hidden, alt in found]


def test_every_combination_is_drawn_and_the_first_is_shown():
    found = pictures(course_lib.frames(svg, k=[1, 2, 5], word=["x", "y"]))
    assert [alt for _, alt in found] == [f"k = {k}, word = {w}. {k} {w} False" for k in (1, 2, 5) for w in "xy"]
    assert [shown for shown, _ in found] == [True] + 5 * [False]


def test_a_picture_says_what_is_written_in_the_figure():
    _, (_, alt) = pictures(course_lib.frames(line, k=[1, 3]))
    assert alt == "k = 3. k is 3. x: time in s. slope 3"
    assert not plt.get_fignums()


def test_the_values_choose_the_control():
    shown = course_lib.frames(svg, k=[1, 2], word=["b", "a"], on=[False, True]).data
    assert 'type="range" min="0" max="1"' in shown and "<select" in shown and 'type="checkbox"' in shown
    assert 'type="range"' not in course_lib.frames(svg, k=[2, 1]).data


def test_nothing_is_fetched_and_the_same_figure_is_the_same_html():
    shown = course_lib.frames(line, k=[1, 2]).data
    assert not re.search(r"""(src|href)="(?!data:)|url\(|import\b|fetch""", shown)
    assert shown == course_lib.frames(line, k=[1, 2]).data


def test_many_points_become_an_image_in_the_svg():
    def size(n):
        figure, axes = plt.subplots(figsize=(4, 2))
        axes.scatter(*np.random.default_rng(0).random((2, n)))
        svg = base64.b64decode(picture.image(figure).split("base64,")[1].split('"')[0]).decode()
        return svg.count("<use"), svg.count("<image")

    few, many = size(200), size(3000)
    assert few[0] > 200 and few[1] == 0 and many[0] < 100 and many[1] == 1


def test_powers_of_ten_are_written_and_nothing_else_is():
    def labels(values, **scale):
        figure, axes = plt.subplots()
        axes.plot(values)
        axes.set_yscale("log", **scale)
        picture.image(figure)
        return {text.get_text() for text in axes.get_yticklabels()}

    assert {"10⁻³", "10⁰", "10²"} <= labels([1e-3, 200])
    assert not any(text.startswith("10") for text in labels([1, 64], base=2))

    figure, axes = plt.subplots()
    axes.set(yscale="log", ylim=(0.5, 200), yticks=[1, 3, 100])
    picture.image(figure)
    assert [text.get_text() for text in axes.get_yticklabels()][::2] == ["10⁰", "10²"]
    assert "3" in axes.get_yticklabels()[1].get_text()


def test_errors_are_errors():
    with pytest.raises(ZeroDivisionError):
        course_lib.frames(lambda k: svg(1 / k), k=[1, 0])
    with pytest.raises(ValueError, match="13 x 10 = 130 pictures, more than 64"):
        course_lib.frames(svg, k=list(range(13)), word=list("abcdefghij"))
    with pytest.raises(ValueError, match="give a list of values"):
        course_lib.frames(svg, k=(0, 10, 1))
    with pytest.raises(TypeError, match="Did you mean 'word'"):
        course_lib.frames(svg, wort=["a"])


def test_a_name_with_markup_is_text():
    (_, alt), *_ = pictures(course_lib.frames(svg, word=['"><b>', "a"]))
    assert alt.startswith('word = "><b>.')


@pytest.mark.parametrize(
    ("control", "most", "expected"),
    [
        ((0, 10, 3), 4, [0, 3, 7, 10]),
        ((0, 10, 3), 99, list(range(11))),
        ((0, 127, 10), 3, [0, 10, 127]),
        ((-1.0, 1.0, 0.5, 0.5), 9, [-1, -0.5, 0, 0.5, 1]),
        ((0.1, 0.9, 0.05, 0.3), 3, [0.1, 0.3, 0.9]),
        ((0, 10, 3), 1, [3]),
        ([30, 15, 60, 120], 2, [30, 120]),
        (["a", "b", "c"], 3, ["a", "b", "c"]),
        (True, 5, [False, True]),
    ],
)
def test_a_handful_of_values_has_the_ends_and_the_default(control, most, expected):
    assert controls.values(control, most) == expected


def test_a_handful_of_all_controls_is_bounded():
    found = controls.handful({"a": (0, 100, 50), "b": ["x", "y", "z"], "c": True}, 24)
    assert {name: len(choices) for name, choices in found.items()} == {"a": 4, "b": 3, "c": 2}
    assert 50 in found["a"]


def test_explore_becomes_frames_on_slides_and_site(monkeypatch):
    monkeypatch.setenv("COURSE_LIB_FRAMES", "1")
    monkeypatch.setenv("COURSE_LIB_STATIC", "1")
    found = pictures(course_lib.explore(svg, k=(0, 10, 3), on=True))
    assert len(found) == 22
    assert [alt for shown, alt in found if shown] == ["k = 3, on = True. 3 a True"]
