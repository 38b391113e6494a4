"""Two processes, launched by torchrun, find what one finds; and one that is killed ends the run, which then goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from distributed_work import COMMAND, everything

from course_lib.__main__ import main
from drills import scenes

TESTS = Path(__file__).resolve().parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*words, by=TORCHRUN, **variables) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run([*by, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_two_processes_find_what_one_finds_also_after_one_was_killed(tmp_path):
    killed = launch(TESTS / "distributed_work.py", tmp_path / "two", "kill")
    assert killed.returncode != 0 and not (tmp_path / "two" / "found.pt").exists()
    assert "What was finished before is kept" in killed.stderr and "SIGKILL" in killed.stderr
    assert (tmp_path / "two" / "prune-False" / "step_0001.safetensors").exists()
    again = launch(TESTS / "distributed_work.py", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("feature maps on 8 examples") == 1  # the first alone speaks
    found, expected = torch.load(tmp_path / "two" / "found.pt"), everything(tmp_path / "one")
    assert list(found) == list(expected)
    for what, numbers in expected.items():
        for name, value in numbers.items():
            assert torch.allclose(found[what][name], value, rtol=1e-6, atol=1e-9, equal_nan=True), (what, name)
    assert all(torch.equal(a.nan_to_num(), found["oracle"][n].nan_to_num()) for n, a in expected["oracle"].items())
    assert main(["oracle", *COMMAND, str(tmp_path / "one.csv")]) == 0
    tables = [pd.read_csv(path)["change"] for path in (tmp_path / "two" / "oracle.csv", tmp_path / "one.csv")]
    pd.testing.assert_series_equal(*tables, rtol=1e-6)


@pytest.mark.parametrize("command, tables", [("prune", 1), ("reproduce", 2)])
def test_torchrun_before_a_command_writes_the_tables_of_one_process(command, tables, tmp_path):
    arguments, said = scenes.scenes(tmp_path / "material")[command].arguments, {}
    fewer = {"maps_per_step=150": "maps_per_step=528", "updates=2": "updates=1"}  # than in the drill
    for name, by in {"one": [sys.executable], "two": TORCHRUN}.items():
        words = [fewer.get(word, word).replace("{}", str(tmp_path / name)) for word in arguments]
        done = launch("-m", "course_lib", *words, by=by, COURSE_LIB_CACHE=str(tmp_path / f"cache of {name}"))
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert said["two"].count("Needs at most") == said["one"].count("Needs at most") == 1  # the first alone speaks
    one, two = ({path.name: pd.read_csv(path) for path in (tmp_path / n).glob("*.csv")} for n in ("one", "two"))
    assert len(one) == tables and one.keys() == two.keys()
    for name, expected in one.items():
        found = two[name].drop(columns=scenes.VARYING, errors="ignore")
        expected = expected.drop(columns=scenes.VARYING, errors="ignore")
        # A change of the loss is a difference of two losses: what is 1e-6 of these may be more of a small difference.
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6, atol=1e-7)
