"""Data sets by name: `load(name)` gives `Splits`, whatever the source.

Images are never augmented here and always centre-cropped (Molchanov et al. 2017, A.3), so that criteria and oracle see
the same pictures every time; augmentation belongs to training.py. A data set is a card in `data/<name>.md`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from course_lib import petals
from course_lib.progress import track

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect


class DataError(Exception):
    """Something is wrong with the data. The message says what was expected and what to do."""


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


class Images(Dataset):
    """Images in memory, kept as bytes (N, C, H, W) and normalised one by one when they are asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, mean=MEAN, std=STD):
        self.images, self.labels = images, labels
        # one multiplication and one addition instead of three operations: this is the inner loop of every run
        self._scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        self._shift = -torch.tensor(mean).view(-1, 1, 1) / torch.tensor(std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.addcmul(self._shift, self.images[index], self._scale), int(self.labels[index])


def load(name: str, *, image_size: int | None = None, root=None, seed: int = 0, **options) -> Splits:
    """The data set of that name, split.

    `image_size`: height and width in pixels (None: the data set's own). `root`: folder of a data set that is not
    embedded. `seed`: of everything drawn by chance. Other options: see the loader, e.g. ``help(datasets.load_petals)``.
    Raises DataError for an unknown name or option and for anything wrong with the data.
    """
    if name not in LOADERS:
        raise DataError(f"There is no data set {name!r}. {_nearest(name, LOADERS)}")
    loader = LOADERS[name]
    allowed = inspect.signature(loader).parameters
    given = {"image_size": image_size, "root": root, **options}
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in allowed:
            raise DataError(f"The data set {name!r} has no option {key!r}. {_nearest(key, allowed)}")
    return loader(seed=seed, **given)


def names() -> list[str]:
    """All names that `load` knows."""
    return list(LOADERS)


def _nearest(word: str, known) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"{'Did you mean ' + ' or '.join(map(repr, near)) + '? ' if near else ''}There are: {', '.join(known)}."


def batches(
    dataset: Dataset, n: int | None = None, *, batch_size: int = 32, seed: int = 0, workers: int = 0
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


# ----------------------------------------------------------------------------------------------------------- embedded


def load_petals(*, seed=0, image_size=32, species=10, world=None, train=5000, val=500, test=1500) -> Splits:
    """Procedural flowers (petals.py). `species`: how many of the named ones; `world`: as many invented ones instead.

    `train`, `val`, `test`: number of images. Image i of a split shows species i modulo their number.
    """
    if world is None and not 2 <= species <= len(petals.SPECIES):
        raise DataError(
            f"{species} species were asked for; 2 to {len(petals.SPECIES)} have names. For more: world={species}."
        )
    kinds = petals.world(world) if world else petals.SPECIES[:species]

    def draw(split: str, count: int) -> Images:
        portions = petals.chunks(kinds, count, image_size, seed, f"world {split}" if world else split)
        total = -(-count // petals.CHUNK)
        images = torch.cat(list(track(portions, f"drawing petals ({split})", total)))
        return Images(images, torch.arange(count) % len(kinds))

    classes = [kind.name for kind in kinds]
    return Splits("petals", draw("train", train), draw("val", val), draw("test", test), classes)


LOADERS: dict[str, Callable[..., Splits]] = {
    "petals": load_petals,
}
