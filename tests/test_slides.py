"""Slides: what of a notebook is projected, where it stands, and what a browser without a network says of the decks."""

import base64
import io
import os

import numpy as np
import pytest
from nbformat import v4, write
from PIL import Image

from course_lib.classroom import vendor
from course_lib.classroom.frames import frames
from course_lib.classroom.slides import command, look
from course_lib.classroom.slides import page as pages
from course_lib.classroom.slides.deck import LESSON, LINES, ROWS, deck, slides
from course_lib.classroom.slides.points import blocks, points, sentences


def markdown(source, slide="slide", **metadata):
    return v4.new_markdown_cell(source, metadata={"slideshow": {"slide_type": slide}, **metadata})


def code(source, *outputs, tags=(), slide="-"):
    return v4.new_code_cell(
        source, outputs=list(outputs), metadata={"tags": list(tags), "slideshow": {"slide_type": slide}}
    )


def printed(text):
    return v4.new_output("stream", name="stdout", text=text)


def picture(width=1100, height=600):
    with io.BytesIO() as buffer:
        Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(buffer, "png")
        return v4.new_output("display_data", {"image/png": base64.b64encode(buffer.getvalue()).decode()})


def laid_out(*cells):
    """The kinds of the pieces of each slide."""
    return [[piece.kind for piece in slide.pieces] for slide in slides(v4.new_notebook(cells=list(cells)))]


PROSE = """\
## 1. The exact problem

A network has the cost $C(D\\,|\\,W)$ on the data. This sentence is for readers only, and it is
long enough to be left out. Pruning looks for a smaller one (eq. 1):

$$ \\min_{W'} |C(W') - C(W)| $$

where $W'$ is small. *Predict before you look:* how many? More than a million?

- **first** e.g. this, which says enough alone. And what else is said of it, at some length, is read
  in the notebook.

*Think.* Why greedy?

<details><summary>Answer</summary>

Because there are $2^{|W|}$ subsets.

</details>
"""

# ------------------------------------------------------------------------------------------------------------- points


def test_sentences_end_neither_in_formulas_nor_in_abbreviations_nor_after_leads():
    said = sentences(
        "By P. Molchanov et al. (eq. 1), $a.b$ is `c. d`. *One? Two?* **Step 1.** It holds. [A. B](c.d) End"
    )
    assert said == [
        "By P. Molchanov et al. (eq. 1), $a.b$ is `c. d`.",
        "*One? Two?*",
        "**Step 1.** It holds.",
        "[A. B](c.d) End",
    ]


def test_the_slide_has_headings_equations_first_sentences_and_what_is_asked():
    assert [(block.kind, block.source) for block in points(PROSE)] == [
        ("heading", "## 1. The exact problem"),
        ("text", "A network has the cost $C(D\\,|\\,W)$ on the data. Pruning looks for a smaller one (eq. 1):"),
        ("equation", "$$ \\min_{W'} |C(W') - C(W)| $$"),
        ("text", "where $W'$ is small. *Predict before you look:* how many? More than a million?"),
        ("item", "- **first** e.g. this, which says enough alone."),
        ("text", "*Think.* Why greedy?"),
    ]


def test_exercises_stay_whole_and_titles_alone_and_badges_go():
    exercise = (
        "### Exercise 1: x\n\nWrite `f(x)`, which does it. It takes one argument of shape (N, C) and returns as many."
    )
    assert " ".join(block.source for block in points(exercise)) == exercise.replace("\n\n", " ")
    title = "# A question?\n\n[![Open in Colab](https://badge.svg)](https://colab)\n\n45 minutes to read."
    assert [block.source for block in points(title)] == ["# A question?"]
    assert not [block for block in blocks(title) if "badge" in block.source]


def test_what_stands_above_a_heading_closes_the_section_before():
    assert [block.kind for block in points("It was so.\n\n## 2. Next\n\nNow this.")] == ["heading", "text"]


def test_a_long_equation_is_broken_where_it_has_a_gap():
    long = "$$ " + "a + b + c + d + e + f + g = " * 2 + "h, \\qquad " + "k + l + m + n = " * 3 + "o $$"
    (block,) = points(long)
    assert block.source.count(r"\\") == 1 and block.source.split(r"\\")[1].lstrip().startswith(r"\qquad")
    assert points("$$ a = b, \\qquad c = d $$")[0].source == "$$ a = b, \\qquad c = d $$"


# --------------------------------------------------------------------------------------------------------------- deck


