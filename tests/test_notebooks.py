"""Every notebook has the form that the course and its tools rely on, and runs to its end in profile `ci`."""

import re

import nbformat
import pytest

import course_lib
from course_lib import paths
from course_lib.classroom import checks, runner, solved

EVERY = sorted(paths.notebooks_dir().glob("*.ipynb"))
NUMBERED = runner.numbered()


def cells(path):
    return nbformat.read(path, as_version=4).cells


def tagged(path, tag):
    return [cell for cell in cells(path) if tag in cell.metadata.get("tags", [])]


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@by_name(EVERY)
def test_papermill_can_run_it(path):
    assert runner.check(path) == ""
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


@by_name(EVERY)
def test_the_parameters_are_those_of_the_template(path):
    (cell,) = tagged(path, "parameters")
    (template,) = tagged(paths.notebooks_dir() / "TEMPLATE.ipynb", "parameters")
    assert cell.source == template.source


@by_name(EVERY)
def test_the_setup_cell_is_the_same_everywhere(path):
    (cell,) = tagged(path, "setup")
    (template,) = tagged(paths.notebooks_dir() / "TEMPLATE.ipynb", "setup")
    assert cell.source == template.source
    assert f"git+{course_lib.REPOSITORY}@v{course_lib.__version__}" in cell.source


@by_name(EVERY)
def test_the_title_is_a_question_and_the_badge_opens_this_notebook(path):
    title, *_ = cells(path)
    first, *rest = title.source.splitlines()
    assert re.fullmatch(r"# .+\?", first)
    repository = course_lib.REPOSITORY.removeprefix("https://github.com/")
    assert f"colab.research.google.com/github/{repository}/blob/main/notebooks/{path.name}" in "\n".join(rest)


@by_name(EVERY)
def test_it_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert not {"widgets", "papermill"} & set(notebook.metadata)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None and "papermill" not in cell.metadata


@by_name(EVERY)
def test_cell_ids_are_readable_and_unique(path):
    ids = [cell.id for cell in cells(path)]
    prefix = "NN" if path.stem == "TEMPLATE" else path.stem[:2]
    assert len(set(ids)) == len(ids)
    assert not [name for name in ids if not re.fullmatch(rf"{prefix}-[a-z][a-z0-9-]*", name)]


@by_name(EVERY)
def test_widgets_come_from_explore_alone(path):
    # A bare `interact` hides errors from papermill and now and then hangs it.
    code = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "code")
    assert not re.search(r"ipywidgets|\binteract\b|\.observe\(", code)


@by_name(EVERY)
def test_it_closes_as_every_notebook_does(path):
    text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    assert "What this does not show" in text and "## References" in text
    self_test = text[text.index("Five questions") :]
    assert self_test.count("<details><summary>Answer</summary>\n\n") == 5
    if path.stem != "TEMPLATE":
        assert "TODO" not in text


@by_name(NUMBERED)
def test_an_exercise_is_a_stub_its_check_and_its_solution(path):
    code = [cell for cell in cells(path) if cell.cell_type == "code"]
    tags = [(cell.metadata.get("tags") or [""])[0] for cell in code]
    stubs = [at for at, tag in enumerate(tags) if tag == "exercise"]
    assert len(stubs) >= 2
    assert tags.count("check") == tags.count("solution") == len(stubs)
    for at in stubs:
        assert tags[at : at + 3] == ["exercise", "check", "solution"]
        name, function = solved.CHECK.fullmatch(code[at + 1].source).groups()
        assert code[at].source.startswith(f"def {function}(")
        assert name in checks.EXERCISES and code[at + 2].source.startswith(f'checks.solution("{name}")')


@by_name(NUMBERED)
def test_once_it_is_solved_every_check_says_right(path, tmp_path):
    # Where nothing but the check looks at an answer, the lesson is the same as unsolved, and is left out here.
    copy = solved.write(path, tmp_path / "solved" / path.name, checks_alone=not solved.uses_answers(path))
    (outcome,) = runner.run([copy], tmp_path, profile="ci")
    assert outcome.error == ""
    said = [cell.outputs[0].text for cell in tagged(tmp_path / path.name, "check")]
    assert len(said) == len(tagged(path, "check")) and all(text.startswith("Right: ") for text in said)


@by_name(NUMBERED)
def test_it_runs_to_its_end(path, tmp_path):
    (outcome,) = runner.run([path], tmp_path, profile="ci")
    assert outcome.error == ""
    assert (tmp_path / f"{path.stem}.html").exists()


def test_the_template_runs_too(tmp_path):
    (outcome,) = runner.run([paths.notebooks_dir() / "TEMPLATE.ipynb"], tmp_path, profile="ci")
    assert outcome.error == ""
    outputs = [o for cell in cells(tmp_path / "TEMPLATE.ipynb") for o in cell.get("outputs", [])]
    assert (
        sum("image/png" in output.get("data", {}) for output in outputs) == 2
    )  # the figure, and the same to play with
