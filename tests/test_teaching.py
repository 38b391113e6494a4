"""Lesson plans: one for each notebook, ninety minutes, sections that exist."""

import re

import nbformat
import pytest

from course_lib import paths
from course_lib.classroom import runner

PLANS = paths.data_dir().parent / "docs" / "teaching"
NOTEBOOKS = runner.numbered()


def plan(notebook):
    return (PLANS / f"{notebook.stem}.md").read_text(encoding="utf-8")


def rows(text):
    """(minutes, sections) of the plan's table."""
    return re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)


def test_there_are_plans_for_exactly_these_notebooks():
    assert {path.stem for path in PLANS.glob("[0-9]*.md")} == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_plan_fills_ninety_minutes_with_what_is_there(notebook):
    text = plan(notebook)
    headings = [
        line.removeprefix("## ")
        for cell in nbformat.read(notebook, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    numbers = {heading.split(".")[0] for heading in headings if heading[0].isdigit()}
    assert sum(int(minutes) for minutes, _ in rows(text)) == 90
    for _, sections in rows(text):
        if re.fullmatch(r"[\d, ]+", sections):
            assert set(sections.split(", ")) <= numbers, sections
        else:
            assert sections in headings
    title = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    assert text.startswith(f"# Lesson plan for notebook {notebook.stem[:2]}: {title}\n")
    for part in ("**Ask.**", "**Where they get stuck.**", "**If time is short.**", "**Homework.**"):
        assert part in text


def test_the_paths_name_every_notebook():
    twelve = (PLANS / "paths.md").read_text(encoding="utf-8").partition("## Twelve weeks")[2]
    assert all(re.search(rf"\b{notebook.stem[:2]}\b", twelve) for notebook in NOTEBOOKS)
