"""What every notebook of the course must be: each rule a function that says what is wrong with one notebook.

A rule takes a `Page` and yields sentences; none means that all is well. `EVERYWHERE` holds for the template too,
`NUMBERED` for the notebooks with a number. `test_notebooks.py` applies them, and proves on broken notebooks that each
rule sees what it is there for.
"""

import re
import statistics
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import nbformat

import course_lib
from course_lib import paths
from course_lib.classroom import checks, runner

FOLDER = paths.notebooks_dir()
README = (FOLDER.parent / "README.md").read_text(encoding="utf-8")


class Page:
    """A notebook, and what the rules want to know of it."""

    def __init__(self, stem: str, notebook: nbformat.NotebookNode):
        self.stem, self.notebook, self.cells = stem, notebook, notebook.cells
        self.number = "NN" if stem == "TEMPLATE" else stem[:2]

    def tagged(self, tag: str) -> list[nbformat.NotebookNode]:
        return [cell for cell in self.cells if tag in cell.metadata.get("tags", [])]

    def of_type(self, cell_type: str) -> list[nbformat.NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == cell_type]

    @cached_property
    def code(self) -> str:
        return "\n".join(cell.source for cell in self.of_type("code"))

    @cached_property
    def text(self) -> str:
        return "\n\n".join(cell.source for cell in self.of_type("markdown"))

    @cached_property
    def sections(self) -> set[str]:
        return set(re.findall(r"^## (\d+)\. ", self.text, re.MULTILINE))

    @cached_property
    def steps(self) -> set[str]:
        return set(re.findall(r"\*\*Step (\d+)", self.text))


def read(path: Path) -> Page:
    return Page(path.stem, nbformat.read(path, as_version=4))


@cache
def template() -> Page:
    return read(FOLDER / "TEMPLATE.ipynb")


@cache
def course() -> dict[str, Page]:
    """The notebooks by number."""
    return {path.stem[:2]: read(path) for path in runner.numbered()}


def announced() -> set[str]:
    """Numbers of notebooks that are still to come, as the README admits."""
    lines = re.findall(r"^- (Notebooks? .*not written yet.*)$", README, re.MULTILINE)
    return set(re.findall(r"\b\d\d\b", " ".join(lines)))


# ---------------------------------------------------------------------------------------------------------- everywhere


def papermill_can_run_it(page: Page) -> Iterator[str]:
    if complaint := runner.complaint(page.notebook, page.stem):
        yield complaint
    elif page.notebook.metadata.kernelspec.name != "python3":
        yield "the kernel is not python3"


def its_set_up_is_the_templates(page: Page) -> Iterator[str]:
    for tag in ("parameters", "setup"):
        if [cell.source for cell in page.tagged(tag)] != [cell.source for cell in template().tagged(tag)]:
            yield f"the {tag} cell is not that of the template"
    if f"git+{course_lib.REPOSITORY}@v{course_lib.__version__}" not in page.code:
        yield "it does not install this version of the course"


def its_title_is_a_question(page: Page) -> Iterator[str]:
    if not re.match(r"# .+\?\n", page.cells[0].source):
        yield "the first line is not a heading with a question mark"


def its_badge_opens_this_notebook(page: Page) -> Iterator[str]:
    repository = course_lib.REPOSITORY.removeprefix("https://github.com/")
    if (
        f"colab.research.google.com/github/{repository}/blob/main/notebooks/{page.stem}.ipynb"
        not in page.cells[0].source
    ):
        yield "the title has no badge for this notebook"


def it_has_no_outputs(page: Page) -> Iterator[str]:
    for name in {"widgets", "papermill"} & set(page.notebook.metadata):
        yield f"metadata.{name} was left in it"
    for cell in page.cells:
        if cell.get("outputs") or cell.get("execution_count") is not None or "papermill" in cell.metadata:
            yield f"{cell.id} has been run: make format"


def its_cell_ids_are_readable_and_unique(page: Page) -> Iterator[str]:
    ids = [cell.id for cell in page.cells]
    yield from (f"{name} is there twice" for name in set(ids) if ids.count(name) > 1)
    yield from (f"{name} is no name" for name in ids if not re.fullmatch(rf"{page.number}-[a-z][a-z0-9-]*", name))


def its_widgets_come_from_explore_alone(page: Page) -> Iterator[str]:
    # A bare `interact` hides errors from papermill and now and then hangs it.
    yield from re.findall(r"ipywidgets|\binteract\b|\.observe\(", page.code)


def it_closes_as_every_notebook_does(page: Page) -> Iterator[str]:
    for heading in ("## What this does not show", "## Do you have it? Five questions", "## References"):
        if heading not in page.text:
            yield f"{heading!r} is missing"
    self_test = page.text.partition("Five questions")[2]
    if self_test.count("<details><summary>Answer</summary>\n\n") != 5:
        yield "the self-test has not five questions with folded answers"


def its_links_resolve(page: Page) -> Iterator[str]:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.text):
        if not (FOLDER / target).exists():
            yield f"there is no {target}"


# ------------------------------------------------------------------------------------------------------------ numbered


def nothing_is_left_to_do(page: Page) -> Iterator[str]:
    if "TODO" in page.text + page.code:
        yield "there is a TODO"


