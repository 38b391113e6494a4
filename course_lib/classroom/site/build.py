"""``python -m course_lib site``: lay out the sources, bring MathJax, call Sphinx with warnings as errors, and look."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat

from course_lib import paths
from course_lib.classroom import browser, runner, vendor
from course_lib.classroom.site import gallery, links, look, notebooks, reference, references

ROOT = paths.data_dir().parent
#: Pages of the repository that the site shows as they are.
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/**/*.md", "docs/**/*.md")
PICTURES = ("data/**/*.png", "data/**/*.gif", "data/**/*.svg", "docs/**/*.png", "docs/**/*.svg")
#: What MathJax loads at run time, below its folder `es5`.
MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts")


class SiteError(Exception):
    """The site could not be built; the message says why and what to do."""


def build(executed: Path, out: Path, docs: Path | None = None) -> Path:
    """Build the site into the folder `out`, which is replaced; returns its first page.

    Args:
        executed: folder of executed notebooks (of ``python -m course_lib run``), which is only read.
        docs: folder of conf.py and the pages that are written by hand; the repository's own, unless a test says else.

    Raises:
        SiteError: nothing to read, or a warning of Sphinx: a link that leads nowhere, a page in no table of contents.
    """
    docs = docs or ROOT / "docs"
    if not (docs / "conf.py").exists():
        raise SiteError(f"There is no {docs / 'conf.py'}: the site is built in a clone, not from an installed package.")
    if find_spec("myst_nb") is None:
        raise SiteError("Sphinx and its parts are missing: pip install -e '.[site]'")
    source = out.with_name(f"{out.name}-source")
    lay_out(executed, docs, source)
    fresh = out.with_name(f"{out.name}-unfinished")
    for folder in (fresh, out.with_name(f"{out.name}-doctrees")):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    command += ["-d", str(out.with_name(f"{out.name}-doctrees")), str(source), str(fresh)]
    packages = os.pathsep.join(filter(None, [str(Path(notebooks.__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": packages}, capture_output=True, text=True)
    if done.returncode:
        raise SiteError(f"Sphinx has complaints, so there is no site. Sources: {source}\n{done.stderr.strip()}")
    _mathjax(fresh / "_static" / "mathjax")
    if lost := links.broken(fresh):
        raise SiteError("Links that lead nowhere, so there is no site:\n" + "\n".join(lost))
    shutil.rmtree(out, ignore_errors=True)
    fresh.replace(out)
    return out / "index.html"


def lay_out(executed: Path, docs: Path, source: Path) -> None:
    """Fill the folder `source` with everything that Sphinx reads: the repository's tree, and what is made."""
    ran = sorted(executed.glob("[0-9][0-9]_*.ipynb"))
    if not ran:
        raise SiteError(
            f"There are no executed notebooks in {executed}. Run: python -m course_lib run --out {executed}"
        )
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(docs, source / "docs", ignore=shutil.ignore_patterns("conf.py", "index.md", "_static", "README.md"))
    shutil.copytree(docs / "_static", source / "_static", dirs_exist_ok=True)
    for name in ("conf.py", "index.md"):
        shutil.copy(docs / name, source / name)
    for pattern in (*PAGES, *PICTURES):
        for path in ROOT.glob(pattern):
            if not path.is_relative_to(ROOT / "docs"):
                (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, source / path.relative_to(ROOT))
    read = {path.stem: nbformat.read(path, as_version=4) for path in ran}
    uses = notebooks.uses(read)
    gallery.write(source / "docs")
    reference.write(source / "docs", uses)
    references.write(source / "docs" / "references.md", read)
    pages = {str(path.relative_to(source)) for path in source.rglob("*.md")} | {f"notebooks/{n}.ipynb" for n in read}
    for path in source.rglob("*.md"):
        here = path.parent.relative_to(source)
        path.write_text(links.mended(path.read_text(encoding="utf-8"), here, pages, ROOT), encoding="utf-8")
    (source / "notebooks").mkdir()
    for name, notebook in read.items():
        page = notebooks.page(name, notebook, uses, pages, ROOT)
        nbformat.write(page, source / "notebooks" / f"{name}.ipynb")


def _mathjax(into: Path) -> None:
    es5 = vendor.fetch() / "mathjax" / "es5"
    for name in MATHJAX:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (es5 / name).is_dir() else shutil.copy)(es5 / name, into / name)


def look_at(site: Path) -> list[str]:
    """What is wrong with the site's pages as a reader sees them; without a browser nothing but a line that says so."""
    try:
        with browser.chromium() as chromium:
            return look.look(chromium, site)
    except browser.NoBrowser as why:
        print(f"The pages were not looked at, so something may be illegible or too wide: {why}.")
        return []


def main(argv: list[str] | None = None) -> int:
    """Build the site; exit code 1 if a notebook failed, Sphinx has a complaint, or a page does not look right."""
    parser = argparse.ArgumentParser(prog="course-lib site", description="Build the site from executed notebooks.")
    parser.add_argument("--executed", type=Path, metavar="FOLDER", help="executed notebooks; else they are run first")
    parser.add_argument("--profile", default="laptop", help="of that run (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/site"), help="folder of the site (%(default)s)")
    options = parser.parse_args(argv)
    executed = options.executed
    try:
        if executed is None:
            executed = options.out.with_name(f"{options.out.name}-notebooks")
            os.environ["COURSE_LIB_FRAMES"] = "1"  # figures to play with move on the site, where there is no kernel
            if any(outcome.error for outcome in runner.run(runner.numbered(), executed, options.profile)):
                return 1
        print(f"Sphinx reads {executed} ...", flush=True)
        first = build(executed, options.out)
        complaints = look_at(options.out)
        print("\n".join([*complaints, f"The site begins at {first}."]))
        return int(bool(complaints))
    except (SiteError, vendor.VendorError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
