"""From a key press to the picture, in JupyterLab in a real browser: every figure to play with, and frames."""

from __future__ import annotations

import argparse
import ast
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nbformat
import numpy as np

from course_lib.classroom import runner
from tests import browsing

#: Moves timed for one control, and milliseconds between two of them: who reads looks at each picture. Meanwhile
#: `explore` draws ahead, so what is timed is what a reader who goes step by step waits for.
PRESSES, GLANCE = 10, 500
#: Times that `explore` alone is run again until its first picture stands; and beside it, in the same notebook, a cell
#: with the least that Jupyter can show: a slider and a picture of one dot.
PAINTS, BARE = 3, "bare"
DOT = """
import ipywidgets
dot = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
ipywidgets.VBox([ipywidgets.FloatSlider(), ipywidgets.HTML(f'<img src="{dot}">')])
"""
FRAMES = """
import course_lib
from course_lib.classroom import figures
course_lib.start("ci")
course_lib.frames(figures.coin_precision, share_of_ones=[round(0.05 * i, 2) for i in range(2, 19)])
"""


def run(options: argparse.Namespace) -> list[dict]:
    """Milliseconds at the median and the 95th percentile of presses, on notebooks at their smallest sizes."""
    notebooks = runner.numbered()
    with tempfile.TemporaryDirectory() as home, browsing.chromium() as browser:
        folder = Path(home) / "notebooks"
        folder.mkdir()
        browsing.small_copies(notebooks, folder)
        for path in folder.iterdir():
            notebook = nbformat.read(path, as_version=4)
            notebook.cells = [part for cell in notebook.cells for part in _parted(cell)]
            notebook.cells.append(nbformat.v4.new_code_cell(DOT, id=BARE))
            nbformat.write(notebook, path)
        kernel = {"name": "python3", "display_name": "Python 3"}
        frames = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FRAMES)], metadata={"kernelspec": kernel})
        nbformat.write(frames, folder / "frames.ipynb")
        with browsing.jupyter_lab(folder, Path(home)) as address, browsing.offline_page(browser) as page:
            lab = browsing.Lab(page, address)
            found = [row for path in notebooks for row in _explored(lab, path.name)]
            return [_frames(lab), *found]


def _parted(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A cell that ends in a figure to play with as two: what it computes, and that figure, to be shown again alone.

    The first one keeps the arguments, since cells further down may give their names to something else.
    """
    if cell.cell_type != "code" or ".explore(" not in cell.source:
        return [cell]
    *_, last = ast.parse(cell.source).body
    before = "".join(cell.source.splitlines(keepends=True)[: last.lineno - 1])
    kept = f"shown_{cell.id.replace('-', '_')}"
    given = ", ".join(map(ast.unparse, [*last.value.args, *last.value.keywords]))
    first = nbformat.v4.new_code_cell(
        f"{before}import functools\n{kept} = functools.partial(course_lib.explore, {given})"
    )
    cell.source = f"{kept}()"
    return [first, cell]


def _explored(lab: browsing.Lab, name: str) -> list[dict]:
    lab.begin(name)
    lab.outputs(name)
    found = []
    for figure in lab.explored(name):
        if figure.cell == BARE:
            continue
        taken = []
        for control in figure.controls():
            for move in _moves(figure, control):
                lab.page.wait_for_timeout(GLANCE)
                taken.append(browsing.timed(lab.page, figure.box, move))
        found.append(_row(figure.cell, taken))
    bare = _first(lab, name, BARE)
    found = [row | {"first_ms": _first(lab, name, row["work"]), "bare_ms": bare} for row in found]
    lab.close(name)
    return found


def _first(lab: browsing.Lab, name: str, cell: str) -> float:
    taken = []
    for _ in range(PAINTS):
        lab.page.wait_for_timeout(2 * GLANCE)  # what is drawn ahead for the one before would be waited for
        taken.append(lab.first_paint(name, cell))
    return float(np.median(taken))


def _moves(figure: browsing.Explored, control) -> Iterator[Callable[[], None]]:
    """What a reader does with a control, to values that were not drawn before."""
    if control.get_attribute("type") == "checkbox":
        yield partial(figure.press, control, "Space")
        return
    if control.get_attribute("role") == "slider":
        figure.moved(control, "Home")
        for _ in range(PRESSES):
            if control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax"):
                return
            yield partial(figure.press, control, "ArrowRight")
        return
    # Not by the arrow keys: JupyterLab takes them from a menu.
    for at in range(1, min(PRESSES + 1, control.locator("option").count())):
        yield partial(control.select_option, index=at)


def _frames(lab: browsing.Lab) -> dict:
    lab.begin("frames.ipynb")
    lab.outputs("frames.ipynb")
    box = lab.page.locator(".course-frames[data-ready]")
    box.get_by_role("slider").focus()
    taken = [browsing.timed(lab.page, box, partial(lab.page.keyboard.press, "ArrowRight")) for _ in range(16)]
    lab.close("frames.ipynb")
    return _row("frames", taken)


def _row(work: str, taken: list[float]) -> dict:
    p50, p95 = np.percentile(taken, [50, 95])
    return {"work": work, "presses": len(taken), "p50_ms": p50, "p95_ms": p95, "load": os.getloadavg()[0]}
