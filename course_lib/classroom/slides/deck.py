"""From an executed notebook to the notebook of its deck: one cell a piece of a slide, in the order of the lecture.

A cell of type slide or subslide begins a new slide; what does not fit goes on the next one, below the same title.

- Of text stand the ``points``; the whole text is the slide's speaker notes.
- Code stands where it is the lesson: the check of a step (the text above says *Check*), if it is at most `LESSON` lines
  that print and do not draw, and the stub of an exercise. The tags ``show-input`` and ``hide-input`` decide otherwise.
- A figure has a slide of its own, below the question it answers, unless text leaves it nearly as large. What the same
  cell prints stands under it if there is room, and else in the notes.
- What answers the text of the same slide waits for the next key press.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field

from nbformat import NotebookNode, v4
from PIL import Image

from course_lib.classroom.slides.points import points, sentences

#: Of every deck, below its title.
COURSE = "Why and how to prune a neural network"
#: Longest code cell that is shown without a tag, and its longest line.
LESSON, LESSON_LINE = 6, 92
#: Pixels that the content of a slide of 1280 by 720 may fill (deck.css).
WIDE, HIGH = 1168, 640
#: A figure shares its slide with text only if it stays this large, compared to standing alone.
SHRINK = 0.8
#: A figure that would be so high, if it were as wide as the slide, gets no line above or below it.
TALL = 1.25 * HIGH
#: Letters of a question that is repeated above the figure that answers it.
LONGEST_QUESTION = 180
#: What a slide may be too full by: its type is set smaller then, which is better than two lines on a slide alone.
SLACK = 1.1
#: Rows and columns of a table and lines of a printed text that are shown; more cannot be read anyway.
ROWS, COLUMNS, LINES = 14, 10, 14

_PROGRESS = re.compile(r".*\d+%\|.*\|.*\[.*\]")
_NOT_SHOWN = {"parameters", "injected-parameters", "setup", "check", "solution"}
_LINE, _CODE_LINE, _TITLE, _KICKER = 43, 30, 70, 40


@dataclass
class Piece:
    """Part of a slide: a cell of the deck, its height in pixels, and whether it answers what stands above."""

    cell: NotebookNode
    height: float
    kind: str
    answers: bool = False
    stays: bool = False  # with what follows: a heading, the sentence before an equation
    moves: bool = False  # a figure to play with

    def is_text(self) -> bool:
        return self.cell.cell_type == "markdown"


@dataclass
class Slide:
    """What is shown at once. `begins`: slide (to the right of the last one) or subslide (below it)."""

    begins: str
    title: str
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def height(self) -> float:
        return sum(piece.height for piece in self.pieces) + (0 if self._has_title() else _KICKER)

    def _has_title(self) -> bool:
        return bool(self.pieces) and self.pieces[0].kind == "heading"


def deck(notebook: NotebookNode) -> NotebookNode:
    """The notebook whose cells are the pieces of the slides, with nbconvert's slide types and the notes."""
    made = v4.new_notebook(metadata=dict(notebook.metadata))
    for slide in slides(notebook):
        made.cells += _cells(slide)
    return made


