"""The bibliography: docs/references.md is written by hand, where each work is cited is read from the notebooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nbformat import NotebookNode

_TITLE = re.compile(r"\*([^*]+)\*")
_ADDRESS = re.compile(r"\]\((https://(?:doi\.org|arxiv\.org)/(?:[^()\s]|\([^()\s]*\))+)\)")


def cited(notebook: NotebookNode) -> set[str]:
    """What a notebook cites: titles (in italics) and addresses (DOI, arXiv) of its references, in one spelling."""
    return set().union(*(_marks(cell.source) for cell in notebook.cells if cell.id.endswith("-references")))


def _marks(text: str) -> set[str]:
    titles = (" ".join(title.split()) for title in _TITLE.findall(text))
    return {mark.casefold() for mark in (*titles, *_ADDRESS.findall(text))}


def entries(text: str) -> dict[str, set[str]]:
    """{entry of docs/references.md: its title and addresses, in one spelling}."""
    return {line: _marks(line) for line in text.splitlines() if line.startswith("- ")}


def write(path: Path, executed: Mapping[str, NotebookNode]) -> None:
    """Add to each entry of the file the notebooks that cite it."""
    text = path.read_text(encoding="utf-8")
    by_notebook = {name: cited(notebook) for name, notebook in executed.items()}
    for entry, marks in entries(text).items():
        at = [f"[{name[:2]}](../notebooks/{name}.ipynb)" for name, found in by_notebook.items() if found & marks]
        if at:
            text = text.replace(entry, f"{entry} Cited in {', '.join(at)}.", 1)
    path.write_text(text, encoding="utf-8")
