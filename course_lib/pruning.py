"""The pruning loop: score, rank, remove, fine-tune, and again, until the network is small enough.

Section 2 of Molchanov et al. 2017. Taught in: notebooks/09_prune_vgg16.ipynb.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from course_lib import cost, criteria, datasets, distributed, models, ranking, surgery, training
from course_lib.datasets import Splits
from course_lib.feature_maps import Chain, Layer, Scores
from course_lib.names import UnknownName, unknown
from course_lib.progress import meter

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Settings:
    """How to prune. The defaults are the paper's where it names them (section 3.1), at more than one map a step.

    Attributes:
        criterion: a key of `criteria.CRITERIA`.
        maps_per_step: feature maps removed at each step (the paper: 1).
        updates: fine-tuning updates after each step (the paper: 30 on Birds-200, 10 on Flowers-102).
        normalization: of the scores within each layer: 'l2', 'l1', 'minmax' or 'none'.
        flops_strength: lambda of FLOPs regularisation, eq. 9 (the paper: 1e-3); 0 leaves it out.
        images: training images that the criterion looks at in each step.
        score_while_tuning: gather the criterion during the fine-tuning of the step before, as the paper does, with its
            dropout and augmentation, instead of in a pass of its own over `images`. It costs next to nothing. The first
            step, and criteria of weights or of curvature ('obd'), score in a pass of their own in any case.
        memory: share of the last scores kept in a running average (the paper: 0.99 for OBD, appendix A.6).
        keep_at_least: feature maps that every layer keeps.
        round_to: how many maps stay in a layer is a multiple of this: 16 for speed (see `ranking.lowest`); a step, and
            the last one, then removes up to round_to - 1 maps more than was asked.
        optimizer, lr, momentum, weight_decay, batch_size, augment: of fine-tuning; 'sgd' or 'adam'.
        seed: decides images, order, augmentation, dropout and random scores.
    """

    criterion: str = "taylor"
    maps_per_step: int = 64
    updates: int = 30
    normalization: str = "l2"
    flops_strength: float = 0.0
    images: int = 256
    score_while_tuning: bool = False
    memory: float = 0.0
    keep_at_least: int = 1
    round_to: int = 1
    optimizer: str = "sgd"
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 32
    augment: bool = False
    seed: int = 0

    def __post_init__(self):
        if min(self.maps_per_step, self.keep_at_least, self.round_to) < 1:
            raise ValueError("maps_per_step and keep_at_least (and round_to) are numbers of feature maps, at least 1.")
        if self.normalization not in ranking.NORMALIZATIONS:
            raise UnknownName("normalization", self.normalization, ranking.NORMALIZATIONS)


@dataclass(frozen=True)
class Step:
    """The network after one step; step 0 is the one that was given.

    `accuracy` and `loss` (nats) are of the evaluation set, after fine-tuning; `accuracy_before_tuning` right after the
    cut. `macs` are for one image. `removed` names the maps that each layer lost in this step, by their number in the
    network before it.
    """

    number: int
    maps_left: int
    macs: int
    params: int
    accuracy: float
    loss: float
    accuracy_before_tuning: float
    removed: dict[str, list[int]]
    seconds: float
    model: nn.Module

    def record(self) -> dict:
        """Everything but the network."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "model"}

    def row(self) -> dict:
        """The step's numbers, as a row of a table."""
        record = self.record()
        return record | {"removed": sum(map(len, record["removed"].values()))}


