"""Data sets by name: `load(name)` gives `Splits`, whatever the source.

Images are never augmented here and always centre-cropped (Molchanov et al. 2017, A.3), so that criteria and oracle see
the same pictures every time; augmentation belongs to training.py. Every data set has a card, `data/<name>.md`.

What is held out for `val` and `test`, where a source does not say, is the same for every seed: a network trained with
one seed may be judged with another. `seed` decides about subsets and about what is generated.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from course_lib import petals
from course_lib.data_files import (
    DataError,
    Example,
    Report,
    checked_bytes,
    class_folders,
    existing,
    fetch,
    fetch_folder,
    find,
    first,
    read,
    readable,
    refuse_empty,
)
from course_lib.names import unknown
from course_lib.paths import cache_dir
from course_lib.progress import track

__all__ = [
    "DataError",
    "Images",
    "Photographs",
    "Splits",
    "batches",
    "load",
    "names",
    "photograph",
    "picture",
    "subset",
]

BATCH_SIZE = 32  # images
COUNTS = {"image_size": 1, "train": 1, "val": 1, "test": 1, "species": 2, "world": 2}  # options, and their least value
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect
FLOWER = (62, 148, 320)  # top, left and side, in pixels, of the flower in the photograph


@dataclass(frozen=True)
class Splits:
    """A data set: `train`, `val` and `test` yield (image float32 (C, H, W), label int), normalised with
    `mean` and `std`.
    """

    name: str
    train: Dataset
    val: Dataset
    test: Dataset
    classes: list[str]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


class _Normalised(Dataset):
    """Images that are kept as bytes and normalised one by one when they are asked for."""

    def __init__(self, labels: Sequence[int] | torch.Tensor, mean=MEAN, std=STD):
        self.labels = torch.as_tensor(labels)
        # one multiplication and one addition: this is the inner loop of every run
        self._scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        self._shift = -torch.tensor(mean).view(-1, 1, 1) / torch.tensor(std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.addcmul(self._shift, self.bytes(index), self._scale), int(self.labels[index])

    def bytes(self, index: int) -> torch.Tensor:
        """The image as it is kept: bytes (C, H, W)."""
        raise NotImplementedError


class Images(_Normalised):
    """Images in memory: bytes (N, C, H, W)."""

    def __init__(self, images: torch.Tensor, labels: Sequence[int] | torch.Tensor, mean=MEAN, std=STD):
        super().__init__(labels, mean, std)
        self.images = images

    def bytes(self, index: int) -> torch.Tensor:
        return self.images[index]


class Photographs(_Normalised):
    """Image files, read when they are asked for. Raises DataError, naming the file, for one that cannot be decoded."""

    def __init__(self, examples: Sequence[Example], size: int):
        super().__init__([example.label for example in examples])
        self.examples, self.size = examples, size

    def bytes(self, index: int) -> torch.Tensor:
        return read(self.examples[index], self.size)


def load(name: str, *, image_size: int | None = None, root=None, seed: int = 0, **options) -> Splits:
    """The data set of that name, split.

    `image_size`: height and width in pixels (None: the data set's own). `root`: the folder of a data set that is not
    embedded; without it, one that can be downloaded is, into the course's cache. `seed`: see the top of this module.
    `train`, `val`, `test`: at most so many examples of that split. Other options: see the loader's own description, for
    instance ``help(datasets.load_petals)``. Raises DataError for an unknown name or option and for bad data.
    """
    if name not in LOADERS:
        raise DataError(unknown("data set", name, LOADERS))
    allowed = inspect.signature(LOADERS[name]).parameters
    given = {"image_size": image_size, "root": root, **options}
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        if key not in allowed:
            raise DataError(f"Data set {name!r}: " + unknown("option", key, allowed))
        if key in COUNTS and not (isinstance(value, Integral) and value >= COUNTS[key]):
            raise DataError(f"{key} is a whole number from {COUNTS[key]} on, not {value!r}.")
    if not (isinstance(seed, Integral) and 0 <= seed < 2**32):  # numpy.random.seed takes no more
        raise DataError(f"The seed is a whole number from 0 to 2**32 - 1, not {seed!r}.")
    return LOADERS[name](seed=seed, **given)


def names() -> list[str]:
    """All names that `load` knows."""
    return list(LOADERS)


def batches(
    dataset: Dataset, n: int | None = None, *, batch_size: int = BATCH_SIZE, seed: int = 0, workers: int = 0
) -> DataLoader:
    """(images (N, C, H, W), labels (N,)) in a fixed order, as often as you iterate.

    `n`: only that many examples, a random subset that depends on `seed` alone, as criteria and oracle use; None: all.
    """
    if n is not None:
        dataset = subset(dataset, n, seed)
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, num_workers=workers)


def subset(dataset: Dataset, n: int, seed: int = 0) -> Subset:
    """`n` random examples, always the same for the same seed, in the data set's order."""
    if not 0 < n <= len(dataset):
        raise DataError(f"{n} examples were asked for; this data set has {len(dataset)}. Ask for 1 to {len(dataset)}.")
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:n]
    return Subset(dataset, np.sort(chosen).tolist())


