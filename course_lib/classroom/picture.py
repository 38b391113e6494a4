"""A drawn figure as one piece of HTML: a picture that says in words what it shows, for ears and for tests."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matplotlib import pyplot
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, LogFormatterSciNotation, NullLocator

#: Characters of a description: a screen reader cannot skim.
LONGEST = 700
#: Points of a cloud from which on it is drawn as an image: as shapes they would take long, here and in the browser.
MANY = 300
#: Ticks of an axis that chooses them itself, at most: each takes a millisecond and more.
TICKS = 6
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def image(drawn: Figure | str, said: str = "") -> str:
    """A figure as an image that says what it shows; `said` begins its description.

    It is SVG, which takes half the time of a PNG to draw and is sharp on any screen; and one that stands in an image
    of its own cannot clash with the next by its names (of clip paths, markers).

    Args:
        drawn: a matplotlib Figure, which is closed, or an SVG text. TypeError for anything else.
    """
    if isinstance(drawn, str):
        return _image(drawn, f"{said}. {_svg_words(drawn)}")
    _lighten(closed(drawn))
    return _image(_svg(drawn), ". ".join(filter(None, [said, words(drawn)])))


def closed(figure: Figure) -> Figure:
    """The figure, which pyplot has let go: an open one would be shown a second time by the notebook."""
    if not isinstance(figure, Figure):
        raise TypeError(f"The function must return a matplotlib Figure or an SVG text, not {type(figure).__name__}.")
    pyplot.close(figure)
    return figure


@contextmanager
def none_left_open() -> Iterator[None]:
    """Close the figures that an error leaves half drawn: the notebook would show them below whatever cell runs next."""
    before = set(pyplot.get_fignums())
    try:
        yield
    except Exception:
        for number in set(pyplot.get_fignums()) - before:
            pyplot.close(number)
        raise


def words(figure: Figure) -> str:
    """What is written in a figure: its title, and of each panel the title, the axes, the legend and the labels."""
    parts = [part.get_suptitle() for part in (figure, *figure.subfigs)] + [_text(text) for text in figure.texts]
    for axes in figure.axes:
        parts += [axes.get_title(where) for where in ("left", "center", "right")]
        if axes.axison:
            parts += [f"{name}: {said}" for name in "xy" if (said := getattr(axes, f"get_{name}label")())]
        if legend := axes.get_legend():
            parts += [_text(legend.get_title()), *map(_text, legend.get_texts())]
        parts += map(_text, axes.texts)
    return ". ".join(dict.fromkeys(filter(None, (" ".join(part.split()) for part in parts))))


def _text(artist) -> str:
    return artist.get_text() if artist is not None and artist.get_visible() else ""


def _lighten(figure: Figure) -> None:
    """Leave out what takes time to draw and nobody needs: ticks without a label, or close together; many outlines."""
    for axes in figure.axes:
        if not axes.axison:
            axes.set(xticks=[], yticks=[])
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                _lighten_powers(axis)
            elif type(axis.get_major_locator()) is AutoLocator and len(axis.get_majorticklocs()) > TICKS:
                axis.get_major_locator().set_params(nbins=TICKS - 1)
        for cloud in axes.collections:
            cloud.set_rasterized(len(cloud.get_offsets()) > MANY)
        for line in axes.lines:
            line.set_rasterized(line.get_marker() not in ("None", "", None) and len(line.get_xdata()) > MANY)


def _lighten_powers(axis) -> None:
    low, high = sorted(axis.get_view_interval())
    if sum(low <= at <= high for at in axis.get_majorticklocs()) > 1:
        axis.set_minor_locator(NullLocator())  # dozens, and none has a label
        if type(axis.get_major_formatter()) is LogFormatterSciNotation and axis.get_transform().base == 10:
            axis.set_major_formatter(_powers(axis.get_major_formatter()))


def _powers(formulas: LogFormatterSciNotation) -> Callable[[float, int], str]:
    """A formatter that writes powers of ten as they are, and leaves the rest to the one that sets formulas."""

    def written(x: float, at: int) -> str:
        power = math.log10(x) if x > 0 else math.nan
        return f"10{str(round(power)).translate(_RAISED)}" if power % 1 == 0 else formulas(x, at)

    return written


def _svg(figure: Figure) -> str:
    # Not savefig, which draws everything twice, the first time only to lay it out. The same figure is the same text:
    # no date. Letters are outlines, so that no font is missing anywhere.
    with io.StringIO() as buffer, pyplot.rc_context({"svg.hashsalt": "course_lib", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        return re.sub(r">\s+<", "><", buffer.getvalue())


def _image(svg: str, description: str) -> str:
    shortened = description if len(description) <= LONGEST else f"{description[: LONGEST - 1]}…"
    address = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return f'<img alt="{html.escape(shortened)}" style="max-width: 100%" src="{address}">'


def _svg_words(svg: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", svg, flags=re.DOTALL).split())