def prune(
    model: nn.Module,
    splits: Splits,
    criterion: str = "taylor",
    *,
    maps_left: float | None = None,
    macs_left: float | None = None,
    params_left: float | None = None,
    min_accuracy: float | None = None,
    evaluate_on: str = "test",
    folder: str | Path | None = None,
    progress: bool = True,
    **settings,
) -> Iterator[Step]:
    """Prune a network step by step: an iterator of `Step`s, the first of which is the network as given.

    Stops at the first budget that is met; give at least one. A budget of at most 1 is a share of what the network
    has now, a larger one an absolute number.

    Args:
        model: a trained network; it is not changed.
        splits: `.train` scores and fine-tunes, `evaluate_on` ('test', 'val' or 'train') measures.
        criterion: a key of `criteria.CRITERIA`.
        maps_left, macs_left, params_left: budgets of feature maps, MACs and parameters.
        min_accuracy: stop before the first step whose accuracy falls below this.
        folder: checkpoints after every step; the same call again goes on from the last one, to the same result.
        settings: fields of `Settings`.

    Raises:
        KeyError: unknown criterion, normalisation, optimizer or split. TypeError: unknown setting. ValueError: no
        budget, a budget below what the floor of maps per layer allows, a damaged checkpoint, or a folder that holds a
        run with other settings. BlockingIOError: a folder in which another run is at work. OSError: one that cannot
        be written to.
        FloatingPointError: the loss became infinite or not a number.
    """
    if unheard := set(settings) - set(Settings.__dataclass_fields__):
        raise TypeError(unknown("setting of the pruning loop", unheard.pop(), Settings.__dataclass_fields__))
    criteria.find(criterion)
    if evaluate_on not in SPLITS:
        raise UnknownName("split", evaluate_on, SPLITS)
    run = _Run(model, splits, Settings(criterion=criterion, **settings), evaluate_on, progress)
    budget = run.budget({"maps_left": maps_left, "macs": macs_left, "params": params_left})
    if min_accuracy is None and not budget:
        raise ValueError("Say when to stop: maps_left, macs_left, params_left (at most 1: a share) or min_accuracy.")
    return _steps(run, budget, min_accuracy, folder and Path(folder))


def _steps(run: _Run, budget: dict[str, int], min_accuracy: float | None, folder: Path | None) -> Iterator[Step]:
    whole, least = cost.feature_maps(run.model), budget.get("maps_left")
    with (
        contextlib.nullcontext() if folder is None else distributed.alone(folder),
        meter("pruning", " maps", show=run.progress) as bar,
    ):
        bar.total = None if least is None else whole - max(least, run.floor)  # other budgets may end it anywhere
        for step in _walk(run, budget, min_accuracy, folder):
            bar.update(whole - step.maps_left - bar.n)
            yield step


def _walk(run: _Run, budget: dict[str, int], min_accuracy: float | None, folder: Path | None) -> Iterator[Step]:
    if folder is not None:
        yield from run.resume(folder)
    while run.step is None or not run.is_done(budget):
        step = run.advance(budget) if run.step else run.start()
        if min_accuracy is not None and step.accuracy < min_accuracy:
            return
        if folder is not None:
            distributed.first(run.save, folder)
        yield step


