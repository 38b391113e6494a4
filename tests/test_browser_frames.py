"""Figures without a kernel in a real browser: an exported page from the disk, by keyboard and by mouse, offline."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

CODE = """
import course_lib
from matplotlib import pyplot as plt

def parabola(k=1, colour="red", grid=False):
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.plot([0, k, 4 * k], color=colour)
    axes.set_title(f"{colour} with k = {k}")
    axes.grid(grid)
    return figure

course_lib.frames(parabola, k=[1, 2, 5, 9], colour=["red", "blue"], grid=[False, True])
"""
SECOND = "course_lib.frames(parabola, k=[3, 4])"


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (CODE, SECOND)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    return NotebookClient(notebook, timeout=120).execute()


@pytest.fixture(scope="module")
def saved(executed, tmp_path_factory):
    """The address of the notebook as a page of its own on the disk."""
    path = tmp_path_factory.mktemp("exported") / "page.html"
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", widget_renderer_url="", mermaid_js_url="")
    path.write_text(exporter.from_notebook_node(executed)[0], encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def exported(saved, page):
    page.goto(saved)
    return page


def shown(box):
    """What the one visible picture says."""
    visible = box.locator("img:visible")
    assert visible.count() == 1
    return visible.get_attribute("alt")


def test_it_moves_by_keyboard(exported):
    box = exported.locator(".course-frames").first
    slider, menu, tick = box.get_by_role("slider"), box.get_by_role("combobox"), box.get_by_role("checkbox")
    assert shown(box) == "k = 1, colour = red, grid = False. red with k = 1"
    assert box.locator("img:visible").evaluate("image => image.naturalWidth") > 300
    slider.focus()
    exported.keyboard.press("ArrowRight")
    assert shown(box).endswith("red with k = 2") and slider.get_attribute("aria-valuetext") == "2"
    exported.keyboard.press("End")
    assert shown(box).endswith("red with k = 9")
    exported.keyboard.press("Tab")
    exported.keyboard.press("ArrowDown")
    exported.keyboard.press("Tab")
    exported.keyboard.press("Space")
    assert menu.input_value() == "blue" and tick.is_checked()
    assert shown(box) == "k = 9, colour = blue, grid = True. blue with k = 9"
    slider.focus()
    exported.keyboard.press("Home")
    assert shown(box) == "k = 1, colour = blue, grid = True. blue with k = 1"


def test_it_moves_by_mouse_and_alone(exported):
    first, second = exported.locator(".course-frames").all()
    handle = first.get_by_role("slider").bounding_box()
    y, left = handle["y"] + handle["height"] / 2, handle["x"]
    exported.mouse.move(left + 8, y)
    exported.mouse.down()
    for step in range(1, 30):
        exported.mouse.move(left + 8 + step * handle["width"] / 29, y)
    exported.mouse.up()
    assert shown(first).endswith("red with k = 9")
    assert shown(second) == "k = 3. red with k = 3"


def test_it_asks_for_nothing_and_complains_of_nothing(exported):
    assert exported.outside == [] and exported.errors == []
    for label in ("k", "colour", "grid"):
        assert exported.get_by_label(label, exact=True).first.is_visible()
    assert exported.get_by_role("group", name="parabola").count() == 2


def test_without_scripts_the_first_picture_stands(browser, saved):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(saved)
    assert shown(page.locator(".course-frames").first).startswith("k = 1,")
    context.close()
