"""Files of data sets: fetched, checked and read, with messages that say what was expected and what to do."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from course_lib.progress import track

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
LITTER = ("thumbs.db", "desktop.ini")  # what file managers leave behind, besides hidden files


class DataError(Exception):
    """Something is wrong with the data. The message says what was expected and what to do."""


class Example(NamedTuple):
    """A labelled image file; `box` (x, y, width, height) in pixels: the part to look at."""

    path: str
    label: int
    box: tuple[float, float, float, float] | None = None


# ------------------------------------------------------------------------------------------------------------ fetching


def fetch(url: str, folder: Path, known_hash: str) -> Path:
    """The file at `url`, downloaded into `folder` unless it is there; `known_hash` as in ``md5:...``.

    A download goes to a temporary name and gets its own only when it is complete and its checksum is right.
    Raises DataError without a network or when the checksum is wrong.
    """
    import pooch
    import requests

    name = url.rsplit("/", 1)[-1]
    by_hand = f"Or download {url} by hand and put it into {folder}; offline, use an embedded data set ('petals')."
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        return Path(pooch.retrieve(url, known_hash, fname=name, path=folder, downloader=downloader))
    except ValueError as error:  # pooch's word for a wrong checksum
        raise DataError(
            f"{url} was downloaded but is not what it should be ({known_hash}). Try again. {by_hand}"
        ) from error
    except (requests.RequestException, OSError) as error:
        reason = type(error).__name__
        raise DataError(
            f"{url} could not be downloaded ({reason}). Check the network and try again. {by_hand}"
        ) from error


def fetch_folder(url: str, target: Path, known_hash: str) -> Path:
    """The folder `target`, downloaded and unpacked unless it is there. The archive holds a folder of that name."""
    if not target.exists():
        archive = fetch(url, target.parent, known_hash)
        unpack(archive, target)
        archive.unlink()
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack the folder `target` from a tar file. It gets its name when it is complete: nothing partial looks whole.

    Raises DataError for an archive that is damaged or does not hold that folder, for one with anything that would land
    outside of it (absolute paths, .., links) or is no file (devices), and where there is no room.
    """
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix="unpacking-") as folder,
            tarfile.open(archive) as tar,
        ):
            tar.extractall(folder, members=track(tar, f"unpacking {archive.name}"), filter="data")
            os.replace(Path(folder) / target.name, target)
    except tarfile.FilterError as error:
        raise DataError(f"{archive} was not unpacked, it is not to be trusted: {error}. Delete it.") from error
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{archive} could not be unpacked into {target} ({type(error).__name__}: {error}). "
            "Make room on the disk, delete the archive if it is damaged, and try again."
        ) from error


def checked_bytes(path: Path, md5: str, source: str) -> bytes:
    """What is in the file, or in the file of that name and .gz, if its checksum is right; else DataError."""
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        raise DataError(f"{path} is missing. Fetch it from {source}.")
    path = path if path.exists() else packed
    try:
        content = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
        found = "its md5 is " + hashlib.md5(content, usedforsecurity=False).hexdigest()
    except (EOFError, OSError, zlib.error) as error:  # a truncated or damaged archive
        found = f"it cannot be unpacked ({error})"
    if not found.endswith(md5):
        raise DataError(
            f"{path} is damaged or only partly downloaded: {found}; expected md5 {md5}. "
            f"Delete it and fetch it again from {source}."
        )
    return content


def find(root: str | Path, inside: str, marker: str, what: str) -> Path:
    """The folder that holds a file `marker` (* allowed): `root` / `inside`, or `root` itself. DataError if neither."""
    root = Path(root).expanduser()
    for folder in (root / inside, root):
        if any(folder.glob(marker)):
            return folder
    raise DataError(f"No {what} at {root}: expected {root / inside / marker}. {_listing(root)}")


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is a file, not a folder." if folder.exists() else f"There is no folder {folder.absolute()}."
    return f"{folder} holds {first(sorted(os.listdir(folder))) or 'nothing'}."


def first(names: Sequence[str], n: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


# ------------------------------------------------------------------------------------------------------------- reading


def read(example: Example, size: int) -> torch.Tensor:
    """The image as bytes (3, `size`, `size`): RGB, its centre or its box. Raises DataError if it cannot be decoded.

    The centre: what is left of resizing the shorter side to 256/224 of `size` and cropping to `size`, as torchvision's
    weights expect; of a square image that is no larger than that, all is kept. A box is widened to a square.
    """
    try:
        with Image.open(example.path) as image:
            crop = _crop(*image.size, size, example.box)
            image = _rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=crop)
    except FileNotFoundError as error:
        raise DataError(f"The image {example.path} is missing.") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise DataError(
            f"The image {example.path} cannot be read ({type(error).__name__}: {error}). "
            "Replace or delete it, or load the data set with on_bad='skip'."
        ) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip, not scale
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _crop(width: int, height: int, size: int, box=None) -> tuple[float, float, float, float]:
    """The square (left, top, right, bottom) of an image that is shown."""
    side, x, y = min(width, height), width / 2, height / 2
    if box is not None:
        side, x, y = min(side, max(box[2:])), box[0] + box[2] / 2, box[1] + box[3] / 2
    elif width != height or side > size * 256 / 224:
        side *= 224 / 256
    left, top = (min(max(middle - side / 2, 0), end - side) for middle, end in ((x, width), (y, height)))
    return left, top, left + side, top + side


