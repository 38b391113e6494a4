"""A bare Colab, simulated: `python -m drills.colab`. A notebook alone in an empty folder, and its set-up cell.

The Python that runs it has Colab's packages at Colab's versions (colab.txt), with ipywidgets of both generations in
turn, but neither the course nor a checkout. The set-up cell gets the course from a git repository on this machine that
stands in for the one on GitHub (git's `insteadOf`), what else is missing from the package index, and the notebook must
run to its end. Afterwards not one file of Colab's packages may have changed, and nothing was installed that the course
does not need. What is in the repository's last commit is tried, not what lies in the work tree.

Not simulated: Colab's front end, its GPU, and the rest of its packages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import papermill
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import course_lib

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = Path(__file__).with_name("colab.txt")
# With what they need of the classic notebook, which Colab has: ipywidgets 7 asks for it.
WIDGETS = {
    "7.7.1": ["ipywidgets==7.7.1", "widgetsnbextension==3.6.10", "notebook==6.5.7"],
    "8": ["ipywidgets==8.*"],
}
# As the course's own runs: figures that stand still, threads that sleep while they wait.
STILL = {"COURSE_LIB_STATIC": "1", "OMP_WAIT_POLICY": "passive"}


class Machine:
    """An environment whose packages lie in a folder that nothing may change; what is installed goes elsewhere.

    Args:
        folder: of the environment, empty.
        python: the interpreter it is made from.
        packages: a folder of packages, as `pip install --target` makes it, pip among them.
    """

    def __init__(self, folder: Path, python: str, packages: Path):
        subprocess.run([python, "-m", "venv", "--without-pip", folder / "env"], check=True)
        self.folder, self.packages, self.python = folder, packages, folder / "env" / "bin" / "python"
        (self.site,) = (folder / "env" / "lib").glob("python*/site-packages")
        (self.site / "colab.pth").write_text(str(packages))  # searched after what is installed beside this file
        kernel = folder / "jupyter" / "kernels" / "colab"
        kernel.mkdir(parents=True)
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Colab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))

    def install(self, *what: str) -> None:
        """Install packages by pip, from the index, that go with Colab's."""
        command = [self.python, "-m", "pip", "install", "--quiet", "--constraint", PACKAGES, *what]
        subprocess.run(command, check=True, env=self.environment())

    def installed(self) -> dict[str, str]:
        """Versions by name of what was installed, without what lies in the folder of packages."""
        return {name: found.version for name, found in _by_name(self.site).items()}

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of this process that say how the network is reached; nothing of its Python, a home of its own."""
        kept = {name: value for name, value in os.environ.items() if re.match(r"PATH$|LANG|PIP_|.*_proxy$", name)}
        return kept | {"HOME": str(self.folder), "JUPYTER_PATH": str(self.folder / "jupyter"), **more}


def remote(folder: Path, root: Path = ROOT) -> Path:
    """A bare repository with the last commit of `root`, tagged as this version of the course."""
    subprocess.run(["git", "clone", "--quiet", "--bare", root, folder], check=True)
    subprocess.run(["git", "tag", "--force", f"v{course_lib.__version__}"], cwd=folder, check=True, capture_output=True)
    return folder


def run(machine: Machine, repository: Path, notebook: str, sizes: dict | None = None, **environment: str) -> str:
    """Execute a notebook of the repository in an empty folder, in profile ci; the error, or nothing.

    Args:
        repository: as made by `remote`; it stands in for `course_lib.REPOSITORY`.
        sizes: fields of the profile to replace.
        environment: further variables.
    """
    empty = Path(tempfile.mkdtemp(dir=machine.folder, prefix="empty-"))
    shown = ["git", "show", f"v{course_lib.__version__}:notebooks/{notebook}"]
    source = subprocess.run(shown, cwd=repository, check=True, capture_output=True).stdout
    (empty / notebook).write_bytes(source)
    instead = {"GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf", "GIT_CONFIG_VALUE_0": course_lib.REPOSITORY}
    with _variables(machine.environment(GIT_CONFIG_COUNT="1", **STILL, **instead, **environment)):
        try:
            papermill.execute_notebook(
                empty / notebook,
                empty / f"executed-{notebook}",
                parameters={"profile": "ci", "overrides": sizes or {}},
                kernel_name="colab",
                cwd=empty,
                progress_bar=False,
            )
        except Exception as error:  # of the notebook, of its kernel, of a time-out: each is an outcome
            return f"{type(error).__name__}: {error}"
    return ""


def wrong(machine: Machine, before: dict[str, tuple], had: dict[str, str]) -> str:
    """What the set-up cell has done to the machine that it should not; empty if nothing.

    Args:
        before: `state` of its packages before.
        had: what was installed into the environment before.
    """
    there, installed = _by_name(machine.packages), machine.installed()
    if state(machine.packages) != before:
        return "files of Colab's packages have changed"
    moved = {name for name, version in had.items() if installed.get(name) != version}
    added = installed.keys() - had.keys()
    if moved := moved | (there.keys() & added):
        return f"not what Colab had any more: {', '.join(sorted(moved))}"
    if useless := added - closure("course-lib", there | _by_name(machine.site)):
        return f"installed, but not needed: {', '.join(sorted(useless))}"
    return ""


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file, byte code apart."""
    files = (path for path in folder.rglob("*") if path.suffix != ".pyc" and path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def closure(name: str, known: dict[str, Distribution]) -> set[str]:
    """Names of all that a package needs, itself among them; of what is known."""
    found, waiting = set(), [Requirement(name)]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) in found or name not in known:
                continue
            found.add((name, extra))
            needs = map(Requirement, known[name].requires or [])
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def _by_name(folder: Path) -> dict[str, Distribution]:
    return {canonicalize_name(found.name): found for found in distributions(path=[str(folder)])}


