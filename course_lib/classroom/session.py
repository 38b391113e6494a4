"""A session of the course: one profile, one seed, one device, one style of figures.

The profile says how large everything is, so that a notebook runs unchanged in minutes on a laptop, in seconds in
continuous integration, and with the paper's networks and data on a GPU.

Taught in: notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import random
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import joblib
import matplotlib
import numpy as np
import pandas as pd
import threadpoolctl
import torch
from torch import nn
from torch.utils.data import DataLoader

import course_lib
from course_lib import datasets, distributed, models, paths, pruning, training
from course_lib.classroom import needs, results
from course_lib.feature_maps import Chain
from course_lib.names import UnknownName


@dataclass(frozen=True)
class Profile:
    """The sizes of a run. ``start(profile, field=value)`` replaces any of them.

    Attributes:
        name: what the profile is called.
        dataset, data_root: a name of `datasets.names()`, and its folder where it is not embedded or cached.
        data_options: further options of `datasets.load`, for instance on_bad="skip" or in_memory=True.
        network: a name of `models.names()`; it is fine-tuned first, unless it was trained on the data set.
        trunk: a file with weights for the convolutions of a VGG-16, instead of `network`.
        image_size: pixels, height and width.
        train_images, test_images: how many to use; None for all there are.
        score_images: training images that criteria are computed on.
        score_while_tuning: gather criteria during the updates between two steps, as the paper does; `pruning.Settings`.
        oracle_images: training images that the oracle is computed on.
        oracle_maps: feature maps of each layer that the oracle is computed for, a seeded sample; None for all.
        epochs, tuning_rate: of fine-tuning to the data set, before pruning.
        optimizer, learning_rate: of fine-tuning between two pruning steps.
        maps_per_step: feature maps removed in one pruning step.
        updates: minibatch updates of fine-tuning between two pruning steps.
        update_budgets: the same where several are compared, as in the paper's Figure 6.
        maps_left: share of the feature maps at which pruning ends.
        curves: criteria whose pruning curves are drawn.
        curve_seeds: runs of each of them.
        seeds: how many seeds an average is taken over.
        digits, digits_root: handwritten digits for small networks, "digits" or "mnist", and their folder.
        sharing_epochs: of retraining in soft weight-sharing.
    """

    name: str
    dataset: str = "petals"
    data_root: str | None = None
    data_options: dict = dataclasses.field(default_factory=dict)
    network: str = "vgg16-petals"
    trunk: str | None = None
    image_size: int = 32
    train_images: int | None = 5000
    test_images: int | None = 1500
    score_images: int = 256
    score_while_tuning: bool = False
    oracle_images: int = 256
    oracle_maps: int | None = None
    epochs: float = 6
    tuning_rate: float = 1e-3
    optimizer: str = "adam"
    learning_rate: float = 2e-4
    maps_per_step: int = 66
    updates: int = 30
    update_budgets: tuple[int, ...] = (0, 10, 30, 100)
    maps_left: float = 0.5
    curves: tuple[str, ...] = ("taylor", "min_weight", "random")
    curve_seeds: int = 1
    seeds: int = 3
    digits: str = "digits"
    digits_root: str | None = None
    sharing_epochs: int = 200

    def __post_init__(self):
        for name, members in (("curves", "criteria"), ("update_budgets", "numbers")):
            given = getattr(self, name)
            if not isinstance(given, (list, tuple)):  # a text would be read letter by letter
                raise ValueError(f"{name}={given!r}: give a list of {members}, {name}=[{given!r}].")


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="ci",
            train_images=600,
            test_images=200,
            score_images=32,
            oracle_images=32,
            epochs=2,
            maps_per_step=88,
            updates=10,
            maps_left=0.5,
            seeds=1,
            sharing_epochs=60,
        ),
        Profile(name="laptop"),
        # The paper's steps for VGG-16 (section 3.2): 60 epochs, then one map and 30 updates at a time, at rate 1e-4.
        Profile(
            name="paper",
            dataset="flowers102",
            network="vgg16-imagenet",
            image_size=224,
            train_images=None,
            test_images=None,
            score_images=960,
            oracle_images=960,
            epochs=60,
            tuning_rate=1e-4,
            optimizer="sgd",
            learning_rate=1e-4,
            maps_per_step=1,
            updates=30,
            update_budgets=(10, 30, 60, 1000),
            maps_left=0.1,
            curves=("taylor", "obd", "activation_mean", "apoz", "min_weight", "random"),
            digits="mnist",
            sharing_epochs=20,
        ),
    )
}


#: Threads of a session on embedded data. More hardly speed up tensors of that size, and on a machine with many cores
#: thirty students' kernels with a thread for each core would be in each other's way.
MOST_THREADS = 4

# The best first.
_AVAILABLE = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}


@dataclass(frozen=True)
class Lab:
    """What `start` hands to a notebook: the profile, the seed and the device to work on."""

    profile: Profile
    seed: int
    device: torch.device
    overrides: dict = dataclasses.field(default_factory=dict)

    def adapted(self, **sizes) -> Lab:
        """The same session with other sizes, where a notebook needs them; what `start` was told to replace stays."""
        asked = {name: size for name, size in sizes.items() if name not in self.overrides}
        return dataclasses.replace(self, profile=dataclasses.replace(self.profile, **asked))

    def splits(self) -> datasets.Splits:
        """The profile's data set at the profile's size. Raises datasets.DataError saying what is missing."""
        sizes = {"train": self.profile.train_images, "test": self.profile.test_images}
        options = {name: size for name, size in sizes.items() if size is not None}
        return datasets.load(
            self.profile.dataset,
            image_size=self.profile.image_size,
            root=self.profile.data_root,
            seed=self.seed,
            **options,
            **self.profile.data_options,
        )

    def network(self, splits: datasets.Splits, *, quiet: bool = False) -> nn.Module:
        """The profile's network, trained on its data set: embedded, or fine-tuned now and kept in the cache.

        In profile 'paper' it says first, unless it should be `quiet`, what the long cells of a notebook need.
        """
        if self.profile.network.endswith(f"-{self.profile.dataset}") and self.profile.trunk is None:
            return models.trained(self.profile.network).to(self.device)
        fields = ("dataset", "network", "trunk", "image_size", "train_images", "epochs", "tuning_rate")
        sizes = [getattr(self.profile, field) for field in fields]
        # Two folders of one's own, or two choices of `data_options`, may have as many images.
        shown = [splits.classes, models.fingerprint({"first image": splits.train[0][0]})]
        key = json.dumps([self.seed, len(splits.train), *sizes, *shown])
        kept = paths.cache_dir() / "networks" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        is_kept = distributed.first(kept.exists)
        model = models.load(kept).to(self.device) if is_kept else self.pretrained(splits)
        if self.profile.name == "paper" and not quiet:
            print(needs.foretold(self._long_work(model, splits, is_kept), model, splits.train), flush=True)
        if is_kept:
            return model
        distributed.first(models.save, self._fine_tuned(model, splits), kept, notes={"made from": key})
        return models.load(kept).to(self.device)

    def _long_work(self, model: nn.Module, splits: datasets.Splits, is_tuned: bool) -> dict[str, needs.Needs]:
        """What notebooks do with a network that takes long, and what each of it needs."""
        sizes, image = self.profile, splits.train[0][0]
        tuning = needs.of_tuning(model, image.shape, len(splits.train), sizes.epochs)
        loop = pruning.Settings(**self.loop)
        return ({} if is_tuned else {"fine-tuning, now and never again": tuning}) | {
            "the oracle": needs.of_oracle(model, image[None], sizes.oracle_images, self.choice(model)),
            "a pruning curve": needs.of_pruning(model, image.shape, sizes.maps_left, len(splits.test), loop),
        }

    def pretrained(self, splits: datasets.Splits) -> nn.Module:
        """The network before it saw the data set: trained on something else, with an output layer that is not."""
        sizes, classes = self.profile, len(splits.classes)
        torch.manual_seed(self.seed)
        if sizes.trunk is not None:
            model = models.vgg16(classes, compact=True, trunk=sizes.trunk)
        else:
            itself = (sizes.network, sizes.dataset) == ("vgg16-petals", "petals")
            model = models.trained("vgg16-world" if itself else sizes.network)
        return models.fresh_head(model, classes, self.seed).to(self.device)

    def _fine_tuned(self, model: nn.Module, splits: datasets.Splits) -> nn.Module:
        sizes = self.profile
        training.fit_head(model, splits.train, seed=self.seed)
        how = {"epochs": sizes.epochs, "lr": sizes.tuning_rate, "augment": True, "seed": self.seed}
        training.fit(model, splits.train, label=f"fine-tuning to {splits.name}", **how)
        return model

    def batches(self, splits: datasets.Splits, n: int) -> DataLoader:
        """At most n training images for criteria and oracle: always the same ones for the same seed."""
        return datasets.batches(splits.train, min(n, len(splits.train)), seed=self.seed)

    def choice(self, model: nn.Module) -> dict[str, list[int]] | None:
        """Which feature maps the oracle is computed for: the `layers` of `oracle.ablate` and `oracle.effects`.

        Returns:
            None for all of them; or, where `oracle_maps` of the profile is a number, {layer: sorted indices}, so many
            of every layer (all of a layer that has no more): always the same ones for the same seed. The oracle of
            the other maps is NaN, which `ranking.spearman` leaves out.
        """
        if self.profile.oracle_maps is None:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        orders = {
            name: torch.randperm(layer.channels, generator=generator) for name, layer in Chain(model).layers.items()
        }
        return {name: sorted(order[: self.profile.oracle_maps].tolist()) for name, order in orders.items()}

    def checkpoints(self, name: str) -> Path | None:
        """Where a pruning run keeps its steps in profile 'paper', whose hours should survive a kill; else nowhere."""
        return Path("steps") / name if self.profile.name == "paper" else None

    @property
    def loop(self) -> dict:
        """The profile's settings of `pruning.prune`."""
        sizes = self.profile
        return {
            "maps_per_step": sizes.maps_per_step,
            "updates": sizes.updates,
            "images": sizes.score_images,
            "score_while_tuning": sizes.score_while_tuning,
            "optimizer": sizes.optimizer,
            "lr": sizes.learning_rate,
            "seed": self.seed,
        }

    def record(self, rows: Iterable[Mapping] | pd.DataFrame, name: str) -> pd.DataFrame:
        """Write rows to `results/<name>.csv` below the working folder and return them as a table.

        `name` begins with the notebook's number; the command that makes the rows again is written beside them.
        """
        command = f"python -m course_lib run --profile {self.profile.name} --seed {self.seed} --only {name[:2]}"
        table = pd.DataFrame(rows)
        results.record(
            table,
            Path("results") / f"{name}.csv",
            command=command + as_typed(self.overrides),
            seed=None if "seed" in table.columns else self.seed,
        )
        return table


