"""A drawn figure as one piece of HTML: a picture that says in words what it shows, for ears and for tests."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

#: Characters of a description: a screen reader cannot skim.
LONGEST = 700
#: Bytes. Beyond these, thousands of points for instance, an SVG is worth less than what it costs.
HEAVY = 100_000


def image(drawn: Figure | str, said: str = "") -> str:
    """A figure as an image that says what it shows; `said` begins its description.

    SVG: half the time of a PNG to draw, and sharp on any screen; PNG where that would be heavy. An SVG in an image of
    its own cannot clash with the next one by its names (of clip paths, markers).

    Args:
        drawn: a matplotlib Figure, which is closed, or an SVG text. TypeError for anything else.
    """
    if isinstance(drawn, str):
        return _image(drawn.encode(), "svg+xml", f"{said}. {_svg_words(drawn)}")
    for axes in closed(drawn).axes:
        if not axes.axison:
            axes.set(xticks=[], yticks=[])  # nobody sees them, and they take long to draw
    description = ". ".join(filter(None, [said, words(drawn)]))
    svg = _svg(drawn)
    if len(svg) > HEAVY and len(png := _png(drawn)) < len(svg):
        return _image(png, "png", description)
    return _image(svg, "svg+xml", description)


def closed(figure: Figure) -> Figure:
    """The figure, which pyplot has let go: an open one would be shown a second time by the notebook."""
    if not isinstance(figure, Figure):
        raise TypeError(f"The function must return a matplotlib Figure or an SVG text, not {type(figure).__name__}.")
    pyplot.close(figure)
    return figure


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


# Neither calls savefig, which draws everything twice, the first time only to lay it out.


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with io.BytesIO() as buffer:
        Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "png")
        return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    # The same figure is the same text: no date. Letters are outlines, so that no font is missing anywhere.
    with io.StringIO() as buffer, pyplot.rc_context({"svg.hashsalt": "course_lib", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        return re.sub(r">\s+<", "><", buffer.getvalue()).encode()


def _image(data: bytes, kind: str, description: str) -> str:
    shortened = description if len(description) <= LONGEST else f"{description[: LONGEST - 1]}…"
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{html.escape(shortened)}" style="max-width: 100%" src="{address}">'


def _svg_words(svg: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", svg, flags=re.DOTALL).split())
