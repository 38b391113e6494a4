"""What tests of figures share."""

import io
from unittest import mock

from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

#: Points, in a figure ten inches wide. A figure is projected as wide as the screen: an eightieth of that can be read.
LEGIBLE = 9


def drawn(figure):
    """The figure, after it was drawn as a picture: not empty, legible from the last row, and safe on a dark page."""
    with io.BytesIO() as png:
        small = [text for text, points in _texts(figure, png) if points < LEGIBLE]
        assert len(png.getvalue()) > 10_000
        assert not small, f"too small to be read at the back: {small}"
        opacity, _ = Image.open(png).convert("RGBA").getchannel("A").getextrema()
        assert opacity == 255, "a dark page would shine through"
    return figure


def _texts(figure, png):
    """Write the picture, and say of every text that was drawn what it is and its size in a figure ten inches wide."""
    texts, draw_text = [], RendererAgg.draw_text

    def listen(renderer, gc, x, y, text, font, *rest, **named):
        texts.append((text, 10 * font.get_size_in_points() / figure.get_figwidth()))
        return draw_text(renderer, gc, x, y, text, font, *rest, **named)

    with mock.patch.object(RendererAgg, "draw_text", listen):
        figure.savefig(png, format="png")
    return texts
