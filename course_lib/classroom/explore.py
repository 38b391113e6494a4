"""Figures to play with: a library function that draws, and a slider for each of its arguments.

Only core ipywidgets are used (7.7.1 to 8.x), so that it works in Colab as it comes. Where nobody is watching
(papermill, nbconvert, ``COURSE_LIB_STATIC=1``) the default figure is shown, and an error in the function is an error
of the cell. With ``COURSE_LIB_FRAMES=1`` (slides, site) some values of each control are drawn beforehand, so that the
figure moves without a kernel.
"""

from __future__ import annotations

import asyncio
import html
import itertools
import math
import os
import time
from collections.abc import Callable

from matplotlib.figure import Figure

from course_lib.classroom import controls as kinds
from course_lib.classroom import picture
from course_lib.classroom.frames import drawn, said
from course_lib.progress import is_watched

#: Pictures that are drawn beforehand, at most, for one figure of a page without a kernel.
FRAMES = 24
#: Pictures that one figure keeps, so that a slider that goes back need not wait: some 50 kB each.
KEPT = 100
#: Of a figure that has no more pictures than this, all are drawn ahead.
FEW = 12
#: Seconds. Changes that waited in the kernel while a picture was drawn follow each other faster than this.
BURST = 0.02
#: Seconds without a change after which the next steps of the control that moved last are drawn ahead.
IDLE = 0.05
#: The same of the other controls: not before somebody who goes step by step would have gone on, who waits otherwise.
LONG_IDLE = 2.0


def explore(fn: Callable[..., Figure | str], **controls):
    """Show the figure that `fn` draws, with a control for each named argument.

    Args:
        fn: takes the controlled arguments by name and returns a matplotlib Figure or an SVG text. It should answer
            within a tenth of a second: it draws, it does not train.
        controls: ``(low, high, default)`` or ``(low, high, step, default)`` for a slider, whole numbers if all of
            them are; a list of choices for a menu, the first being the default; True or False for a tick box.

    Returns:
        What a notebook shows: the controls over the picture, or the default picture alone where nobody is watching.

    Raises:
        TypeError, ValueError: for a control that `fn` does not take or that is given wrongly; and whatever `fn`
            raises on the defaults.
    """
    kinds.check_names(fn, list(controls), "explore")
    defaults = {name: kinds.default(name, control) for name, control in controls.items()}
    if os.environ.get("COURSE_LIB_FRAMES") == "1":
        return drawn(fn, kinds.handful(controls, FRAMES), defaults)
    if is_watched():
        return _live(fn, controls, defaults)
    return _displayable(fn(**defaults))


def _live(fn: Callable, controls: dict, defaults: dict):
    import ipywidgets as widgets

    pictures = _Pictures(fn)
    # One widget for all pictures. A data address, since Colab has had trouble with binary widget messages.
    shown = widgets.HTML(pictures.draw(defaults))
    handles = {name: _widget(name, control) for name, control in controls.items()}
    lists = {name: kinds.values(control, FEW + 1) for name, control in controls.items()}
    few = kinds.combinations(lists) if math.prod(map(len, lists.values())) <= FEW else []

    def chosen() -> dict:
        return {name: _clean(handle.value) for name, handle in handles.items()}

    def draw():
        shown.value = pictures(chosen())

    def draw_ahead(moved) -> bool:
        near = [name for name, handle in handles.items() if moved is None or handle is moved]
        steps = (chosen() | {name: value} for name in near for value in _neighbours(handles[name]))
        for values in itertools.chain(steps, few):
            if values not in pictures:
                pictures(values)
                return True
        return False

    redraw = _LastOne(draw, draw_ahead)
    for handle in handles.values():
        handle.observe(redraw, names="value")
    redraw.rest()
    return widgets.VBox([*handles.values(), shown])