def slides(notebook: NotebookNode) -> list[Slide]:
    """The slides of an executed notebook."""
    found: list[Slide] = []
    section, said, begins = "", "", "slide"
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        begins = kind if kind in ("slide", "subslide") else begins
        if "solution" in cell.metadata.get("tags", []):
            begins = "subslide"  # the lecture goes on after an exercise
        if kind == "skip" or _NOT_SHOWN & set(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "markdown":
            said, pieces = cell.source, _text_pieces(cell.source)
        else:
            pieces = _code_pieces(cell, is_check="*Check" in said)
        heading = next((piece.cell.source for piece in pieces if piece.kind == "heading"), "")
        section = heading.lstrip("# ") if heading and not heading.startswith("###") else section
        if begins:
            found.append(Slide(begins, heading.lstrip("# ") or section, notes=[said]))
        elif cell.cell_type == "markdown":
            found[-1].notes.append(said)
        begins = ""
        for piece in pieces:
            _place(found, piece, said)
    return [slide for slide in found if slide.pieces]


def _place(found: list[Slide], piece: Piece, said: str) -> None:
    """Put a piece on the last slide, or on a new one, with the notes `said`, if it does not fit."""
    last = found[-1]
    if not last.pieces or _fits(last, piece):
        last.pieces.append(piece)
        return
    if piece.kind == "print" and last.pieces[-1].kind == "figure":
        last.notes.append(f"Printed below the figure:\n\n```\n{piece.cell.outputs[0].get('text', '')}\n```")
        return
    new = Slide("subslide", last.title, notes=[said])
    while len(last.pieces) > 1 and last.pieces[-1].stays:
        new.pieces.insert(0, last.pieces.pop())
    has_room = piece.answers or (piece.kind == "figure" and piece.height < TALL)
    if has_room and not new.pieces and (asked := _question(said, piece.moves)):
        new.pieces.append(asked)
    new.pieces.append(piece)
    found.append(new)


def _fits(slide: Slide, piece: Piece) -> bool:
    """Whether a piece may join a slide: there is room, a figure stays large, and no answer shows before its time."""
    pieces = [*slide.pieces, piece]
    figures = [p for p in pieces if p.kind == "figure"]
    if not figures:
        return slide.height() + piece.height <= SLACK * HIGH
    secret = piece.kind == "figure" and any("Predict" in p.cell.source for p in slide.pieces)
    begins = figures[0] is not piece and not piece.answers  # text after a figure: the lecture goes on
    if secret or begins or len(figures) > 1 or figures[0].height > TALL:
        return False
    left = HIGH - slide.height() - piece.height + figures[0].height
    return left >= SHRINK * min(figures[0].height, HIGH - _KICKER)


def _question(said: str, moves: bool) -> Piece | None:
    """The question that an output answers: what was to be predicted or, if it `moves`, what to look for."""
    predicted, looked_for = [], []
    for block in points(said):
        questions = [sentence for sentence in sentences(block.source) if sentence.rstrip('*")').endswith("?")]
        if block.kind == "text" and "*Predict" in block.source:
            predicted += [question for question in questions if question.startswith("*Predict")] or questions[-1:]
        elif block.kind == "text":
            looked_for += [question for question in questions if question.endswith("?*")]
    asked = (looked_for or predicted) if moves else (predicted or looked_for)
    return _markdown("asked", asked[-1]) if asked and len(asked[-1]) < LONGEST_QUESTION else None


# ------------------------------------------------------------------------------------------------------------- pieces


def _text_pieces(source: str) -> list[Piece]:
    found = points(source)
    pieces = [_markdown(block.kind, block.source) for block in found]
    if source.startswith("# "):
        pieces.append(_markdown("text", COURSE))
    for at, (block, piece) in enumerate(zip(found, pieces, strict=False)):
        follows = found[at + 1].kind if at + 1 < len(found) else ""
        piece.stays = block.kind == "heading" or follows == "equation" or (follows == "item" and block.kind == "text")
    return pieces


def _markdown(kind: str, source: str) -> Piece:
    return Piece(v4.new_markdown_cell(source), _text_height(kind, source), kind)


def _text_height(kind: str, source: str) -> float:
    """About what the text takes; that nothing is cut off is measured in the browser."""
    if kind == "heading":
        return _TITLE if source.startswith("## ") else 0.8 * _TITLE
    if kind == "equation":
        return 40 + 48 * (1 + source.count(r"\\")) + (16 if "frac" in source else 0)
    if kind == "table":
        return 40 * (source.count("\n") + 1)
    if kind == "code":
        return _code_height(source)
    if kind == "reference":
        return 0.5 * _text_height("item", source)
    shown = re.sub(r"\\[a-zA-Z]+|[{}$*]|\]\([^)]*\)", "", source)
    return 14 + _LINE * (1 + len(" ".join(shown.split())) // 72)


def _code_height(text: str) -> float:
    return 30 + _CODE_LINE * sum(1 + len(line) // 82 for line in text.rstrip("\n").split("\n"))


def _code_pieces(cell: NotebookNode, is_check: bool) -> list[Piece]:
    outputs = [piece for output in _joined(cell.outputs) if (piece := _output(output))]
    outputs.sort(key=lambda piece: piece.kind != "figure")
    pieces = []
    if _is_lesson(cell, outputs, is_check):
        source = cell.source.replace(";\n", "\n").rstrip(";")
        stub = "exercise" in cell.metadata.get("tags", [])
        height = _code_height(source)
        pieces.append(Piece(v4.new_code_cell(source), height, "code", answers=not stub, stays=bool(outputs)))
    return pieces + outputs


def _is_lesson(cell: NotebookNode, outputs: list[Piece], is_check: bool) -> bool:
    tags = cell.metadata.get("tags", [])
    if "show-input" in tags or "exercise" in tags:
        return True
    lines = cell.source.split("\n")
    if "hide-input" in tags or not is_check or len(lines) > LESSON or max(map(len, lines)) > LESSON_LINE:
        return False
    return bool(outputs) and all(piece.kind == "print" for piece in outputs)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Printed lines that came in several messages as one output; nothing of warnings and progress bars."""
    found: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name != "stdout":
                continue
            if found and found[-1].output_type == "stream":
                found[-1] = v4.new_output("stream", name="stdout", text=found[-1].text + output.text)
                continue
        found.append(output)
    return found


def _output(output: NotebookNode) -> Piece | None:
    data = output.get("data", {})
    if output.output_type == "stream":
        lines = [line for line in output.text.rstrip("\n").split("\n") if not _PROGRESS.fullmatch(line)]
        if not lines:
            return None
        text = "\n".join([*lines[:LINES], "..."] if len(lines) > LINES else lines)
        output = v4.new_output("stream", name="stdout", text=text)
        return Piece(_shown(output), _code_height(text), "print", answers=True)
    if output.output_type == "error":
        return Piece(_shown(output), _code_height(output.evalue), "print", answers=True)
    for mime in ("image/svg+xml", "image/png"):
        if mime in data:
            return Piece(_shown(output, "figure"), WIDE / _aspect(data[mime]), "figure")
    markup = data.get("text/html", "")
    if picture := re.search(r"<img[^>]*base64,([^\"]+)", markup):  # frames, or an animation
        height = WIDE / _aspect(picture[1]) + (44 if "<label" in markup else 0)
        return Piece(_shown(output, "figure"), height, "figure", moves="<label" in markup)
    if "text/html" in data or "text/markdown" in data:
        return _table(output)
    if "text/plain" in data:
        return Piece(_shown(output), _code_height(data["text/plain"]), "print", answers=True)
    return None


def _table(output: NotebookNode) -> Piece:
    """A table, cut to `ROWS` rows."""
    from bs4 import BeautifulSoup

    data = dict(output.data)
    if "text/html" not in data:
        return Piece(_shown(output), 34 * data["text/markdown"].count("\n"), "table", answers=True)
    page = BeautifulSoup(data["text/html"], "html.parser")
    _stand_on_end(page)
    rows = page.select("tbody tr")
    if len(rows) > ROWS:
        for row in rows[ROWS - 1 :]:
            row.decompose()
        more = page.new_tag("p")
        more.string = f"... and {len(rows) - ROWS + 1} rows more"
        page.append(more)
    output = v4.new_output("display_data", data={"text/html": str(page)})
    return Piece(_shown(output), 40 + 34 * len(page.select("tr")), "table", answers=True)


def _stand_on_end(page) -> None:
    """Make columns of the few rows of a table that is too wide for a slide."""
    rows = [row.find_all(["th", "td"]) for row in page.select("tr")]
    if 2 <= len(rows) <= 3 and {len(row) for row in rows} == {len(rows[0])} and len(rows[0]) > COLUMNS:
        first, *others = page.select("tr")
        for column in list(zip(*rows, strict=True)):
            row = page.new_tag("tr")
            row.extend(cell.extract() for cell in column)
            first.insert_before(row)
        for emptied in (first, *others):
            emptied.decompose()


def _aspect(picture: str) -> float:
    """Width over height of an SVG text, or of a picture in base64."""
    raw = picture.encode() if picture.lstrip().startswith("<") else base64.b64decode(picture)
    if box := re.search(rb'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', raw):
        return float(box[1]) / float(box[2])
    width, height = Image.open(io.BytesIO(raw)).size
    return width / height


def _shown(output: NotebookNode, *tags: str) -> NotebookNode:
    return v4.new_code_cell(outputs=[output], metadata={"tags": ["output-only", *tags]})


# -------------------------------------------------------------------------------------------------------------- cells


def _cells(slide: Slide) -> list[NotebookNode]:
    cells: list[NotebookNode] = []
    if slide.pieces[0].kind != "heading" and slide.title:
        title = re.sub(r"^(\d+)\.", r"\1\\.", slide.title)  # no list
        cells.append(_type(v4.new_markdown_cell(title, metadata={"tags": ["kicker"]}), "-"))
    before = None
    for piece in slide.pieces:
        if before and before.is_text() and piece.is_text():
            cells[-1].source += (
                "\n" if before.kind == piece.kind in ("item", "reference") else "\n\n"
            ) + piece.cell.source
            cells[-1].metadata["tags"] = [piece.kind]
        else:
            waits = piece.answers and before is not None and before.is_text() and before.kind != "asked"
            cells.append(_type(piece.cell, "fragment" if waits else "-"))
        before = piece
    _type(cells[0], slide.begins)
    said = "\n\n".join(dict.fromkeys(_unfolded(note) for note in slide.notes))
    if said:
        cells.append(_type(v4.new_markdown_cell(said), "notes"))
    return cells


def _type(cell: NotebookNode, kind: str) -> NotebookNode:
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def _unfolded(markdown: str) -> str:
    """The text with its folded parts open, and no badge."""
    text = re.sub(r"[ \t]*<details>\s*<summary>(.*?)</summary>[ \t]*", r"   **\1.**", markdown)
    text = re.sub(r"[ \t]*</details>[ \t]*", "", text)
    return re.sub(r"\[!\[[^\]]*\]\(https?:[^)]*\)\]\([^)]*\)\n*", "", text)