def test_set_up_checks_and_solutions_are_not_shown_and_their_numbers_neither():
    hidden = [code("x", printed("no"), tags=[tag]) for tag in ("parameters", "setup", "check", "solution")]
    assert laid_out(markdown("## A"), *hidden, code("skipped", printed("no"), slide="skip")) == [["heading"]]


def test_code_is_shown_where_it_checks_a_step_or_is_an_exercise():
    step, check = markdown("**Step 1.** So it is. *Check:* by hand."), code("1 + 1", printed("2"))
    assert laid_out(step, check) == [["text", "code", "print"]]
    assert laid_out(markdown("So it is."), check) == [["text", "print"]]
    assert laid_out(step, code("x\n" * LESSON, printed("2"))) == [["text", "print"]]
    assert laid_out(step, code("draw()", picture())) == [["text", "figure"]]
    assert laid_out(step, code("1 + 1", printed("2"), tags=["hide-input"])) == [["text", "print"]]
    assert laid_out(markdown("So."), code("1 + 1", printed("2"), tags=["show-input"])) == [["text", "code", "print"]]
    assert laid_out(markdown("### Exercise: f"), code("def f(): ...", tags=["exercise"])) == [["heading", "code"]]


def test_a_figure_has_a_slide_of_its_own_below_its_question():
    lead = markdown("## A figure\n\nThis is drawn below, layer by layer.\n\nBy size. *Which layer is the lowest?*")
    assert laid_out(lead, code("draw()", picture())) == [["heading", "text", "text"], ["asked", "figure"]]
    assert laid_out(lead, code("draw()", picture(1400, 400))) == [["heading", "text", "text", "figure"]]
    predict = markdown("*Predict before you look:* up or down?")
    assert laid_out(predict, code("draw()", picture(1400, 400))) == [["text"], ["asked", "figure"]]


def test_a_figure_repeats_what_was_to_be_predicted_and_one_that_moves_what_to_look_for():
    lead = markdown("*Predict before you look:* up or down?\n\n*Think.* Why?\n\nNow move it. *Where is it lowest?*")
    cells = [lead, code("draw()", picture()), code("explore()", moving())]
    first, second = slides(v4.new_notebook(cells=cells))[1:]
    assert first.pieces[0].cell.source == "*Predict before you look:* up or down?"
    assert second.pieces[0].cell.source == "*Where is it lowest?*"


def test_what_a_drawing_cell_prints_is_below_the_figure_or_in_the_notes():
    lead = markdown("*Which layer is lowest?*")
    assert laid_out(lead, code("draw()", printed("5"), picture(1400, 400))) == [["text", "figure", "print"]]
    (slide,) = slides(v4.new_notebook(cells=[lead, code("draw()", printed("5 5\n" * 9), picture())]))
    assert [piece.kind for piece in slide.pieces] == ["text", "figure"] and "5 5" in slide.notes[-1]


def test_what_does_not_fit_goes_on_below_the_same_title():
    long = markdown("## Long\n\n" + "\n\n".join(["A sentence that says something about it."] * 20))
    found = slides(v4.new_notebook(cells=[long]))
    assert [slide.begins for slide in found] == ["slide", "subslide"] and {slide.title for slide in found} == {"Long"}
    assert sum(len(slide.pieces) for slide in found) == 21
    made = deck(v4.new_notebook(cells=[long])).cells
    assert [c.metadata.slideshow.slide_type for c in made] == ["slide", "notes", "subslide", "-", "notes"]
    assert made[2].source == "Long" and made[2].metadata.tags == ["kicker"]


def test_code_that_does_not_fit_goes_on_with_its_output():
    full = markdown("\n\n".join(["A sentence that says something about it."] * 10) + "\n\n*Check:* by hand.")
    assert laid_out(full, code("1\n2\n3", printed("2\n3\n4")))[1:] == [["code", "print"]]


def test_no_heading_and_no_lead_of_an_equation_is_left_alone_at_the_end():
    full = "\n\n".join(["A sentence that says something about it."] * 9)
    for ending in ("It is:\n\n$$ a = b $$", "## Next\n\nText."):
        for slide in slides(v4.new_notebook(cells=[markdown(full), markdown(ending, "-")])):
            assert not slide.pieces[-1].stays


