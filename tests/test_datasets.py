"""Data sets: the same Splits whatever the source, and a sentence for everything that can be wrong with files."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import transforms

from course_lib import data_files, datasets
from course_lib.datasets import DataError

RNG = np.random.default_rng(0)


def photograph(path, width=40, height=30, mode="RGB"):
    """A smooth random image in a file of the given mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(path)
    return path


def class_tree(root, classes=("cats", "dogs"), splits=("train",), count=10):
    for split in splits:
        for name in classes:
            for i in range(count):
                photograph(root / split / name / f"{i}.jpg")
    return root


def md5(content):
    return hashlib.md5(content).hexdigest()


# ------------------------------------------------------------------------------------------------------ what all share


def test_unknown_names_and_options_list_the_nearest():
    with pytest.raises(DataError, match="'petal'.*Did you mean 'petals'"):
        datasets.load("petal")
    with pytest.raises(DataError, match="no option 'specis'.*Did you mean 'species'"):
        datasets.load("petals", specis=3)
    with pytest.raises(DataError, match="no option 'root'"):
        datasets.load("petals", root="somewhere")


@pytest.mark.parametrize(
    "option",
    [
        {"image_size": 0},
        {"train": -1},
        {"train": 2.5},
        {"seed": -1},
        {"seed": 2**64},
        {"species": 1},
        {"world": 0},
        {"species": 99},
    ],
)
def test_sizes_that_make_no_sense_are_refused(option):
    with pytest.raises(DataError, match=next(iter(option))):
        datasets.load("petals", **option)


def test_petals_are_split_balanced_and_normalised():
    splits = datasets.load("petals", train=40, val=20, test=30)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [40, 20, 30]
    assert len(splits.classes) == 10
    image, label = splits.train[13]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32 and label == 3 and type(label) is int
    again = datasets.load("petals", train=20, val=20, test=30)
    assert torch.equal(again.train[13][0], image)
    assert not torch.equal(splits.test[13][0], image)
    world = datasets.load("petals", world=24, train=30, val=5, test=5)
    assert len(world.classes) == 24 and world.train[25][1] == 1


def test_pictures_undo_the_normalisation():
    splits = datasets.load("petals", train=5, val=1, test=1)
    shown = datasets.picture(splits.train[2][0], splits)
    assert shown.shape == (32, 32, 3)
    np.testing.assert_allclose(shown, splits.train.images[2].permute(1, 2, 0) / 255, atol=1e-6)
    digits = datasets.load("digits")
    assert datasets.picture(digits.train[0][0], digits).shape == (8, 8, 3)


def test_batches_repeat_and_a_subset_depends_on_its_seed_only():
    train = datasets.load("petals", train=50, val=1, test=1).train

    def labels(**options):
        return torch.cat([labels for _, labels in datasets.batches(train, batch_size=8, **options)]).tolist()

    assert labels() == [i % 10 for i in range(50)]
    some = datasets.batches(train, 20, seed=1)
    first, second = (torch.cat([images for images, _ in some]) for _ in range(2))
    assert first.shape == (20, 3, 32, 32) and torch.equal(first, second)
    assert labels(n=20, seed=1) == labels(n=20, seed=1) != labels(n=20, seed=2)
    with pytest.raises(DataError, match="51 examples were asked for; this data set has 50"):
        datasets.batches(train, 51)


def test_digits_hold_out_the_same_test_set_for_every_seed():
    a, b = datasets.load("digits"), datasets.load("digits", seed=5, train=100)
    assert [len(part) for part in (a.train, a.val, a.test)] == [1197, 100, 500]
    assert torch.equal(a.test.images, b.test.images) and len(b.train) == 100
    pictures = {part: {bytes(image.numpy()) for image in getattr(a, part).images} for part in ("train", "val", "test")}
    assert not pictures["train"] & pictures["test"] and not pictures["val"] & pictures["test"]
    stacked = torch.stack([image for image, _ in a.train])
    assert abs(stacked.mean()) < 0.02 and abs(stacked.std() - 1) < 0.02
    assert datasets.load("digits", image_size=32).train[0][0].shape == (1, 32, 32)