@contextlib.contextmanager
def _variables(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def packages(python: str, kept: Path) -> Path:
    """Colab's packages for this Python, downloaded (gigabytes) unless they are there."""
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = kept / f"packages-{version}"
    if not folder.exists():
        print(f"Colab's packages for Python {version} are downloaded into {folder}, once.", flush=True)
        growing = folder.with_name(f".{folder.name}")
        shutil.rmtree(growing, ignore_errors=True)
        command = [python, "-m", "pip", "install", "--quiet", "--target", growing, "--requirement", PACKAGES]
        subprocess.run(command, check=True)
        growing.rename(folder)
    return folder.resolve()


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 if a notebook did not run to its end, or the set-up cell changed what it should not."""
    parser = argparse.ArgumentParser("python -m drills.colab", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="Colab's is 3.13 (%(default)s)")
    parser.add_argument("--notebooks", nargs="+", default=["00"], metavar="NN", help="by number; 'all' (%(default)s)")
    parser.add_argument("--widgets", nargs="+", default=list(WIDGETS), choices=WIDGETS, help="of ipywidgets; all")
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "colab", help="folder of the packages")
    options = parser.parse_args(argv)
    colab, failed = packages(options.python, options.kept), 0
    numbers = "" if options.notebooks == ["all"] else tuple(options.notebooks)
    for generation in options.widgets:
        with tempfile.TemporaryDirectory(prefix="colab-") as folder:
            here = Path(folder)
            machine, repository = Machine(here / "machine", options.python, colab), remote(here / "remote.git")
            machine.install(*WIDGETS[generation])
            before, had = state(colab), machine.installed()
            for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
                if path.name.startswith(numbers):
                    began = time.monotonic()
                    said = run(machine, repository, path.name) or wrong(machine, before, had)
                    failed += bool(said)
                    seconds = f"{time.monotonic() - began:.0f} s"
                    print(f"ipywidgets {generation}, {path.stem}: {said or 'ok'}, {seconds}", flush=True)
            added = sorted(f"{name} {version}" for name, version in machine.installed().items() if name not in had)
            print(f"ipywidgets {generation}: the set-up cell installed {', '.join(added)}.", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