def as_typed(overrides: Mapping) -> str:
    """Overrides as they are typed at the end of a command; of a path only its last part, the rest is one machine's."""
    short = {key: str(value).rstrip("/").split("/")[-1] for key, value in overrides.items()}
    words = (shlex.quote(f"{key}={value}") for key, value in short.items())
    return " ".join([" --set", *words]) if short else ""


def start(profile: str = "laptop", seed: int = 0, *, device: str | None = None, **overrides) -> Lab:
    """Begin a session: choose sizes and device, make results repeat, set the style of figures; prints one line.

    In profile "paper" a second line says what that profile asks for.

    Args:
        profile: "ci", "laptop" or "paper".
        seed: of every random choice in the session.
        device: "cpu", "cuda" or "mps". Without it the CPU, where results repeat exactly; in profile "paper" the
            best device there is.
        overrides: fields of `Profile` to replace, for instance ``oracle_images=64``.

    Raises:
        ValueError: for an unknown profile or override, with the nearest names, or a device that is not there.
    """
    sizes = choose(profile, **overrides)
    lab = Lab(sizes, seed, _device(device, best=sizes.name == "paper"), overrides)
    if sizes.name != "paper":
        _share_the_machine()
    _repeatable(seed, lab.device)
    figure_style()
    _spare_the_imported()
    print(_greeting(lab))
    if sizes.name == "paper":
        print(_warning(lab))
    return lab


