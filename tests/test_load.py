"""Kernels at work at once: those of the drill, two instead of ten, on a notebook of a few cells."""

import pytest
from test_runner import notebook

from drills import load

START = "import course_lib, torch\ncourse_lib.start(profile, seed)\n(torch.rand(999, 999) @ torch.rand(999, 999)).sum()"
DRAW = "import matplotlib.pyplot as plt\ndef draw(k):\n    figure, axes = plt.subplots()\n    {}\n    return figure"
MOVE = "course_lib.explore(draw, k=(0, 3, 1))"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    monkeypatch.setattr(load.paths, "notebooks_dir", lambda: tmp_path)
    return tmp_path


def test_two_kernels_answer_every_slider_with_no_thread_for_every_core(folder):
    notebook(folder, "01_sliders", START, DRAW.format("axes.plot([0, k])"), MOVE)
    (found,) = load.measure(2, "01")
    assert (found["kernels"], found["survived"]) == (2, 2)
    assert found["moves"] == found["answered"] == 2 * 4
    assert 5 < found["threads"] < 40
    assert 50 < found["own_mb"] <= found["resident_mb"] < 2000


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        (DRAW.format("assert k < 3"), "a slider was moved in vain"),
        ("import os\nos._exit(1)", "its kernel died"),
        ("def draw(k):\n    raise ValueError('no figure')", "ValueError: no figure"),
    ],
)
def test_what_does_not_survive_is_counted_and_said(folder, capsys, monkeypatch, cell, wrong):
    monkeypatch.setattr(load, "PATIENCE", 90)
    notebook(folder, "01_sliders", "import course_lib", cell, MOVE)
    (found,) = load.measure(1, "01")
    assert found["survived"] == 0 and wrong in capsys.readouterr().out