def test_the_answer_waits_for_a_key_and_the_lecture_goes_on_after_an_exercise():
    cells = [
        markdown("## 1. One\n\nHow much is it?"),
        code("x", printed("2")),
        markdown("### Exercise: f"),
        code("def f(): ...", tags=["exercise"]),
        code("solve", tags=["solution"], slide="skip"),
        code("y", printed("3")),
    ]
    made = deck(v4.new_notebook(cells=cells)).cells
    assert [c.metadata.slideshow.slide_type for c in made if c.metadata.slideshow.slide_type != "notes"] == [
        *("slide", "fragment"),
        *("slide", "-"),
        *("subslide", "-"),
    ]
    assert made[-3].source == "1\\. One"


def test_the_notes_are_the_whole_prose_with_answers_open():
    made = deck(v4.new_notebook(cells=[markdown(PROSE), code("x", picture())])).cells
    notes = [cell.source for cell in made if cell.metadata.slideshow.slide_type == "notes"]
    assert len(notes) == 2  # the figure has its own slide, and the same notes
    for note in notes:
        assert "for readers only" in note and "**Answer.**" in note and "2^{|W|}" in note and "<details>" not in note


def test_a_wide_table_of_one_row_stands_on_end():
    head = "".join(f"<th>layer {i}</th>" for i in range(13))
    row = "".join(f"<td>{i}</td>" for i in range(13))
    html = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
    shown = v4.new_output("execute_result", {"text/html": html}, execution_count=1)
    *_, cell, _ = deck(v4.new_notebook(cells=[markdown("## A"), code("t", shown)])).cells
    assert cell.outputs[0].data["text/html"].count("<tr>") == 13
    assert "<tr><th>layer 12</th><td>12</td></tr>" in cell.outputs[0].data["text/html"]


def test_long_outputs_are_cut():
    table = "<table><tbody>" + "<tr><td>1</td></tr>" * 40 + "</tbody></table>"
    shown = v4.new_output("execute_result", {"text/html": table}, execution_count=1)
    made = deck(v4.new_notebook(cells=[markdown("## A"), code("t", shown), code("p", printed("line\n" * 99))])).cells
    html, text = (o for cell in made for o in cell.get("outputs", []))
    assert html.data["text/html"].count("<tr>") == ROWS - 1 and "27 rows more" in html.data["text/html"]
    assert text.text.count("line") == LINES and text.text.endswith("...")
    bar = "pruning:  40%|####      | 2/5 [00:20<00:31, 10.35s/it]\n"
    assert laid_out(markdown("## A"), code("p", printed(bar))) == [["heading"]]


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def vendored():
    """The packages that npm brings; where it cannot, the test is skipped, but in CI it fails."""
    try:
        return vendor.fetch()
    except vendor.VendorError as why:
        (pytest.fail if os.environ.get("COURSE_LIB_CI") == "1" else pytest.skip)(str(why))


def bars(k):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90"><rect width="{20 * k}" height="60"/>'
        f"<text y='80'>k is {k}</text></svg>"
    )


def a_deck(folder, vendored, *cells):
    write(v4.new_notebook(cells=list(cells)), folder / "tiny.ipynb")
    pages.furnish(folder, vendored)
    return pages.write(folder / "tiny.ipynb", folder)


def moving():
    return v4.new_output("execute_result", {"text/html": frames(bars, k=[1, 2, 3]).data}, execution_count=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, vendored):
    return a_deck(
        tmp_path_factory.mktemp("decks"),
        vendored,
        markdown("# How small?\n\n[![Colab](https://example.org/badge.svg)](https://example.org)"),
        markdown(PROSE),
        code("1 + 1", printed("2\n")),
        markdown("## 2. It moves\n\nMove it. *Which k is widest?*"),
        code("explore()", moving()),
        markdown("## 3. Much\n\n" + "\n\n".join(["A sentence that says something about $x^2$."] * 30)),
    )


def test_no_slide_is_cut_off_and_nothing_is_fetched(browser, tiny, tmp_path):
    assert look.look(browser, tiny, tmp_path) == []
    shots = sorted((tmp_path / "tiny").glob("??.png"))
    assert len(shots) >= 6
    assert all(np.asarray(Image.open(shot)).std() > 5 for shot in shots)  # nothing is blank
    assert Image.open(tmp_path / "tiny" / "sheet-1.png").width > 3 * 600


def test_formulas_are_set_and_notes_are_there(page, tiny):
    page.goto(tiny.as_uri())
    page.wait_for_selector("body.deck-ready", state="attached")
    assert page.locator("section mjx-container svg").count() > 30
    assert "$$" not in page.inner_text("body")
    note = page.locator("aside.notes", has_text="for readers only").first
    assert note.locator("mjx-container").count() and not note.is_visible()
    assert page.outside == [] and page.errors == []


