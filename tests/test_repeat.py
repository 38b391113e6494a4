"""The drill of repetition: it sees a difference, and it repeats everything that is recorded."""

import re

import pandas as pd
import pytest

from course_lib import paths
from drills import repeat, scenes, studies

MADE_BY = re.compile(r"python -m course_lib(?:\.classroom\.)?\s*(\w+)")


def test_every_command_and_study_that_recorded_a_table_is_repeated(tmp_path):
    tables = sorted((paths.data_dir() / "results").glob("*.csv"))
    commands = {command for path in tables for command in pd.read_csv(path).command}
    used = {match[1] for command in commands if (match := MADE_BY.match(command))}
    assert {"run", "reproduce", "oracle", "update_budget", "true_oracle"} <= used
    assert used <= repeat.programs(tmp_path).keys()


@pytest.mark.parametrize("name", ["weight_sharing", "rethinking"])
def test_a_study_comes_to_the_same_tables_in_another_process(name, tmp_path):
    row = repeat.twice(name, ["drills.studies", name, "{}"], tmp_path)
    assert row["differ"] == 0 and row["compared"] == {"weight_sharing": 1, "rethinking": 2}[name]


def test_a_table_that_another_process_makes_differently_is_counted(tmp_path, monkeypatch):
    """What differs between the two processes are the seeds of Python's own hashes, and the caches."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    row = repeat.twice("mine", ["program", "{}"], tmp_path)
    assert row == {"work": "mine", "against": "another process", "compared": 2, "differ": 1}


PROGRAM = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
(folder / "hashed.csv").write_text(f"word,hash,seconds\\nx,{hash('x')},{time.time()}\\n")
(folder / "timed.csv").write_text(f"word,seconds\\nx,{time.time()}\\n")
"""


@pytest.mark.parametrize("name", ["update_budget", "true_oracle"])
def test_the_longer_studies_make_tables_of_what_can_be_compared(name, monkeypatch):
    monkeypatch.setattr(studies.update_budget, "CRITERIA", ("taylor",))
    monkeypatch.setattr(studies.update_budget, "UPDATES", (0, 1))
    monkeypatch.setattr(studies.update_budget, "STRENGTHS", (30,))
    monkeypatch.setattr(studies.true_oracle, "CRITERIA", ("taylor",))
    for table in studies.STUDIES[name]().values():
        assert len(table) >= 2 and set(table.columns) - set(scenes.VARYING)
