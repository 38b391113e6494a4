"""Figures of notebook 11: each is drawn, from the data it says, also at the ends of its controls."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn
from matplotlib import pyplot as plt
from PIL import Image
from scipy.stats import norm

from course_lib import weight_sharing as ws
from course_lib.classroom import figures
from course_lib.weight_code import PARTS
from course_lib.weight_sharing import Components, Epoch

pytestmark = pytest.mark.usefixtures("figure_style")


def components(narrow=1.0):
    deviations = torch.tensor([0.05, 0.1, 0.1]) / narrow
    return Components(torch.tensor([0.0, -0.5, 0.5]), 2 * deviations.log(), torch.tensor([0.9, 0.05, 0.05]).log())


def epochs(count=6):
    start = torch.linspace(-0.6, 0.6, 300)
    goal = components().means[ws.assign(start, components())]
    shares = [i / (count - 1) for i in range(count)]
    return [
        Epoch(i, start + t * (goal - start), components(1 + 9 * t), float("nan") if i == 0 else 0.1 + t, -100.0)
        for i, t in enumerate(shares)
    ]


@pytest.mark.parametrize(("share", "deviation"), [(0.5, 0.01), (0.98, 0.05), (0.9999, 0.2)])
def test_cost_and_pull_are_those_of_the_mixture(share, deviation):
    left, right = drawn(figures.mixture_pull(share, deviation)).axes
    w, bits = left.lines[0].get_data()

    def density(x):
        free = norm.pdf(x, -0.4, 0.05) + norm.pdf(x, 0.4, 0.05)
        return share * norm.pdf(x, 0, deviation) + (1 - share) / 2 * free

    np.testing.assert_allclose(bits, -np.log2(density(w) * 2**-10), rtol=1e-6)
    slope = (np.log(density(w + 1e-6)) - np.log(density(w - 1e-6))) / 2e-6
    np.testing.assert_allclose(right.lines[0].get_ydata(), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("epoch", [0, 3, 5])
def test_weights_moving_shows_all_weights_and_counts_zeros(epoch):
    seen = epochs()
    figure = drawn(figures.weights_moving(seen, epoch))
    left = figure.axes[0]
    x, y = np.concatenate([np.column_stack(line.get_data()) for line in left.lines]).T
    order = np.argsort(x)
    np.testing.assert_allclose(x[order], seen[0].weights.numpy())
    np.testing.assert_allclose(y[order], seen[epoch].weights.numpy())
    share = float((ws.assign(seen[epoch].weights, seen[epoch].components) == 0).float().mean())
    assert figure.get_suptitle() == f"Epoch {epoch} of 5: {share:.0%} of the weights belong to zero"
    assert len(left.patches) == 3


def test_the_moving_picture_is_a_gif_that_ends_at_the_last_epoch():
    page = figures.moving_picture(epochs(), frames=4)
    (encoded,) = re.findall(r'src="data:image/gif;base64,([^"]+)"', page)
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.n_frames == 4
    for frame in range(4):  # blue weights on white, in every frame
        picture.seek(frame)
        seen = picture.convert("RGB")
        assert min(seen.getpixel((2, 2))) > 240
        assert any(abs(r - 1) + abs(g - 115) + abs(b - 178) < 40 for _, (r, g, b) in seen.getcolors(1 << 20))
    assert picture.info["duration"] == 3000
    assert not plt.get_fignums()


def test_retraining_in_bits_and_deviations():
    left, right = drawn(figures.retraining(epochs(), examples=100)).axes
    np.testing.assert_allclose(left.lines[0].get_ydata()[1:], (0.1 + np.arange(1, 6) / 5) * 100 / np.log(2))
    np.testing.assert_allclose(right.lines[0].get_ydata()[[0, -1]], [0.05, 0.005], rtol=1e-5)


@pytest.mark.parametrize(("threshold", "left"), [(0.0, 3), (1e9, 1)])
def test_merging_says_how_many_are_left(threshold, left):
    table = pd.DataFrame({"components": [3, 1], "error_after": [0.02, 0.9], "rate": [20.0, 900.0]}, index=[0.0, 1e9])
    (axes,) = drawn(figures.merging(components(), table, threshold)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before: 3", f"merged: {left}"][::-1]
    assert f"{table.error_after[threshold]:.1%}" in axes.get_title()


@pytest.mark.parametrize("gap_bits", [1, 8])
def test_stored_parts_are_stacked_to_the_whole(gap_bits):
    table = pd.DataFrame(np.arange(40).reshape(8, 5) + 1, index=range(1, 9), columns=PARTS) * 1000
    (axes,) = drawn(figures.stored_parts(table, gap_bits)).axes
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[-1]]
    np.testing.assert_allclose(tops, table.sum(axis=1) / 1000)
    assert f"{table.loc[gap_bits].sum():,} bits in all" in axes.get_title()


def test_methods_has_a_line_for_every_seed():
    names = ["soft weight-sharing", "magnitude and k-means"]
    rows = [
        {"method": m, "error_before": 0.01, "error_after": 0.02 + i / 100, "rate": 20.0 + i}
        for m in names
        for i in range(3)
    ]
    left, right = drawn(figures.methods(pd.DataFrame(rows))).axes
    ends = sorted(tuple(line.get_ydata()) for line in left.lines)
    np.testing.assert_allclose(ends, sorted((1.0, 2.0 + i) for i in range(3) for _ in names))
    assert len(right.lines) == 4


def test_total_bits_in_units_of_the_labels():
    table = pd.DataFrame(
        {"network_bits": [900.0, 50], "label_bits": [100.0, 0], "uniform_bits": 100.0}, index=["a", "b"]
    )
    (axes,) = drawn(figures.total_bits(table)).axes
    assert [bar.get_width() for bar in axes.containers[0]] == [10, 0.5]
    assert axes.containers[0][0].get_facecolor() != axes.containers[0][1].get_facecolor()
