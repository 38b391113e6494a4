"""Figures one after the other as a GIF, which needs neither a player nor a network."""

from __future__ import annotations

import io
from collections.abc import Iterable

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image


def gif(figures: Iterable[Figure], milliseconds: int, dots_per_inch: int = 80, colours: int = 64) -> bytes:
    """The figures as a GIF that begins anew after the last one, which stays longest."""
    pictures = [_picture(figure, dots_per_inch) for figure in figures]
    palette = pictures[-1].quantize(colours)  # one table for all frames, or their colours get mixed up
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    waits = [milliseconds] * len(rest) + [3000]
    with io.BytesIO() as file:
        first.save(file, format="gif", save_all=True, append_images=rest, duration=waits, loop=0)
        return file.getvalue()


def _picture(figure: Figure, dots_per_inch: int) -> Image.Image:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=dots_per_inch)
        plt.close(figure)
        return Image.open(file).convert("RGB")
