"""The page of a deck: nbconvert's slides, and beside it all that it needs, so that the folder can be carried away."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat

from course_lib import paths
from course_lib.classroom import vendor
from course_lib.classroom.slides.deck import deck

TEMPLATE = Path(__file__).with_name("template")
#: What the decks need of the vendored packages, relative to their folder.
NEEDED = ("reveal.js/dist", "reveal.js/plugin/notes", "reveal.js/LICENSE", "mathjax/es5/tex-svg.js", "mathjax/LICENSE")


def write(executed: Path, out: Path) -> Path:
    """The deck of an executed notebook as ``out/<name>.html``; `furnish` the folder once beside it."""
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    config = Config()
    config.SlidesExporter.update(
        {
            "extra_template_basedirs": [str(TEMPLATE.parent)],
            "template_name": TEMPLATE.name,
            "reveal_url_prefix": "vendor/reveal.js",
            "reveal_theme": "white",
            "mathjax_url": "vendor/mathjax/es5/tex-svg.js",
            "exclude_input_prompt": True,
            "exclude_output_prompt": True,
            "exclude_anchor_links": True,
        }
    )
    config.CSSHTMLHeaderPreprocessor.style = "default"
    config.TagRemovePreprocessor.update({"enabled": True, "remove_input_tags": {"output-only"}})
    notebook = nbformat.read(executed, as_version=4)
    body, _ = SlidesExporter(config=config).from_notebook_node(
        deck(notebook), resources={"metadata": {"name": executed.stem}}
    )
    page = out / f"{executed.stem}.html"
    with paths.atomic(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


def furnish(out: Path, vendored: Path | None = None) -> None:
    """Copy reveal.js, MathJax and our style into the folder of the decks; brings them by npm the first time."""
    packages = vendor.fetch() if vendored is None else vendored
    for name in NEEDED:
        source, target = packages / name, out / "vendor" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    for name in ("deck.css", "deck.js"):
        shutil.copyfile(TEMPLATE / name, out / name)