class _Pictures:
    """Of each choice of values the picture as HTML, drawn once."""

    def __init__(self, fn: Callable[..., Figure | str]):
        self.fn, self.kept = fn, {}

    def __call__(self, values: dict) -> str:
        """The picture; of a function that fails the error, which would vanish in the kernel's log."""
        try:
            return self.kept.get(said(values)) or self.draw(values)
        except Exception as error:
            alert = f'<pre role="alert">{html.escape(f"{type(error).__name__}: {error}")}</pre>'
            return self._keep(values, alert)

    def __contains__(self, values: dict) -> bool:
        return said(values) in self.kept

    def draw(self, values: dict) -> str:
        with picture.none_left_open():
            return self._keep(values, picture.image(self.fn(**values), said(values)))

    def _keep(self, values: dict, text: str) -> str:
        self.kept[said(values)] = text
        if len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        return text


def _widget(name: str, control):
    import ipywidgets as widgets

    looks = {"description": name.replace("_", " "), "style": {"description_width": "9em"}}
    if isinstance(control, bool):
        return widgets.Checkbox(value=control, **looks)
    if isinstance(control, list):
        return widgets.Dropdown(options=control, **looks)
    low, high, step, whole = kinds.slider(control)
    slider, form = (widgets.IntSlider, "d") if whole else (widgets.FloatSlider, f".{kinds.decimals(step)}f")
    looks |= {"readout_format": form, "layout": {"width": "36em"}}
    return slider(min=low, max=high, step=step, value=control[-1], **looks)


def _clean(value):
    # A browser counts from the lower end in steps, and arrives at -8.9e-16 where 0 is meant.
    return round(value, 10) + 0.0 if isinstance(value, float) else value


def _neighbours(handle) -> list:
    """The values that one step of a control leads to."""
    if isinstance(handle.value, bool):
        return [not handle.value]
    if options := getattr(handle, "options", None):
        at = options.index(handle.value)
        return [options[i] for i in (at + 1, at - 1) if 0 <= i < len(options)]
    steps = (_clean(handle.value + step) for step in (handle.step, -handle.step))
    return [value for value in steps if handle.min <= value <= handle.max]


class _LastOne:
    """Calls `draw` when a control has moved: at once; but of the changes that waited meanwhile only for the last.

    The kernel hands over one change after the other. Were each of them drawn, a picture that is slow to draw would
    run after a slider that is dragged fast. When nothing has moved for a while, `draw_ahead(control)` is called with
    the control that moved last, as long as it finds something to draw: who goes on finds the next picture ready. After
    a longer while, and before anything has moved, `draw_ahead(None)` does the same for all controls.
    """

    def __init__(self, draw: Callable[[], None], draw_ahead: Callable[[object], bool]):
        self.draw, self.draw_ahead, self.moved = draw, draw_ahead, None
        self.ended, self.timer, self.idle = float("-inf"), None, None

    def __call__(self, change: dict) -> None:
        self.moved = change["owner"]
        if self.timer is not None:
            return  # it will see this change
        if self.idle is not None:
            self.idle.cancel()
        loop = _running_loop()
        if loop is None or time.monotonic() - self.ended > BURST:
            self.now()
        else:
            self.timer = loop.call_later(BURST, self.now)

    def now(self) -> None:
        self.timer = None
        self.draw()
        self.ended = time.monotonic()
        self.rest()

    def rest(self) -> None:
        """Draw ahead after a while, unless something moves."""
        self._later(IDLE, self.moved)

    def ahead(self, moved) -> None:
        self.idle = None
        if self.draw_ahead(moved):
            self._later(IDLE, moved)
        elif moved is not None:
            self._later(LONG_IDLE, None)

    def _later(self, seconds: float, moved) -> None:
        if loop := _running_loop():
            self.idle = loop.call_later(seconds, self.ahead, moved)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _displayable(drawn: Figure | str):
    if not isinstance(drawn, str):
        return picture.closed(drawn)
    from IPython.display import SVG

    return SVG(data=drawn)