def picture(image: torch.Tensor, splits: Splits) -> np.ndarray:
    """A normalised image (C, H, W) as it can be shown: (H, W, 3) in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (splits.mean, splits.std))
    shown = (image.detach().cpu().float() * std + mean).clamp(0, 1)
    return shown.expand(3, -1, -1).permute(1, 2, 0).numpy()


def photograph(splits: Splits) -> torch.Tensor:
    """A real photograph of a dahlia, (3, H, W), in the size and the units of the splits' images, which have colours.

    The square around the flower of scikit-learn's flower.jpg (flickr.com/photos/vultilion/6056698931, CC BY 2.0).
    """
    from sklearn.datasets import load_sample_image  # a slow import

    top, left, side = FLOWER
    pixels = load_sample_image("flower.jpg")[top : top + side, left : left + side]  # (side, side, 3), bytes
    size = splits.test[0][0].shape[-1]
    small = _resized(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], size)
    return Images(small, [0], splits.mean, splits.std)[0][0]


# ----------------------------------------------------------------------------------------------------------- embedded


def load_petals(*, seed=0, image_size=32, species=10, world=None, train=5000, val=500, test=1500) -> Splits:
    """Procedural flowers (petals.py). `species`: how many of the named ones; `world`: so many invented ones instead.

    `train`, `val`, `test`: number of images. Image i of a split shows species i modulo their number.
    """
    most = len(petals.SPECIES)
    if world is None and species > most:
        raise DataError(f"{species} species were asked for; only {most} have names. For more: world={species}.")
    kinds = petals.world(world) if world else petals.SPECIES[:species]

    def draw(split: str, count: int) -> Images:
        portions = petals.chunks(kinds, count, image_size, seed, f"world {split}" if world else split)
        total = -(-count // petals.CHUNK)
        images = torch.cat(list(track(portions, f"drawing petals ({split})", total)))
        return Images(images, torch.arange(count) % len(kinds))

    classes = [kind.name for kind in kinds]
    return Splits("petals", draw("train", train), draw("val", val), draw("test", test), classes)


def load_digits(*, seed=0, image_size=8, train=None, val=None, test=None) -> Splits:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels: 1,197 to train, 100 for val, 500 for test."""
    from sklearn.datasets import load_digits as source

    data = source()
    images = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))
    labels = torch.from_numpy(data.target)
    parts = np.split(_order(len(labels)), [1197, 1297])
    parts = {"train": parts[0], "val": parts[1], "test": parts[2]}
    examples = {split: (images[part], labels[part]) for split, part in parts.items()}
    return _grey("digits", examples, (0.306,), (0.377,), image_size, {"train": train, "val": val, "test": test}, seed)


def _grey(name, examples, mean, std, image_size, limits, seed) -> Splits:
    """Splits of grey images in memory, {split: (images (N, H, W), labels (N,))}."""
    splits = {}
    for split, (images, labels) in examples.items():
        chosen = _some(len(labels), limits[split], seed)
        splits[split] = Images(_resized(images[chosen][:, None], image_size), labels[chosen], mean, std)
    return Splits(name, **splits, classes=[str(digit) for digit in range(10)], mean=mean, std=std)


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size:
        return images
    options = {"size": (size, size), "mode": "bilinear", "antialias": True}
    return torch.nn.functional.interpolate(images.float(), **options).round().clamp(0, 255).byte()


