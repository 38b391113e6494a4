"""``python -m course_lib slides``: a deck of every notebook, looked at slide by slide."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from course_lib.classroom import browser, runner, session, vendor
from course_lib.classroom.slides import look, page
from course_lib.progress import track


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 if a notebook failed or a slide has something cut off, 2 if there is nothing to make a deck of."""
    options = _parser().parse_args(argv)
    try:
        notebooks = runner.numbered(options.only)
        page.furnish(options.out)
    except (ValueError, vendor.VendorError) as error:
        print(error, file=sys.stderr)
        return 2
    failed = False
    if options.executed is None:
        options.executed = options.out / "executed"
        with _frames():
            outcomes = runner.run(notebooks, options.executed, options.profile)
        failed = any(outcome.error for outcome in outcomes)
    executed = [options.executed / path.name for path in notebooks]
    if missing := [path.name for path in executed if not path.exists()]:
        print(
            f"Not in {options.executed}: {', '.join(missing)}. Run them first, or leave out --executed.",
            file=sys.stderr,
        )
        return 2
    decks = [page.write(path, options.out) for path in track(executed, "writing decks")]
    complaints = look_at(decks, options.out / "png")
    print("\n".join([*complaints, f"{len(decks)} decks are in {options.out}; open one, and press S for the notes."]))
    return int(failed or bool(complaints))


def look_at(decks: list[Path], pictures: Path) -> list[str]:
    """What is wrong with the decks, and pictures of all slides; without a browser nothing but a line that says so."""
    try:
        with browser.chromium() as chromium:
            return [what for deck in track(decks, "looking at slides") for what in look.look(chromium, deck, pictures)]
    except browser.NoBrowser as why:
        print(f"The slides were not looked at, so something may be cut off: {why}.")
        return []


@contextlib.contextmanager
def _frames() -> Iterator[None]:
    """Figures that move without a kernel."""
    before = os.environ.get("COURSE_LIB_FRAMES")
    os.environ["COURSE_LIB_FRAMES"] = "1"
    try:
        yield
    finally:
        os.environ.pop("COURSE_LIB_FRAMES")
        if before is not None:
            os.environ["COURSE_LIB_FRAMES"] = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="course-lib slides",
        description="A deck of slides (reveal.js, offline) of every notebook, with its prose as speaker notes.",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="beginnings of names, for instance: 06 09")
    parser.add_argument(
        "--executed", type=Path, metavar="FOLDER", help="of executed notebooks, as run makes (run them)"
    )
    parser.add_argument("--profile", default="laptop", choices=session.PROFILES, help="to run them in (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/slides"), help="folder of what is made (%(default)s)")
    return parser
