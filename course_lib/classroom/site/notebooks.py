"""Executed notebooks as pages of the site, and where they use what of the library."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePath
from types import ModuleType

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

#: Cells whose code is shown on request: it is the same everywhere, or no lesson.
FOLDED = ("parameters", "setup")


@dataclass(frozen=True)
class Place:
    """A place in a notebook: its stem, the id of the Markdown cell in front, and what a reader would call it."""

    notebook: str
    cell: str
    words: str

    def __str__(self) -> str:
        return f"notebook {self.notebook[:2]}, {self.words}"


def places(name: str, notebook: NotebookNode) -> Iterator[tuple[NotebookNode, Place]]:
    """Each cell with its place: the last section and the last step before it."""
    cell_id, section, step = notebook.cells[0].id, "beginning", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell_id = cell_id if cell.source.startswith("<") else cell.id  # nothing can link to bare HTML
            if heading := re.search(r"^#{2,3} (?:(\d+)\. )?(.*)", cell.source, re.MULTILINE):
                section, step = f"section {heading[1]}" if heading[1] else heading[2].split(":")[0].lower(), ""
            if steps := re.findall(r"^\*\*Step (\d+)", cell.source, re.MULTILINE):
                step = f", step {steps[0]}"
        yield cell, Place(name, cell_id, section + step)


def uses(executed: Mapping[str, NotebookNode]) -> dict[str, list[Place]]:
    """{full name of a function or class of course_lib: where the notebooks use it first, one place a notebook}."""
    found: dict[str, list[Place]] = {}
    for name, notebook in executed.items():
        known: dict[str, object] = {}
        for cell, place in places(name, notebook):
            if cell.cell_type == "code":
                for used in _used(cell.source, known):
                    if name not in [earlier.notebook for earlier in found.setdefault(used, [])]:
                        found[used].append(place)
    return found


def _used(source: str, known: dict[str, object]) -> Iterator[str]:
    """Full names of what a cell uses of course_lib; `known` gains what it imports."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or "course_lib": import_module(alias.name if alias.asname else "course_lib")
                      for alias in node.names if alias.name.split(".")[0] == "course_lib"}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "course_lib":
            module = import_module(node.module)
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(module, alias.name, None) or import_module(
                    f"{node.module}.{alias.name}"
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            thing = _resolved(node, known)
            owner = getattr(thing, "__module__", None) or ""
            if owner.split(".")[0] == "course_lib" and hasattr(thing, "__qualname__"):
                yield f"{owner}.{thing.__qualname__}"


def _resolved(node: ast.AST, known: Mapping[str, object]) -> object:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, known)
        return getattr(owner, node.attr, None) if isinstance(owner, ModuleType | type) else None
    return None


def page(name: str, executed: NotebookNode, used: Mapping[str, list[Place]], pages: Set[str], root: Path):
    """The notebook as Sphinx is to read it: with anchors, links, alternative texts and how to run it; a copy.

    Args:
        used: of `uses`; pages, root: see `links.mended`.
    """
    from course_lib.classroom.site import links

    notebook, profile = copy.deepcopy(executed), executed.metadata.get("papermill", {}).get("parameters", {})
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    known: dict[str, object] = {}
    for cell, place in places(name, notebook):
        if cell.cell_type == "markdown":
            text = links.mended(cell.source, PurePath("notebooks"), pages, root)
            cell.source = f"({cell.id})=\n{_linked(text, name, pages)}"
        else:
            cell.metadata = _metadata(cell, f"{_drawn(cell.source, known)}Figure of {place}.")
    notebook.cells.insert(1, new_markdown_cell(_run_it(name, notebook, profile.get("profile"))))
    if functions := sorted(full for full, at in used.items() if name in [place.notebook for place in at]):
        notebook.cells.append(new_markdown_cell(_functions(functions)))
    return notebook


def _linked(text: str, name: str, pages: Set[str]) -> str:
    """ "notebook 06" as a link to it; not in titles, which may not change, nor inside HTML."""

    def link(match: re.Match) -> str:
        target = next((p for p in pages if p.startswith(f"notebooks/{match[1]}_")), None)
        return f"[{match[0]}]({Path(target).name})" if target and match[1] != name[:2] else match[0]

    lines = text.split("\n")
    return "\n".join(
        line if line.startswith("#") or "<" in line or "](" in line else re.sub(r"\bnotebook (\d\d)\b", link, line)
        for line in lines
    )


def _drawn(source: str, known: dict[str, object]) -> str:
    """What the figure functions that a cell uses say they draw."""
    used = dict.fromkeys(name for name in _used(source, known) if name.startswith("course_lib.classroom.figures."))
    drawn = (getattr(import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in used)
    return "".join(f"{' '.join((thing.__doc__ or '').strip().partition(chr(10) * 2)[0].split())} " for thing in drawn)


def _metadata(cell: NotebookNode, alt: str) -> NotebookNode:
    """Only what Sphinx needs: the folded are marked, and pictures are described."""
    tags = list(cell.metadata.get("tags", []))
    if set(tags) & set(FOLDED) or cell.id.endswith("imports"):
        tags.append("hide-input")
    return nbformat.from_dict({"tags": tags, "mystnb": {"image": {"alt": alt}}})


def _run_it(name: str, notebook: NotebookNode, profile: str | None) -> str:
    title = notebook.cells[0].source
    minutes = re.search(r"(\d+ minutes?) to run", title)
    lasting = f" It takes {minutes[1]} in profile `laptop`." if minutes else ""
    seen = f" What is printed and drawn on this page is from profile `{profile}`." if profile else ""
    return (
        f":::{{admonition}} Run it yourself\n:class: tip\nIn Colab or on Binder by the rocket above; in a clone by "
        f"`make lab`, or all at once by `python -m course_lib run --only {name[:2]}`.{lasting}{seen}\n:::"
    )


def _functions(functions: list[str]) -> str:
    listed = ", ".join(f"{{py:obj}}`{full.split('.')[-1]} <{full}>`" for full in functions)
    return f":::{{dropdown}} What this notebook uses of the library\n{listed}\n:::"
