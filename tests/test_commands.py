"""`prune` and `oracle` on the command line, on a small network and a handful of images."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from PIL import Image

from course_lib import cost, datasets, models, oracle
from course_lib.__main__ import main
from course_lib.classroom import commands


@pytest.fixture
def splits(monkeypatch):
    """Splits of 3 classes, 32 x 32; what they were asked by is in `.asked`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator)
    some = datasets.Images(images, torch.arange(24) % 3)
    found, asked = datasets.Splits("tiny", some, some, some, ["a", "b", "c"]), []
    monkeypatch.setattr(commands.datasets, "load", lambda name, **options: asked.append((name, options)) or found)
    monkeypatch.setattr(commands.cost, "latency", lambda *a, **k: cost.Latency(1.0, 0.1, 16, 1))
    return found, asked


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    return str(models.save(models.vgg16(3, width=1 / 32, compact=True), tmp_path / "network.safetensors"))


def test_prune_prints_before_and_after_and_saves_the_small_network(splits, network, tmp_path, capsys):
    typed = ["prune", "--model", network, "--maps-per-step", "30", "--until-maps", "0.6", "--updates", "1"]
    typed += ["--examples", "8", "--out", str(tmp_path / "out"), "--images", "some/folder", "--seed", "3"]
    assert main(typed) == 0
    said = capsys.readouterr().out
    before = models.load(network)
    small = models.load(tmp_path / "out" / "pruned.safetensors")
    assert cost.feature_maps(small) == round(0.6 * cost.feature_maps(before))
    for model in (before, small):
        for number in (cost.feature_maps(model), cost.parameters(model), cost.macs(model, (3, 32, 32))):
            assert f"{number:,}" in said
    name, options = splits[1][0]
    assert name == "folder" and str(options["root"]) == "some/folder" and options["seed"] == 3
    table = pd.read_csv(tmp_path / "out" / "steps.csv")
    assert table["maps_left"].is_monotonic_decreasing and len(table) == 3
    assert table["command"][0].startswith("python -m course_lib prune --model") and (table["seed"] == 3).all()

    (tmp_path / "out" / "steps" / "step_0002.safetensors").unlink()  # as if killed before the last step
    assert main(typed) == 0
    again = pd.read_csv(tmp_path / "out" / "steps.csv")
    assert list(again["loss"]) == list(table["loss"])


