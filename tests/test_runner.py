"""The runner of notebooks, on notebooks that are broken on purpose."""

import os

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_lib.__main__ import main
from course_lib.classroom import runner

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = 'profile = "laptop"\nseed = 0\noverrides = {}'
FIGURE = "from matplotlib import pyplot as plt\nfigure, _ = plt.subplots(figsize=(1, 1))\nplt.close(figure)\nfigure"


def notebook(folder, name, *sources, parameters=PARAMETERS, tags=("parameters",), kernel=KERNEL):
    """Write a notebook whose cells are a parameters cell and these."""
    cells = [new_code_cell(source, id=f"{name[:2]}-cell-{at}") for at, source in enumerate([parameters, *sources])]
    cells[0].metadata["tags"] = list(tags)
    metadata = {"kernelspec": kernel} if kernel else {}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(runner.paths, "notebooks_dir", lambda: tmp_path / "notebooks")
    return tmp_path / "notebooks"


def test_a_run_with_failures_reports_each_and_finishes_the_others(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(runner.CELL_TIMEOUT, "ci", 5)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook(folder, "01_raises", "x = 1", "def deep():\n    raise RuntimeError('the reason')\ndeep()", "x")
    notebook(folder, "02_hangs", "import time", "time.sleep(60)")
    notebook(folder, "03_dies", "import os", "os._exit(1)")
    seen = "import os, course_lib\nprint(profile, seed, overrides, os.environ['COURSE_LIB_STATIC'], os.getcwd())"
    notebook(folder, "04_works", seen, FIGURE)
    (folder / "TEMPLATE.ipynb").write_text("not even a notebook")
    environment, out = dict(os.environ), tmp_path / "build"

    arguments = ["--profile", "ci", "--seed", "7", "--out", str(out)]
    assert main(["run", *arguments]) == 1

    printed = capsys.readouterr().out
    assert "[1/4] 01_raises: FAILED" in printed and "[4/4] 04_works: ok" in printed
    assert "01_raises.ipynb failed in cell 3 (01-cell-2)" in printed
    assert "in deep()" in printed and "RuntimeError: the reason" in printed and "\x1b[" not in printed
    assert "02_hangs.ipynb failed in cell 3 (02-cell-2)" in printed and "CellTimeoutError" in printed
    assert "03_dies.ipynb failed in cell 3 (03-cell-2)" in printed and "DeadKernelError" in printed
    assert "1 of 4 ok" in printed

    summary = pd.read_csv(out / "summary.csv")
    assert list(summary["outcome"]) == ["FAILED", "FAILED", "FAILED", "ok"]
    assert (summary["seconds"] > 0).all() and (summary["seed"] == 7).all()
    cells = nbformat.read(out / "04_works.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs[0].text.strip() == f"ci 7 {{}} 1 {out}"
    assert [output.output_type for output in outputs[1:]] == ["execute_result"] and "image/png" in outputs[1].data
    for name in ("01_raises", "04_works"):
        assert (out / f"{name}.html").stat().st_size > 10_000
    assert "data:image/png;base64" in (out / "04_works.html").read_text()
    assert dict(os.environ) == environment
    assert not nbformat.read(folder / "04_works.ipynb", as_version=4).cells[1].outputs


def test_peak_memory_is_measured_and_a_whole_profile_is_recorded(folder, tmp_path, capsys, monkeypatch):
    notebook(folder, "01_small", "1")
    notebook(folder, "02_large", "import time\nheld = bytearray(300_000_000)\ntime.sleep(1)")
    monkeypatch.setattr(runner.paths, "data_dir", lambda: tmp_path / "data")
    typed = ["run", "--profile", "ci", "--out", str(tmp_path / "build")]
    with pytest.raises(SystemExit):
        main([*typed, "--save", "--only", "01"])
    assert "leave out --only" in capsys.readouterr().err
    assert main([*typed, "--save"]) == 0
    run = pd.read_csv(tmp_path / "data" / "results" / "run_ci.csv")
    small, large = run.peak_mb
    assert 10 < small < 200 and 290 < large - small < 400
    assert (run.command == "python -m course_lib run --profile ci --seed 0 --save").all()
    assert f"{large:,} MB" in capsys.readouterr().out
    notebook(folder, "03_raises", "1 / 0")
    assert main([*typed, "--save"]) == 1
    assert len(pd.read_csv(tmp_path / "data" / "results" / "run_ci.csv")) == 2  # a failure is not recorded


def test_sizes_of_your_own_reach_the_notebook_and_may_take_their_time(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(runner.CELL_TIMEOUT, "ci", 1)
    notebook(folder, "01_slow", "import time\ntime.sleep(3)\nprint(overrides)")
    settings = ["oracle_images=8", "network=some", "curves=('taylor', 'obd')"]
    assert main(["run", "--profile", "ci", "--out", str(tmp_path / "build"), "--set", *settings]) == 0
    (output,) = nbformat.read(tmp_path / "build" / "01_slow.ipynb", as_version=4).cells[-1].outputs
    assert output.text.strip() == "{'oracle_images': 8, 'network': 'some', 'curves': ['taylor', 'obd']}"


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"tags": ()}, "has 0 cells tagged 'parameters'"),
        ({"kernel": None}, "has no kernelspec"),
        ({"parameters": "profile = seed"}, "does not set seed, overrides"),
    ],
)
def test_what_papermill_would_not_notice_is_an_error_before_anything_runs(folder, tmp_path, broken, complaint):
    notebook(folder, "01_wrong", "1", **broken)
    (outcome,) = runner.run(runner.numbered(), tmp_path / "build", "ci")
    assert complaint in outcome.error
    assert not list((tmp_path / "build").glob("[!.]*"))


def test_only_chooses_by_the_beginning_of_the_name(folder):
    for name in ("00_start", "06_oracle", "07_taylor"):
        notebook(folder, name)
    assert [path.stem for path in runner.numbered(["07", "00_s"])] == ["00_start", "07_taylor"]
    with pytest.raises(ValueError, match="06_oracle"):
        runner.numbered(["06_orakel"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "99"], "no notebook '99'"),
        (["--set", "oracle_image=8"], "Did you mean 'oracle_images'"),
        ([], "no notebooks in"),
    ],
)
def test_what_was_not_understood_is_said_without_a_traceback(folder, tmp_path, capsys, arguments, message):
    if arguments:
        notebook(folder, "06_oracle")
    assert main(["run", "--profile", "ci", "--out", str(tmp_path / "build"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_settings_are_pythons_values_or_texts():
    assert runner.setting("updates=10") == ("updates", 10)
    assert runner.setting("maps_left=0.5") == ("maps_left", 0.5)
    assert runner.setting("data_root=/some/where") == ("data_root", "/some/where")
    assert runner.setting("train_images=None") == ("train_images", None)


def interrupted(argv):
    raise KeyboardInterrupt


def test_the_command_line_lists_its_commands_and_knows_no_others(capsys, monkeypatch):
    assert main(["--help"]) == 0 and "doctor" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["rnu"]) == 2 and "no command 'rnu'" in capsys.readouterr().err
    monkeypatch.setattr("course_lib.classroom.runner.main", interrupted)
    assert main(["run"]) == 130 and "Interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "run", "prune", "oracle"])
def test_each_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0 and f"usage: course-lib {command}" in capsys.readouterr().out
