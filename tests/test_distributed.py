"""Two processes, launched by torchrun, find what one finds; and one that is killed ends the run, which then goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from distributed_work import everything

from course_lib.__main__ import main

TESTS = Path(__file__).resolve().parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*words) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*TORCHRUN, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_two_processes_find_what_one_finds_also_after_one_was_killed(tmp_path):
    killed = launch(TESTS / "distributed_work.py", tmp_path / "two", "kill")
    assert killed.returncode != 0 and not (tmp_path / "two" / "found.pt").exists()
    assert "What was finished before is kept" in killed.stderr and "SIGKILL" in killed.stderr
    assert (tmp_path / "two" / "prune-False" / "step_0001.safetensors").exists()
    again = launch(TESTS / "distributed_work.py", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("2 processes") == 1  # the first alone speaks
    found, expected = torch.load(tmp_path / "two" / "found.pt"), everything(tmp_path / "one")
    assert list(found) == list(expected)
    for what, numbers in expected.items():
        for name, value in numbers.items():
            assert torch.allclose(found[what][name], value, rtol=1e-6, atol=1e-9, equal_nan=True), (what, name)
    assert all(torch.equal(a.nan_to_num(), found["oracle"][n].nan_to_num()) for n, a in expected["oracle"].items())


def test_torchrun_launches_the_commands(tmp_path):
    words = ["oracle", "--examples", "8", "--layers", "features.0", "--out"]
    done = launch("-m", "course_lib", *words, tmp_path / "two.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("feature maps on 8 examples") == 1
    assert main([*words, str(tmp_path / "one.csv")]) == 0
    two, one = (pd.read_csv(tmp_path / f"{name}.csv")[["layer", "map", "change"]] for name in ("two", "one"))
    pd.testing.assert_frame_equal(two, one, rtol=1e-6)
