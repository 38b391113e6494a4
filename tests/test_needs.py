"""What a run needs, against what it then takes; and what is said where it does not fit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from networks import batches, small_vgg
from torch.utils.data import TensorDataset

from course_lib import cost, datasets, models, oracle, pruning
from course_lib.__main__ import main
from course_lib.classroom import commands, doctor, needs, results
from course_lib.feature_maps import Chain


@pytest.mark.parametrize("method", ["exact", "naive"])
def test_the_macs_of_an_oracle_are_those_that_its_bar_counts(method, monkeypatch):
    model, data = small_vgg(), batches(3, 8, 8, n=2)
    totals = []

    class Bar:
        total, disable, initial = None, False, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            totals.append(self.total)

        def update(self, n):
            pass

    monkeypatch.setattr(oracle, "meter", lambda *_, **__: Bar())
    layers = list(Chain(model).layers)[:2]
    oracle.effects(model, data, layers, method)
    images = sum(len(labels) for _, labels in data)
    assert needs.of_oracle(model, data[0][0][:1], images, layers, method).macs == totals[0]


def test_activations_by_hand():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 2)
    )
    each, widest = needs.activations(model, (3, 8, 8))
    assert each == 4 * (3 * 4 * 64 + 2) and widest == 4 * 2 * 4 * 64


def test_pruning_needs_more_with_more_of_everything():
    model, settings = models.vgg16(3, width=1 / 16, compact=True), pruning.Settings(maps_per_step=64)
    small = needs.of_pruning(model, (3, 32, 32), 0.5, 100, settings)
    large = needs.of_pruning(model, (3, 64, 64), 0.5, 100, settings)
    assert 3.5 < large.macs / small.macs < 4.5
    assert large.memory - needs.BESIDES > 2 * (small.memory - needs.BESIDES)
    steps = -(-(264 - 132) // 64)
    assert small.macs == steps * cost.macs(model, (3, 32, 32)) * (3 * (256 + 30 * 32) + 2 * 100)
    assert needs.of_pruning(model, (3, 32, 32), 0.25, 100, settings).macs > small.macs


def test_what_does_not_fit_is_refused_with_a_size_that_does_and_what_takes_long_with_a_shorter_way():
    needed = needs.Needs(memory=8 << 30, macs=10**15)
    with pytest.raises(
        needs.TooLarge, match=r"needs about 8\.6 GB .* 224 pixels.* 2\.1 GB are free.*At 112 pixels it should"
    ):
        needs.statement(needed, 1e10, 2 << 30, 224, "")
    with pytest.raises(needs.TooLarge, match="Only a smaller network"):
        needs.statement(needed, 1e10, 1 << 20, 224, "")
    said = needs.statement(needed, 1e10, 16 << 30, 224, "Less.")
    assert (
        "about 28 hours" in said and "1,000,000 GMACs at the 10 a second" in said and said.endswith("Too long? Less.")
    )
    assert "Too long" not in needs.statement(needed, 1e13, 16 << 30, 224, "Less.")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_checkpoints_fit_on_the_disk_or_nothing_is_begun(optimizer, tmp_path, monkeypatch):
    model = models.vgg16(3, width=1 / 8, compact=True)
    data = TensorDataset(torch.rand(5, 3, 32, 32), torch.arange(5) % 3)
    settings = {"maps_per_step": 80, "updates": 1, "images": 5, "optimizer": optimizer}
    splits = datasets.Splits("noise", data, data, data, ["a", "b", "c"])
    steps = len(list(pruning.prune(model, splits, maps_left=0.5, folder=tmp_path / "steps", **settings)))
    needed = needs.of_pruning(model, (3, 32, 32), 0.5, 5, pruning.Settings(**settings))
    taken = sum(file.stat().st_size for file in (tmp_path / "steps").glob("*"))
    assert steps == 5 and needed.disk / 2.5 < taken <= needed.disk

    full = shutil.disk_usage(tmp_path)._replace(free=needed.disk - taken)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    needs.room(needed, tmp_path / "steps")  # what it holds is part of what it needs
    with pytest.raises(needs.TooLarge, match=r"take up to .* has room for .*begun.*more feature maps a step"):
        needs.room(needed, tmp_path / "not" / "yet")
    assert main(["prune", "--out", str(tmp_path / "other")]) == 2 and not (tmp_path / "other").exists()


def test_the_rate_and_the_free_memory_are_measured():
    model, images = small_vgg(), batches(3, 8, 8, n=1)[0][0]
    assert needs.rate(model, images, seconds=0.01) > 0
    assert 0 < needs.available() < 1 << 50


def test_a_command_that_would_not_fit_begins_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(needs, "available", lambda device=None: 1 << 20)
    assert main(["oracle", "--examples", "8", "--out", str(tmp_path / "oracle.csv")]) == 2
    said = capsys.readouterr().err
    assert "Nothing was begun" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_the_doctor_says_what_was_recorded_of_a_profile_and_that_others_were_not(monkeypatch):
    runs = {"run_ci": pd.DataFrame({"seconds": [100.0, 200.0], "peak_mb": [900, 3000], "machine": "Linux 2 cores"})}
    monkeypatch.setattr(results, "recorded", lambda name: name in runs)
    monkeypatch.setattr(results, "read", runs.get)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=4e9))
    ci, laptop, paper = doctor._profiles()
    assert ci.ok and "ci: 2 notebooks took 5 minutes and at most 3.0 GB" in ci.message and "Linux 2 cores" in ci.message
    assert laptop.ok and paper.ok and "paper: never recorded" in paper.message
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2e9))
    ci, *_ = doctor._profiles()
    assert not ci.ok and "too little memory here (2.0 GB)" in ci.message


def test_fine_tuning_and_pruning_are_counted_together_and_estimates_less_than_the_whole():
    model = models.vgg16(3, width=1 / 16, compact=True)
    one, other = needs.Needs(5, 10), needs.Needs(3, 100)
    assert one.then(other) == needs.Needs(5, 110)
    tuning = needs.of_tuning(model, (3, 32, 32), 100, 2)
    assert tuning.macs == cost.macs(model, (3, 32, 32)) * 100 * (1 + 3 * 2)  # the features once, then two epochs
    image = torch.zeros(1, 3, 32, 32)
    whole, tenth = needs.of_oracle(model, image, 64), needs.of_estimate(model, image, 64, 0.1)
    passes = 13 * 64 * cost.macs(model, (3, 32, 32))
    assert tenth.macs == passes + round(0.1 * whole.macs)
    pairs = 64 * cost.feature_maps(model)
    assert needs.of_estimate(model, image, 64, pairs / 10).macs == pytest.approx(tenth.macs)


def test_prune_that_would_not_fit_says_so_before_it_fine_tunes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(needs, "available", lambda device=None: 1 << 20)
    monkeypatch.setattr(commands.training, "fit_head", lambda *_, **__: pytest.fail("it has begun"))
    assert main(["prune", "--epochs", "2", "--examples", "8", "--out", str(tmp_path / "out")]) == 2
    assert "Nothing was begun" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PEAK = """
