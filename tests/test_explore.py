"""Figures to play with: static where nobody is watching, live under ipywidgets without a browser."""

import asyncio
import base64

import ipywidgets as widgets
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import course_lib
from course_lib.classroom import explore as module

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>{}</text></svg>'


def line(k=1, style="-"):
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, k], style)
    return figure


def svg(k=1, word="a", on=False):
    return SVG.format(f"{k} {word} {on}")


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(module, "is_watched", lambda: True)


def parts(box):
    *handles, picture = box.children
    return handles, picture


def in_it(picture):
    """The text of the SVG in a picture."""
    return base64.b64decode(picture.value.split("svg+xml;base64,")[1].split('"')[0]).decode()


def test_headless_returns_the_default_figure_closed():
    figure = course_lib.explore(line, k=(0, 10, 3), style=["--", "-"])
    assert isinstance(figure, Figure) and not plt.get_fignums()
    drawn = figure.axes[0].lines[0]
    assert drawn.get_ydata()[1] == 3 and drawn.get_linestyle() == "--"


def test_headless_shows_an_svg_text():
    shown = course_lib.explore(svg, k=(0, 10, 5, 5))
    assert "5 a False" in shown._repr_svg_()


def test_headless_errors_are_errors():
    with pytest.raises(ZeroDivisionError):
        course_lib.explore(lambda k: 1 / k, k=(0, 1, 0))


def test_live_has_a_control_for_each_argument_and_one_picture(watched):
    handles, picture = parts(course_lib.explore(svg, k=(0, 10, 2, 4), word=["x", "y"], on=True))
    assert [type(h) for h in handles] == [widgets.IntSlider, widgets.Dropdown, widgets.Checkbox]
    assert (handles[0].min, handles[0].max, handles[0].step, handles[0].value) == (0, 10, 2, 4)
    assert isinstance(picture, widgets.HTML) and in_it(picture) == SVG.format("4 x True")


def test_live_fractions_make_a_float_slider(watched):
    (slider,), _ = parts(course_lib.explore(svg, k=(0, 1.0, 0.5)))
    assert isinstance(slider, widgets.FloatSlider) and slider.step == pytest.approx(0.01)


def test_live_picture_follows_every_control_to_its_ends(watched):
    (k, word, on), picture = parts(course_lib.explore(svg, k=(0, 10, 4), word=["x", "y"], on=False))
    for value in (k.min, k.max):
        k.value = value
        assert in_it(picture) == SVG.format(f"{value} x False")
    word.value = "y"
    on.value = True
    assert in_it(picture) == SVG.format("10 y True")


def test_live_figures_are_pictures_that_change_and_are_closed(watched):
    (slider,), picture = parts(course_lib.explore(line, k=(0, 10, 3)))
    before = picture.value
    slider.value = 9
    assert picture.value != before and not plt.get_fignums()
    assert in_it(picture).startswith("<?xml") and 'alt="k = 9"' in picture.value


