"""Networks: torchvision's names and weights, files that come back whole or not at all, trained networks by name."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import chains, plans, small_vgg, torchvision_network, volumes, written_by_hand
from torch import nn
from torch.nn import functional as F

from course_lib import cost, models, paths
from course_lib.feature_maps import Chain, UnsupportedModel
from course_lib.surgery import remove


def tiny():
    """A pruned VGG-16 of a few kilobytes."""
    torch.manual_seed(0)
    return remove(models.vgg16(3, width=1 / 32, compact=True), {"features.0": [1], "features.28": [0, 5]}).eval()


@pytest.fixture
def file(tmp_path):
    return models.save(tiny(), tmp_path / "network.safetensors", notes={"accuracy": 0.5})


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(value, b[name]) for name, value in a.items())


# ----------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    "name, ours",
    [
        ("vgg16", lambda: models.vgg16()),
        ("vgg16_bn", lambda: models.vgg16(batch_norm=True)),
        ("alexnet", lambda: models.alexnet()),
    ],
)
def test_names_and_shapes_are_torchvisions(name, ours):
    with torch.device("meta"):
        found, expected = ours().state_dict(), torchvision.models.get_model(name).state_dict()
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        key: tuple(value.shape) for key, value in expected.items()
    }


@pytest.mark.parametrize("name, size", [("vgg16_bn", 32), ("alexnet", 64)])
def test_torchvisions_weights_load_and_answer_the_same(name, size):
    theirs = torchvision_network(name, num_classes=7)
    with torch.device("meta"):
        ours = models.vgg16(7, batch_norm=True) if name == "vgg16_bn" else models.alexnet(7)
    ours.eval().load_state_dict(theirs.state_dict(), assign=True)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))
    maps = torch.randn(1, 2, 13, 13)  # small images leave one value a map, which tells nothing of the pooling
    assert torch.equal(ours.avgpool(maps), theirs.avgpool(maps))


def test_sizes():
    with torch.device("meta"):
        assert cost.feature_maps(models.vgg16()) == 4224
        assert cost.parameters(models.vgg16()) == 138_357_544
        assert cost.feature_maps(models.vgg16(width=0.25, compact=True)) == 1056
        assert cost.feature_maps(models.alexnet()) == 1152
        assert cost.feature_maps(models.lenet_5()) == 70
        assert cost.parameters(models.lenet_5()) == 431_080
        assert cost.parameters(models.lenet_300_100()) == 266_610


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda: models.vgg16(5, width=1 / 64), (3, 40, 48)),
        (lambda: models.vgg16(5, width=1e-6, batch_norm=True, compact=True, in_channels=1), (1, 32, 32)),
        (lambda: models.alexnet(5, width=1 / 32, compact=True, in_channels=1), (1, 32, 32)),
        (lambda: models.alexnet(5, width=1 / 64), (3, 64, 64)),
        (lambda: models.lenet_5(5), (1, 28, 28)),
        (lambda: models.lenet_300_100(5, pixels=64), (1, 8, 8)),
    ],
)
def test_shapes_and_round_trip(build, shape, tmp_path):
    model, images = build().eval(), torch.randn(2, *shape)
    assert model(images).shape == (2, 5)
    again = models.load(models.save(model, tmp_path / "a.safetensors"))
    assert torch.equal(again(images), model(images))


def test_initial_weights_are_kaimings_and_repeat():
    torch.manual_seed(0)
    model = models.vgg16(10, width=0.25, compact=True)
    torch.manual_seed(0)
    assert same_state(models.vgg16(10, width=0.25, compact=True), model)
    convolution = model.features[28].weight
    assert convolution.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    output = model.classifier[0].weight
    assert output.std().item() == pytest.approx(0.5 * 128**-0.5, rel=0.1)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_a_fresh_head_replaces_the_output_layer_only():
    model, before = tiny().double(), tiny().double().state_dict()
    assert models.fresh_head(model, 6, seed=1) is model
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.0.weight", "classifier.0.bias"}
    head = model.classifier[0]
    assert head.weight.shape == (6, 14) and head.weight.dtype == torch.float64
    assert torch.equal(models.fresh_head(tiny().double(), 6, seed=1).classifier[0].weight, head.weight)
    assert model(torch.randn(2, 3, 32, 32).double()).abs().max() < 1
    assert models.fresh_head(written_by_hand(), 9).fc.out_features == 9


# ------------------------------------------------------------------------------------------------------ save and load


@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pruned_networks_come_back(data, tmp_path):
    model, shape = data.draw(chains())
    small, images = remove(model, data.draw(plans(model))), torch.randn(2, *shape)
    again = models.load(models.save(small, tmp_path / "a.safetensors"))
    assert not again.training
    assert torch.equal(again(images), small(images))
    assert same_state(again, small)


class Tutorial(nn.Module):
    """As in PyTorch's first tutorial: one pooling and one ReLU that serve in two places."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5 * 4, 3)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        return self.fc(torch.flatten(self.pool(F.relu(self.conv2(x))), 1))


