"""Figures to play with: a library function that draws, and a slider for each of its arguments.

Only core ipywidgets are used (7.7.1 to 8.x), so that it works in Colab as it comes. Where nobody is watching
(papermill, nbconvert, ``COURSE_LIB_STATIC=1``) the default figure is shown, and an error in the function is an error
of the cell.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
from collections.abc import Callable

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_lib.names import unknown
from course_lib.progress import is_watched


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
    _check_names(fn, controls)
    defaults = {name: _default(name, control) for name, control in controls.items()}
    if is_watched():
        return _live(fn, controls, defaults)
    return _displayable(fn(**defaults))


def _check_names(fn: Callable, controls: dict) -> None:
    parameters = inspect.signature(fn).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        for name in controls:
            if name not in named:
                raise TypeError(unknown(f"argument of {_name(fn)}()", name, named))
    missing = [p.name for p in parameters if p.name in named and p.default is p.empty and p.name not in controls]
    if missing:
        raise TypeError(f"explore({_name(fn)}, ...) needs a control for each of: {', '.join(missing)}.")


def _name(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _default(name: str, control):
    if isinstance(control, bool):
        return control
    if isinstance(control, list) and control:
        return control[0]
    if isinstance(control, tuple) and len(control) in (3, 4) and all(isinstance(x, int | float) for x in control):
        low, high, default = control[0], control[1], control[-1]
        if low <= default <= high and low < high:
            return default
    raise ValueError(
        f"The control {name}={control!r} is none of: (low, high, default) or (low, high, step, default), numbers with "
        "low <= default <= high; a list of choices; True or False."
    )


def _widget(name: str, control):
    import ipywidgets as widgets

    looks = {"description": name.replace("_", " "), "style": {"description_width": "9em"}}
    if isinstance(control, bool):
        return widgets.Checkbox(value=control, **looks)
    if isinstance(control, list):
        return widgets.Dropdown(options=control, **looks)
    low, high, *step, default = control
    whole = all(isinstance(x, int) for x in control)
    slider, step = (widgets.IntSlider, step or [1]) if whole else (widgets.FloatSlider, step or [(high - low) / 100])
    return slider(min=low, max=high, step=step[0], value=default, layout={"width": "36em"}, **looks)


def _live(fn: Callable, controls: dict, defaults: dict):
    import ipywidgets as widgets

    # One picture for everything. A PNG as a data address, since Colab has had trouble with binary widget messages.
    picture = widgets.HTML(_picture(fn(**defaults)))
    handles = {name: _widget(name, control) for name, control in controls.items()}

    def redraw(_change):
        try:
            picture.value = _picture(fn(**{name: handle.value for name, handle in handles.items()}))
        except Exception as error:  # it would vanish in the kernel's log: show it, and let the controls live on
            picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    for handle in handles.values():
        handle.observe(redraw, names="value")
    return widgets.VBox([*handles.values(), picture])


def _picture(drawn: Figure | str) -> str:
    if isinstance(drawn, str):
        return drawn
    with io.BytesIO() as buffer:
        _closed(drawn).savefig(buffer, format="png")
        png = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="figure" style="max-width: 100%" src="data:image/png;base64,{png}">'


def _displayable(drawn: Figure | str):
    if not isinstance(drawn, str):
        return _closed(drawn)
    from IPython.display import SVG

    return SVG(data=drawn)


def _closed(figure: Figure) -> Figure:
    # An open figure would be shown a second time by the notebook's inline backend.
    if not isinstance(figure, Figure):
        raise TypeError(f"The function must return a matplotlib Figure or an SVG text, not {type(figure).__name__}.")
    pyplot.close(figure)
    return figure
