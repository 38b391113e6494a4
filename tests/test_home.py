"""A home folder in which nothing can be written: the course works, or says what to set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import SIZES

ROOT = Path(__file__).resolve().parents[1]
#: What would say to Jupyter, IPython, matplotlib, torch and us where to keep things, if not in the home folder.
ELSEWHERE = ("XDG_", "JUPYTER", "IPYTHON", "MPL", "TORCH_HOME", "COURSE_LIB_")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="HOME is not Windows's")


@pytest.fixture
def run(tmp_path):
    """Runs a command of the course with such a home. Below a file, since no permissions bind root."""
    (tmp_path / "file").write_text("in the way")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ELSEWHERE)}
    kept |= {"HOME": str(tmp_path / "file" / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(*words, **variables) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "course_lib", *map(str, words)]
        return subprocess.run(command, env=kept | variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


def test_the_doctor_says_what_to_set_and_then_is_content(run, tmp_path):
    ill = run("doctor")
    failed = [line for line in ill.stdout.splitlines() if line.startswith("[FAIL]")]
    assert ill.returncode == 1 and len(failed) == 2, ill.stdout + ill.stderr
    assert "COURSE_LIB_CACHE" in failed[0] and "JUPYTER_DATA_DIR" in failed[1]
    well = run("doctor", COURSE_LIB_CACHE=str(tmp_path / "cache"), JUPYTER_DATA_DIR=str(tmp_path / "jupyter"))
    assert well.returncode == 0, well.stdout


def test_a_notebook_runs(run, tmp_path):
    pytest.importorskip("papermill")
    sizes = [f"{name}={size}" for name, size in SIZES.items()]
    done = run("run", "--profile", "ci", "--only", "00", "--out", tmp_path / "out", "--set", *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "00_start_here.html").exists()


def test_what_needs_the_cache_says_so_before_its_work_and_works_where_it_is_told_to_keep_things(run, tmp_path):
    sizes = ["network=vgg16-world", "train_images=40", "test_images=20", "epochs=1", "oracle_images=2", "oracle_maps=1"]
    words = ["reproduce", "--profile", "ci", "--only", "oracle", "--out", tmp_path / "out", "--set", *sizes]
    refused = run(*words)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "Set the environment variable COURSE_LIB_CACHE to a folder you can write to." in refused.stderr
    assert "fine-tuning" not in refused.stderr  # nothing was begun
    assert run(*words, COURSE_LIB_CACHE=str(tmp_path / "cache")).returncode == 0
    assert list((tmp_path / "cache").rglob("*.safetensors"))