PLAIN = """
import sys, torch
sys.modules["course_lib"] = None  # whoever asks for it gets an ImportError
torch.save(torch.export.load(sys.argv[1]).module()(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


def photographs(folder, classes=("cat", "dog"), n=32):
    """A folder as users have it: red and blue noise, which a network can tell apart."""
    generator = torch.Generator().manual_seed(1)
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = torch.randint(120, (40, 40, 3), dtype=torch.uint8, generator=generator)
                pixels[..., 2 * number] += 120
                Image.fromarray(pixels.numpy()).save(folder / split / name / f"{i}.png")
    return folder


def test_a_folder_of_two_classes_in_one_command(tmp_path, capsys):
    """Fine-tune, prune with epochs in between, compare, save; and plain PyTorch runs what was saved."""
    folder, out = photographs(tmp_path / "pictures"), tmp_path / "out"
    typed = ["prune", "--images", str(folder), "--image-size", "32", "--model", "vgg16-world", "--epochs", "5"]
    typed += ["--lr", "1e-3", "--epochs-per-step", "2", "--maps-per-step", "200", "--until-maps", "0.6"]
    assert main([*typed, "--examples", "8", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "accuracy" in said and " MB" in said and " ms" in said
    small, steps = models.load(out / "pruned.safetensors"), pd.read_csv(out / "steps.csv")
    assert cost.feature_maps(small) == steps.maps_left.iloc[-1] == 634  # three fifths of 1,056
    assert steps.accuracy.iloc[0] == 1  # red and blue
    images = torch.rand(3, 3, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    files = [str(out / "pruned.pt2"), str(tmp_path / "images.pt"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", PLAIN, *files], check=True)
    assert torch.allclose(torch.load(tmp_path / "logits.pt", weights_only=True), small(images), atol=1e-5)
    assert main([*typed, "--examples", "8", "--out", str(out)]) == 0  # nothing is trained a second time
    assert main([*typed, "--examples", "8", "--out", str(out), "--seed", "1"]) == 2
    assert "was made by other settings" in capsys.readouterr().err


def test_oracle_writes_every_map_with_its_error(splits, network, tmp_path):
    out = tmp_path / "oracle.csv"
    arguments = ["--model", network, "--examples", "6", "--layers", "features.0", "features.2", "--out", str(out)]
    assert main(["oracle", *arguments]) == 0
    table = pd.read_csv(out)
    batches = datasets.batches(splits[0].train, 6, seed=0)
    truth = oracle.ablate(models.load(network), batches, ["features.0", "features.2"], progress=False)
    for name, changes in truth.items():
        assert list(table[table["layer"] == name]["change"]) == pytest.approx(changes.tolist(), abs=1e-6)
    assert (table["standard_error"] >= 0).all()


def test_oracle_from_part_of_the_evaluations_writes_every_map_with_its_interval(splits, network, tmp_path):
    out = tmp_path / "oracle.csv"
    arguments = ["--model", network, "--examples", "8", "--layers", "features.2", "--budget", "0.5", "--out", str(out)]
    assert main(["oracle", *arguments]) == 0
    table = pd.read_csv(out)
    batches = datasets.batches(splits[0].train, 8, seed=0)
    found = oracle.estimate(models.load(network), batches, 0.5, layers=["features.2"], progress=False)
    for column, side in (("low", found.low), ("change", found.scores), ("high", found.high)):
        assert list(table[column]) == pytest.approx(side["features.2"].tolist(), abs=1e-6)
    assert list(table["sampling_error"]) == pytest.approx(found.standard_error["features.2"].tolist(), abs=1e-6)


def test_a_budget_is_for_the_exact_oracle_only(splits, network, capsys):
    assert main(["oracle", "--model", network, "--examples", "6", "--method", "naive", "--budget", "0.5"]) == 2
    assert "leave out --method naive" in capsys.readouterr().err


def test_oracle_in_bfloat16_goes_on_where_it_was_killed(splits, network, tmp_path, monkeypatch, capsys):
    arguments = ["oracle", "--model", network, "--examples", "6", "--layers", "features.0", "features.2"]
    arguments += ["--dtype", "bfloat16", "--folder", str(tmp_path / "kept"), "--out", str(tmp_path / "oracle.csv")]
    assert main(arguments) == 0
    table = pd.read_csv(tmp_path / "oracle.csv")
    batches = datasets.batches(splits[0].train, 6, seed=0)
    truth = oracle.ablate(models.load(network), batches, ["features.0"], dtype=torch.bfloat16, progress=False)
    assert list(table[table["layer"] == "features.0"]["change"]) == pytest.approx(truth["features.0"].tolist())
    monkeypatch.setattr(oracle.exact.Base, "changes", None)  # nothing is measured a second time
    assert main(arguments) == 0
    assert list(pd.read_csv(tmp_path / "oracle.csv")["change"]) == list(table["change"])
    assert main([*arguments, "--dtype", "float32"]) == 2
    assert "another run of the oracle: it differs in dtype" in capsys.readouterr().err
    assert main([*arguments, "--budget", "0.5"]) == 2
    assert "leave out --folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no.safetensors"], "There is no file no.safetensors"),
        (["--model", "vgg61"], "There is no trained network 'vgg61'"),
    ],
)
def test_errors_are_sentences(splits, capsys, arguments, message):
    assert main(["prune", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and not said.startswith(("'", '"'))


def test_a_network_for_other_classes_is_refused_with_a_way_out(splits, tmp_path, capsys):
    other = models.save(models.vgg16(7, width=1 / 32, compact=True), tmp_path / "other.safetensors")
    assert main(["oracle", "--model", str(other)]) == 2
    assert "tells 7 classes apart, tiny has 3" in capsys.readouterr().err