# ------------------------------------------------------------------------------------------------------------ checking


class Report:
    """Bad files of a data set: refused together (DataError), or skipped with one warning that counts and names them."""

    def __init__(self, name: str, on_bad: str):
        if on_bad not in ("refuse", "skip"):
            raise DataError(f"on_bad is 'refuse' or 'skip', not {on_bad!r}.")
        self.name, self.skip = name, on_bad == "skip"

    def drop(self, total: int, bad: Iterable[str], why: str) -> None:
        """Say that `bad` files of `total` are left out because of `why`."""
        bad = sorted(bad)
        if not bad:
            return
        message = f"{self.name}: {len(bad)} of {total} {why}: {first(bad)}."
        if not self.skip:
            raise DataError(f"{message} Complete or replace them, or leave them out with on_bad='skip'.")
        warnings.warn(f"{message} They are skipped.", stacklevel=2)


def existing(parts: dict[str, list[Example]], report: Report) -> dict[str, list[Example]]:
    """{split: examples} without those whose file is missing."""
    paths = [example.path for examples in parts.values() for example in examples]
    folders = {os.path.dirname(path) for path in paths}
    there = {os.path.join(folder, file) for folder in folders if os.path.isdir(folder) for file in os.listdir(folder)}
    report.drop(len(paths), (path for path in paths if path not in there), "images are missing")
    return {split: [e for e in examples if e.path in there] for split, examples in parts.items()}


def readable(examples: Sequence[Example], size: int, report: Report, keep: bool) -> tuple[list[Example], torch.Tensor]:
    """The examples that can be decoded, and, if `keep`, their images (N, 3, S, S). Reads every file once."""
    good, images, bad = [], torch.empty(len(examples) if keep else 0, 3, size, size, dtype=torch.uint8), []
    for example in track(examples, f"reading {report.name}"):
        try:
            image = read(example, size)
        except DataError:
            bad.append(example.path)
            continue
        if keep:
            images[len(good)] = image
        good.append(example)
    report.drop(len(examples), bad, "images cannot be read")
    return good, images[: len(good)]


# ------------------------------------------------------------------------------------------------------- class folders


def class_folders(folder: Path, report: Report) -> tuple[list[Example], list[str]]:
    """Images and class names of a folder with one folder a class.

    Raises DataError for a missing folder, fewer than two classes, an empty class, or one that is another by symlink.
    """
    if not folder.is_dir():
        raise DataError(f"{report.name}: expected a folder {folder} with one folder a class. {_listing(folder.parent)}")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise DataError(
            f"{report.name}: expected one folder a class in {folder}, at least two; found {len(classes)}. "
            f"{_listing(folder)} Sort the images into {folder / 'cats'}, {folder / 'dogs'} and so on."
        )
    _refuse_aliases(folder, classes)
    found = [(path, label) for label, name in enumerate(classes) for path in _files(folder / name)]
    odd = [path for path, _ in found if not path.lower().endswith(SUFFIXES)]
    report.drop(len(found), odd, f"files are not images ({' '.join(SUFFIXES)})")
    examples = [Example(path, label) for path, label in found if path.lower().endswith(SUFFIXES)]
    refuse_empty(examples, classes, folder)
    return examples, classes


def refuse_empty(examples: Sequence[Example], classes: Sequence[str], folder: Path) -> None:
    """Raise DataError if a class has no image."""
    counts = Counter(example.label for example in examples)
    empty = [name for label, name in enumerate(classes) if not counts[label]]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(classes)} classes in {folder} have no readable image: {first(empty)}. "
            f"Add images ({' '.join(SUFFIXES)}) or remove the folders."
        )


def _refuse_aliases(folder: Path, classes: Sequence[str]) -> None:
    """The same images under two labels cannot be learnt."""
    seen: dict[str, str] = {}
    for name in classes:
        real = os.path.realpath(folder / name)
        if real in seen:
            raise DataError(
                f"The classes {seen[real]!r} and {name!r} in {folder} are the same folder ({real}) by a symbolic link: "
                "every image would have two labels. Replace the link by a folder of its own images."
            )
        seen[real] = name


def _files(folder: Path) -> list[str]:
    walk = ((where, name) for where, _, names in os.walk(folder) for name in names)
    return sorted(os.path.join(*at) for at in walk if not at[1].startswith(".") and at[1].lower() not in LITTER)
