"""Every notebook runs to its end in profile `ci`, and is a lecture.

In a file of its own, as are the solved ones: where tests run in parallel, a file is what one process works through.
"""

import nbformat
import pytest

from course_lib import paths
from course_lib.classroom import runner
from course_lib.classroom.slides import deck


@pytest.mark.parametrize("path", runner.numbered(), ids=lambda path: path.stem)
def test_it_runs_to_its_end(path, tmp_path):
    (outcome,) = runner.run([path], tmp_path, profile="ci")
    assert outcome.error == ""
    assert (tmp_path / f"{path.stem}.html").exists()
    executed = nbformat.read(tmp_path / path.name, as_version=4)
    assert 20 <= len(deck.slides(executed)) <= 40, "not a lecture: mark its cells in metadata.slideshow"


def test_the_template_runs_too(tmp_path):
    (outcome,) = runner.run([paths.notebooks_dir() / "TEMPLATE.ipynb"], tmp_path, profile="ci")
    assert outcome.error == ""
    cells = nbformat.read(tmp_path / "TEMPLATE.ipynb", as_version=4).cells
    pictures = ["image/png" in output.get("data", {}) for each in cells for output in each.get("outputs", [])]
    assert sum(pictures) == 2  # the figure, and the same to play with
