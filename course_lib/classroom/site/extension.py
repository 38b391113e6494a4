"""For Sphinx: numbers of equations by notebook, and the way from a function to the notebooks that use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

USES = "uses.json"


class NumberedEquations(SphinxTransform):
    """Number every displayed equation within its page: (7.3) is the third of notebook 07; elsewhere a plain number."""

    default_priority = 400

    def apply(self, **kwargs) -> None:
        chapter = re.match(r"notebooks/0?(\d+)_", self.env.docname)
        unnumbered = (node for node in self.document.findall(nodes.math_block) if not node.get("number"))
        for count, node in enumerate(unnumbered, start=1):
            number = f"{chapter[1]}.{count}" if chapter else str(count)
            node["number"], node["label"], node["docname"] = number, f"equation-{number}", self.env.docname
            node["ids"] = [nodes.make_id(f"equation-{number}")]


def link_to_notebooks(app, what, name, obj, options, lines: list[str]) -> None:
    """Notebooks that a docstring names become links, and it gains the places that use the function."""
    pages = {path.stem for path in (Path(app.srcdir) / "notebooks").glob("*.ipynb")}

    def link(match: re.Match) -> str:
        return f":doc:`{match[1]} </notebooks/{match[1]}>`" if match[1] in pages else f"``{match[0]}``"

    lines[:] = [re.sub(r"notebooks/(\d\d_\w+)\.ipynb", link, line) for line in lines]
    if places := app.config.course_uses.get(name):
        at = " · ".join(f":ref:`{words} <{cell}>`" for words, cell in places)
        lines += ["", f"**Taught in:** {at}", ""]


def read_uses(app, config) -> None:
    """What `reference.write` left beside the sources."""
    path = Path(app.srcdir) / "docs" / USES
    config.course_uses = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def setup(app) -> dict:
    """Sphinx calls this."""
    app.add_config_value("course_uses", {}, "env")
    app.connect("config-inited", read_uses)
    app.add_transform(NumberedEquations)
    app.connect("autodoc-process-docstring", link_to_notebooks)
    return {"parallel_read_safe": True}