def test_live_errors_are_shown_in_the_picture_and_the_next_value_heals(watched):
    (slider,), picture = parts(course_lib.explore(lambda k: svg(1 // k), k=(0, 3, 1)))
    slider.value = 0
    assert "ZeroDivisionError" in picture.value
    slider.value = 3
    assert in_it(picture) == SVG.format("0 a False")


@pytest.mark.parametrize(
    "control", [(1, 2), (1, 2, 3), (3, 1, 2), (1, 1, 1), ("a", "b", "c"), [], 5, "abc", (1, 2, 1, 1, 1), None]
)
def test_a_control_given_wrongly_is_refused_in_words(control):
    with pytest.raises(ValueError, match=r"The control k=.* \(low, high, default\)"):
        course_lib.explore(line, k=control)


def test_unknown_and_missing_arguments_are_named():
    with pytest.raises(TypeError, match="Did you mean 'style'"):
        course_lib.explore(line, styl=["-"])
    with pytest.raises(TypeError, match="needs a control for each of: k"):
        course_lib.explore(lambda k, style="-": line(k, style), style=["-"])


def test_what_is_not_a_figure_is_refused():
    with pytest.raises(TypeError, match="must return a matplotlib Figure or an SVG text, not int"):
        course_lib.explore(lambda k: k, k=(0, 2, 1))


@pytest.mark.parametrize(("answers", "shown"), [(True, "VBox"), (False, "Figure")])
def test_in_a_real_kernel_the_front_end_decides(monkeypatch, answers, shown):
    # JupyterLab, Colab and VS Code can answer `input`; papermill and nbconvert cannot.
    from jupyter_client.manager import run_kernel

    monkeypatch.delenv("COURSE_LIB_STATIC", raising=False)
    code = "import course_lib\nfrom matplotlib import pyplot as plt\ndef fn(k):\n    return plt.figure()\n"
    code += "print(type(course_lib.explore(fn, k=(0, 2, 1))).__name__)"
    printed = []
    with run_kernel() as client:
        client.execute_interactive(code, allow_stdin=answers, timeout=120, output_hook=printed.append)
    assert shown in [m["content"].get("text", "").strip() for m in printed]


def test_in_a_real_kernel_a_slider_dragged_fast_over_a_slow_figure_shows_its_last_value(monkeypatch):
    # As a front end does that does not wait for answers: forty changes at once.
    from jupyter_client.manager import run_kernel

    monkeypatch.delenv("COURSE_LIB_STATIC", raising=False)
    code = """
import asyncio, time, course_lib
drawn = []
def slow(k):
    drawn.append(k)
    time.sleep(0.2)
    return f"<svg><text>this is {k}</text></svg>"
box = course_lib.explore(slow, k=(0, 40, 0))
print(box.children[0].comm.comm_id)
"""
    printed = []
    with run_kernel() as client:

        def run(code):
            printed.clear()
            client.execute_interactive(code, allow_stdin=True, timeout=120, output_hook=printed.append)
            return "".join(m["content"].get("text", "") for m in printed).strip()

        comm = run(code)
        for value in range(1, 41):
            state = {"method": "update", "state": {"value": value}, "buffer_paths": []}
            client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": comm, "data": state}))
        drawn = run("await asyncio.sleep(1)\nprint(drawn)\nassert 'k = 40. this is 40' in box.children[1].value")
    assert drawn.startswith("[0, 1, ") and drawn.endswith((", 40]", ", 40, 39]")) and drawn.count(",") < 20, drawn


def test_a_figure_that_an_error_leaves_half_drawn_is_not_shown_below_the_next_cell(watched):
    def fails(k):
        figure = line()
        figure.axes[0].plot(1 / k)
        return figure

    own = plt.figure()
    (slider,), picture = parts(course_lib.explore(fails, k=(0, 2, 1)))
    slider.value = 0
    assert "ZeroDivisionError" in picture.value and plt.get_fignums() == [own.number]
    plt.close(own)


def test_an_axis_that_chooses_its_ticks_chooses_few(watched):
    figure, (chosen, given) = plt.subplots(1, 2, figsize=(20, 10))
    chosen.set(xlim=(0, 10))
    given.set(xlim=(0, 10), xticks=range(11))
    module.picture.image(figure)
    assert 3 <= len(chosen.get_xticks()) <= module.picture.TICKS + 2  # two of them may lie outside
    assert list(given.get_xticks()) == list(range(11))


def test_the_next_steps_are_drawn_while_nobody_waits(watched, monkeypatch):
    monkeypatch.setattr(module, "LONG_IDLE", 30 * module.IDLE)
    drawn = []

    def fn(k, style):
        drawn.append((k, style))
        if k == 4:
            raise ValueError("not four")
        return svg(k)

    async def play():
        (slider, menu), picture = parts(course_lib.explore(fn, k=(0, 9, 2), style=["a", "b", "c"]))

        async def after(seconds):
            await asyncio.sleep(seconds)
            found, drawn[:] = drawn.copy(), []
            return found

        async def moved(control, value):
            control.value = value
            return await after(8 * module.IDLE)

        assert await after(8 * module.IDLE) == [(2, "a"), (3, "a"), (1, "a"), (2, "b")]
        assert await moved(slider, 3) == [(4, "a")]  # ahead, with an error that nobody has asked for
        assert 'alt="k = 3' in picture.value
        assert await moved(slider, 4) == [(5, "a")] and "not four" in picture.value
        assert await after(40 * module.IDLE) == [(4, "b")]
        assert await moved(slider, 9) == [(9, "a"), (8, "a")]  # there is no tenth
        assert await moved(menu, "b") == [(9, "b"), (9, "c")]
        assert await after(40 * module.IDLE) == [(8, "b")]

    asyncio.run(play())


def test_of_a_figure_with_few_pictures_all_are_drawn_while_nobody_waits(watched):
    drawn = []

    def fn(style, log):
        drawn.append((style, log))
        return svg(0)

    async def play():
        course_lib.explore(fn, style=["a", "b", "c"], log=False)
        await asyncio.sleep(12 * module.IDLE)

    asyncio.run(play())
    assert sorted(drawn) == [(style, log) for style in "abc" for log in (False, True)]


@pytest.mark.parametrize(
    ("control", "step", "form"),
    [((-2.0, 2.0, 0.5), 0.02, ".2f"), ((0.5, 0.999, 0.98), 0.002, ".3f"), ((0, 300.0, 30), 2, ".0f")],
)
def test_a_slider_of_fractions_has_a_round_step_that_meets_its_default(watched, control, step, form):
    (slider,), _ = parts(course_lib.explore(svg, k=control))
    assert slider.step == pytest.approx(step) and slider.readout_format == form


def test_a_default_between_two_steps_is_refused():
    with pytest.raises(ValueError, match="steps of 4, past its default"):
        course_lib.explore(svg, k=(0, 10, 4, 5))


def test_what_was_drawn_is_not_drawn_again(watched):
    drawn = []
    (slider,), picture = parts(course_lib.explore(lambda k: drawn.append(k) or svg(k), k=(0, 3, 1)))
    for value in (2, 1, 2, 3):
        slider.value = value
        assert f'alt="k = {value}.' in picture.value
    assert drawn == [1, 2, 3]


def test_a_browser_counts_in_steps_and_zero_is_zero(watched):
    (slider,), picture = parts(course_lib.explore(svg, k=(-6.0, 3.0, 0.5, 0.5)))
    slider.value = -8.9e-16
    assert 'alt="k = 0. 0.0 a' in picture.value
