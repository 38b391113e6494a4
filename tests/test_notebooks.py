"""Every notebook has the form that the course and its tools rely on."""

import copy
import re

import nbformat
import notebook_rules as rules
import pytest

from course_lib import paths
from course_lib.classroom import checks, runner

EVERY = sorted(paths.notebooks_dir().glob("*.ipynb"))
NUMBERED = runner.numbered()


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def each(functions):
    return pytest.mark.parametrize("rule", functions, ids=lambda rule: rule.__name__)


# ------------------------------------------------------------------------------------------------------------ the rules


@each(rules.EVERYWHERE)
@by_name(EVERY)
def test_every_notebook_keeps(rule, path):
    assert list(rule(rules.read(path))) == []


@each(rules.NUMBERED)
@by_name(NUMBERED)
def test_every_numbered_notebook_keeps(rule, path):
    assert list(rule(rules.read(path))) == []


# --------------------------------------------------------------------------------------------- what lies between files


def test_every_exercise_is_used_in_a_notebook():
    used = {name for page in rules.course().values() for name in re.findall(r'checks\.check\("(\w+)"', page.code)}
    assert used == set(checks.EXERCISES)


def test_the_readme_lists_the_notebooks_and_their_questions():
    rows = re.findall(r"^\| \[(\w+)\]\(notebooks/(\w+)\.ipynb\) \| (.+?\?) \|", rules.README, re.MULTILINE)
    titles = {path.stem: rules.read(path).cells[0].source.splitlines()[0].removeprefix("# ") for path in NUMBERED}
    assert [name for name, _, _ in rows] == [file for _, file, _ in rows] == list(titles)
    assert {name: question for name, _, question in rows} == titles


def test_no_notebook_is_both_there_and_announced():
    assert not rules.announced() & rules.course().keys()


def test_docstrings_say_where_a_thing_is_taught():
    said = 0
    for path in paths.notebooks_dir().parent.glob("course_lib/**/*.py"):
        for stem, section in re.findall(r"notebooks/(\w+)\.ipynb(?:,\s+section (\d+))?", path.read_text("utf-8")):
            assert stem in {notebook.stem for notebook in EVERY}, path
            assert not section or section in rules.course()[stem[:2]].sections, path
            said += 1
    assert said > 30


# --------------------------------------------------------------------------------------------------- tests of the tests


def whole():
    """A notebook that keeps all rules, to be broken."""
    return rules.read(paths.notebooks_dir() / "05_baselines.ipynb")


def cell(page, name):
    (found,) = (cell for cell in page.cells if cell.id == f"{page.number}-{name}")
    return found


def put(name, old, new):
    """A way to break a notebook: other text in one of its cells."""

    def broken(page):
        assert old in cell(page, name).source
        cell(page, name).source = cell(page, name).source.replace(old, new)

    return broken


def tags(name, *new):
    return lambda page: cell(page, name).metadata.update(tags=list(new))


def without(name):
    return lambda page: page.cells.remove(cell(page, name))


def written_below(name, text):
    def broken(page):
        cell(page, name).source += "\n" + text

    return broken


def everywhere(old, new):
    def broken(page):
        for each in page.cells:
            each.source = each.source.replace(old, new)

    return broken


def repeated(page):
    page.cells += [copy.deepcopy(page.cells[-1])]


def run(page):
    page.cells[5].execution_count = 1


def long(page):
    page.cells += [nbformat.v4.new_markdown_cell("more", id=f"{page.number}-more-{i}") for i in range(20)]


def wordy_code(page):
    for each in page.of_type("code"):
        each.source += "\npass" * 6


