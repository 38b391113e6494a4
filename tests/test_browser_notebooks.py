"""Every notebook in JupyterLab, in a real browser: it runs, and every figure to play with does what its controls say.

That the numbers are right is tested elsewhere, so the notebooks run at sizes of their own here, as small as they can.
Pictures are kept in build/browser, also of what failed, and what JupyterLab says in build/logs.
"""

import nbformat
import pytest
from browsing import ROOT, Lab, jupyter_lab, offline_page, small_copies

from course_lib import paths

NAMES = [path.name for path in sorted(paths.notebooks_dir().glob("*.ipynb"))]
#: The one picture that a notebook asks for from outside.
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def made(name):
    """A folder of build/ for what is kept of these tests."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    small_copies([paths.notebooks_dir() / name for name in NAMES], folder)
    nbformat.write(with_frames(), folder / "frames.ipynb")
    log = made("logs") / "jupyterlab.log"
    with jupyter_lab(folder, home, log) as address, offline_page(browser) as page:
        yield Lab(page, address)


def with_frames():
    """A notebook with a figure that needs no kernel, run by somebody else."""
    code = """
import course_lib
def word(k):
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="40"><text y="30">this is {k}</text></svg>'
course_lib.frames(word, k=[1, 2, 5])
"""
    shown = {}
    exec(code.replace("\ncourse_lib.frames", "\nshown = course_lib.frames"), shown)
    output = nbformat.v4.new_output("execute_result", {"text/html": shown["shown"].data}, execution_count=1)
    cell = nbformat.v4.new_code_cell(code, outputs=[output], execution_count=1)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})


def test_frames_stand_in_a_notebook_that_is_not_trusted_and_move_once_it_ran(lab):
    place = lab.show("frames.ipynb")
    visible = place.locator(".course-frames img:visible")
    visible.first.wait_for()
    assert [image.get_attribute("alt") for image in visible.all()] == ["k = 1. this is 1"]
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    place.locator(".course-frames[data-ready]").wait_for()
    slider = place.get_by_role("slider", name="k")
    for key, said in (
        ("ArrowRight", "k = 2. this is 2"),
        ("End", "k = 5. this is 5"),
        ("ArrowLeft", "k = 2. this is 2"),
    ):
        slider.focus()
        lab.page.keyboard.press(key)
        assert [image.get_attribute("alt") for image in visible.all()] == [said]
    lab.close("frames.ipynb")


@pytest.fixture
def next_one(request):
    """The notebook that is tested after this one: it runs while this one's figures are played with."""
    names = [
        item.callspec.params["name"]
        for item in request.session.items
        if "next_one" in getattr(item, "fixturenames", ())
    ]
    return dict(zip(names, names[1:], strict=False)).get(request.node.callspec.params["name"])


@pytest.fixture
def pictures(lab, request):
    """Where pictures are kept; of a test that fails, what the browser shows then."""
    failed = request.session.testsfailed
    yield made("browser")
    if request.session.testsfailed > failed:
        lab.page.screenshot(path=made("browser") / f"failed-{request.node.callspec.id}.png")


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.removesuffix(".ipynb"))
def test_it_runs_and_its_figures_follow_their_controls(lab, next_one, pictures, name):
    lab.begin(name)
    if next_one:
        lab.begin(next_one)
    outputs = lab.outputs(name)
    assert [o for cell in outputs.values() for o in cell if o["output_type"] == "error"] == []
    figures = lab.explored(name)
    code = "\n".join(cell.source for cell in nbformat.read(paths.notebooks_dir() / name, as_version=4).cells)
    assert len(figures) == code.count("course_lib.explore(") > 0
    for figure in figures:
        play(figure)
        figure.box.screenshot(path=pictures / f"{figure.cell}.png")
    lab.close(name)
    assert (set(lab.page.outside) - {BADGE}, lab.page.errors) == (set(), [])


def play(figure):
    """Move every control to its ends, drag it fast if it is a slider, and bring it back: the picture always follows."""
    at_first = figure.picture()
    for control in figure.controls():
        default = figure.value(control)
        (said_high, high), (said_low, low) = figure.moved(control, "End"), figure.moved(control, "Home")
        assert high != low, f"{figure.cell}: the picture is the same at both ends: {said_high!r}"
        assert words(said_high) != words(said_low), f"{figure.cell}: nothing written in it changes: {said_high!r}"
        if control.get_attribute("role") == "slider":
            figure.drag(control)
            assert control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
            assert figure.picture() == (said_high, high), f"{figure.cell}: dragged to its end it shows something else"
        figure.bring(control, default)
        assert figure.picture() == at_first, f"{figure.cell}: back at {default} it shows something else"


def words(said):
    """What is written in the figure itself, without the values of the controls before it."""
    return said.partition(". ")[2]
