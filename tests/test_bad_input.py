"""Files and tensors that are damaged, hostile or simply wrong: a sentence, nothing executed, nothing lost.

What belongs to one reader is tested beside it (test_datasets.py, test_models.py, test_pruning.py).
"""

import gzip
import hashlib
import io
import pickle
import tarfile

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from networks import batches, small_vgg
from PIL import Image
from test_models import Hostile

from course_lib import criteria, data_files, datasets, feature_maps, models, oracle, paths, surgery, training
from course_lib.data_files import DataError, Example
from course_lib.feature_maps import Chain, UnsupportedModel

FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# ------------------------------------------------------------------------------------------------------------ archives


def member(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


EVIL = {
    "a path upwards": [member("birds/../../evil", size=4)],
    "a symbolic link out": [member("birds/out", type=tarfile.SYMTYPE, linkname="../../..")],
    "an absolute symbolic link": [member("birds/out", type=tarfile.SYMTYPE, linkname="/etc")],
    "a hard link out": [member("birds/out", type=tarfile.LNKTYPE, linkname="../../secret")],
    "a file through a link": [
        member("birds/out", type=tarfile.SYMTYPE, linkname="../.."),
        member("birds/out/evil", size=4),
    ],
    "a device": [member("birds/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a pipe": [member("birds/pipe", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("what", EVIL)
def test_a_hostile_archive_is_refused_and_leaves_nothing(what, tmp_path):
    (tmp_path / "secret").write_text("keep out")
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(cache / "birds.tgz", "w:gz") as tar:
        tar.addfile(member("birds/good.txt", size=4), io.BytesIO(b"good"))
        for info in EVIL[what]:
            tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match=r"birds.tgz was not unpacked, it is not to be trusted: .*Delete it"):
        data_files.unpack(cache / "birds.tgz", cache / "birds")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["birds.tgz", "cache", "secret"]
    assert (tmp_path / "secret").read_text() == "keep out"


def test_an_absolute_path_lands_inside(tmp_path):
    with tarfile.open(tmp_path / "birds.tgz", "w:gz") as tar:
        tar.addfile(member("birds/good.txt", size=4), io.BytesIO(b"good"))
        tar.addfile(member(f"{tmp_path}/evil", size=4), io.BytesIO(b"evil"))
    data_files.unpack(tmp_path / "birds.tgz", tmp_path / "birds")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["birds", "birds.tgz", "good.txt"]


def packed(contents: bytes = b"x" * 2000) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for number in range(3):
            tar.addfile(member(f"birds/{number}.txt", size=len(contents)), io.BytesIO(contents))
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------- fuzzing


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A file cut short, with some bytes changed, or something else altogether."""
    kind = draw(st.sampled_from(["cut", "changed", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=300))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole) - 1))]
    found = bytearray(whole)
    for at in draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4, unique=True)):
        found[at] ^= draw(st.integers(1, 255))
    return bytes(found)


def photograph(form: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 18), 60).convert("RGB").save(file, form)
    return file.getvalue()


PICTURES = {form: photograph(form) for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")}


@given(st.data())
@FUZZ
def test_any_image_file_is_read_or_refused_by_name(tmp_path, data):
    form = data.draw(st.sampled_from(list(PICTURES)))
    path = tmp_path / "image.jpg"
    path.write_bytes(data.draw(damaged(PICTURES[form])))
    try:
        image = data_files.read(Example(str(path), 0), 16)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert image.shape == (3, 16, 16) and image.dtype == torch.uint8


@given(st.data())
@FUZZ
def test_any_archive_is_unpacked_or_refused_and_nothing_partial_stays(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("archive")
    (folder / "birds.tgz").write_bytes(data.draw(damaged(packed())))
    try:
        data_files.unpack(folder / "birds.tgz", folder / "birds")
    except DataError as error:
        assert "birds.tgz" in str(error)
        assert [path.name for path in folder.iterdir()] == ["birds.tgz"]
    else:
        assert (folder / "birds").is_dir()


@given(st.data())
@FUZZ
def test_any_packed_numbers_have_their_checksum_or_are_refused(tmp_path, data):
    content = bytes(range(200))
    (tmp_path / "numbers.gz").write_bytes(data.draw(damaged(gzip.compress(content, mtime=0))))
    try:
        found = data_files.checked_bytes(tmp_path / "numbers", hashlib.md5(content).hexdigest(), "somewhere")
    except DataError as error:
        assert "numbers.gz is damaged" in str(error) and "fetch it again from somewhere" in str(error)
    else:
        assert found == content  # what was changed is the time in gzip's header


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return models.save(small_vgg().float(), tmp_path_factory.mktemp("saved") / "network.safetensors").read_bytes()


@given(st.data())
@FUZZ
def test_any_checkpoint_is_whole_or_refused(saved, tmp_path, data):
    path = tmp_path / "network.safetensors"
    path.write_bytes(data.draw(damaged(saved)))
    try:
        found = models.load(path)
    except ValueError as error:
        assert "network.safetensors" in str(error)
    else:  # what was changed is a blank in the header
        right = small_vgg().float().state_dict()
        assert all(torch.equal(value, right[name]) for name, value in found.state_dict().items())


@pytest.fixture(scope="module")
def trunks():
    """The weights of a network in both formats of a trunk."""
    state, file = {"features.0.weight": torch.ones(4, 3, 3, 3)}, io.BytesIO()
    torch.save(state, file)
    return {"pth": file.getvalue()}


@given(st.data())
@FUZZ
@example(data=None)
def test_any_file_of_weights_is_read_or_refused_and_nothing_in_it_is_executed(trunks, tmp_path, data):
    path, made = tmp_path / "trunk.pth", tmp_path / "made"
    path.write_bytes(pickle.dumps(Hostile(made)) if data is None else data.draw(damaged(trunks["pth"])))
    try:
        state = models._read_state(path)
    except ValueError as error:
        assert "trunk.pth" in str(error)
    else:
        assert data is not None and isinstance(state, dict)
    assert not made.exists()


# ------------------------------------------------------------------------------------------------------------- tensors


def close(one, other):
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name].double(), other[name].double(), atol=1e-6) for name in one)


def test_images_and_weights_need_not_be_contiguous(tmp_path):
    model, (images, labels) = small_vgg(), batches(3, 8, 8, n=1)[0]
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)[:, :, :, ::1].flip(3).flip(3)
    strided = torch.stack([images, images], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    loose = small_vgg()
    with torch.no_grad():
        for parameter in loose.parameters():
            parameter.data = torch.stack([parameter.data] * 2, dim=-1)[..., 0]
    assert not loose[0].weight.is_contiguous()
    right = oracle.ablate(model, [(images, labels)], progress=False)
    for network, given_images in ((model, turned), (model, strided), (loose, images)):
        close(oracle.ablate(network, [(given_images, labels)], progress=False), right)
        close(
            criteria.score(network, [(given_images, labels)], "taylor", progress=False)["taylor"],
            criteria.score(model, [(images, labels)], "taylor", progress=False)["taylor"],
        )
    plan = {name: torch.tensor([0]) for name in Chain(model).layers}
    small = surgery.remove(loose, plan)
    assert torch.allclose(small(images), surgery.remove(model, plan)(images))
    assert torch.allclose(
        models.load(models.save(loose, tmp_path / "n.safetensors")).double()(images), model(images), atol=1e-5
    )


def test_weights_that_are_no_numbers_are_named_by_every_measurement():
    model, data = small_vgg(), batches(3, 8, 8, n=1)
    model[0].weight.data[0] = torch.nan
    for measure in (
        lambda: oracle.ablate(model, data, progress=False),
        lambda: oracle.ablate(model, data, method="naive", progress=False),
        lambda: criteria.score(model, data, "taylor", progress=False),
    ):
        with pytest.raises(FloatingPointError, match="NaN.*reload the network"):
            measure()
    assert not model.training


def test_one_class_is_no_data_set(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cats").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "cats" / "1.png")
    with pytest.raises(DataError, match="at least two; found 1"):
        datasets.load("folder", root=tmp_path)


def test_images_in_half_precision_are_refused_in_words():
    images, labels = batches(3, 8, 8, n=1)[0]
    for measure in (
        lambda data: oracle.ablate(small_vgg().float(), data, progress=False),
        lambda data: criteria.score(small_vgg().float(), data, "taylor", progress=False),
    ):
        with pytest.raises(TypeError, match=r"images are torch.float16.*network torch.float32.*\.to\("):
            measure([(images.half(), labels)])


# ------------------------------------------------------------------------------------------------- clumsy, not hostile


def measurements(data):
    """What measures a network on batches, by name."""
    return {
        "scores": lambda model: criteria.score(model, data, "taylor", progress=False),
        "oracle": lambda model: oracle.ablate(model, data, progress=False),
        "naive oracle": lambda model: oracle.ablate(model, data, method="naive", progress=False),
        "estimate": lambda model: oracle.estimate(model, data, 0.9, progress=False),
    }


@pytest.mark.parametrize("name", measurements([]))
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda labels: labels.int(), r"torch.int32: .*labels\.long\(\)"),
        (lambda labels: labels[:, None], r"labels of shape \(5, 1\)"),
        (lambda labels: labels[:-1], r"labels of shape \(4,\)"),
        (lambda labels: torch.nn.functional.one_hot(labels, 4).double(), r"labels of shape \(5, 4\)"),
    ],
)
def test_labels_of_another_type_or_shape_are_refused_in_words(name, spoil, message):
    images, labels = batches(3, 8, 8, n=1)[0]
    with pytest.raises(ValueError, match=message):
        measurements([(images, spoil(labels))])[name](small_vgg())


@pytest.mark.parametrize("name", measurements([]))
def test_a_batch_by_itself_is_no_list_of_batches(name):
    with pytest.raises(TypeError, match=r"make a list, \[\(images, labels\)\]"):
        measurements(batches(3, 8, 8, n=1)[0])[name](small_vgg())


@pytest.mark.parametrize("at", [0, 1])
def test_a_batch_without_an_example_changes_nothing(at):
    data, model = batches(3, 8, 8, n=1), small_vgg()
    more = list(data)
    more.insert(at, (data[0][0][:0], data[0][1][:0]))
    close(oracle.ablate(model, more, progress=False), oracle.ablate(model, data, progress=False))
    names = ["taylor", "mutual_information"]
    found, right = (criteria.score(model, each, names, progress=False) for each in (more, data))
    for name in names:
        close(found[name], right[name])
    with pytest.raises(ValueError, match="no examples"):
        oracle.ablate(model, [(data[0][0][:0], data[0][1][:0])], method="naive", progress=False)


@pytest.mark.parametrize("name", ["scores", "oracle", "estimate"])
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_switched_off_the_numbers_are_the_same(name, off):
    model, measure = small_vgg(), measurements(batches(3, 8, 8, n=1))[name]

    def scores():
        found = measure(model)
        return found["taylor"] if name == "scores" else getattr(found, "scores", found)

    right = scores()
    with off():
        close(scores(), right)


def test_what_is_made_where_gradients_are_switched_off_can_be_trained():
    images, labels = batches(3, 8, 8, n=1)[0]
    data = torch.utils.data.TensorDataset(images, labels)
    with torch.inference_mode():
        small = surgery.remove(small_vgg(), {"0": [1]})
        before = small[0].weight.detach().clone()
        training.fit(small, data, updates=1, progress=False)
    assert not torch.equal(small[0].weight, before)


@pytest.mark.parametrize(
    "maps, error, message",
    [
        (torch.tensor([True, False, True, False, False]), TypeError, r"'0' are given as torch.bool.*nonzero\(\)"),
        ([1.7], TypeError, "'0' are given as torch.float32.*whole ones"),
        ([-1], IndexError, "'0' has feature maps 0 to 4"),
        ([5], IndexError, "'0' has feature maps 0 to 4"),
    ],
)
def test_maps_are_named_by_their_numbers_everywhere(maps, error, message):
    model, data = small_vgg(), batches(3, 8, 8, n=1)
    for use in (
        lambda: surgery.remove(model, {"0": maps}),
        lambda: feature_maps.mask({"0": maps}, model),
        lambda: oracle.ablate(model, data, {"0": maps}, progress=False),
    ):
        with pytest.raises(error, match=message):
            use()


@pytest.mark.parametrize("wrap, inside", [(torch.nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_a_wrapper_is_told_from_the_network(wrap, inside):
    wrapped = wrap(small_vgg())
    with pytest.raises(UnsupportedModel, match=rf"give model\.{inside} instead"):
        Chain(wrapped)
    assert Chain(getattr(wrapped, inside)).layers


def test_a_file_in_the_place_of_a_folder_is_said_in_words(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for use in (paths.writable, lambda folder: paths.alone(folder).__enter__()):
        with pytest.raises(OSError, match="taken could not be written.*give a folder that you can write to"):
            use(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
