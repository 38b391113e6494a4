"""Every notebook in JupyterLab, in a real browser: it runs, and every figure to play with does what its controls say.

That the numbers are right is tested elsewhere, so the notebooks run at sizes of their own here, as small as they can.
Pictures are kept in build/browser.
"""

import nbformat
import pytest
from browsing import ROOT, Lab, jupyter_lab, offline_page

from course_lib import paths

NAMES = [path.name for path in sorted(paths.notebooks_dir().glob("*.ipynb"))]
SIZES = {"train_images": 200, "test_images": 100, "score_images": 48, "oracle_images": 32, "epochs": 1, "updates": 1}
SIZES |= {"maps_per_step": 264, "sharing_epochs": 6}
#: The one picture that a notebook asks for from outside.
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    for name in NAMES:
        notebook = nbformat.read(paths.notebooks_dir() / name, as_version=4)
        (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        parameters.source += f'\nprofile, overrides = "ci", {SIZES}'
        nbformat.write(notebook, folder / name)
    with jupyter_lab(folder, tmp_path_factory.mktemp("jupyter")) as address, offline_page(browser) as page:
        yield Lab(page, address)


@pytest.fixture(scope="module")
def kept():
    folder = ROOT / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def next_one(request):
    """The notebook that is tested after this one: it runs while this one's figures are played with."""
    names = [item.callspec.params["name"] for item in request.session.items if "lab" in item.fixturenames]
    return dict(zip(names, names[1:], strict=False)).get(request.node.callspec.params["name"])


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.removesuffix(".ipynb"))
def test_it_runs_and_its_figures_follow_their_controls(lab, next_one, kept, name):
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
        figure.box.screenshot(path=kept / f"{figure.cell}.png")
    lab.close(name)
    assert (set(lab.page.outside) - {BADGE}, lab.page.errors) == (set(), [])


def play(figure):
    """Move every control to its ends and back, then drag a slider: each time the picture is that of the controls."""
    for control in figure.controls():
        (said_high, high), (said_low, low) = figure.moved(control, "End"), figure.moved(control, "Home")
        assert high != low, f"{figure.cell}: the picture is the same at both ends: {said_high!r}"
        assert words(said_high) != words(said_low), f"{figure.cell}: nothing written in it changes: {said_high!r}"
    for handle in figure.handles()[:1]:
        figure.drag(handle)
        assert handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        figure.picture()


def words(said):
    """What is written in the figure itself, without the values of the controls before it."""
    return said.partition(". ")[2]
