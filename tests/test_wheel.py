"""An installed wheel is the whole course: data and notebooks travel inside the package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import browsing
import nbformat
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    code = f"import os; os.chdir({str(ROOT)!r}); from hatchling import build; build.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    (path,) = out.glob("course_lib-*.whl")
    return path


def test_data_and_notebooks_are_inside_and_nothing_else_is(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"course_lib"}
    for folder in ("data", "notebooks"):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True).stdout.split()
        assert {f"course_lib/{name}" for name in tracked} <= set(names)
    assert "course_lib/notebooks/TEMPLATE.ipynb" in names


def test_an_unpacked_wheel_finds_its_own_files(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from course_lib import paths; print(paths.data_dir(), paths.notebooks_dir())"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(tmp_path / "course_lib" / name) for name in ("data", "notebooks")]


def test_an_installed_wheel_runs_a_notebook_without_a_checkout(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(installed), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    before = {path for path in installed.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    empty.mkdir()
    # Before this environment's own course_lib, which may be a checkout, on the path of the command and of its kernel.
    variables = os.environ | {"PYTHONPATH": str(installed), "OMP_WAIT_POLICY": "passive"}
    sizes = [f"{name}={size}" for name, size in browsing.SIZES.items()]
    command = ["run", "--profile", "ci", "--only", "00", "--out", "out", "--set", *sizes]
    run = subprocess.run(
        [sys.executable, "-m", "course_lib", *command], cwd=empty, env=variables, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 of 1 ok" in run.stdout
    assert "</html>" in (empty / "out" / "00_start_here.html").read_text(encoding="utf-8")
    where = nbformat.read(empty / "out" / "00_start_here.ipynb", as_version=4)
    assert not [out for cell in where.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    after = {path for path in installed.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert after == before and os.listdir(empty) == ["out"]
