"""How far to prune, by description length: bits of the pruned network plus bits of the labels, given the network.

Sender and receiver both have the images; the labels are what is told. Three ways to tell them with a network: all of
its weights ("from nothing"); where both have the pre-trained network, its mask and a new output layer ("two parts");
or the mask alone, the output layer being learned from the labels told so far ("prediction").

Taught in: notebooks/02_description_length.ipynb.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import Dataset

from course_lib import cost, criteria, datasets, pruning, ranking, surgery, training
from course_lib.classroom.figures.pruning import map_counts
from course_lib.feature_maps import Chain
from course_lib.progress import track
from course_lib.theory import codes
from course_lib.theory import description_length as theory

#: Criteria that look at weights and images only. The receiver has both, so it can compute these masks for itself.
PUBLIC = ("random", "min_weight", "l1_norm", "activation_mean", "activation_std", "apoz")
#: Inverse regularisation of output layers (scikit-learn's C). The sender of a two-part code tells the one that suits.
STRENGTHS = (0.1, 1.0, 10.0)


# ------------------------------------------------------------------------------------------------- a linear classifier


def told_weights(
    x: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float] = (0.01, 0.1, 1.0),
    precisions: Sequence[int] = range(-2, 6),
    noises: Sequence[float] = tuple(2.0 ** np.arange(-6, 1)),
) -> pd.DataFrame:
    """A linear classifier and the labels under it, in three codes that tell weights: bits of both parts.

    Args:
        x, labels: (N, features), (N,).
        strengths: of the classifiers tried (scikit-learn's C); at 32 bits the last one is told.
        precisions, noises: tried with each of them; the shortest message counts.

    Returns:
        Rows 'two parts, float32', 'two parts, best precision', 'noisy weights, bits back'; columns model_bits,
        label_bits.
    """
    fits = [theory.fitted(learner(strength), x, labels) for strength in strengths]
    layers = [(fit.coef_, fit.intercept_) for fit in fits]
    plain = (32 * sum(part.size for part in layers[-1]), theory.linear_label_bits(*layers[-1], x, labels))
    rows = {
        "two parts, float32": plain,
        "two parts, best precision": min((_two_parts(a, b, x, labels) for a in layers for b in precisions), key=sum),
        "noisy weights, bits back": min(
            (theory.noisy_bits(*a, x, labels, sd) for a in layers for sd in noises), key=sum
        ),
    }
    return pd.DataFrame(rows, index=["model_bits", "label_bits"]).T


def _two_parts(layer: Sequence[np.ndarray], precision: int, x: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Bits of a layer at a precision, and of the labels under it as rounded."""
    code = theory.rounded(layer, precision)
    return code.bits, theory.linear_label_bits(*code.arrays, x, labels)


# -------------------------------------------------------------------------------------------------------- from nothing


def told_network(model: nn.Module, precision: int) -> tuple[nn.Module, float]:
    """The network as a receiver gets it who knows only that it is a VGG, and the bits that takes.

    Told are the width of every layer (Elias) and all numbers of the state, rounded as by `theory.rounded`.
    """
    told, state = copy.deepcopy(model), model.state_dict()
    numbers = {name: value for name, value in state.items() if value.is_floating_point()}
    code = theory.rounded([value.cpu().numpy() for value in numbers.values()], precision)
    decoded = {name: torch.from_numpy(array) for name, array in zip(numbers, code.arrays, strict=True)}
    told.load_state_dict(state | decoded)
    widths = [layer.channels for layer in Chain(model).layers.values()]
    return told, code.bits + float(codes.integer_bits(widths).sum())


def label_bits(model: nn.Module, dataset: Dataset) -> float:
    """All labels of a data set, given the images and the network: cross-entropy in bits, not its mean."""
    return training.evaluate(model, dataset).loss * len(dataset) / np.log(2)


def fine_tuned_run(
    model: nn.Module, splits: datasets.Splits, shares: Iterable[float], precisions: Sequence[int], **settings
) -> pd.DataFrame:
    """Prune by Taylor and fine-tune, and at each share of the maps tell the whole network at several precisions.

    `settings`: of `pruning.prune`; but from one share to the next it takes two steps, whatever maps_per_step says.

    Returns:
        A row for each share and precision: share, maps, parameters, precision, model_bits, label_bits, bits, and
        test_error of the network before rounding.
    """
    rows, whole = [], cost.feature_maps(model)
    for share in track(list(shares), "pruning and fine-tuning"):
        maps = max(round(share * whole), len(Chain(model).layers))
        if maps < (now := cost.feature_maps(model)):
            how = settings | {"maps_per_step": -(-(now - maps) // 2), "maps_left": maps, "progress": False}
            *_, step = pruning.prune(model, splits, "taylor", **how)
            model = step.model
        row = {"share": share, "maps": maps, "parameters": cost.parameters(model)}
        row["test_error"] = 1 - training.evaluate(model, splits.test).accuracy
        for precision in precisions:
            told, bits = told_network(model, precision)
            labels = label_bits(told, splits.train)
            parts = {"precision": precision, "model_bits": bits, "label_bits": labels, "bits": bits + labels}
            rows.append(row | parts)
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------- given the pre-trained network


class Frozen(NamedTuple):
    """A pruned, otherwise unchanged network, as the output layer sees it.

    Attributes:
        share, maps: of the feature maps, what is left.
        mask_bits: to tell which.
        features, labels: of the training images, (N, F) and (N,); features in units of their root mean square, which
            the receiver knows too.
        layers: output layers (classes, F) and (classes,), one for each of `STRENGTHS`.
        test_error: of the one in the middle.
    """

    share: float
    maps: int
    mask_bits: float
    features: np.ndarray
    labels: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray]]
    test_error: float


def learner(strength: float = 1.0) -> LogisticRegression:
    """The output layer as a scikit-learn classifier."""
    return LogisticRegression(C=strength, max_iter=200)


def mask_bits(whole: Mapping[str, int], left: Mapping[str, int], criterion: str) -> float:
    """Bits to tell which maps are left, from {layer: maps} before and after.

    Of a `PUBLIC` criterion only how many: the receiver computes the rest. Of another, the pattern of every layer.
    """
    if criterion in PUBLIC:
        return float(np.log2(sum(whole.values()) + 1))
    return sum(codes.pattern_bits(maps, left[name]) for name, maps in whole.items())


def frozen_run(
    model: nn.Module, splits: datasets.Splits, criterion: str, shares: Iterable[float], *, images: int, seed: int
) -> list[Frozen]:
    """Prune without fine-tuning, to falling shares of the maps; only the output layer is fitted anew at each of them.

    `images`: training images that the criterion looks at. Three classes or more.
    """
    whole, found = map_counts(model), []
    for share in track(list(shares), f"pruning by {criterion}"):
        surplus = cost.feature_maps(model) - max(round(share * sum(whole.values())), len(whole))
        if surplus > 0:
            batches = datasets.batches(splits.train, min(images, len(splits.train)), seed=seed)
            scores = criteria.score(model, batches, criterion, seed=seed, progress=False)[criterion]
            model = surgery.remove(model, ranking.lowest(ranking.normalize(scores, "l2"), surplus, keep_at_least=1))
        x, labels = (part.numpy() for part in training.head_inputs(model, splits.train).tensors)
        unit = float(np.sqrt(np.mean(np.square(x)))) or 1.0
        fits = [theory.fitted(learner(strength), x / unit, labels) for strength in STRENGTHS]
        layers = [_layer(fit, len(splits.classes)) for fit in fits]
        _install(*layers[1], unit, model)  # so that the next scores mean something
        left, error = map_counts(model), 1 - training.evaluate(model, splits.test).accuracy
        parts = (sum(left.values()), mask_bits(whole, left, criterion), x / unit, labels, layers, error)
        found.append(Frozen(share, *parts))
    return found


def _layer(fit: LogisticRegression, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases for all classes; one of which there was no example is never likelier than the others."""
    weights, bias = np.zeros((classes, fit.coef_.shape[1])), np.full(classes, fit.intercept_.min())
    weights[fit.classes_], bias[fit.classes_] = fit.coef_, fit.intercept_
    return weights, bias


def _install(weights: np.ndarray, bias: np.ndarray, unit: float, model: nn.Module) -> None:
    head = training.head(model)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights / unit))
        head.bias.copy_(torch.from_numpy(bias))


def frozen_codes(run: Iterable[Frozen], precisions: Sequence[int], growth: float = 2.0) -> pd.DataFrame:
    """Code lengths along a `frozen_run`: a row for each share and code, which is 'two parts' or 'prediction'.

    Columns: share, maps, test_error, code, precision (two parts: the best), mask_bits, model_bits (the output layer),
    label_bits, bits. `growth`: of the blocks of the prequential code.
    """
    rows = []
    for frozen in track(list(run), "code lengths"):
        x, labels = frozen.features, frozen.labels
        ends = theory.blocks(len(labels), growth=growth)
        predicted = theory.prequential_bits(learner(), x, labels, ends, len(frozen.layers[0][1])).sum()
        codes_here = [told_layer(frozen, precision) for precision in precisions]
        codes_here.append({"code": "prediction", "model_bits": 0.0, "label_bits": float(predicted)})
        for code in codes_here:
            row = {"share": frozen.share, "maps": frozen.maps, "test_error": frozen.test_error, **code}
            parts = {"mask_bits": frozen.mask_bits, "bits": frozen.mask_bits + code["model_bits"] + code["label_bits"]}
            rows.append(row | parts)
    return pd.DataFrame(rows)


def told_layer(frozen: Frozen, precision: int) -> dict:
    """The cheapest output layer of `STRENGTHS` at this precision, and the labels under it as rounded."""
    tried = (_two_parts(layer, precision, frozen.features, frozen.labels) for layer in frozen.layers)
    model, labels = min(tried, key=sum)
    return {"code": "two parts", "precision": precision, "model_bits": model, "label_bits": labels}


def cheapest(table: pd.DataFrame) -> pd.DataFrame:
    """Of every share (and code, where there are several) the row with the fewest bits, from the most maps down."""
    by = ["share", "code"] if "code" in table else ["share"]
    return table.loc[table.groupby(by).bits.idxmin()].sort_values("share", ascending=False)