def _order(count: int) -> np.ndarray:
    """A fixed random order, to hold examples out by."""
    return np.random.default_rng(0).permutation(count)


def _some(count: int, limit: int | None, seed: int) -> np.ndarray:
    """Positions of at most `limit` of `count` examples, drawn with the seed, in order."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


# -------------------------------------------------------------------------------------------------------------- MNIST

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {  # of the archive as it is downloaded, and of what is in it (archives may be packed anew)
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}


def load_mnist(*, seed=0, root=None, image_size=28, train=None, val=None, test=None) -> Splits:
    """MNIST: 55,000 to train, 5,000 of the official training set held out as val, the official 10,000 for test.

    `root`: the folder that torchvision calls root (it holds MNIST/raw), or the one with the four files themselves,
    packed (.gz) or unpacked.
    """
    if root is None:
        folder = cache_dir() / "mnist"
        for name, (archive_md5, _) in MNIST_MD5.items():
            fetch(f"{MNIST_URL}{name}.gz", folder, f"md5:{archive_md5}")
    else:
        folder = find(root, "MNIST/raw", "train-images-idx3-ubyte*", "MNIST")
    images, labels = _idx(folder, "train-images-idx3-ubyte"), _idx(folder, "train-labels-idx1-ubyte")
    kept, held = (np.sort(part) for part in np.split(_order(len(labels)), [-(len(labels) // 12)]))
    examples = {
        "train": (images[kept], labels[kept]),
        "val": (images[held], labels[held]),
        "test": (_idx(folder, "t10k-images-idx3-ubyte"), _idx(folder, "t10k-labels-idx1-ubyte")),
    }
    return _grey("mnist", examples, (0.1307,), (0.3081,), image_size, {"train": train, "val": val, "test": test}, seed)


def _idx(folder: Path, name: str) -> torch.Tensor:
    """The array in an idx file: two zero bytes, type, number of dimensions, their sizes, the numbers as bytes."""
    content = checked_bytes(folder / name, MNIST_MD5[name][1], f"{MNIST_URL}{name}.gz")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())


# -------------------------------------------------------------------------------------------------------- photographs


def _photographs(name, examples, classes, report, *, image_size, in_memory, limits, seed, folder=None) -> Splits:
    """Splits of image files, {split: examples}: cut to `limits`, checked, read at once if `in_memory`.

    Without examples for val it is every tenth image of train. `folder`: of the classes, none of which may be empty.
    """
    splits = {}
    for split, everything in examples.items():
        chosen = [everything[i] for i in _some(len(everything), limits[split], seed)]
        images = None
        if in_memory or report.skip:
            chosen, images = readable(chosen, image_size, report, keep=in_memory)
        if not chosen:
            raise DataError(f"{name}: no readable image is left for {split}.")
        if folder and limits[split] is None:
            refuse_empty(chosen, classes, folder)
        labels = [example.label for example in chosen]
        splits[split] = Images(images, labels) if in_memory else Photographs(chosen, image_size)
    if "val" not in splits:
        tenth = np.arange(0, len(splits["train"]), 10)
        splits["val"] = Subset(splits["train"], tenth[_some(len(tenth), limits["val"], seed)].tolist())
    return Splits(name, **splits, classes=list(classes))


FLOWERS_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
FLOWERS_MD5 = {
    "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
}
FLOWERS_SPLITS = {
    "paper": {"train": ("trnid", "valid"), "test": ("tstid",)},
    "torchvision": {"train": ("trnid",), "val": ("valid",), "test": ("tstid",)},
}


def load_flowers102(
    *,
    seed=0,
    root=None,
    image_size=224,
    split="paper",
    on_bad="refuse",
    in_memory=False,
    train=None,
    val=None,
    test=None,
) -> Splits:
    """Oxford Flowers-102. `root`: as for torchvision, it holds flowers-102/jpg, imagelabels.mat and setid.mat.

    `split`: "paper", as Molchanov et al. (2017): the official train and val, 2,040 images, to train and the other 6,149
    for test; val is then a tenth of the *training* images, to watch a run with, no estimate of the error. Or
    "torchvision": the official 1,020 / 1,020 / 6,149. `on_bad`: "refuse" images that are missing or damaged, or "skip"
    them with a warning, which reads all images once beforehand. `in_memory`: read all images now and keep them.
    """
    if split not in FLOWERS_SPLITS:
        raise DataError(f"split is {' or '.join(map(repr, FLOWERS_SPLITS))}, not {split!r}.")
    report = Report("flowers102", on_bad)
    folder = find(root, "flowers-102", "setid.mat", "Flowers-102") if root else _fetched_flowers()
    labels, official = _mat(folder, "imagelabels.mat")["labels"], _mat(folder, "setid.mat")

    def example(number: int) -> Example:
        return Example(str(folder / "jpg" / f"image_{number:05d}.jpg"), int(labels[number - 1]) - 1)

    parts = {
        part: [example(number) for number in sorted(np.concatenate([official[key] for key in keys]).tolist())]
        for part, keys in FLOWERS_SPLITS[split].items()
    }
    limits = {"train": train, "val": val, "test": test}
    return _photographs(
        "flowers102", existing(parts, report), _flower_names(), report,
        image_size=image_size, in_memory=in_memory, limits=limits, seed=seed,
    )  # fmt: skip


def _fetched_flowers() -> Path:
    folder = cache_dir() / "flowers102" / "flowers-102"
    for file in ("imagelabels.mat", "setid.mat"):
        fetch(FLOWERS_URL + file, folder, f"md5:{FLOWERS_MD5[file]}")
    fetch_folder(FLOWERS_URL + "102flowers.tgz", folder / "jpg", f"md5:{FLOWERS_MD5['102flowers.tgz']}")
    return folder


def _mat(folder: Path, name: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    content = checked_bytes(folder / name, FLOWERS_MD5[name], FLOWERS_URL + name)
    return {key: np.ravel(value) for key, value in loadmat(io.BytesIO(content)).items() if not key.startswith("__")}


def _flower_names() -> list[str]:
    from torchvision.datasets import Flowers102

    return getattr(Flowers102, "classes", None) or [f"flower {number}" for number in range(1, 103)]


BIRDS_URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
BIRDS_HASH = "md5:97eceeb196236b17998738112f37df78"


def load_birds200(
    *,
    seed=0,
    root=None,
    image_size=224,
    bounding_box=False,
    on_bad="refuse",
    in_memory=False,
    train=None,
    val=None,
    test=None,
) -> Splits:
    """Caltech-UCSD Birds-200-2011 in its official split: 5,994 to train, 5,794 for test; val is a tenth of train.

    `root`: the folder that holds CUB_200_2011, or that folder. `bounding_box`: show only the bird (the paper does not).
    `on_bad`, `in_memory`: see `load_flowers102`, whose remark on val holds here too.
    """
    report = Report("birds200", on_bad)
    if root is None:
        root = fetch_folder(BIRDS_URL, cache_dir() / "birds200" / "CUB_200_2011", BIRDS_HASH)
    folder = find(root, "CUB_200_2011", "images.txt", "Birds-200-2011")
    paths, labels = _columns(folder / "images.txt"), _columns(folder / "image_class_labels.txt")
    is_train, boxes = _columns(folder / "train_test_split.txt"), _columns(folder / "bounding_boxes.txt")
    if not paths.keys() == labels.keys() == is_train.keys() == boxes.keys():
        raise DataError(f"The lists of images in {folder} do not agree. Unpack CUB_200_2011.tgz again ({BIRDS_URL}).")

    def example(number: str) -> Example:
        box = tuple(map(float, boxes[number].split())) if bounding_box else None
        return Example(str(folder / "images" / paths[number]), int(labels[number]) - 1, box)

    parts = {part: [example(n) for n in paths if is_train[n] == flag] for part, flag in (("train", "1"), ("test", "0"))}
    classes = [name.split(".", 1)[-1].replace("_", " ") for name in _columns(folder / "classes.txt").values()]
    limits = {"train": train, "val": val, "test": test}
    return _photographs(
        "birds200", existing(parts, report), classes, report,
        image_size=image_size, in_memory=in_memory, limits=limits, seed=seed,
    )  # fmt: skip


def _columns(path: Path) -> dict[str, str]:
    """The lines "number value" of a list of CUB-200-2011."""
    if not path.exists():
        raise DataError(f"{path} is missing. Unpack CUB_200_2011.tgz again ({BIRDS_URL}).")
    pairs = [line.split(maxsplit=1) for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise DataError(
            f"{path} is damaged: {wrong[0][0]!r} has no value. Unpack CUB_200_2011.tgz again ({BIRDS_URL})."
        )
    return dict(pairs)


def load_imagenet(
    *, seed=0, root=None, image_size=224, on_bad="refuse", in_memory=False, train=None, val=None, test=None
) -> Splits:
    """ImageNet (ILSVRC 2012), or any part of it: `root` holds train/ and val/ with one folder a class (n01440764 ...).

    The official validation images are `test`, as everybody reports; a hundredth of the training images is held out as
    `val`. `on_bad`, `in_memory`: see `load_flowers102`.
    """
    report = Report("imagenet", on_bad)
    parts, classes, root = _class_parts(root, {"train": "train", "test": "val"}, report)
    parts["train"], parts["val"] = _hold_out(parts["train"], 0.01)
    limits = {"train": train, "val": val, "test": test}
    return _photographs("imagenet", parts, classes, report, image_size=image_size, in_memory=in_memory, limits=limits,
                        seed=seed, folder=root)  # fmt: skip


def load_folder(
    *, seed=0, root=None, image_size=224, on_bad="refuse", in_memory=False, train=None, val=None, test=None
) -> Splits:
    """Your own images: `root`/train with one folder a class (train/cats, train/dogs), and val/ and test/ likewise.

    Without test/ a fifth of the training images is held out for it, without val/ a tenth of what is then left, class by
    class. `on_bad`, `in_memory`: see `load_flowers102`.
    """
    report = Report("folder", on_bad)
    folders = {"train": "train", "val": "val", "test": "test"}
    parts, classes, root = _class_parts(root, folders, report, optional=("val", "test"))
    for split, share in (("test", 0.2), ("val", 0.1)):
        if split not in parts:
            parts["train"], parts[split] = _hold_out(parts["train"], share)
    limits = {"train": train, "val": val, "test": test}
    return _photographs("folder", parts, classes, report, image_size=image_size, in_memory=in_memory, limits=limits,
                        seed=seed, folder=root)  # fmt: skip


def _class_parts(root, folders: dict[str, str], report: Report, optional: Sequence[str] = ()):
    """{split: examples} of the folders in `root` that hold class folders; the classes' names; `root` as a path."""
    if root is None:
        raise DataError(f"{report.name} needs root=..., the folder that holds train/ with one folder a class.")
    root = Path(root).expanduser()
    folders = {split: root / name for split, name in folders.items() if split not in optional or (root / name).is_dir()}
    found = {split: class_folders(folder, report) for split, folder in folders.items()}
    classes = found["train"][1]
    for split, (_, others) in found.items():
        if different := sorted(set(classes) ^ set(others)):
            raise DataError(
                f"{report.name}: {folders['train']} and {folders[split]} must hold the same classes; "
                f"only one of them has {first(different)}."
            )
    return {split: examples for split, (examples, _) in found.items()}, classes, root


def _hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(kept, held out): this share of every class, at least one image, but never its last; the same for every seed."""
    members: dict[int, list[int]] = {}
    for i in _order(len(examples)):
        members.setdefault(examples[i].label, []).append(i)
    held = {i for own in members.values() for i in own[: min(len(own) - 1, max(1, round(share * len(own))))]}
    kept = [example for i, example in enumerate(examples) if i not in held]
    return kept, [examples[i] for i in sorted(held)]


LOADERS: dict[str, Callable[..., Splits]] = {
    "petals": load_petals,
    "digits": load_digits,
    "mnist": load_mnist,
    "flowers102": load_flowers102,
    "birds200": load_birds200,
    "imagenet": load_imagenet,
    "folder": load_folder,
}
