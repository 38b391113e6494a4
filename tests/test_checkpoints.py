"""The embedded networks: small, whole, and as good as their cards say."""

import re

import pytest
import torch
from torch import nn

from course_lib import cost, datasets, models, paths, residual, training
from course_lib.classroom import checkpoints

FOLDER = paths.data_dir() / "checkpoints"
NAMES = sorted(checkpoints.RECIPES)


def test_there_is_a_file_a_card_and_a_checksum_of_every_recipe():
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}.{ending}" for name in NAMES for ending in ("md", "safetensors")} | {"SHA256SUMS"}
    assert models.checksums() == {path.name: models.sha256(path) for path in FOLDER.glob("*.safetensors")}


def test_together_they_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_numbers_of_the_card_are_the_networks(name):
    model, path = models.trained(name), FOLDER / f"{name}.safetensors"
    card, notes = (FOLDER / f"{name}.md").read_text(), models.notes(path)
    options = {"world": checkpoints.WORLD, "test": 2_000} if "world" in name else {}
    splits = datasets.load("petals", image_size=checkpoints.IMAGE_SIZE, train=10, seed=notes["seed"], **options)
    found = training.evaluate(model, splits.test)
    # a sum in another order may turn one image of a thousand on another machine, not more
    accuracy, images = re.search(r"test accuracy \| ([\d.]+)% on ([\d,]+) images", card).groups()
    assert found.accuracy == pytest.approx(float(accuracy) / 100, abs=2e-3)
    assert found.accuracy == pytest.approx(notes["test_accuracy"], abs=1.5e-3)
    assert found.loss == pytest.approx(notes["test_loss"], abs=1e-3)
    assert len(splits.test) == notes["test_images"] == int(images.replace(",", ""))
    macs = residual.macs(model, (3, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE))
    assert f"feature maps, {cost.parameters(model):,} parameters, {macs / 1e6:.1f} million MACs" in card
    if name.startswith("vgg16"):
        assert macs == cost.macs(model, (3, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE))
        assert f" {cost.feature_maps(model):,} feature maps," in card
    assert f"`{path.name}`, {path.stat().st_size / 1e6:.2f} MB" in card
    assert f"in {notes['seconds']} s with seed {notes['seed']} and torch {notes['torch']}" in card
    assert notes["recipe"] in card


def test_the_residual_network_is_the_builders():
    with torch.device("meta"):
        assert models.trained("resnet-petals").sizes == residual.resnet(10).sizes


def test_they_are_plain_networks_at_quarter_width():
    with torch.device("meta"):
        expected = {
            name: models.vgg16(classes, width=0.25, compact=True)
            for name, classes in (("vgg16-petals", 10), ("vgg16-world", 96))
        }
        expected["alexnet-petals"] = models.alexnet(10, width=0.25, compact=True)
    for name, model in expected.items():
        assert models.architecture(models.trained(name)) == models.architecture(model)


def test_folded_batch_norm_is_the_same_function():
    torch.manual_seed(0)
    source = models.vgg16(7, width=1 / 32, batch_norm=True, compact=True)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.uniform_(0.5, 1.5)
            module.running_var.uniform_(0.5, 1.5)
    source.double().eval()
    plain = checkpoints.fold_batch_norm(source, models.vgg16(7, width=1 / 32, compact=True).double())
    images = torch.randn(3, 3, 32, 32).double()
    assert torch.allclose(plain(images), source(images), rtol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())


def test_batch_norm_is_put_behind_every_convolution_and_can_be_folded_back():
    plain = models.alexnet(7, width=1 / 16, compact=True).double()
    images, weights = torch.randn(5, 3, 32, 32).double(), plain.features[0].weight.detach().clone()
    model = checkpoints.with_batch_norm(plain).double()
    kinds = [type(part).__name__ for part in model.features]
    assert all(kinds[at + 1] == "BatchNorm2d" for at, kind in enumerate(kinds) if kind == "Conv2d")
    model.train()(images)  # statistics that are not those of a new batch norm
    expected = model.eval()(images).detach()
    assert torch.allclose(checkpoints.fold_batch_norm(model, plain)(images), expected, rtol=1e-9)
    assert not torch.equal(plain.features[0].weight, weights)


def test_making_one_again_writes_file_card_and_checksum(tmp_path, monkeypatch, capsys):
    def recipe(seed):
        torch.manual_seed(seed)
        return models.vgg16(10, width=1 / 32, compact=True), splits, {"recipe": "none"}

    splits = datasets.load("petals", train=10, test=40)
    monkeypatch.setattr(checkpoints, "RECIPES", {"vgg16-petals": recipe})
    path = checkpoints.make("vgg16-petals", tmp_path, seed=3)
    assert f"{models.sha256(path)}  vgg16-petals.safetensors\n" == (tmp_path / "SHA256SUMS").read_text()
    notes = models.notes(path)
    again = training.evaluate(models.load(path), splits.test)
    assert (notes["test_accuracy"], notes["seed"], notes["test_images"]) == (round(again.accuracy, 4), 3, 40)
    assert f"| test accuracy | {notes['test_accuracy']:.1%} on 40 images" in (tmp_path / "vgg16-petals.md").read_text()
    assert f"{again.accuracy:.1%}" in capsys.readouterr().out
