"""Set-up files say the same thing everywhere."""

import os
import re
import shutil
import subprocess
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import course_lib
from drills import colab

ROOT = Path(__file__).parents[1]
# What Colab has today, and what pip installs: both must be in range, so that installing moves nothing there.
COLAB = {"ipywidgets": "7.7.1"} | dict(re.findall(r"^([\w-]+)==(\S+)", colab.PACKAGES.read_text(), re.MULTILINE))
TARGETS = ("help", "course", "lab", "site", "test", "lint", "bench", "drill", "fresh", "checkpoints")


def requirements():
    return [Requirement(line) for line in requires("course-lib")]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load(text("environment.yml"))["dependencies"]


def test_conda_installs_the_project_with_extras_that_exist(conda):
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    (extras,) = re.fullmatch(r"-e \.\[(.+)\]", *pip).groups()
    assert set(extras.split(",")) <= set(metadata("course-lib").get_all("Provides-Extra"))


def test_conda_wants_the_same_python_and_nothing_that_pyproject_does_not_know(conda):
    plain = [entry for entry in conda if isinstance(entry, str)]
    assert plain == [f"python{metadata('course-lib')['Requires-Python']}", "pip"]


@pytest.mark.parametrize("name", COLAB)
def test_colab_is_in_range(name):
    needed = [r.specifier for r in requirements() if r.name == name and r.marker is None]  # an extra may ask for more
    assert all(specifier.contains(COLAB[name]) for specifier in needed)


def test_dependencies_are_ranges_and_colab_gets_no_tools_of_the_lab():
    assert not [r for r in requirements() if re.search(r"==|~=", str(r.specifier))]
    always = {r.name for r in requirements() if r.marker is None}
    assert not always & {"jupyterlab", "papermill", "nbconvert", "ipykernel", "pytest", "captum"}
    assert SpecifierSet(metadata("course-lib")["Requires-Python"]).contains("3.10")


def test_torch_pruning_moves_nothing_in_colab():
    needed = [Requirement(line) for line in requires("torch-pruning")]
    assert {r.name for r in needed} <= set(COLAB)
    assert all(r.specifier.contains(COLAB[r.name]) for r in needed)


def test_one_version():
    assert version("course-lib") == course_lib.__version__
    assert f"version: {course_lib.__version__}" in text("CITATION.cff")


def test_make_lists_every_target():
    run = subprocess.run([shutil.which("make"), "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    for target in TARGETS:
        assert f"make {target} " in run.stdout


def test_ci_runs_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test"]
    for command in ("make course", "make test"):
        assert command in text("README.md")


def test_the_repositorys_address_is_the_same_in_the_readme():
    assert f"git clone {course_lib.REPOSITORY} " in text("README.md")


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def uploads(job):
    """What a job keeps for us to look at, and when: the options of its one such step."""
    (step,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
    return step["with"] | {"if": step.get("if", "success()")}


def test_what_needs_a_browser_has_one_installed_before():
    """The site and the slides are looked at, and the browser tests must not be skipped."""
    looked = 0
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            steps = commands(job)
            at = [steps.find(command) for command in ("python -m pytest", "course_lib site", "course_lib slides")]
            if max(at) >= 0:
                looked += 1
                installed = steps.find("playwright install --with-deps chromium")
                assert 0 <= installed < min(place for place in at if place >= 0), (path.name, name)
                (extras,) = re.findall(r"--editable '\.\[(.*?)\]'", steps)
                assert "test" in extras.split(","), "playwright itself is in the extra test"
    assert looked == 2


def test_workflows_and_hooks_are_sound():
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert set(workflows) == {"ci", "fresh", "site"}
    weekly = {name: commands(job) for name, job in workflows["fresh"]["jobs"].items()}
    assert "make fresh" in weekly["machine"] and "python -m drills.colab" in weekly["colab"]
    assert "pip_audit" in weekly["vulnerabilities"] and "npm audit" in weekly["vulnerabilities"]
    (audited,) = re.findall(r"--editable '\.(\[.*?\])'", weekly["vulnerabilities"])
    assert f"--editable '.{audited}'" in text("Makefile")
    steps = commands(workflows["site"]["jobs"]["build"])
    for part in ("run --out build/course", "site --executed build/course", "slides --executed build/course"):
        assert f"python -m course_lib {part}" in steps
    jobs = workflows["ci"]["jobs"]
    kept = uploads(jobs["tests"])
    assert kept["if"] == "always()" and "--junitxml build/logs/" in commands(jobs["tests"])
    assert {"build/browser", "build/screenshots", "build/logs"} <= set(kept["path"].split())
    pythons = [entry["python"] for entry in jobs["tests"]["strategy"]["matrix"]["include"]]
    assert pythons[0] == "3.10" and {"lint", "tests", "notebooks"} <= set(jobs)
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert [(repo["repo"], *{hook["language"] for hook in repo["hooks"]}) for repo in hooks] == [("local", "system")]


def test_nbstripout_is_told_the_same_in_make_and_in_the_hook():
    options = re.search(r"nbstripout (--keep-id.*)", text("Makefile")).group(1)
    assert f"nbstripout {options}" in text(".pre-commit-config.yaml")
