"""The course as a seminar: one set of notebooks for students, one for the teacher, made from the course's own.

``python -m course_lib seminar`` writes a folder and a zip of it. The teacher's notebooks are the course's, with marks
around solutions, answers and hidden tests, in the form of nbgrader; nbgrader's own preprocessors make the students'
from them. Who uses nbgrader has a course folder that it can release and grade (with its programs on the PATH: activate
.venv). Who does not hands out `release/` and reads `source/`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from course_lib import paths
from course_lib.classroom import runner
from course_lib.classroom.solved import CHECK

#: nbgrader's settings, for the students' notebooks made here and for a teacher who goes on with nbgrader.
SETTINGS = {
    "CourseDirectory": {"course_id": "pruning"},
    "ClearSolutions": {"code_stub": {"python": ""}, "text_stub": "*Your answer:*"},  # the course's stub stands above it
    "ExecutePreprocessor": {"timeout": 600},
}
ANSWER = re.compile(r"^( *)<details><summary>Answer</summary>.*?</details>", re.DOTALL | re.MULTILINE)
DOTS = re.compile(r"Difficulty: (●*)")
HIDDEN_SEED = 2017  # the hidden tests draw other inputs than the check that students see
POINTS_A_DOT = 2


class Task(NamedTuple):
    """A cell to be marked: `kind` is 'code', marked by the machine, or 'text', by the teacher."""

    notebook: str
    cell: str
    kind: str
    points: int


def source(notebook: Path) -> tuple[NotebookNode, list[Task]]:
    """The teacher's notebook, from which nbgrader makes the students', and what is to be marked in it."""
    found, tasks, stub, difficulty = nbformat.read(notebook, as_version=4), [], None, 1
    for cell in found.cells:
        tags = cell.metadata.get("tags", [])
        if dots := DOTS.search(cell.source):
            difficulty = len(dots[1])
        if "exercise" in tags:
            stub = cell
        elif "check" in tags and (checked := CHECK.search(cell.source)):
            exercise, name = checked.groups()
            _mark(stub, solution=True)
            stub.source += f"\n### BEGIN SOLUTION\n{name} = checks.find({exercise!r}).reference\n### END SOLUTION"
            tasks.append(Task(notebook.stem, cell.id, "code", POINTS_A_DOT * difficulty))
            _mark(cell, points=tasks[-1].points, locked=True)
            cell.source += _hidden_test(exercise, name)
        elif cell.cell_type == "markdown" and (answers := len(ANSWER.findall(cell.source))):
            tasks.append(Task(notebook.stem, cell.id, "text", answers))
            _mark(cell, points=answers, solution=True)
            cell.source = ANSWER.sub(r"\1<!-- BEGIN SOLUTION -->\n\g<0>\n\1<!-- END SOLUTION -->", cell.source)
    return found, tasks


def _hidden_test(exercise: str, name: str) -> str:
    return (
        f"\n### BEGIN HIDDEN TESTS\nverdict = checks.judge({exercise!r}, {name}, seed={HIDDEN_SEED})\n"
        'assert verdict.kind == "right", verdict.sentence\n### END HIDDEN TESTS'
    )


def _mark(cell: NotebookNode, *, points: int | None = None, solution: bool = False, locked: bool = False) -> None:
    """nbgrader's metadata of a cell, in its schema 3."""
    marks = {"schema_version": 3, "grade_id": cell.id, "cell_type": cell.cell_type, "task": False, "locked": locked}
    marks |= {"grade": points is not None, "solution": solution}
    cell.metadata["nbgrader"] = marks if points is None else marks | {"points": points}


def release(teachers: NotebookNode) -> NotebookNode:
    """The students' notebook: no solutions, no answers, no hidden tests, no outputs; hints stay."""
    from nbconvert.exporters import NotebookExporter
    from traitlets.config import Config

    config = Config(SETTINGS)
    config.TagRemovePreprocessor.update(enabled=True, remove_cell_tags={"solution"})
    made = ["LockCells", "ClearSolutions", "ClearOutput", "CheckCellMetadata", "ClearHiddenTests", "ComputeChecksums"]
    config.NotebookExporter.preprocessors = [
        "nbconvert.preprocessors.TagRemovePreprocessor",
        *(f"nbgrader.preprocessors.{name}" for name in made),
    ]
    text, _ = NotebookExporter(config=config).from_notebook_node(teachers)
    return nbformat.reads(text, as_version=4)


def make(notebooks: list[Path], out: Path) -> Path:
    """Write both sets, the marking sheet and the lesson plans to the folder `out`, and all of it to a zip beside it.

    The same notebooks give the same bytes. What a seminar of an earlier call left in `out` is replaced.
    """
    for old in ("source", "release"):
        shutil.rmtree(out / old, ignore_errors=True)
    tasks = []
    for notebook in notebooks:
        teachers, found = source(notebook)
        tasks += found
        for folder, written in (("source", teachers), ("release", release(teachers))):
            with paths.atomic(out / folder / notebook.stem / notebook.name) as temporary:
                nbformat.write(written, temporary)
    _text(out / "marking_sheet.csv", _sheet(tasks))
    _text(out / "nbgrader_config.json", json.dumps(SETTINGS, indent=2) + "\n")
    for plan in sorted((paths.data_dir().parent / "docs" / "teaching").glob("*.md")):
        _text(out / "teaching" / plan.name, plan.read_text(encoding="utf-8"))
    return _zipped(out)


def _sheet(tasks: list[Task]) -> str:
    """One line a task, and empty columns for eight students; a spreadsheet adds up."""
    with io.StringIO(newline="") as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*Task._fields, *(f"student {number}" for number in range(1, 9))])
        table.writerows([*task, *[""] * 8] for task in tasks)
        return text.getvalue()


def _text(path: Path, content: str) -> None:
    with paths.atomic(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _zipped(folder: Path) -> Path:
    """All files of a folder in a zip beside it, in order and without the time of day, so that it is reproducible."""
    with paths.atomic(folder.with_suffix(".zip")) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())
    return folder.with_suffix(".zip")


def main(argv: list[str] | None = None) -> int:
    """``python -m course_lib seminar``."""
    parser = argparse.ArgumentParser(prog="course-lib seminar", description="Notebooks for students and for teachers.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="beginnings of names, for instance: 06 09")
    parser.add_argument("--out", type=Path, default=Path("build/seminar"), help="folder, and name of the zip")
    options = parser.parse_args(argv)
    made = make(runner.numbered(options.only), options.out)
    print(f"For students: {options.out}/release; for you: {options.out}/source; to hand out: {made}.")
    return 0