def its_length_is_that_of_a_lesson(page: Page) -> Iterator[str]:
    least = 1 if page.number == "00" else 25
    if not least <= len(page.cells) <= 50:
        yield f"{len(page.cells)} cells: 25 to 50 are a lesson"
    own = [cell for cell in page.of_type("code") if cell not in page.tagged("setup")]
    lines = {cell.id: len(cell.source.splitlines()) for cell in own}
    if statistics.median(lines.values()) > 6:
        yield f"its code cells have {statistics.median(lines.values())} lines in the median: at most 6"
    yield from (f"{name} has {count} lines: at most 25" for name, count in lines.items() if count > 25)


def its_exercises_are_complete(page: Page) -> Iterator[str]:
    """A box and a folded hint, the stub, a check and a folded solution of one exercise, next to each other."""
    stubs = page.tagged("exercise")
    if len(stubs) < 2:
        yield f"{len(stubs)} coding exercises: at least two"
    for stub in stubs:
        at = page.cells.index(stub)
        around = "\n\n".join(cell.source for cell in page.cells[at - 1 : at + 4])
        if "### Exercise" not in around or "<details><summary>Hint" not in around:
            yield f"{stub.id} has no box with a folded hint"
        following = [cell for cell in page.cells[at + 1 : at + 4] if cell.cell_type == "code"][:2]
        if [cell.metadata.get("tags") for cell in following] != [["check"], ["solution"]]:
            yield f"{stub.id} is not followed by a check and a solution"
        elif [len(_asked(cell.source)) for cell in following] != [1, 1]:
            yield f"check and solution of {stub.id} do not name one exercise"
        elif _asked(following[0].source) != _asked(following[1].source):
            yield f"check and solution of {stub.id} are not of the same exercise"


def its_exercises_are_known(page: Page) -> Iterator[str]:
    for name in sorted(set(_asked(page.code)) - set(checks.EXERCISES)):
        yield f"there is no exercise {name!r}"


def _asked(code: str) -> list[str]:
    return re.findall(r"checks\.(?:check|solution)\(\"(\w+)\"", code)


def it_makes_the_reader_think(page: Page) -> Iterator[str]:
    questions = len(re.findall(r"\*(?:Think|Predict)", page.text))
    if questions < 3:
        yield f"{questions} questions to think about ('*Think', '*Predict'): at least three"


def it_can_be_played_with(page: Page) -> Iterator[str]:
    figures = len(re.findall(r"\bexplore\(", page.code))
    if figures < 2:
        yield f"{figures} figures to play with: at least two"


def its_details_are_closed(page: Page) -> Iterator[str]:
    for cell in page.of_type("markdown"):
        if cell.source.count("<details>") != cell.source.count("</details>"):
            yield f"{cell.id}: a fold that is not closed"
        if re.search(r"</summary>\n(?!\n)", cell.source):
            yield f"{cell.id}: without an empty line after </summary> the Markdown in it is not rendered"


def its_references_to_notebooks_resolve(page: Page) -> Iterator[str]:
    """As in 'notebook 07', 'notebooks 05 to 07', 'notebooks 06, 07 and 09', 'notebook 07, section 5' (or step 5)."""
    there = course()
    for number in {n for found in re.findall(NOTEBOOKS, page.text) for n in re.findall(r"\d\d", found)}:
        if number not in there.keys() | announced():
            yield f"there is no notebook {number}"
    for number, what, place in re.findall(r"[Nn]otebook\s+(\d\d),\s+(section|step)\s+(\d+)", page.text):
        if number in there and place not in getattr(there[number], f"{what}s"):
            yield f"notebook {number} has no {what} {place}"


NOTEBOOKS = r"[Nn]otebooks?\s+\d\d(?:(?:,|\s+to|\s+and|,\s+and)\s+\d\d\b)*"
ELSEWHERE = r"[Nn]otebook\s+\d\d,\s+(?:section|step)\s+\d+"


def its_references_to_itself_resolve(page: Page) -> Iterator[str]:
    """'section 5', 'step 7' and 'steps 4 and 5' of this very notebook; papers' sections come with 'of', or a dot."""
    own = re.sub(ELSEWHERE, "", page.text.partition("## References")[0])
    for what in ("section", "step"):
        for first, second in re.findall(
            rf"\b{what}s?\s+(\d+)(?:\s+(?:and|to)\s+(\d+))?\b(?!\.\d|\s+of)", own, re.IGNORECASE
        ):
            yield from (f"it has no {what} {n}" for n in (first, second) if n and n not in getattr(page, f"{what}s"))


EVERYWHERE = [
    papermill_can_run_it,
    its_set_up_is_the_templates,
    its_title_is_a_question,
    its_badge_opens_this_notebook,
    it_has_no_outputs,
    its_cell_ids_are_readable_and_unique,
    its_widgets_come_from_explore_alone,
    it_closes_as_every_notebook_does,
    its_links_resolve,
]
NUMBERED = [
    nothing_is_left_to_do,
    its_length_is_that_of_a_lesson,
    its_exercises_are_complete,
    its_exercises_are_known,
    it_makes_the_reader_think,
    it_can_be_played_with,
    its_details_are_closed,
    its_references_to_notebooks_resolve,
    its_references_to_itself_resolve,
]
