"""Recorded results carry how they were made, and are whole or not there."""

import importlib.util
import shlex
from datetime import datetime, timezone

import pandas as pd
import pytest
import torch

import course_lib
from course_lib import paths
from course_lib.classroom import results

ROWS = [{"maps_left": 1.0, "accuracy": 0.9}, {"maps_left": 0.5, "accuracy": 0.8}]


def test_record_adds_where_the_numbers_come_from(tmp_path):
    path = results.record(ROWS, tmp_path / "new" / "curve.csv", command="make curve", seed=3)
    table = pd.read_csv(path)
    assert list(table["accuracy"]) == [0.9, 0.8]
    assert (table["command"] == "make curve").all() and (table["seed"] == 3).all()
    assert (table["torch"] == torch.__version__).all() and (table["course_lib"] == course_lib.__version__).all()
    assert {"python", "machine"} <= set(table.columns)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(table["date"][0])
    assert age.total_seconds() < 60


def test_numbers_come_back_exactly(tmp_path):
    value = 0.1 + 0.2
    path = results.record(pd.DataFrame({"x": [value]}), tmp_path / "x.csv", command="c", seed=0)
    assert pd.read_csv(path)["x"][0] == pytest.approx(value, abs=0, rel=1e-15)


def test_rows_may_carry_their_own_seeds(tmp_path):
    path = results.record([{"seed": 1}, {"seed": 2}], tmp_path / "seeds.csv", command="c", seed=None)
    assert list(pd.read_csv(path)["seed"]) == [1, 2]


@pytest.mark.parametrize(
    ("rows", "seed", "message"),
    [
        ([], 0, "no rows"),
        ([{"seed": 1}], 0, r"\['seed'\] are added"),
        ([{"machine": "mine"}], 0, r"\['machine'\] are added"),
        ([{"x": 1}], None, "must have a column `seed`"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(tmp_path, rows, seed, message):
    with pytest.raises(ValueError, match=message):
        results.record(rows, tmp_path / "bad.csv", command="c", seed=seed)
    assert not list(tmp_path.iterdir())


def test_the_machine_is_described_but_not_named():
    import platform

    assert "cores" in results.machine() and torch.backends.cpu.get_cpu_capability() in results.machine()
    assert platform.node() not in results.machine()


def test_read_finds_by_name_and_answers_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(results.paths, "data_dir", lambda: tmp_path)
    results.record(ROWS, tmp_path / "results" / "table1.csv", command="c", seed=0)
    assert len(results.read("table1")) == len(results.read("table1.csv")) == 2
    with pytest.raises(FileNotFoundError, match="Did you mean 'table1'"):
        results.read("tabel1")


@pytest.mark.parametrize("path", sorted((paths.data_dir() / "results").glob("*.csv")), ids=lambda path: path.stem)
def test_every_recorded_row_names_the_command_that_makes_it(path):
    for command in pd.read_csv(path).command.unique():
        python, option, module, *arguments = shlex.split(command)
        assert (python, option) == ("python", "-m") and importlib.util.find_spec(module) is not None
        if module == "course_lib":
            assert arguments[0] in ("oracle", "prune", "reproduce", "run")
            after = arguments[arguments.index("--set") + 1 :] if "--set" in arguments else []
            assert all(word.partition("=")[0].isidentifier() for word in after if not word.startswith("--"))
