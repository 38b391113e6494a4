"""The library's pages: one a module, written by Sphinx from the docstrings; here is only what leads there."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import course_lib
from course_lib.classroom.site import USES
from course_lib.classroom.site.notebooks import Place

GROUPS = {
    "The method": "course_lib",
    "The oracle": "course_lib.oracle",
    "The theory": "course_lib.theory",
    "The classroom": "course_lib.classroom",
    "Figures": "course_lib.classroom.figures",
    "Checks of the exercises": "course_lib.classroom.checks",
    "Slides": "course_lib.classroom.slides",
    "The site": "course_lib.classroom.site",
}
_MODULE = """# {name}

```{{eval-rst}}
.. automodule:: {name}
   :members:
   :ignore-module-all:
```
"""


def modules() -> Iterator[str]:
    """Every module of the library by its full name, its command line left out."""
    found = pkgutil.walk_packages(course_lib.__path__, "course_lib.")
    return (module.name for module in found if not module.name.endswith("__main__"))


def write(docs: Path, uses: Mapping[str, list[Place]]) -> None:
    """Write api.md and a page a module below `docs`, and for the extension the places that use each function."""
    grouped: dict[str, list[str]] = {package: [] for package in GROUPS.values()}
    (docs / "api").mkdir(parents=True)
    for name in sorted(modules()):
        (docs / "api" / f"{name}.md").write_text(_MODULE.format(name=name), encoding="utf-8")
        package = name
        while package not in grouped:
            package = package.rpartition(".")[0]
        grouped[package].append(name)
    parts = ["# The library\n\nFrom the docstrings, with the source beside it, and where the notebooks teach it."]
    for title, package in GROUPS.items():
        if listed := grouped[package]:
            rows = "\n".join(f"| [{n.removeprefix('course_lib.')}](api/{n}.md) | {_first_line(n)} |" for n in listed)
            parts.append(f"## {title}\n\n| module | what |\n|---|---|\n{rows}")
    parts.append("```{toctree}\n:hidden:\n:glob:\n\napi/*\n```")
    (docs / "api.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    places = {name: [(str(place), place.cell) for place in at] for name, at in uses.items()}
    (docs / USES).write_text(json.dumps(places), encoding="utf-8")


def _first_line(name: str) -> str:
    return (import_module(name).__doc__ or "").strip().partition("\n")[0].replace("|", "\\|")