import re, sys
from pathlib import Path
import torch
from course_lib import datasets, models, oracle, pruning, training
from course_lib.classroom import needs

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def run(work, model, size):
    images = datasets.Images(torch.randint(256, (32, 3, size, size), dtype=torch.uint8), torch.arange(32) % 3)
    splits = datasets.Splits("noise", images, images, images, ["a", "b", "c"])
    shape, batches = (3, size, size), datasets.batches(images, 16)
    if work == "pruning":
        settings = dict(maps_per_step=200, updates=2, images=32)
        list(pruning.prune(model, splits, maps_left=0.85, progress=False, **settings))
        return needs.of_pruning(model, shape, 0.85, 32, pruning.Settings(**settings))
    if work == "tuning":
        training.fit_head(model, images)
        training.fit(model, images, epochs=2, augment=True, progress=False)
        return needs.of_tuning(model, shape, 32, 2)
    layers = ["features.2"]  # its maps are the largest
    oracle.effects(model, batches, layers, work, progress=False)
    return needs.of_oracle(model, torch.zeros(1, *shape), 16, layers, work)

work, size = sys.argv[1], int(sys.argv[2])
run(work, models.vgg16(3, width=1 / 32, compact=True), 32)  # what is loaded once
model = models.vgg16(3, width=1 / 4, compact=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
needed = run(work, model, size)
print(needed.memory, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, to ask a process for its peak")
@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("work", ["pruning", "tuning", "exact", "naive"])
def test_the_estimate_is_never_below_the_peak_nor_above_three_times_of_it(work, size):
    run = [sys.executable, "-c", PEAK, work, str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "COURSE_LIB_PROGRESS": "0"}
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    estimated, measured = map(int, said.split())
    assert measured <= estimated <= 3 * measured + needs.BESIDES