class _Run:
    """The state of a pruning run: the network, its optimizer, the running scores and the last step."""

    def __init__(self, model: nn.Module, splits: Splits, settings: Settings, evaluate_on: str, progress: bool):
        self.model = surgery.remove(model, {}).eval()  # a copy: the network that was given stays as it is
        self.settings, self.progress = settings, progress
        self.train, self.evaluation = splits.train, getattr(splits, evaluate_on)
        self.image_shape = tuple(splits.train[0][0].shape)
        self.optimizer = make_optimizer(self.model, settings)
        self.origin = {**asdict(settings), "evaluate_on": evaluate_on}
        self.origin["network"] = models.fingerprint(model.state_dict())
        self.origin["data"] = [splits.name, len(self.train), len(self.evaluation)]
        self.scores: Scores | None = None
        self.step: Step | None = None

    def budget(self, asked: dict[str, float | None]) -> dict[str, int]:
        """The budgets as absolute numbers, by the field of `Step` that they bind."""
        layers = Chain(self.model).layers
        smallest = surgery.remove(self.model, {n: torch.arange(self._fewest(x), x.channels) for n, x in layers.items()})
        now, least, found = self._sizes(self.model), self._sizes(smallest), {}
        keep, round_to = self.settings.keep_at_least, self.settings.round_to
        multiples = f" in multiples of {round_to}" if round_to > 1 else ""
        for key, value in asked.items():
            if value is None:
                continue
            found[key] = round(value * now[key]) if value <= 1 else int(value)
            if found[key] < least[key]:
                raise ValueError(
                    f"A budget of {found[key]:,} {key.removesuffix('_left')} cannot be reached: where every layer "
                    f"keeps {keep} of its feature maps{multiples}, {least[key]:,} are left."
                )
        return found

    @property
    def floor(self) -> int:
        """Feature maps that stay in any case."""
        return sum(map(self._fewest, Chain(self.model).layers.values()))

    def is_done(self, budget: dict[str, int]) -> bool:
        """Whether a budget is met; without one, whether nothing more may go."""
        met = any(getattr(self.step, key) <= value for key, value in budget.items())
        return met or self.step.maps_left <= self.floor

    def start(self) -> Step:
        """Step 0: the network as given."""
        self.step = self._measure(0, {}, None, time.perf_counter())
        return self.step

    def advance(self, budget: dict[str, int]) -> Step:
        """One step: score, rank, remove, fine-tune, measure; no further than a budget of feature maps."""
        began, number = time.perf_counter(), self.step.number + 1
        n = min(self.settings.maps_per_step, self.step.maps_left - max(budget.get("maps_left", 0), self.floor))
        keep, round_to = self.settings.keep_at_least, self.settings.round_to
        # On a GPU, scores are not the same in every process to the last bit: the first one decides.
        scores = self._rank(number)
        plan = distributed.first(ranking.lowest, scores, n, keep_at_least=keep, round_to=round_to)
        small = surgery.remove(self.model, plan)
        self.optimizer = surgery.carry_optimizer(self.optimizer, self.model, small, plan)
        self.scores = {name: _without(values, plan.get(name)) for name, values in self.scores.items()}
        self.model = small
        cut = training.evaluate(small, self.evaluation).accuracy
        if self.settings.updates:
            self._fine_tune(number)
        self.step = self._measure(number, {name: maps.tolist() for name, maps in plan.items()}, cut, began)
        return self.step

    def save(self, folder: Path) -> None:
        """The step's checkpoint: network, optimizer state and scores in one file, whole or not at all."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"scores/{name}": values for name, values in (self.scores or {}).items()}
        for parameter, state in self.optimizer.state.items():
            tensors |= {f"optimizer/{names[id(parameter)]}/{k}": v for k, v in state.items() if torch.is_tensor(v)}
        header = {"origin": self.origin, "step": self.step.record()}
        models.write_safetensors(folder / f"step_{self.step.number:04d}.safetensors", tensors, header)

    def resume(self, folder: Path) -> Iterator[Step]:
        """Yield the steps that a folder holds, and stand after the last of them as if the run had never stopped."""
        for number in itertools.count():
            path = folder / f"step_{number:04d}.safetensors"
            if not distributed.first(path.exists):
                return
            tensors, header = models.read_safetensors(path)
            if "origin" not in header:
                raise ValueError(f"{path} is no checkpoint of a pruning run. Give another folder.")
            self._same_run(folder, header["origin"])
            self._restore(tensors, header["step"])
            yield self.step

    def _restore(self, tensors: dict[str, torch.Tensor], row: dict) -> None:
        plan = {name: torch.tensor(maps) for name, maps in row["removed"].items()}
        self.model = surgery.remove(self.model, plan)
        parts: dict[str, dict] = {"model": {}, "scores": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        self.model.load_state_dict(parts["model"])
        scores = parts["scores"]  # in the file's alphabet; their order decides between layers of equal scores
        self.scores = {name: scores[name] for name in Chain(self.model).layers} if scores else None
        self.optimizer = make_optimizer(self.model, self.settings)
        parameters = dict(self.model.named_parameters())
        for key, value in parts["optimizer"].items():
            name, entry = key.rsplit("/", 1)
            self.optimizer.state[parameters[name]][entry] = value.to(parameters[name].device)
        self.step = Step(**row, model=self._copy())

    def _same_run(self, folder: Path, origin: dict) -> None:
        different = [key for key, value in self.origin.items() if origin.get(key) != value]
        if different:
            was = ", ".join(f"{key}={origin.get(key)!r}" for key in different)
            raise ValueError(
                f"{folder} holds a run with other settings ({was}). Give the same settings to go on with it, or "
                "another folder to begin anew."
            )

    def _rank(self, number: int) -> Scores:
        """Normalised scores of this step: a running average if so asked, minus the price of FLOPs (eq. 9)."""
        s = self.settings
        if not (self._is_watching and self.step.number):
            batches = datasets.batches(self.train, s.images, batch_size=s.batch_size, seed=self._seed(number))
            fresh = criteria.score(self.model, batches, s.criterion, seed=self._seed(number), progress=self.progress)
            self.scores = _average(self.scores, fresh[s.criterion], s.memory)
        scores = ranking.normalize(self.scores, s.normalization)
        if s.flops_strength:
            scores = ranking.regularize(scores, cost.mflops_per_map(self.model, self.image_shape), s.flops_strength)
        return scores

    @property
    def _is_watching(self) -> bool:
        """Whether the fine-tuning of each step gathers the scores for the next one."""
        s = self.settings
        needs = criteria.find(s.criterion).needs
        return s.score_while_tuning and s.updates > 0 and needs in ("activations", "gradients")

    def _fine_tune(self, number: int) -> None:
        s, tally = self.settings, None
        if self._is_watching:
            generator = torch.Generator().manual_seed(self._seed(number))
            tally = criteria.Tally([s.criterion], Chain(self.model), None, generator)
        training.fit(
            self.model,
            self.train,
            updates=s.updates,
            optimizer=self.optimizer,
            batch_size=s.batch_size,
            augment=s.augment,
            seed=self._seed(number),
            progress=self.progress,
            watch=tally and tally.watch,
            label=f"step {number}: fine-tuning",
        )
        if tally is not None:
            self.scores = _average(self.scores, tally.scores()[s.criterion], s.memory)

    def _measure(self, number: int, removed: dict[str, list[int]], cut: float | None, began: float) -> Step:
        found = training.evaluate(self.model, self.evaluation)
        return Step(
            number=number,
            **self._sizes(self.model),
            accuracy=found.accuracy,
            loss=found.loss,
            accuracy_before_tuning=found.accuracy if cut is None else cut,
            removed=removed,
            seconds=time.perf_counter() - began,
            model=self._copy(),
        )

    def _sizes(self, model: nn.Module) -> dict[str, int]:
        macs = cost.macs(model, self.image_shape)
        return {"maps_left": cost.feature_maps(model), "macs": macs, "params": cost.parameters(model)}

    def _fewest(self, layer: Layer) -> int:
        return ranking.fewest(layer.channels, self.settings.keep_at_least, self.settings.round_to)

    def _copy(self) -> nn.Module:
        # Whoever gets a step may go on training its network; the run's own must not change with it.
        return surgery.remove(self.model, {}).eval()

    def _seed(self, number: int) -> int:
        # Each step has a seed of its own, so that a resumed run needs no generator's state.
        return self.settings.seed * 100_003 + number


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer for fine-tuning between steps: SGD with momentum (the paper's) or Adam."""
    common = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **common)
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **common)
    raise UnknownName("optimizer", settings.optimizer, ["sgd", "adam"])


def _average(old: Scores | None, new: Scores, memory: float) -> Scores:
    if old is None or not memory:
        return new
    return {name: memory * old[name] + (1 - memory) * new[name] for name in new}


def _without(values: torch.Tensor, removed: torch.Tensor | None) -> torch.Tensor:
    keep = torch.ones(len(values), dtype=torch.bool)
    keep[removed if removed is not None else []] = False
    return values[keep]
