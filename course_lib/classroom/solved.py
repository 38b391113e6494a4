"""A notebook as a student leaves it who has solved everything: the reference stands in the place of each stub.

``python -m course_lib run --solved`` runs such copies, so that a teacher sees what a right answer changes further down.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat

from course_lib import paths

AROUND = {"parameters", "setup", "exercise", "check"}  # tags of cells that are not the lesson itself
CHECK = re.compile(r"""checks\.check\(["'](\w+)["'], (\w+)\)""")


def write(notebook: Path, copy: Path, *, checks_alone: bool = False) -> Path:
    """Write a solved copy of a notebook and return its path.

    In the copy the student's name is bound to the exercise's reference, which is what the check compares with.

    Args:
        notebook: stays as it is.
        copy: where the solved one is written; its folder is made.
        checks_alone: keep the cells up to the imports, the stubs and the checks, and leave out the lesson.

    Raises:
        ValueError: `copy` is the notebook itself, or an exercise is not followed by its check.
    """
    if copy.resolve() == notebook.resolve():
        raise ValueError(f"{copy} is the notebook itself: write the solved copy somewhere else.")
    solved = nbformat.read(notebook, as_version=4)
    stub, kept = None, []
    for cell in solved.cells:
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            stub = cell
        if "check" in tags:
            exercise, name = _checked(stub, cell, notebook)
            stub.source, stub = f"{name} = checks.find({exercise!r}).reference", None
        if AROUND & set(tags) or cell.id.endswith("-imports"):
            kept.append(cell)
    if stub is not None:
        raise ValueError(f"{notebook.name}: no check follows the exercise in cell {stub.id}.")
    if checks_alone:
        solved.cells = kept
    with paths.atomic(copy) as temporary:
        nbformat.write(solved, temporary)
    return copy


def uses_answers(notebook: Path) -> bool:
    """Whether a cell other than stubs and checks reads a name that a student defines: only then answers matter."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    lesson = [cell for cell in cells if not AROUND & set(cell.metadata.get("tags", []))]
    answers = {found[2] for cell in cells if (found := CHECK.search(cell.source))}
    return any(_reads(cell.source) & answers for cell in lesson)


def _checked(stub, check, notebook: Path) -> tuple[str, str]:
    """The exercise that a check cell is about, and the student's name for the answer."""
    found = CHECK.search(check.source)
    if stub is None or not found:
        raise ValueError(f"{notebook.name}: cell {check.id} is not the check of an exercise in front of it.")
    return found[1], found[2]


def _reads(source: str) -> set[str]:
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}