def choose(profile: str, **overrides) -> Profile:
    """The profile of this name with some fields replaced. ValueError, with the nearest names, for an unknown one."""
    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    fields = [field.name for field in dataclasses.fields(Profile) if field.name != "name"]
    for name in overrides:
        if name not in fields:
            raise UnknownName("field of a profile", name, fields)
    return dataclasses.replace(PROFILES[profile], **overrides)


def _device(asked: str | None, best: bool) -> torch.device:
    available = [name for name, there in _AVAILABLE.items() if there()]
    if asked is None:
        return torch.device(available[0] if best else "cpu")
    if asked.split(":")[0] not in available:
        raise ValueError(f"The device {asked!r} is not available here. Available: {', '.join(available)}.")
    return torch.device(asked)


def _share_the_machine() -> None:
    """At most `MOST_THREADS`, and no more than the cores that this process may use, which torch asks no container."""
    torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count(), MOST_THREADS))


def _spare_the_imported() -> None:
    """Keep the search for garbage away from the libraries, which stay: it interrupted drawings for long."""
    gc.collect()
    gc.freeze()


def _repeatable(seed: int, device: torch.device) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other people's libraries draw from the global generator
    torch.manual_seed(seed)
    # NumPy's matrices are small here: two threads would wait for each other many times longer than they compute.
    threadpoolctl.threadpool_limits(1, user_api="blas")
    # Not on a GPU: some operations have no deterministic form there, and the paper's runs need the speed.
    torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)


def figure_style() -> None:
    """Figures that are legible from the last row, in colours that everybody can tell apart."""
    import seaborn

    seaborn.set_theme(context="talk", style="whitegrid", palette="colorblind")
    matplotlib.rcParams.update(
        {
            "figure.figsize": (10, 5.5),
            "figure.constrained_layout.use": True,
            "axes.titlesize": "medium",
            "axes.titley": 1.0,  # above the panel; to look for a better place takes a quarter of the time to draw
            "image.cmap": "cividis",
            "svg.hashsalt": "course_lib",  # the same figure is the same SVG, byte for byte
        }
    )


def _warning(lab: Lab) -> str:
    there = "and there is none here" if lab.device.type == "cpu" else f"and uses {lab.device}"
    return (
        f"This profile wants a GPU, {there}; it downloads what is not at hand and takes hours. `python -m course_lib "
        "doctor` says what is known of this machine; what the long cells need is said before the first of them."
    )


def _greeting(lab: Lab) -> str:
    threads = torch.get_num_threads()
    place = f"{threads} thread{'s' * (threads > 1)}" if lab.device.type == "cpu" else "results vary from run to run"
    return (
        f"course_lib {course_lib.__version__} | profile {lab.profile.name} | seed {lab.seed} | "
        f"{lab.device} ({place}) | torch {torch.__version__}"
    )