def test_the_speaker_sees_the_notes(page, tiny):
    page.goto(f"{tiny.as_uri()}#/1")
    page.wait_for_selector("body.deck-ready", state="attached")
    with page.expect_popup() as opened:
        page.keyboard.press("s")
    opened.value.wait_for_selector("text=for readers only", timeout=60_000)
    assert page.outside == []


def test_arrow_keys_move_a_slider_that_has_the_focus_and_else_the_slides(page, tiny):
    page.goto(tiny.as_uri())
    page.wait_for_selector("body.deck-ready", state="attached")
    page.evaluate("Reveal.slide(2)")
    slide = page.locator("section.present section.present")
    slide.locator("input[type=range]").focus()
    for shown in ("k = 2", "k = 3"):
        page.keyboard.press("ArrowRight")
        visible = slide.locator(".course-frame:visible img")
        assert visible.count() == 1 and shown in visible.get_attribute("alt")
        assert page.evaluate("Reveal.getIndices().h") == 2
    box = visible.bounding_box()
    assert box["width"] > 0.7 * 1280 or box["height"] > 0.6 * 720
    slide.locator("input[type=range]").blur()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == 3


def test_a_slide_that_is_cut_off_is_named(browser, vendored, tmp_path):
    wide = "<table><tr>" + "".join(f"<td>column_number_{i}</td>" for i in range(30)) + "</tr></table>"
    table = v4.new_output(
        "execute_result", {"text/html": wide + "<img src='https://example.org/x.png'>"}, execution_count=1
    )
    bad = a_deck(tmp_path, vendored, markdown("## Fine"), markdown("## Wide"), code("t", table))
    found = look.look(browser, bad)
    assert any(what.startswith("tiny.html, slide 2: cut off: column_number_0") for what in found)
    assert any("asks for https://example.org/x.png" in what for what in found)
    assert not [what for what in found if "slide 1" in what]


# ------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def no_browser(monkeypatch, tmp_path):
    """One notebook, executed, and a machine with neither npm nor Chromium in use."""

    def absent():
        raise command.browser.NoBrowser("there is no Chromium")

    write(v4.new_notebook(cells=[markdown("## A")]), tmp_path / "00_tiny.ipynb")
    monkeypatch.setattr(command.runner, "numbered", lambda only: [tmp_path / "00_tiny.ipynb"])
    monkeypatch.setattr(command.page, "furnish", lambda out: out.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(command.browser, "chromium", absent)
    return tmp_path


def test_decks_of_executed_notebooks(no_browser, capsys):
    out = no_browser / "slides"
    assert command.main(["--executed", str(no_browser), "--out", str(out)]) == 0
    assert "<section" in (out / "00_tiny.html").read_text()
    said = capsys.readouterr().out
    assert "were not looked at" in said and "press S" in said


def test_a_folder_without_the_notebooks_is_refused(no_browser, capsys):
    assert command.main(["--executed", str(no_browser / "nowhere"), "--out", str(no_browser / "slides")]) == 2
    assert "00_tiny.ipynb" in capsys.readouterr().err


def test_notebooks_are_run_with_figures_that_move(no_browser, monkeypatch):
    seen = []

    def run(notebooks, out, profile):
        seen.append((profile, os.environ.get("COURSE_LIB_FRAMES")))
        out.mkdir(parents=True)
        write(v4.new_notebook(cells=[markdown("## A")]), out / "00_tiny.ipynb")
        return [command.runner.Outcome("00_tiny", 1.0, "a cell failed")]

    monkeypatch.delenv("COURSE_LIB_FRAMES", raising=False)
    monkeypatch.setattr(command.runner, "run", run)
    assert command.main(["--profile", "ci", "--out", str(no_browser / "slides")]) == 1  # a notebook failed
    assert seen == [("ci", "1")] and "COURSE_LIB_FRAMES" not in os.environ


def test_a_complaint_is_an_exit_code(no_browser, monkeypatch, capsys):
    monkeypatch.setattr(command, "look_at", lambda decks, pictures: ["00_tiny.html, slide 3: cut off: conv"])
    assert command.main(["--executed", str(no_browser), "--out", str(no_browser / "slides")]) == 1
    assert "slide 3: cut off" in capsys.readouterr().out
