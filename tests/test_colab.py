"""A notebook alone, where the course is not installed: its set-up cell brings it, and leaves everything else as it is.

Here with the packages of this environment and without a network; `python -m drills.colab` does it with Colab's own.
"""

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import browsing
import pytest
from packaging.utils import canonicalize_name

import course_lib
from drills import colab

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of links to all that the course and a kernel need, pip and the builder of wheels; not the course."""
    folder = tmp_path_factory.mktemp("packages")
    known = {canonicalize_name(found.name): found for found in reversed(list(distributions()))}
    names = set().union(*(colab.closure(name, known) for name in ("course-lib", "ipykernel", "pip", "hatchling")))
    for name in names - {"course-lib"}:
        for top in {file.parts[0] for file in known[name].files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(known[name].locate_file(top))
    return folder


@pytest.fixture
def machine(packages, tmp_path):
    return colab.Machine(tmp_path / "machine", sys.executable, packages)


@pytest.fixture
def repository(tmp_path):
    """The work tree as it is, committed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(ROOT / name, tmp_path / "tree" / name)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path / "tree", check=True)
    return colab.remote(tmp_path / "remote.git", tmp_path / "tree")


def test_a_notebook_alone_gets_the_course_and_runs_to_its_end(machine, repository, packages):
    before = colab.state(packages)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    assert colab.run(machine, repository, "00_start_here.ipynb", browsing.SIZES, **offline) == ""
    assert machine.installed() == {"course-lib": course_lib.__version__}
    assert colab.wrong(machine, before, {}) == ""


def dist(folder, name, version, *needs):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (info / "METADATA").write_text("\n".join(lines))


@pytest.fixture
def pretended(tmp_path):
    """A machine with torch among its packages and ipywidgets installed, after a set-up cell that did well."""
    dist(tmp_path / "packages", "torch", "2.11.0")
    made = colab.Machine(tmp_path / "machine", sys.executable, tmp_path / "packages")
    dist(made.site, "ipywidgets", "7.7.1")
    before, had = colab.state(made.packages), made.installed()
    dist(made.site, "course_lib", "0.1.0", "torch>=2", "tqdm", "pytest; extra == 'test'")
    dist(made.site, "tqdm", "4.7")
    assert colab.wrong(made, before, had) == ""
    return made, before, had


def test_the_drill_sees_a_changed_file_another_torch_and_what_is_not_needed(pretended):
    machine, before, had = pretended
    dist(machine.site, "pytest", "9")
    assert colab.wrong(machine, before, had) == "installed, but not needed: pytest"
    dist(machine.site, "torch", "2.14.0")
    assert colab.wrong(machine, before, had) == "not what Colab had any more: torch"
    (machine.site / "ipywidgets-7.7.1.dist-info" / "METADATA").write_text("Name: ipywidgets\nVersion: 8.1.9")
    assert colab.wrong(machine, before, had) == "not what Colab had any more: ipywidgets, torch"
    (machine.packages / "torch.py").write_text("")
    assert "files of Colab's packages" in colab.wrong(machine, before, had)
