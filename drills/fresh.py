"""A fresh machine: `python3 -m drills.fresh`. Needs what the README asks for, and nothing that the course installs.

Clones the last commit into an empty folder, runs there `make course PROFILE=ci` and `make test`, then builds a wheel,
installs it without the clone and runs its notebooks. Home, temporary and cache folders are new and empty, pip keeps no
cache. Checked are the pages, the tests, and that neither the clone nor the user's home got anything that should not be
there.

Only the set-up may use the network. Afterwards the proxies that programs are told to use are a closed port, except for
npm's registry, which slides and site ask for their JavaScript. That stops what goes through pip, requests, urllib, curl
or a browser; a program that ignores the variables `https_proxy` and its like is not stopped.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
CLOSED = "http://127.0.0.1:9"  # the port "discard": nobody listens


class NotWell(Exception):
    """What a fresh machine should not have met."""


def environment(folder: Path) -> dict[str, str]:
    """Variables for a user whose folders are all inside `folder`: of this process's, how the network is reached."""
    made = {"HOME": folder / "home", "TMPDIR": folder / "tmp"}
    for path in made.values():
        path.mkdir(parents=True)
    kept = {n: v for n, v in os.environ.items() if re.match(r"(PATH|CI|COURSE_LIB_CI|LANG|PIP_.*|.*_proxy)$", n)}
    return kept | {name: str(path) for name, path in made.items()} | {"PIP_NO_CACHE_DIR": "1"}


def without_network(variables: dict[str, str]) -> dict[str, str]:
    """The same variables with closed proxies, but for this machine and npm's registry."""
    open_to = ["127.0.0.1", "localhost"]
    if npm := shutil.which("npm"):
        registry = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, env=variables)
        open_to += filter(None, [urlsplit(registry.stdout.strip()).hostname])
    names = [f"{scheme}_proxy" for scheme in ("http", "https", "ftp", "all")]
    closed = dict.fromkeys([*names, *map(str.upper, names)], CLOSED)
    return variables | closed | dict.fromkeys(["no_proxy", "NO_PROXY"], ",".join(open_to))


def step(said: str, command: list[object], folder: Path, variables: dict[str, str]) -> None:
    """Run a command in a folder. NotWell if it fails."""
    print(f"\n== {said}: {' '.join(map(str, command))}", flush=True)
    code = subprocess.run([str(part) for part in command], cwd=folder, env=variables).returncode
    if code:
        raise NotWell(f"{said}: exit code {code}")


def check_course(notebooks: list[str], out: Path) -> str:
    """Every notebook was executed, without an error, and has a page. NotWell if not."""
    with open(out / "summary.csv", newline="", encoding="utf-8") as file:
        went = {row["notebook"]: row["outcome"] for row in csv.DictReader(file)}
    if wrong := [name for name in notebooks if went.get(name) != "ok"]:
        raise NotWell(f"not executed to the end: {', '.join(wrong)}")
    for name in notebooks:
        page = out / f"{name}.html"
        if not (out / f"{name}.ipynb").exists() or "</html>" not in page.read_text(encoding="utf-8"):
            raise NotWell(f"{name} has no page in {out}")
    return f"{len(notebooks)} notebooks executed, each with its page"


def check_tests(report: Path) -> str:
    """No test failed, and there were some. NotWell if not."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = [{name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")} for suite in suites]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    ran = total["tests"] - total["skipped"]
    if total["failures"] or total["errors"] or not ran:
        raise NotWell(f"tests: {total}")
    return f"{ran} tests passed, {total['skipped']} were skipped"


def check_clone(clone: Path) -> str:
    """What git tracks is as it was, and nothing new lies beside it. NotWell if not."""
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    if changed.stdout:
        raise NotWell(f"the clone has changed:\n{changed.stdout}")
    return "the clone is as it was"


def in_home() -> set[str]:
    """What lies in the home of the user who runs this, two levels deep."""
    return {str(path) for pattern in ("*", "*/*") for path in Path.home().glob(pattern)}


def drill(folder: Path, only: list[str], tests: str) -> list[str]:
    """All steps in an empty folder; what was found, line by line. NotWell at the first thing that is not."""
    at_home, clone, installed, empty = in_home(), folder / "course", folder / "installed", folder / "empty"
    online = environment(folder)
    step("clone", ["git", "clone", "--quiet", ROOT, clone], folder, online)
    names = sorted(path.stem for path in (clone / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    notebooks = [name for name in names if not only or name.startswith(tuple(only))]
    step("set up", ["make", "--silent", f"PYTHON={sys.executable}", ".venv/.stamp"], clone, online)
    offline = without_network(online)

    step("course", ["make", "course", "PROFILE=ci", f"ONLY={' '.join(only)}"], clone, offline)
    found = [check_course(notebooks, clone / "build" / "course")]
    report = folder / "tests.xml"
    step("tests", ["make", "test", f"TESTS={tests}"], clone, offline | {"PYTEST_ADDOPTS": f"--junitxml={report}"})
    found += [check_tests(report), check_clone(clone)]

    python, wheels = clone / ".venv" / "bin" / "python", folder / "wheels"
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, clone]
    step("wheel", [python, "-m", "pip", *build], folder, offline)
    (wheel,) = wheels.glob("*.whl")
    step(
        "install",
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel],
        folder,
        offline,
    )
    clone.joinpath("course_lib").rename(folder / "away")  # the clone's library cannot stand in for the wheel's
    empty.mkdir()
    run = [python, "-m", "course_lib", "run", "--profile", "ci", "--out", "out", *(["--only", *only] if only else [])]
    step("run from the wheel", run, empty, offline | {"PYTHONPATH": str(installed)})
    found.append(f"from the wheel: {check_course(notebooks, empty / 'out')}")

    if left := in_home() - at_home:
        raise NotWell(f"left in the user's home (or by somebody else): {', '.join(sorted(left))}")
    return [*found, "nothing was left in the user's home"]


def main() -> int:
    """Exit code 1 if anything was not well."""
    parser = argparse.ArgumentParser("python3 -m drills.fresh", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number; all if none is named")
    parser.add_argument("--tests", default="", help="what pytest is given, for instance 'tests/test_paths.py'; all")
    parser.add_argument("--keep", action="store_true", help="leave the folder there, to look into")
    options = parser.parse_args()
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    if dirty.stdout:
        print("The last commit is tried, not what was changed since.", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="fresh-"))
    try:
        found = drill(folder, options.only, options.tests)
    except NotWell as reason:
        print(f"\nNot well: {reason}", file=sys.stderr)
        return 1
    finally:
        print(f"Kept: {folder}") if options.keep else shutil.rmtree(folder)
    print("\n" + "\n".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
