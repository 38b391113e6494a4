"""The seminar: what students get and do not get, the same bytes twice, and nbgrader grades it."""

import csv
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from course_lib import paths
from course_lib.classroom import runner, seminar

nbgrader_apps = pytest.importorskip("nbgrader.apps", reason="needs nbgrader, of the extra 'seminar'")

NOTEBOOKS = runner.numbered()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A seminar of two notebooks: its folder and its zip."""
    out = tmp_path_factory.mktemp("seminar") / "seminar"
    return out, seminar.make(runner.numbered(["06", "07"]), out)


def cells(path):
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_and_every_answer_is_a_task(path):
    course, (teachers, tasks) = cells(path), seminar.source(path)
    checks = [name for name, cell in course.items() if "check" in cell.metadata.get("tags", [])]
    answered = [name for name, cell in course.items() if "<summary>Answer</summary>" in cell.source]
    assert [task.cell for task in tasks if task.kind == "code"] == checks
    assert [task.cell for task in tasks if task.kind == "text"] == answered
    assert all(task.points > 0 for task in tasks)
    graded = {c.id: c.metadata.nbgrader.points for c in teachers.cells if c.metadata.get("nbgrader", {}).get("grade")}
    assert graded == {task.cell: task.points for task in tasks}


def test_students_get_stubs_and_hints_and_nothing_else(made):
    for path in sorted(made[0].glob("release/*/*.ipynb")):
        course, students = cells(paths.notebooks_dir() / path.name), cells(path)
        text = "\n".join(cell.source for cell in students.values())
        assert not re.search("SOLUTION|HIDDEN|checks.solution|reference\\b.*checks|summary>Answer", text)
        assert text.count("<summary>Hint</summary>") == sum(
            cell.source.count("<summary>Hint</summary>") for cell in course.values()
        )
        gone = {name for name, cell in course.items() if "solution" in cell.metadata.get("tags", [])}
        assert list(students) == [name for name in course if name not in gone]
        for name, cell in students.items():
            if "exercise" in cell.metadata.get("tags", []):
                assert cell.source.strip() == course[name].source.strip()
            if "check" in cell.metadata.get("tags", []):
                assert cell.source == course[name].source


def test_teachers_get_answers_where_they_stand_in_the_course(made):
    for path in sorted(made[0].glob("source/*/*.ipynb")):
        course = cells(paths.notebooks_dir() / path.name)
        for name, cell in cells(path).items():
            lines = [line for line in cell.source.splitlines() if not re.search(r"(BEGIN|END) SOLUTION", line)]
            kept = "\n".join(lines)
            if cell.cell_type == "markdown":
                assert kept == course[name].source  # the marks alone were added
            else:
                assert kept.startswith(course[name].source)


def test_the_marking_sheet_has_every_task(made):
    with (made[0] / "marking_sheet.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [task for name in ("06", "07") for task in seminar.source(runner.numbered([name])[0])[1]]
    assert [(row["cell"], int(row["points"])) for row in rows] == [(task.cell, task.points) for task in expected]


def test_the_same_bytes_twice_and_nothing_left_of_another_choice(made, tmp_path):
    out, first = made
    again = seminar.make(runner.numbered(["00", "06"]), tmp_path / "seminar")
    again = seminar.make(runner.numbered(["06", "07"]), tmp_path / "seminar")
    assert again.read_bytes() == first.read_bytes()
    with zipfile.ZipFile(again) as archive:
        names = archive.namelist()
    assert names == sorted(names) and all(name.startswith("seminar/") for name in names)
    assert not [name for name in names if "00_start_here.ipynb" in name]
    assert {"seminar/release/07_taylor/07_taylor.ipynb", "seminar/source/07_taylor/07_taylor.ipynb"} <= set(names)


SMALL = {
    "setup": ("code", ["setup"], "from course_lib.classroom import checks"),
    "ex": ("markdown", [], "Difficulty: ●●○ &nbsp; about 5 minutes"),
    "stub": ("code", ["exercise"], "def l2(scores): ...  # your code here"),
    "check": ("code", ["check"], 'checks.check("l2", l2)'),
    "show": ("code", ["solution"], 'checks.solution("l2")'),
    "think": ("markdown", [], "*Think.* Why?\n\n<details><summary>Answer</summary>\n\nBecause.\n\n</details>"),
}
WRONG = "def l2(scores):\n    return {name: s / s.abs().sum() for name, s in scores.items()}"


def small_notebook(folder):
    """A course notebook in miniature: one exercise and one question."""
    found = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for name, (kind, tags, text) in SMALL.items():
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        found.cells.append(make(text, id=name, metadata={"tags": tags}))
    nbformat.write(found, folder / "small.ipynb")
    return folder / "small.ipynb"


def test_nbgrader_releases_and_grades_it(tmp_path, monkeypatch):
    """Nothing done: no points; solved: all; a wrong answer: none, although the cell ran."""
    from nbgrader.api import Gradebook
    from nbgrader.apps.api import NbGraderAPI
    from traitlets.config import Config

    monkeypatch.setenv("COURSE_LIB_STATIC", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # nbgrader calls alembic by name
    monkeypatch.chdir(tmp_path)
    seminar.make([small_notebook(tmp_path)], tmp_path / "course")
    settings = Config(seminar.SETTINGS)
    settings.CourseDirectory.root = str(tmp_path / "course")
    shutil.rmtree(tmp_path / "course" / "release")
    api = NbGraderAPI(config=settings)
    assert api.generate_assignment("small")["success"]
    released = tmp_path / "course" / "release" / "small" / "small.ipynb"
    assert "SOLUTION" not in released.read_text(encoding="utf-8")
    for student, answer in {"blank": None, "wrong": WRONG, "right": "l2 = checks.find('l2').reference"}.items():
        handed_in = nbformat.read(released, as_version=4)
        if answer:
            next(cell for cell in handed_in.cells if cell.id == "stub").source = answer
        path = tmp_path / "course" / "submitted" / student / "small" / "small.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(handed_in, path)
        assert api.autograde("small", student)["success"]
    with Gradebook(f"sqlite:///{tmp_path}/course/gradebook.db") as grades:
        scores = {s: grades.find_submission("small", s).score for s in ("blank", "wrong", "right")}
        assert grades.find_assignment("small").max_score == 5  # two dots of difficulty, and one question
    assert scores == {"blank": 0, "wrong": 0, "right": 4}