# -------------------------------------------------------------------------------------------------------------- MNIST


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A tiny MNIST in the real format: 24 images to train, 6 for test."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    sums = {}
    for part, count in (("train", 24), ("t10k", 6)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(count)  # so that each can be told from the others
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            sums[name] = ("", md5(content))
    monkeypatch.setattr(datasets, "MNIST_MD5", sums)
    return tmp_path


def test_mnist_is_read_packed_or_unpacked_and_val_is_held_out(mnist):
    splits = datasets.load("mnist", root=mnist)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [22, 2, 6]
    kept = {int(image[0, 0, 0]) for part in (splits.train, splits.val) for image in part.images}
    assert kept == set(range(24))
    for image, label in zip(splits.train.images, splits.train.labels, strict=True):
        assert int(image[0, 0, 0]) % 10 == label
    packed = next((mnist / "MNIST" / "raw").glob("train-images*"))
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    again = datasets.load("mnist", root=mnist / "MNIST" / "raw", seed=3)
    assert torch.equal(again.val.images, splits.val.images)
    assert datasets.load("mnist", root=mnist, image_size=32, train=5).train[0][0].shape == (1, 32, 32)


def test_damaged_mnist_files_are_named(mnist):
    file = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"t10k-images.*only partly downloaded.*cannot be unpacked"):
        datasets.load("mnist", root=mnist)
    file.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=rf"t10k-images.*its md5 is {md5(b'something else')}"):
        datasets.load("mnist", root=mnist)
    file.unlink()
    with pytest.raises(DataError, match=r"t10k-images\S* is missing.*Fetch it from"):
        datasets.load("mnist", root=mnist)
    with pytest.raises(DataError, match=r"No MNIST at \S*nowhere: expected .*There is no folder"):
        datasets.load("mnist", root=mnist / "nowhere")


def test_the_real_mnist(real_data):
    splits = datasets.load("mnist", root=real_data)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [55_000, 5_000, 10_000]
    images = splits.train.images.double() / 255
    assert abs(images.mean() - splits.mean[0]) < 1e-3 and abs(images.std() - splits.std[0]) < 1e-3