OTHERS = {
    "tutorial": (Tutorial, (3, 14, 14)),
    "by hand": (lambda: written_by_hand().float(), (3, 9, 8)),
    "volumes": (lambda: volumes().float(), (2, 4, 6, 6)),
    "arguments": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, (3, 1), stride=(1, 2), padding="valid", dilation=2, bias=False, padding_mode="circular"),
            nn.BatchNorm2d(4, eps=0.1, affine=False),
            nn.LeakyReLU(0.3),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False, divisor_override=2),
            nn.Conv2d(4, 5, 3, padding="same"),
            nn.BatchNorm2d(5, track_running_stats=False),
            nn.GELU("tanh"),
            nn.MaxPool2d(2, 1, dilation=2),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Dropout2d(0.1),
            nn.ELU(0.7),
            nn.Flatten(),
            nn.Linear(10, 2, bias=False),
        ),
        (3, 14, 14),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_come_back(name, tmp_path):
    model, images = OTHERS[name][0]().eval(), torch.randn(2, *OTHERS[name][1])
    small = remove(model, {next(iter(Chain(model).layers)): [0]})
    again = models.load(models.save(small, tmp_path / "a.safetensors"))
    assert torch.equal(again(images), small(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_half_and_loaded_in_single_precision(dtype, tmp_path):
    model = small_vgg(batch_norm=True).float()
    path = models.save(model, tmp_path / "a.safetensors", dtype=dtype)
    again = models.load(path).state_dict()
    for name, value in model.state_dict().items():
        expected = value.to(dtype).float() if value.is_floating_point() else value
        assert torch.equal(again[name], expected) and again[name].dtype == expected.dtype
    assert path.stat().st_size < 0.8 * models.save(model, tmp_path / "b.safetensors").stat().st_size
    assert next(model.parameters()).dtype == torch.float32


def test_doubles_are_loaded_in_single_precision(tmp_path):
    again = models.load(models.save(small_vgg(), tmp_path / "a.safetensors"))
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_weights_too_large_for_half_precision_are_not_stored_as_infinity(tmp_path):
    model = small_vgg().float()
    model[3].bias.data[1] = 1e5
    with pytest.raises(ValueError, match=r"'3.bias' holds numbers too large for torch.float16"):
        models.save(model, tmp_path / "a.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_notes_are_kept(file):
    assert models.notes(file) == {"accuracy": 0.5}


def test_the_same_network_makes_the_same_file(tmp_path):
    files = [models.save(tiny(), tmp_path / f"{i}.safetensors", notes={"b": 1, "a": 2}) for i in range(6)]
    assert len({path.read_bytes() for path in files}) == 1
    with safetensors.safe_open(files[0], "pt") as opened:  # and other programs read it
        assert opened.get_tensor("features.0.weight").shape == (1, 3, 3, 3)


def test_channels_last_weights_and_networks_in_training_mode(tmp_path):
    model = tiny().to(memory_format=torch.channels_last).train()
    again = models.load(models.save(model, tmp_path / "a.safetensors"))
    assert same_state(again, model) and model.training


def test_loading_does_not_need_the_pruning_code(file):
    code = (
        "import sys; from course_lib import models; model = models.load(sys.argv[1]); import torch;"
        "print(tuple(model(torch.zeros(1, 3, 32, 32)).shape), *(m for m in sys.modules if m.startswith('course_lib')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(1, 3) ")
    loaded = set(done.stdout.split("course_lib.")[1:])
    assert not {name.strip() for name in loaded} & {"surgery", "pruning", "ranking", "criteria", "oracle", "training"}


def test_what_is_no_chain_is_not_saved(tmp_path):
    with pytest.raises(UnsupportedModel, match="notebook 12"):
        models.save(torchvision.models.squeezenet1_0(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------------- damage


def test_damage_anywhere_is_noticed(file):
    whole, expected = file.read_bytes(), models.load(file)
    steps = [*range(0, 1500, 7), *range(1500, len(whole), max(1, len(whole) // 150)), len(whole) - 1]
    for at in steps:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="network.safetensors"):
            models.load(file)
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="network.safetensors is not a whole safetensors file"):
            models.load(file)
    file.write_bytes(whole)
    assert same_state(models.load(file), expected)


class Hostile:
    """Unpickling this would make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(FileNotFoundError, match="There is no file .*other.safetensors"):
        models.load(path)
    path.write_bytes(b"\x89PNG\r\n" * 50)
    with pytest.raises(ValueError, match="other.safetensors is not a whole safetensors file"):
        models.load(path)
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "made")))
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        models.load(path)
    assert not (tmp_path / "made").exists()
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="was not written by this course"):
        models.load(path)


def test_what_holds_no_network_is_refused(tmp_path):
    path = models.write_safetensors(tmp_path / "step_0001.safetensors", {"a": torch.ones(2)}, {"origin": 1, "step": {}})
    with pytest.raises(ValueError, match="step_0001.safetensors holds no network, but origin and step.*pruning.prune"):
        models.load(path)


def test_a_write_that_fails_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def full(self, content):
        with open(self, "wb") as opened:
            opened.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        models.save(small_vgg(), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_unknown_layer_types_in_a_file_are_refused():
    with pytest.raises(ValueError, match="no layer type 'Conv2D'. Did you mean 'Conv2d'"):
        models.build([{"name": "a", "type": "Conv2D"}])


# --------------------------------------------------------------------------------------------------------------- trunk


@pytest.fixture
def trunk(tmp_path):
    torch.manual_seed(1)
    state = models.vgg16(9, width=1 / 32).state_dict()  # with the weights of a classifier, as torchvision's files have
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "trunk.pth")
    return tmp_path / "trunk.pth"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_trunk_loads_into_the_features_only(trunk, ending, tmp_path):
    state = torch.load(trunk, weights_only=True)
    safetensors.torch.save_file(state, tmp_path / "trunk.safetensors")
    torch.manual_seed(2)
    before = models.vgg16(4, width=1 / 32, compact=True).state_dict()
    torch.manual_seed(2)
    model = models.vgg16(4, width=1 / 32, compact=True, trunk=trunk.with_suffix(f".{ending}"))
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key].float() if key.startswith("features.") else before[key])


def test_a_trunk_that_does_not_fit_is_refused(trunk):
    with pytest.raises(ValueError, match=r"another size: 'features.0.weight' is \(2, 3, 3, 3\) there, \(4, 3, 3, 3\)"):
        models.vgg16(4, width=1 / 16, trunk=trunk)
    with pytest.raises(ValueError, match=r"lacks \d+ of the network's weights, the first is 'features.1.weight'"):
        models.vgg16(4, width=1 / 32, batch_norm=True, trunk=trunk)
    with pytest.raises(FileNotFoundError, match="There is no trunk"):
        models.vgg16(4, width=1 / 32, trunk=trunk.with_name("other.pth"))


def test_a_damaged_or_hostile_trunk_is_refused(trunk, tmp_path):
    whole = trunk.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"<html>not found</html>"):
        for path in (trunk, trunk.with_suffix(".safetensors")):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=f"{path.name} is not a whole file of weights"):
                models.vgg16(9, width=1 / 32, trunk=path)
    torch.save({"features.0.weight": Hostile(tmp_path / "made")}, trunk)
    with pytest.raises(ValueError, match="is not a whole file of weights"):
        models.vgg16(9, width=1 / 32, trunk=trunk)
    assert not (tmp_path / "made").exists()


def test_the_real_trunk(real_data):
    path = real_data / "weights" / "vgg16_imagenet_features_fp16.pth"
    if not path.exists():
        pytest.skip(f"no trunk at {path}")
    model = models.vgg16(5, compact=True, trunk=path).eval()
    state = torch.load(path, weights_only=True)
    assert all(torch.equal(model.state_dict()[key], value.float()) for key, value in state.items())
    with torch.inference_mode():
        maps = model.features(torch.randn(1, 3, 64, 64))
    assert maps.shape == (1, 512, 2, 2) and bool(maps.isfinite().all()) and bool((maps > 0).any())


# ------------------------------------------------------------------------------------------------------------- trained


def test_names():
    assert models.names()[-3:] == ["vgg16-imagenet", "vgg16_bn-imagenet", "alexnet-imagenet"]
    assert "vgg16-petals" in models.names()
    with pytest.raises(KeyError, match="no trained network 'vgg16-petal'. Did you mean 'vgg16-petals'"):
        models.trained("vgg16-petal")


def test_an_embedded_network_that_does_not_match_its_checksum(file, monkeypatch):
    folder = file.parent / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(paths, "data_dir", lambda: file.parent)
    (folder / "network.safetensors").write_bytes(file.read_bytes())
    (folder / "SHA256SUMS").write_text(f"{models.sha256(file)}  network.safetensors\n")
    assert same_state(models.trained("network"), tiny())
    with open(folder / "network.safetensors", "ab") as opened:
        opened.write(b"\0")
    with pytest.raises(ValueError, match="does not match its sha256.*git checkout.*make checkpoints"):
        models.trained("network")
    (folder / "network.safetensors").unlink()
    with pytest.raises(ValueError, match="missing.*git checkout"):
        models.trained("network")


@pytest.fixture
def hub(monkeypatch):
    """What torchvision's download does, as a function (url, **options) that a test puts in its place."""

    def replace(by):
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", by)

    return replace


def failing(error):
    def download(*args, **kwargs):
        raise error

    return download


@pytest.mark.parametrize(
    "error", [URLError("no route"), HTTPError("https://x", 503, "busy", {}, None), TimeoutError("timed out")]
)
def test_without_a_network_it_says_what_to_do(hub, error):
    hub(failing(error))
    with pytest.raises(ConnectionError, match=r"vgg16-imagenet could not.*vgg16-397923af.pth into .*vgg16-petals"):
        models.trained("vgg16-imagenet")


def test_where_weights_cannot_be_kept_it_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(ConnectionError, match=r"Not a directory.*set the environment variable TORCH_HOME"):
        models.trained("vgg16-imagenet")


def test_a_download_that_is_damaged_is_refused(hub):
    hub(failing(RuntimeError('invalid hash value (expected "39", got "40")')))
    with pytest.raises(ValueError, match="vgg16-imagenet is damaged.*invalid hash value.*Remove vgg16-397923af.pth"):
        models.trained("vgg16-imagenet")


def test_torchvisions_weights_are_checked_and_loaded_safely(hub):
    asked, state = {}, torchvision_network("alexnet").state_dict()
    hub(lambda url, *args, **options: asked.update(options, url=url) or state)
    model = models.trained("alexnet-imagenet")
    assert asked["check_hash"] is True and asked["weights_only"] is True and asked["url"].startswith("https://")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not model.training and len(Chain(model).layers) == 5
