"""What a run needs, against what it then takes; and what is said where it does not fit."""

import pytest
import torch
from networks import batches, small_vgg

from course_lib import cost, models, oracle, pruning
from course_lib.__main__ import main
from course_lib.classroom import doctor, needs
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
    assert large.memory > 2 * small.memory
    steps = -(-(264 - 132) // 64)
    assert small.macs == steps * cost.macs(model, (3, 32, 32)) * (3 * (256 + 30 * 32) + 2 * 100)
    assert needs.of_pruning(model, (3, 32, 32), 0.25, 100, settings).macs > small.macs


def test_what_does_not_fit_is_refused_with_a_size_that_does_and_what_takes_long_with_a_shorter_way():
    needed = needs.Needs(memory=8 << 30, macs=10**15)
    with pytest.raises(
        needs.TooLarge, match=r"needs about 8\.6 GB .* 224 pixels.* 2\.1 GB are free.*--image-size 112 should"
    ):
        needs.statement(needed, 1e10, 2 << 30, 224, "")
    with pytest.raises(needs.TooLarge, match="Only a smaller network"):
        needs.statement(needed, 1e10, 1 << 20, 224, "")
    said = needs.statement(needed, 1e10, 16 << 30, 224, "Less.")
    assert (
        "about 28 hours" in said and "1,000,000 GMACs at the 10 a second" in said and said.endswith("Too long? Less.")
    )
    assert "Too long" not in needs.statement(needed, 1e13, 16 << 30, 224, "Less.")


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


def test_the_doctor_says_what_profiles_need(monkeypatch):
    results = list(doctor._profiles())
    assert [result.message.split(":")[0] for result in results] == ["profile ci", "profile laptop", "profile paper"]
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 1e9}))
    ci, _, paper = doctor._profiles()
    assert not ci.ok and "too little memory (1.0 GB)" in ci.message and paper.ok
