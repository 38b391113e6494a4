"""All criteria in one pass: what it costs, and how near its OBD is to the exact diagonal.

The peers score Taylor alone: Torch-Pruning from the gradients of the weights, and a loop of hooks in the manner of the
code that went round in 2017. Both need a whole training step; both are timed with one scoring per batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import cpu_seconds, rows
from course_lib import criteria, datasets, derivatives, models
from course_lib.classroom import gate_curves
from course_lib.feature_maps import Chain

Batches = list[tuple[Tensor, Tensor]]

# name -> options of criteria.score; None: every criterion but OBD
WAYS = {
    "all but OBD": None,
    "all, OBD from the label's share": {"draws": 0},
    "all, OBD with one sign vector": {"draws": 1},
    "all, OBD with four more classes": {"draws": 0, "classes": 4},
}
# Not timed: one more class costs as much as one sign vector, and four sign vectors as much as four classes.
UNTIMED = {
    "OBD with one more class": {"draws": 0, "classes": 1},
    "OBD with four sign vectors": {"draws": 4},
}
PLAIN = (1, 4, 10)  # random signs for everything, without the label's share: the way before


def run(options: argparse.Namespace) -> list[dict]:
    """Rows for the embedded network and for the full VGG-16 at 64 and 224 pixels."""
    found = []
    for work, model, batches, known in networks(options):
        model.to(memory_format=torch.channels_last)
        found += timed(work, model, batches, agreement(model, known) if known else {})
    return found


def networks(options: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Batches, Batches]]:
    """What was done, network, batches to time, and batches that the network has been trained on (none: no OBD row)."""
    petals = list(datasets.batches(datasets.load("petals", train=256, val=10, test=10).train, batch_size=64))
    yield "VGG-16 of a quarter width, 256 petals of 32 px", models.trained("vgg16-petals"), petals, petals
    for size, examples in ((64, 24), (224, 2)):
        model, known = models.vgg16(102, trunk=options.trunk).eval(), []
        images, labels = torch.randn(examples, 3, size, size), torch.arange(examples)
        if options.photographs:
            splits = datasets.load("flowers102", root=options.photographs, image_size=size, on_bad="skip")
            n = 96 if size == 64 else examples
            images, labels = next(iter(datasets.batches(splits.train, n, batch_size=n)))
        if options.photographs and options.trunk and size == 64:
            train_last_layer(model, images, labels)
            known = list(zip(images[:32].split(16), labels[:32].split(16), strict=True))
        yield f"VGG-16, {examples} images of {size} px", model, [(images[:examples], labels[:examples])], known


def train_last_layer(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Softmax regression on the features of the layer before, so that the network believes in something."""
    *_, last = model.classifier
    with torch.no_grad():
        features = torch.cat([model[:-1](part) for part in images.split(24)])
        features = model.classifier[:-1](features)
    optimizer = torch.optim.LBFGS(last.parameters(), max_iter=15, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(last(features), labels)
        value.backward()
        return value

    optimizer.step(loss)


def timed(work: str, model: nn.Module, batches: Batches, agreements: dict[str, list[float]]) -> list[dict]:
    """Rows: each of our ways against the bare step, and the cheapest against the peers."""
    batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    score_group = torch_pruning_importance(model, batches[0][0][:1])
    works: dict[str, Callable[[], object]] = {
        "bare training step": lambda: [step(model, *batch) for batch in batches],
        "torch-pruning, Taylor only": lambda: [(step(model, *batch), score_group()) for batch in batches],
        "hooks of 2017, Taylor only": lambda: [hooks_of_2017(model, *batch) for batch in batches],
    }
    peers = list(works)
    works |= {way: lambda options=options: score(model, batches, options) for way, options in WAYS.items()}
    seconds, found = cpu_seconds(works), []
    model.zero_grad()
    for way in WAYS:
        against = peers if way == "all but OBD" else peers[:1]
        for row in rows(f"{way}: {work}", {"ours": seconds[way]} | {name: seconds[name] for name in against}):
            found.append(row | {"ours_of_theirs": 1 / row["ratio"]} | with_exact(agreements.get(way)))
    for name, values in agreements.items():
        if name not in WAYS:
            found.append({"work": f"{name}: {work}"} | with_exact(values))
    return found


def score(model: nn.Module, batches: Batches, options: dict | None) -> dict:
    names = [name for name in criteria.CRITERIA if options is not None or name != "obd"]
    return criteria.score(model, batches, names, progress=False, **(options or {}))


def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward with gradients of the weights: what a training step costs without its update."""
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()


def torch_pruning_importance(model: nn.Module, example: Tensor) -> Callable[[], list[Tensor]]:
    """Torch-Pruning's Taylor importance of all layers, its dependency graph made beforehand."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example)
    every = [(layer.conv, list(range(layer.channels))) for layer in Chain(model).layers.values()]
    groups = [graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, maps) for conv, maps in every]
    importance = torch_pruning.importance.GroupTaylorImportance()
    return lambda: [importance(group) for group in groups]


def hooks_of_2017(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Keep every convolution's output, multiply it by its gradient when that comes, average, absolute value last."""
    scores, handles = {}, []
    for name, layer in Chain(model).layers.items():

        def keep(module, inputs, output, name=name):
            output.register_hook(lambda gradient: scores.update({name: (output * gradient).mean((0, 2, 3)).detach()}))

        handles.append(layer.conv.register_forward_hook(keep))
    step(model, images, labels)
    for handle in handles:
        handle.remove()
    return {name: value.abs() / value.norm() for name, value in scores.items()}


def agreement(model: nn.Module, batches: Batches) -> dict[str, list[float]]:
    """{way: Spearman rank correlation of its OBD with the exact Gauss-Newton diagonal, one for every layer}."""
    slopes, p = all_slopes(model, batches)
    exact = {name: gate_curves.curvature(J, p).mean(0) for name, J in slopes.items()}
    found = {
        way: criteria.score(model, batches, "obd", progress=False, **options)["obd"]
        for way, options in (WAYS | UNTIMED).items()
        if options is not None
    }
    for draws in PLAIN:
        found[f"OBD with {draws} sign vector(s) only"] = {
            name: sum(gate_curves.curvature_draws(J, p, "classes", draws)).mean(0) for name, J in slopes.items()
        }
    return {way: [stats.spearmanr(guess[name], exact[name])[0] for name in exact] for way, guess in found.items()}


def all_slopes(model: nn.Module, batches: Batches) -> tuple[dict[str, Tensor], Tensor]:
    """Derivative of every logit by every gate, {layer: (N, classes, C)}, and the probabilities; a few at a time."""
    chain, parts, logits = Chain(model), {}, []
    for images, _ in batches:
        logits.append(model(images).detach())
        for some in torch.arange(logits[0].shape[1]).split(17):  # their gradients lie in memory together
            walked = derivatives.run(chain, images, chain.layers)
            for name, found in derivatives.logit_slopes(*walked, some.expand(len(images), -1)).items():
                parts.setdefault(name, {}).setdefault(len(logits), []).append(found)
    slopes = {name: torch.cat([torch.cat(p, dim=1) for p in each.values()]) for name, each in parts.items()}
    return slopes, torch.cat(logits).softmax(1)


def with_exact(values: list[float] | None) -> dict[str, float]:
    """Columns for the correlation with the exact diagonal: mean over layers and the worst layer."""
    if values is None:
        return {}
    return {"spearman_exact": sum(values) / len(values), "spearman_worst_layer": min(values)}