# ------------------------------------------------------------------------------------------------------------ flowers


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Twelve flowers of three classes in the official layout: 2 train, 2 val, 8 test."""
    folder = tmp_path / "flowers-102"
    for i in range(1, 13):
        photograph(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1 + i % 3 for i in range(12)]], np.uint8)})
    savemat(folder / "setid.mat", {"trnid": [[11, 2]], "valid": [[3, 5]], "tstid": [[1, 4, 6, 7, 8, 9, 10, 12]]})
    sums = {name: md5((folder / name).read_bytes()) for name in ("imagelabels.mat", "setid.mat")}
    monkeypatch.setattr(datasets, "FLOWERS_MD5", {**datasets.FLOWERS_MD5, **sums})
    return tmp_path


def numbers(part):
    return [int(example.path[-9:-4]) for example in part.examples]


def test_the_papers_split_trains_on_train_and_val_and_never_on_test(flowers):
    splits = datasets.load("flowers102", root=flowers, image_size=16)
    assert numbers(splits.train) == [2, 3, 5, 11] and numbers(splits.test) == [1, 4, 6, 7, 8, 9, 10, 12]
    assert splits.train.labels.tolist() == [1, 2, 1, 1]  # image 2 is of class 2 of 1 ... 102
    assert len(splits.classes) == 102
    assert splits.val.dataset is splits.train and splits.val.indices == [0]
    image, label = splits.train[0]
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32 and label == 1


def test_torchvisions_split_is_the_official_one(flowers):
    splits = datasets.load("flowers102", root=flowers / "flowers-102", split="torchvision", image_size=16)
    assert [numbers(part) for part in (splits.train, splits.val)] == [[2, 11], [3, 5]]
    with pytest.raises(DataError, match="split is 'paper' or 'torchvision', not 'official'"):
        datasets.load("flowers102", root=flowers, split="official")


def test_missing_and_damaged_flowers_are_counted_and_named_or_skipped(flowers):
    jpg = flowers / "flowers-102" / "jpg"
    for number in (1, 2):
        (jpg / f"image_{number:05d}.jpg").unlink()
    with pytest.raises(
        DataError, match=r"2 of 12 images are missing: \S*image_00001.jpg, \S*image_00002.jpg.*on_bad='skip'"
    ):
        datasets.load("flowers102", root=flowers)
    (jpg / "image_00004.jpg").write_bytes((jpg / "image_00004.jpg").read_bytes()[:300])
    with pytest.warns(UserWarning) as caught:
        splits = datasets.load("flowers102", root=flowers, on_bad="skip", image_size=16)
    said = " ".join(str(warning.message) for warning in caught)
    assert "2 of 12 images are missing" in said and "1 of 7 images cannot be read" in said and "image_00004.jpg" in said
    assert numbers(splits.train) == [3, 5, 11] and numbers(splits.test) == [6, 7, 8, 9, 10, 12]
    with pytest.raises(DataError, match="on_bad is 'refuse' or 'skip', not 'ignore'"):
        datasets.load("flowers102", root=flowers, on_bad="ignore")


def test_a_damaged_list_of_flowers_is_refused(flowers):
    file = flowers / "flowers-102" / "setid.mat"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"setid.mat is damaged or only partly downloaded.*robots.ox.ac.uk"):
        datasets.load("flowers102", root=flowers)


def test_the_real_flowers_of_which_a_third_is_missing(real_data):
    with pytest.raises(DataError, match=r"2645 of 8189 images are missing: \S*image_00005.jpg"):
        datasets.load("flowers102", root=real_data)
    with pytest.warns(UserWarning, match="2645 of 8189 images are missing"):
        splits = datasets.load(
            "flowers102", root=real_data, on_bad="skip", split="torchvision", in_memory=True, image_size=32
        )
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [728, 706, 4110]
    assert len(set(splits.train.labels.tolist())) == 89
    with pytest.warns(UserWarning):
        paper = datasets.load("flowers102", root=real_data, on_bad="skip", image_size=112, train=50, test=20)
    assert len(paper.train) == 50 and len(paper.test) == 20 and paper.train[0][0].shape == (3, 112, 112)


# -------------------------------------------------------------------------------------------------------------- birds


@pytest.fixture
def birds(tmp_path):
    """Six birds of three classes in the format of CUB-200-2011."""
    folder = tmp_path / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    rows = [(i + 1, f"{names[i // 2]}/bird_{i}.jpg", i // 2 + 1, 1 - i % 2) for i in range(6)]
    for _, path, _, _ in rows:
        photograph(folder / "images" / path, 60, 40)
    lists = {
        "images.txt": [f"{n} {path}" for n, path, _, _ in rows],
        "image_class_labels.txt": [f"{n} {label}" for n, _, label, _ in rows],
        "train_test_split.txt": [f"{n} {flag}" for n, _, _, flag in rows],
        "bounding_boxes.txt": [f"{n} 5.0 6.0 20.0 10.0" for n, *_ in rows],
        "classes.txt": [f"{i + 1} {name}" for i, name in enumerate(names)],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_birds_in_their_official_split(birds):
    for root in (birds, birds / "CUB_200_2011"):
        splits = datasets.load("birds200", root=root, image_size=16)
        assert splits.classes == ["Black footed Albatross", "Laysan Albatross", "Sooty Albatross"]
        assert [os.path.basename(example.path) for example in splits.train.examples] == [
            f"bird_{i}.jpg" for i in (0, 2, 4)
        ]
        assert splits.test.labels.tolist() == [0, 1, 2]
    assert splits.train[2][0].shape == (3, 16, 16)


def test_the_bounding_box_of_a_bird_is_all_that_is_shown(birds):
    folder = birds / "CUB_200_2011"
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[1:21, 5:25] = 255  # the box 5 6 20 10, widened to a square
    Image.fromarray(pixels).save(folder / "images" / "001.Black_footed_Albatross" / "bird_0.png")
    lists = folder / "images.txt"
    lists.write_text(lists.read_text().replace("bird_0.jpg", "bird_0.png"))
    boxed = datasets.load("birds200", root=birds, bounding_box=True, image_size=20).train.bytes(0)
    assert boxed.min() == 255
    assert datasets.load("birds200", root=birds, image_size=20).train.bytes(0).min() == 0


def test_incomplete_birds_are_refused(birds):
    folder = birds / "CUB_200_2011"
    (folder / "images" / "003.Sooty_Albatross" / "bird_5.jpg").unlink()
    with pytest.raises(DataError, match=r"birds200: 1 of 6 images are missing: \S*bird_5.jpg"):
        datasets.load("birds200", root=birds)
    lists = folder / "image_class_labels.txt"
    lists.write_text("".join(lists.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(DataError, match=r"lists of images in \S* do not agree.*CUB_200_2011.tgz"):
        datasets.load("birds200", root=birds)
    lists.write_bytes(lists.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"image_class_labels.txt is damaged: '4' has no value"):
        datasets.load("birds200", root=birds)
    lists.unlink()
    with pytest.raises(DataError, match=r"image_class_labels.txt is missing"):
        datasets.load("birds200", root=birds)


# ------------------------------------------------------------------------------------------------------ class folders


def test_a_folder_with_train_and_test_holds_out_val_class_by_class(tmp_path):
    class_tree(tmp_path, splits=("train", "test"))
    splits = datasets.load("folder", root=tmp_path, image_size=16)
    assert splits.classes == ["cats", "dogs"]
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [18, 2, 20]
    assert splits.val.labels.tolist() == [0, 1]
    other = datasets.load("folder", root=tmp_path, image_size=16, seed=7)
    assert other.val.examples == splits.val.examples
    assert not set(splits.train.examples) & set(splits.val.examples)


def test_a_folder_with_train_only_holds_out_test_too(tmp_path):
    splits = datasets.load("folder", root=class_tree(tmp_path), image_size=16)
    parts = [set(part.examples) for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in parts] == [14, 2, 4] and len(set.union(*parts)) == 20


def test_imagenet_tests_on_its_val_folder(tmp_path):
    class_tree(tmp_path, ("n01440764", "n01443537"), ("train", "val"))
    splits = datasets.load("imagenet", root=tmp_path, image_size=16)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [18, 2, 20]
    assert all(os.path.join(tmp_path, "val") in example.path for example in splits.test.examples)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(DataError, match=r"imagenet: expected a folder \S*val with one folder a class.*holds train"):
        datasets.load("imagenet", root=tmp_path)


def test_subsets_depend_on_the_seed_and_memory_changes_nothing(tmp_path):
    class_tree(tmp_path, splits=("train", "test"))
    small = datasets.load("folder", root=tmp_path, image_size=16, train=6, test=4, seed=1)
    assert len(small.train) == 6 and len(small.test) == 4
    assert small.train.examples == datasets.load("folder", root=tmp_path, train=6, seed=1).train.examples
    assert small.train.examples != datasets.load("folder", root=tmp_path, train=6, seed=2).train.examples
    kept = datasets.load("folder", root=tmp_path, image_size=16, train=6, test=4, seed=1, in_memory=True)
    assert kept.train.images.dtype == torch.uint8
    for (a, i), (b, j) in zip(small.train, kept.train, strict=True):
        assert torch.equal(a, b) and i == j


def test_folders_that_are_not_there_or_not_as_expected(tmp_path):
    with pytest.raises(DataError, match="needs root=..."):
        datasets.load("folder")
    with pytest.raises(DataError, match=r"There is no folder \S*nowhere"):
        datasets.load("folder", root=tmp_path / "nowhere")
    photograph(tmp_path / "cats" / "0.jpg")
    with pytest.raises(DataError, match=r"expected a folder \S*train with one folder a class\. \S+ holds cats"):
        datasets.load("folder", root=tmp_path)
    class_tree(tmp_path, classes=("cats",))
    with pytest.raises(DataError, match=r"at least two; found 1.*holds cats"):
        datasets.load("folder", root=tmp_path)
    (tmp_path / "train" / "dogs").mkdir()
    with pytest.raises(DataError, match=r"1 of 2 classes in \S*train have no readable image: dogs"):
        datasets.load("folder", root=tmp_path)


def test_train_and_test_must_hold_the_same_classes(tmp_path):
    class_tree(tmp_path)
    class_tree(tmp_path, ("cats", "wolves"), ("test",))
    with pytest.raises(DataError, match="must hold the same classes; only one of them has dogs, wolves"):
        datasets.load("folder", root=tmp_path)


def test_a_class_that_is_another_by_symlink_is_refused(tmp_path):
    class_tree(tmp_path)
    os.symlink(tmp_path / "train" / "dogs", tmp_path / "train" / "wolves")
    with pytest.raises(DataError, match=r"'dogs' and 'wolves' in \S*train are the same folder.*two labels"):
        datasets.load("folder", root=tmp_path)


def test_a_class_folder_may_be_a_symlink_to_another_disk(tmp_path):
    class_tree(tmp_path / "here", ("cats",))
    class_tree(tmp_path / "there", ("dogs",))
    os.symlink(tmp_path / "there" / "train" / "dogs", tmp_path / "here" / "train" / "dogs")
    assert datasets.load("folder", root=tmp_path / "here").classes == ["cats", "dogs"]


# --------------------------------------------------------------------------------------------------------- bad images


def truncated(path):
    path.write_bytes(path.read_bytes()[:400])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is not an image")


@pytest.mark.parametrize("spoil", [truncated, empty, text])
def test_a_damaged_image_is_named_when_it_is_read_and_can_be_skipped(tmp_path, spoil):
    class_tree(tmp_path, splits=("train", "val", "test"))
    spoil(tmp_path / "train" / "cats" / "3.jpg")
    splits = datasets.load("folder", root=tmp_path, image_size=16)
    with pytest.raises(DataError, match=r"cats\S3.jpg cannot be read .*on_bad='skip'"):
        list(splits.train)
    with pytest.raises(DataError, match=r"cats\S3.jpg cannot be read"):  # through a worker process as well
        list(datasets.batches(splits.train, workers=1))
    with pytest.raises(DataError, match=r"folder: 1 of 20 images cannot be read: \S*3.jpg"):
        datasets.load("folder", root=tmp_path, image_size=16, in_memory=True)
    for in_memory in (False, True):
        with pytest.warns(UserWarning, match=r"1 of 20 images cannot be read: \S*3.jpg. They are skipped"):
            splits = datasets.load("folder", root=tmp_path, image_size=16, on_bad="skip", in_memory=in_memory)
        assert len(list(splits.train)) == 19 and splits.train.labels.tolist().count(0) == 9


def test_a_class_with_nothing_but_damaged_images_is_refused(tmp_path):
    class_tree(tmp_path, count=3, splits=("train", "val", "test"))
    for path in (tmp_path / "train" / "dogs").iterdir():
        text(path)
    with pytest.warns(UserWarning), pytest.raises(DataError, match="no readable image: dogs"):
        datasets.load("folder", root=tmp_path, on_bad="skip")


def test_files_that_are_no_images_are_refused_or_skipped_and_litter_is_ignored(tmp_path):
    class_tree(tmp_path)
    (tmp_path / "train" / "cats" / ".DS_Store").write_text("")
    (tmp_path / "train" / "cats" / "Thumbs.db").write_text("")
    assert len(datasets.load("folder", root=tmp_path).train) == 14
    (tmp_path / "train" / "cats" / "9.jpg.part").write_text("half a download")
    with pytest.raises(DataError, match=r"1 of 21 files are not images .*9.jpg.part"):
        datasets.load("folder", root=tmp_path)
    with pytest.warns(UserWarning, match=r"9.jpg.part"):
        assert len(datasets.load("folder", root=tmp_path, on_bad="skip").train) == 14


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("I;16", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png")],
)
def test_images_of_every_mode_become_rgb(tmp_path, mode, suffix):
    path = photograph(tmp_path / f"image.{suffix}", 24, 24, mode)
    image = data_files.read(data_files.Example(str(path), 0), 24)
    assert image.shape == (3, 24, 24) and image.dtype == torch.uint8
    assert image.float().std() > 10  # neither clipped to white nor to black
    if mode in ("L", "I;16"):
        assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
def test_images_of_one_pixel_and_very_long_ones_load(tmp_path, shape):
    path = photograph(tmp_path / "image.png", *shape)
    assert data_files.read(data_files.Example(str(path), 0), 20).shape == (3, 20, 20)


@pytest.mark.parametrize("shape", [(300, 200), (64, 90), (500, 500)])
def test_the_crop_is_that_of_torchvision(tmp_path, shape):
    path = photograph(tmp_path / "image.png", *shape)
    ours = data_files.read(data_files.Example(str(path), 0), 56).float()
    with Image.open(path) as image:
        theirs = transforms.CenterCrop(56)(transforms.Resize(64)(image))
    theirs = transforms.functional.pil_to_tensor(theirs).float()
    assert (ours - theirs).abs().mean() < 1.5  # of 255: cropped and resized at once instead of one after the other


def test_a_small_square_image_is_kept_whole(tmp_path):
    path = photograph(tmp_path / "image.png", 20, 20)
    with Image.open(path) as image:
        whole = transforms.functional.pil_to_tensor(image)
    assert torch.equal(data_files.read(data_files.Example(str(path), 0), 20), whole)


# ---------------------------------------------------------------------------------------------------------- downloads


@pytest.fixture
def server(monkeypatch):
    """Serves `files` {name: bytes} on this machine; with `short`, the connection breaks half-way."""
    files, state = {}, {"short": False}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = files[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if state["short"] else content)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state.update(files=files, url=f"http://127.0.0.1:{httpd.server_port}/")
    yield state
    httpd.shutdown()
    httpd.server_close()


def archive_of(folder):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return content.getvalue()


@pytest.fixture
def birds_online(birds, server, tmp_path_factory, monkeypatch):
    """Birds-200 served by `server`, an empty cache; returns the folder that it will be in."""
    content = archive_of(birds / "CUB_200_2011")
    server["files"]["CUB_200_2011.tgz"] = content
    monkeypatch.setattr(datasets, "BIRDS_URL", server["url"] + "CUB_200_2011.tgz")
    monkeypatch.setattr(datasets, "BIRDS_HASH", f"md5:{md5(content)}")
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COURSE_LIB_CACHE", str(cache))
    return cache / "birds200"


def test_a_download_is_checked_unpacked_and_done_once(birds_online, server):
    assert len(datasets.load("birds200", image_size=16).train) == 3
    assert [path.name for path in birds_online.iterdir()] == ["CUB_200_2011"]
    server["files"].clear()
    assert len(datasets.load("birds200", image_size=16).test) == 3


def test_a_download_that_breaks_off_leaves_nothing(birds_online, server):
    server["short"] = True
    with pytest.raises(DataError, match=r"CUB_200_2011.tgz (could not be downloaded|was downloaded but)"):
        datasets.load("birds200")
    assert not (birds_online / "CUB_200_2011").exists() and not (birds_online / "CUB_200_2011.tgz").exists()
    server["short"] = False
    assert len(datasets.load("birds200", image_size=16).train) == 3


def test_a_download_with_a_wrong_checksum_is_refused(birds_online, server):
    server["files"]["CUB_200_2011.tgz"] += b"!"
    with pytest.raises(DataError, match=r"is not what it should be \(md5:\w+\)"):
        datasets.load("birds200")
    assert not list(birds_online.glob("CUB*"))


def test_half_an_archive_from_before_is_not_taken_for_whole(birds_online, server):
    birds_online.mkdir(parents=True)
    (birds_online / "CUB_200_2011.tgz").write_bytes(server["files"]["CUB_200_2011.tgz"][:100])
    assert len(datasets.load("birds200", image_size=16).train) == 3


def test_an_interrupted_unpacking_is_begun_again(birds_online, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(data_files.os, "replace", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            data_files.fetch_folder(datasets.BIRDS_URL, birds_online / "CUB_200_2011", datasets.BIRDS_HASH)
    assert not (birds_online / "CUB_200_2011").exists()
    assert len(datasets.load("birds200", image_size=16).train) == 3


def test_without_a_network_the_message_says_what_to_do(birds_online, monkeypatch):
    monkeypatch.setattr(datasets, "BIRDS_URL", "http://127.0.0.1:9/CUB_200_2011.tgz")
    with pytest.raises(DataError, match=r"could not be downloaded.*by hand and put it into \S*birds200; offline"):
        datasets.load("birds200")


def test_flowers_and_mnist_are_fetched_into_the_cache(flowers, mnist, server, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path / "cache"))
    source = flowers / "flowers-102"
    served = {name: (source / name).read_bytes() for name in ("imagelabels.mat", "setid.mat")}
    served["102flowers.tgz"] = archive_of(source / "jpg")
    served.update({path.name: path.read_bytes() for path in (mnist / "MNIST" / "raw").iterdir()})
    server["files"].update(served)
    monkeypatch.setattr(datasets, "FLOWERS_URL", server["url"])
    monkeypatch.setattr(datasets, "FLOWERS_MD5", {name: md5(content) for name, content in served.items()})
    monkeypatch.setattr(datasets, "MNIST_URL", server["url"])
    sums = {name: (md5(served[f"{name}.gz"]), inside) for name, (_, inside) in datasets.MNIST_MD5.items()}
    monkeypatch.setattr(datasets, "MNIST_MD5", sums)
    assert len(datasets.load("flowers102", image_size=16).test) == 8
    assert len(datasets.load("mnist").test) == 6
