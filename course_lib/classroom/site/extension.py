"""For Sphinx: numbers of equations by notebook, and the way from a function to the notebooks that use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

from course_lib.classroom.site import USES


class NumberedEquations(SphinxTransform):
    """Number every displayed equation within its page: (7.3) is the third of notebook 07; elsewhere a plain number."""

    default_priority = 400

    def apply(self, **kwargs) -> None:
        chapter = re.match(r"notebooks/0?(\d+)_", self.env.docname)
        unnumbered = (node for node in self.document.findall(nodes.math_block) if not node.get("number"))
        for count, node in enumerate(unnumbered, start=1):
            number = f"{chapter[1]}.{count}" if chapter else str(count)
            node["number"], node["label"], node["docname"] = number, f"equation-{number}", self.env.docname
            node["ids"].append(nodes.make_id(f"equation-{number}"))


def prepare_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Plain text made ready for Sphinx: signs are signs, named notebooks are links, and where a thing is taught."""
    pages = {path.stem for path in (Path(app.srcdir) / "notebooks").glob("*.ipynb")}

    def link(match: re.Match) -> str:
        return f":doc:`{match[1]} </notebooks/{match[1]}>`" if match[1] in pages else f"``{match[0]}``"

    # |x| is an absolute value here, and * a product; what stands between backticks stays.
    parts = re.split(r"(``.+?``|`[^`]+`)", "\n".join(lines), flags=re.DOTALL)
    parts[::2] = [re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part + "\\ " * after[:1].isalnum() for part, after in zip(parts[1::2], parts[2::2], strict=True)]
    lines[:] = re.sub(r"notebooks/(\d\d_\w+)\.ipynb", link, "".join(parts)).split("\n")
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
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # before napoleon reads it
    return {"parallel_read_safe": True}
