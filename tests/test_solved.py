"""Notebooks with the right answers in their stubs, on notebooks made for it."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_lib.classroom import checks, solved


def tagged(source, name, tag):
    return new_code_cell(source, id=f"01-{name}", metadata={"tags": [tag]})


STUB, CHECK = tagged("def mine(scores): ...", "stub", "exercise"), tagged('checks.check("l2", mine)', "check", "check")
SETUP = tagged("%pip install nothing", "setup", "setup")
IMPORTS = new_code_cell("from course_lib.classroom import checks", id="01-imports")
LESSON = new_code_cell("print('mine', 1)", id="01-lesson")


@pytest.fixture
def write(tmp_path):
    def write(*cells):
        nbformat.write(new_notebook(cells=[SETUP, IMPORTS, *cells]), tmp_path / "01_a.ipynb")
        return tmp_path / "01_a.ipynb"

    return write


def test_the_stub_becomes_the_reference_and_nothing_else_changes(write, tmp_path):
    path = write(new_markdown_cell("text", id="01-text"), STUB, CHECK, LESSON)
    before = path.read_bytes()
    copy = solved.write(path, tmp_path / "new" / "01_a.ipynb")
    assert path.read_bytes() == before
    old, new = (nbformat.read(at, as_version=4).cells for at in (path, copy))
    assert [cell.id for cell in new] == [cell.id for cell in old]
    assert [cell.id for cell, was in zip(new, old, strict=True) if cell.source != was.source] == ["01-stub"]
    scope = {"checks": checks}
    exec(next(cell.source for cell in new if cell.id == "01-stub"), scope)
    assert checks.judge("l2", scope["mine"]).kind == "right"


def test_the_lesson_can_be_left_out(write, tmp_path):
    copy = solved.write(write(LESSON, STUB, CHECK, LESSON), tmp_path / "b.ipynb", checks_alone=True)
    kept = [cell.id for cell in nbformat.read(copy, as_version=4).cells]
    assert kept == ["01-setup", "01-imports", "01-stub", "01-check"]


def test_answers_are_used_where_the_lesson_reads_the_students_name(write):
    assert not solved.uses_answers(write(STUB, CHECK, LESSON))  # there it is a text
    assert solved.uses_answers(write(STUB, CHECK, new_code_cell("print(mine)", id="01-lesson")))


def test_a_broken_exercise_and_a_copy_onto_itself_are_refused(write, tmp_path):
    with pytest.raises(ValueError, match="no check follows .* 01-stub"):
        solved.write(write(STUB), tmp_path / "b.ipynb")
    with pytest.raises(ValueError, match="01-check is not the check of an exercise"):
        solved.write(write(CHECK), tmp_path / "b.ipynb")
    path = write(STUB, CHECK)
    with pytest.raises(ValueError, match="itself"):
        solved.write(path, path)
