"""Figures of images and of what a network makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn

from course_lib import datasets
from course_lib.classroom.figures.style import layer_labels
from course_lib.datasets import Splits
from course_lib.feature_maps import Chain, device_of, evaluating, place


def contact_sheet(splits: Splits, rows: int = 2, columns: int = 10) -> Figure:
    """The first test images of each of the first classes, one class a column, its name above."""
    labels = _labels(splits.test)
    columns = min(columns, len(splits.classes))
    figure, axes = plt.subplots(rows, columns, figsize=(1.45 * columns, 1.55 * rows + 0.3), squeeze=False)
    for label in range(columns):
        found = [at for at, value in enumerate(labels) if value == label][:rows]
        for row in range(rows):
            axes[row, label].set_axis_off()
            if row < len(found):
                axes[row, label].imshow(datasets.picture(splits.test[found[row]][0], splits))
        axes[0, label].set_title(splits.classes[label], fontsize=14)
    return figure


def feature_map_gallery(model: nn.Module, splits: Splits, n: int = 6, maps: int = 16) -> Callable[..., Figure]:
    """A function (layer, image) -> Figure: a test image and the first feature maps of a layer.

    All maps are computed here, once, so that the function only draws.
    """
    images = torch.stack([splits.test[at][0] for at in range(n)])
    chain, taps = Chain(model), {}
    with evaluating(model), torch.inference_mode():
        chain.run(place(images, device_of(model)), taps=taps)
    labels = dict(zip(chain.layers, layer_labels(list(chain.layers)), strict=True))
    pictures = [datasets.picture(image, splits) for image in images]
    names = [f"image {at}: {splits.classes[splits.test[at][1]]}" for at in range(n)]
    taps = {name: z[:, :maps].cpu() for name, z in taps.items()}

    def feature_map_figure(layer: str, image: int = 0) -> Figure:
        return _gallery(pictures[image], names[image], taps[layer][image], labels[layer])

    return feature_map_figure


def _gallery(picture, name: str, z: torch.Tensor, label: str) -> Figure:
    side = 4
    figure = plt.figure(figsize=(11, 5.2), layout="none")
    left, right = figure.add_axes((0.01, 0.03, 0.42, 0.84)), figure.add_axes((0.5, 0.03, 0.42, 0.84))
    left.imshow(picture)
    left.set_title(name)
    right.imshow(mosaic(z, side, side), vmin=0, vmax=float(z.max()) or 1.0)
    height, width = z.shape[1:]
    right.set_title(f"{label}: {len(z)} feature maps of {height} x {width}")
    for axes in (left, right):
        axes.set_axis_off()
    return figure


def mosaic(z: torch.Tensor, rows: int, columns: int) -> np.ndarray:
    """Feature maps (C, H, W) side by side in one image, NaN between them: many panels are slow to draw."""
    height, width = z.shape[1:]
    gap = max(1, width // 16)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for at, one in enumerate(z[: rows * columns]):
        y, x = at // columns * (height + gap), at % columns * (width + gap)
        sheet[y : y + height, x : x + width] = one
    return sheet


def _labels(dataset) -> list[int]:
    labels = getattr(dataset, "labels", None)
    return [dataset[at][1] for at in range(len(dataset))] if labels is None else [int(label) for label in labels]
