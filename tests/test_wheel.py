"""An installed wheel is the whole course: data and notebooks travel inside the package."""

import subprocess
import sys
import zipfile
from pathlib import Path

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