BROKEN = [
    (rules.papermill_can_run_it, lambda page: page.notebook.metadata.pop("kernelspec")),
    (rules.papermill_can_run_it, lambda page: page.notebook.metadata.kernelspec.update(name="julia")),
    (rules.papermill_can_run_it, tags("parameters")),
    (rules.its_set_up_is_the_templates, put("parameters", "seed = 0", "seed = 1")),
    (rules.its_set_up_is_the_templates, put("setup", "import sys\n", "import os, sys\n")),
    (rules.its_set_up_is_the_templates, put("setup", "@v", "@main")),
    (rules.its_title_is_a_question, put("title", "?", ".")),
    (rules.its_badge_opens_this_notebook, put("title", "05_baselines", "06_oracle")),
    (rules.it_has_no_outputs, run),
    (rules.it_has_no_outputs, lambda page: page.notebook.metadata.update(widgets={})),
    (rules.it_has_no_outputs, lambda page: cell(page, "imports").outputs.append({"output_type": "stream"})),
    (rules.its_cell_ids_are_readable_and_unique, repeated),
    (rules.its_cell_ids_are_readable_and_unique, lambda page: page.cells[5].update(id="d41d8cd9")),
    (rules.its_widgets_come_from_explore_alone, written_below("imports", "from ipywidgets import interact")),
    (rules.it_closes_as_every_notebook_does, without("limits")),
    (rules.it_closes_as_every_notebook_does, put("self-test", "Answer</summary>\n\n", "Answer</summary>\n")),
    (rules.its_links_resolve, written_below("question", "see [the library](../course_lib/criterion.py)")),
    (rules.nothing_is_left_to_do, written_below("question", "TODO")),
    (rules.its_length_is_that_of_a_lesson, long),
    (rules.its_length_is_that_of_a_lesson, lambda page: page.cells.__delitem__(slice(20, None))),
    (rules.its_length_is_that_of_a_lesson, wordy_code),
    (rules.its_length_is_that_of_a_lesson, written_below("weight-check", "pass\n" * 25)),
    (rules.its_exercises_are_complete, lambda page: [tags(n)(page) for n in ("ex-weight-stub", "ex-apoz-stub")]),
    (rules.its_exercises_are_complete, put("ex-weight", "<details><summary>Hint", "<details><summary>Help")),
    (rules.its_exercises_are_complete, without("ex-weight-check")),
    (rules.its_exercises_are_complete, without("ex-weight-solution")),
    (rules.its_exercises_are_complete, put("ex-weight-solution", "min_weight", "apoz")),
    (rules.its_exercises_are_complete, put("ex-weight-check", 'checks.check("min_weight", min_weight)', "pass")),
    (rules.its_exercises_are_known, put("ex-weight-check", '"min_weight"', '"minimum_weight"')),
    (
        rules.it_makes_the_reader_think,
        lambda page: [everywhere(f"*{word}", "*Know")(page) for word in ("Think", "Predict")],
    ),
    (rules.it_can_be_played_with, everywhere("course_lib.explore(", "print(")),
    (rules.its_details_are_closed, put("ex-weight", "</details>", "")),
    (rules.its_details_are_closed, put("ex-weight", "Hint</summary>\n\n", "Hint</summary>\n")),
    (rules.its_references_to_notebooks_resolve, written_below("question", "See notebook 13.")),
    (rules.its_references_to_notebooks_resolve, written_below("question", "See notebooks 06, 07 and 23.")),
    (rules.its_references_to_notebooks_resolve, written_below("question", "See notebook 07, section 12.")),
    (rules.its_references_to_notebooks_resolve, written_below("question", "See notebook 03, step 31.")),
    (rules.its_references_to_itself_resolve, written_below("question", "See section 17.")),
    (rules.its_references_to_itself_resolve, written_below("question", "From steps 1 and 9 follows")),
]


@pytest.mark.parametrize(("rule", "breaks"), BROKEN, ids=[f"{i}-{rule.__name__}" for i, (rule, _) in enumerate(BROKEN)])
def test_a_broken_notebook_is_caught(rule, breaks):
    page = whole()
    assert list(rule(page)) == []
    page = whole()
    breaks(page)
    assert list(rule(page)) != []


def test_every_rule_is_tested_and_applied():
    written = {function for name, function in vars(rules).items() if re.match(r"(its?|papermill|nothing)_", name)}
    assert written == {rule for rule, _ in BROKEN} == {*rules.EVERYWHERE, *rules.NUMBERED}
