"""The exact oracle: all feature maps against the definition and captum, in float32 and bfloat16."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import cpu_seconds, rows
from course_lib import cost, datasets, models, oracle
from course_lib.feature_maps import Chain, copy_with, evaluating, place
from course_lib.oracle import exact, naive

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CAPTUM = 5  # its evaluations for two maps of a layer: they, all other maps as a group, and the whole network twice
# name, network, pixels, images in a batch of the rivals, every how many maps of a layer are measured by ours
SIZES = [
    ("VGG-16, 4,224 maps, 64 x 64", models.vgg16, 64, 8, 1),
    ("VGG-16, 4,224 maps, 112 x 112", models.vgg16, 112, 4, 4),
    ("VGG-16, 4,224 maps, 224 x 224", models.vgg16, 224, 1, 16),
    ("AlexNet, 1,152 maps, 224 x 224", models.alexnet, 224, 8, 1),
]


def run(options: argparse.Namespace) -> list[dict]:
    """The embedded network as a whole; the large ones layer by layer, on one image."""
    found = embedded()
    for name, build, size, batch, every in SIZES:
        torch.manual_seed(0)
        trunk = {"trunk": options.trunk} if options.trunk and build is models.vgg16 else {}
        splits = datasets.load("petals", image_size=size, train=batch, val=10, test=10)
        found += Comparison(build(102, **trunk), *next(iter(datasets.batches(splits.train))), every).rows(name)
    return found


def embedded() -> list[dict]:
    """All maps of the embedded network: in time on 8 images, rivals on two maps of every layer; ranks on 64 images."""
    model, splits = models.trained("vgg16-petals"), datasets.load("petals", train=64, val=10, test=10)
    few, many = (list(datasets.batches(splits.train, n)) for n in (8, 64))
    some, found = {name: [0, 1] for name in Chain(model).layers}, []
    share = {"naive, channels last": 2 * len(some) / 1056, "captum": CAPTUM * len(some) / 1056}
    ranks = {name: oracle.ablate(model, many, dtype=dtype, progress=False) for name, dtype in DTYPES.items()}
    for name, dtype in DTYPES.items():
        works = {
            "ours": lambda dtype=dtype: oracle.ablate(model, few, dtype=dtype, progress=False),
            "naive, channels last": lambda: oracle.ablate(model, few, some, method="naive", progress=False),
            "captum": lambda: [captum_ablation(model, *few[0], layer, maps) for layer, maps in some.items()],
        }
        work = f"exact oracle, {name}: vgg16-petals, 1,056 maps, 8 images of 32 x 32"
        agree = {"least_spearman": min(map(_spearman, ranks[name].values(), ranks["float32"].values()))}
        found += [row | agree for row in rows(work, cpu_seconds(works), share=share)]
    return found


@dataclass
class Comparison:
    """One network, timed layer by layer: in each layer everybody has a turn, so that all see the same machine.

    Ours measures `every`-th map of each layer on the first image, the same share of the arithmetic in every layer;
    a rival evaluates the whole network again and again, so a few of its evaluations tell the time of all. Ours includes
    the base pass; making the network ready (weights in another type, once a run) is left out.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    every: int
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of each layer; the rivals': of one evaluation
    effects: dict[str, list[Tensor]] = field(default_factory=dict)
    base: dict[str, exact.Base] = field(default_factory=dict)
    double: naive.Base | None = None

    def __post_init__(self):
        self.chain, self.macs = Chain(self.model.eval()), cost.macs(self.model, tuple(self.images.shape[1:]))
        image = place(self.images[:1], torch.device("cpu"))
        self.networks = {name: exact.Network(self.chain, image, dtype) for name, dtype in DTYPES.items()}
        self.turns = dict(self._rivals()) | dict(self._plain())

    def rows(self, name: str) -> list[dict]:
        """Ours against each rival, for each type."""
        with evaluating(self.model), torch.inference_mode():
            image = place(self.images[:1], torch.device("cpu"))
            for dtype, network in self.networks.items():
                self._time(dtype, lambda name=dtype, network=network: self._run(name, network, image))
            for number, layer in enumerate(self.chain.layers.values()):
                self._layer(number, layer)
        return [row for dtype in DTYPES for row in self._rows(name, dtype)]

    def _run(self, dtype: str, network: exact.Network, image: Tensor) -> None:
        self.base[dtype] = exact.Base(network, image, self.labels[:1])

    def _layer(self, number: int, layer) -> None:
        maps = torch.arange(0, layer.channels, self.every)
        for dtype, base in self.base.items():
            found: list[Tensor] = []
            self._time(dtype, lambda base=base, found=found: found.append(base.changes(layer, maps)[0]))
            self.effects.setdefault(dtype, []).append(found[0])
        for name, (work, evaluations) in self.turns.items():
            if name == "captum" and number % 4:
                continue  # it takes five times as long as the others
            self._time(name, lambda work=work: work(layer), evaluations * len(self.images))
        self.effects.setdefault("truth", []).append(self._truth(layer, maps[[0, len(maps) // 2]]))

    def _time(self, name: str, work: Callable[[], object], evaluations: int = 1) -> None:
        began = time.process_time()
        work()
        self.seconds.setdefault(name, []).append((time.process_time() - began) / evaluations)

    def _rivals(self) -> Iterator[tuple[str, tuple[Callable, int]]]:
        """Name, what it does in a layer, and how many evaluations of the network that is."""
        last = place(self.images, torch.device("cpu"))
        yield "naive", (lambda layer: self._close(layer, self.images), 1)
        yield "naive, channels last", (lambda layer: self._close(layer, last), 1)
        yield (
            "captum",
            (lambda layer: captum_ablation(self.model, self.images, self.labels, layer.name, [0, 1]), CAPTUM),
        )

    def _plain(self) -> Iterator[tuple[str, tuple[Callable, int]]]:
        """A forward pass of the network as it is, as fast as torch runs it."""
        for name, dtype in DTYPES.items():
            model = copy_with(self.model, {}).to(dtype, memory_format=torch.channels_last)
            images = place(self.images, torch.device("cpu")).to(dtype)
            yield f"plain {name}", (lambda layer, model=model, images=images: model(images), 1)

    def _close(self, layer, images: Tensor) -> None:
        def silence(module, inputs, output):
            output[:, 0] = 0
            return output

        module = self.chain.steps[layer.gate_at].module
        handle = module.register_forward_hook(silence)
        F.cross_entropy(self.model(images), self.labels, reduction="none")
        handle.remove()

    def _truth(self, layer, maps: Tensor) -> Tensor:
        """(2,): by definition, in double precision."""
        image, label = self.images[:1].double(), self.labels[:1]
        if self.double is None:
            self.double = naive.Base(naive.Network(Chain(copy_with(self.model, {}).double()), image), image, label)
        return self.double.changes(layer, maps)[0]

    def _rows(self, name: str, dtype: str) -> list[dict]:
        network, layers = self.networks[dtype], list(self.chain.layers.values())
        base, *seconds = self.seconds[dtype]
        ours = base + self.every * sum(seconds)
        maps = sum(layer.channels for layer in layers)
        found = {n: maps * statistics.median(t) for n, t in self.seconds.items() if n not in DTYPES}
        plain = self.macs / statistics.median(self.seconds[f"plain {dtype}"])
        each = [network.macs_per_map(layer) for layer in layers]
        done = sum(int((e != 0).sum()) * macs for e, macs in zip(self.effects[dtype], each, strict=True))
        needed = self.macs + sum(layer.channels * macs for layer, macs in zip(layers, each, strict=True))
        limit = maps * self.macs / needed
        rivals = {n: t for n, t in found.items() if not n.startswith("plain")}
        measured = "all maps" if self.every == 1 else f"measured on every {self.every}th map"
        compared = rows(
            f"exact oracle, {dtype}: {name}, {measured}",
            {"ours": ours, **rivals},
            limit=dict.fromkeys(rivals, limit),
            error=max(self._errors(dtype)),
        )
        extra = {
            "gmacs_per_second": done / sum(seconds) / 1e9,
            "share_of_plain_forward": done / sum(seconds) / plain,
        }
        if self.every == 1:
            extra["least_spearman"] = min(map(_spearman, self.effects[dtype], self.effects["float32"]))
        return [row | extra for row in compared]

    def _errors(self, dtype: str) -> Iterator[float]:
        """Of each layer: the largest error of the checked maps, relative to the layer's largest effect."""
        for ours, truth in zip(self.effects[dtype], self.effects["truth"], strict=True):
            yield float((ours[[0, len(ours) // 2]] - truth).abs().max() / ours.abs().max())


def _spearman(one: Tensor, other: Tensor) -> float:
    """Of oracle-abs. With signs, one map on the other side of the many that are dead on an image would count a lot."""
    return float(stats.spearmanr(one.abs(), other.abs()).statistic)


def captum_ablation(model: nn.Module, images: Tensor, labels: Tensor, layer: str, maps: list[int]) -> None:
    """LayerFeatureAblation of some maps of one layer; all others form one last group."""
    from captum.attr import LayerFeatureAblation

    def losses(x):
        return F.cross_entropy(model(x), labels, reduction="none")

    modules, chain = dict(model.named_modules()), Chain(model)
    channels = chain.layers[layer].channels
    mask = torch.full((1, channels, 1, 1), len(maps))
    mask[0, maps, 0, 0] = torch.arange(len(maps))
    ablation = LayerFeatureAblation(losses, modules[chain.steps[chain.layers[layer].gate_at].name])
    with torch.no_grad():
        ablation.attribute(images, layer_baselines=0, layer_mask=mask)
