"""Experiments of notebook 05, against what is computed by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn
from networks import batches, small_vgg
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.utils.data import TensorDataset

from course_lib import datasets, models, ranking, surgery
from course_lib.classroom import baselines, figures
from course_lib.feature_maps import Chain

pytestmark = pytest.mark.usefixtures("figure_style")


def maps(n=60, channels=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.rand(n, channels, generator=generator) + 0.3 * labels[:, None], labels


@pytest.mark.parametrize("layer", ["0", "3", "5"])
def test_a_rescaled_network_is_the_same_function(layer):
    model, (images, _) = small_vgg(), batches(3, 8, 8, n=1, size=5)[0]
    other = baselines.rescaled(model, layer, 7.0)
    assert torch.allclose(other(images), model(images), atol=1e-12)
    conv = Chain(model).layers[layer].conv
    assert torch.allclose(Chain(other).layers[layer].conv.weight, 7 * conv.weight)


def test_what_cannot_be_rescaled_is_refused():
    with pytest.raises(ValueError, match="batch norm"):
        baselines.rescaled(small_vgg(batch_norm=True), "0", 2.0)
    with pytest.raises(ValueError, match="positive"):
        baselines.rescaled(small_vgg(), "0", -2.0)


def test_mean_activations_are_the_gated_maps():
    model, data = small_vgg(), batches(3, 8, 8, n=2, size=4)
    x, labels = baselines.mean_activations(model, data, "3")
    taps = {}
    Chain(model).run(torch.cat([images for images, _ in data]), taps=taps)
    assert torch.allclose(x, taps["3"].mean((2, 3))) and len(labels) == 8


@pytest.mark.parametrize("bins", [2, 3, 7])
def test_information_equals_scikit_learn(bins):
    x, labels = maps(61)
    expected = []
    for column in x.T.numpy():
        order = np.argsort(np.argsort(column, kind="stable"), kind="stable")
        expected.append(mutual_info_score(labels.numpy(), order * bins // len(column)))
    assert baselines.information(x, labels, bins).numpy() == pytest.approx(expected, abs=1e-12)


def test_the_bias_of_information_is_about_millers():
    labels = torch.arange(4000) % 5
    x = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0))
    excess = baselines.information_by_bins(x, labels, [4], [4000]).query("labels == 'shuffled'").information.item()
    assert excess == pytest.approx(3 * 4 / 8000, rel=0.1)


def test_shortening_is_the_proximal_step():
    conv = nn.Conv2d(3, 5, 3).double()
    with torch.no_grad():
        conv.weight[4] *= 1e-3
        conv.bias[4] *= 1e-3
    vectors = torch.cat([conv.weight.detach().flatten(1), conv.bias.detach()[:, None]], 1)
    baselines.shorten(conv, 0.3)
    shorter = torch.cat([conv.weight.detach().flatten(1), conv.bias.detach()[:, None]], 1)
    assert torch.allclose(shorter.norm(dim=1), (vectors.norm(dim=1) - 0.3).clamp(min=0))
    assert shorter[4].abs().max() == 0
    assert torch.allclose(torch.cosine_similarity(vectors[:4], shorter[:4]), torch.ones(4).double())


@pytest.fixture(scope="module")
def splits_of_flowers():
    return models.trained("vgg16-petals"), datasets.load("petals", train=10, val=10, test=10)


def digits_like(n=40):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    return TensorDataset(torch.rand(n, 1, 8, 8, generator=generator) + labels[:, None, None, None] / 10, labels)


def test_a_strong_pull_kills_maps_and_none_does_not():
    data = digits_like()
    table = baselines.dying_maps(data, data, (0, 60), rounds=2, updates=10)
    alive = table.groupby(["strength", "updates"]).alive.sum()
    assert alive[0, 20] == alive[0, 0] == 160
    assert alive[60, 20] < alive[60, 10] <= 160
    assert table.equals(baselines.dying_maps(data, data, (0, 60), rounds=2, updates=10))


def test_a_mask_answers_as_surgery_does_and_saves_nothing():
    model, (images, _) = small_vgg(), batches(3, 8, 8, n=1, size=4)[0]
    plan = {"0": torch.tensor([1, 3]), "5": torch.tensor([0])}
    table = baselines.mask_or_surgery(model, plan, images, rounds=1).set_index("network")
    assert torch.allclose(baselines.masked(model, plan)(images), surgery.remove(model, plan)(images))
    assert table.difference["masked"] == 0 and table.difference["after surgery"] < 1e-12 < table.difference["whole"]
    assert table.parameters["masked"] > table.parameters["whole"] > table.parameters["after surgery"]
    assert table.MACs["masked"] == table.MACs["whole"] > table.MACs["after surgery"]
    assert not any(hasattr(module, "weight_mask") for module in model.modules())


def test_mask_and_surgery_stand_beside_the_whole_network():
    columns = {"parameters": [100, 190, 60], "MACs": [1000, 1000, 500], "ms": [4.0, 4.4, 2.0]}
    table = pd.DataFrame({"network": ["whole", "masked", "after surgery"], **columns})
    panels = drawn(figures.mask_or_surgery(table)).axes
    heights = [[bar.get_height() for bar in axes.patches] for axes in panels]
    assert np.allclose(heights, [[1, 1.9, 0.6], [1, 1, 0.5], [1, 1.1, 0.5]])
    assert [text.get_text() for text in panels[2].texts] == ["100%", "110%", "50%"]
    assert all(axes.get_ylim()[1] > max(bars) for axes, bars in zip(panels, heights, strict=True))


def test_below_counts_what_ranks_lowest():
    scores = {"a": torch.tensor([0.1, 0.5, 0.9]), "b": torch.tensor([0.2, 0.3, 0.4])}
    gone = baselines.below(scores, 0.35)
    assert gone == {name: len(found) for name, found in ranking.lowest(scores, 3).items()} == {"a": 1, "b": 2}


def test_a_histogram_counts_every_positive_score():
    scores = {"a": torch.tensor([0.0, 0.5, 0.9]), "b": torch.tensor([0.2, 0.3])}
    edges, counts = baselines.histogram(scores, bins=5)
    assert len(edges) == 6 and sum(map(sum, counts.values())) == 4


def test_the_closed_map_is_framed_and_the_change_of_loss_is_said(splits_of_flowers):
    model, splits = splits_of_flowers
    images = torch.stack([splits.test[at][0] for at in range(2)])
    labels = torch.tensor([splits.test[at][1] for at in range(2)])
    chain, names = Chain(model), ["a", "b"]
    figure = drawn(
        figures.feature_map_browser(chain, splits, images, labels, names, layer="conv2_2", picture=1, close=11)
    )
    titles = [axes.get_title() for axes in figure.axes]
    gate = torch.ones(chain.layers["features.7"].channels)
    gate[11] = 0
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(chain.run(images[1:], gates=gates), labels[1:])
            for gates in (None, {"features.7": gate})
        ]
    assert titles[0] == "b" and "gate 11 is closed" in titles[1]
    assert titles[2] == f"loss {float(losses[1] - losses[0]):+.3f} nats"
    last = drawn(figures.feature_map_browser(chain, splits, images, labels, names, layer="conv1_1", close=63))
    assert "gate 15 is closed" in last.axes[1].get_title()


def test_the_first_picture_to_look_at_is_a_photograph(splits_of_flowers):
    model, splits = splits_of_flowers
    images, labels, names = baselines.browsed(splits, n=2)
    assert torch.equal(images[1:], torch.stack([splits.test[at][0] for at in range(2)]))
    assert [splits.classes[label] for label in labels] == ["dahlia", *names[1:]] and names[0] == "photograph"
    shown = datasets.picture(images[0], splits)  # (H, W, 3)
    red, green, blue = shown[8:24, 8:24].mean((0, 1))
    assert red > 0.7 > green > blue  # an orange flower
    assert shown[:3, :3].mean() < 0.3  # before dark leaves
    elsewhere = dataclasses.replace(splits, classes=["cat", *"bcdefghij"])
    assert baselines.browsed(elsewhere, n=2)[1][0] == -1
    figure = drawn(
        figures.feature_map_browser(Chain(model), elsewhere, images, torch.tensor([-1, 0, 0]), names, picture=0)
    )
    assert figure.axes[0].get_title() == "photograph" and "nats" in figure.axes[2].get_title()


def test_the_line_stands_where_the_share_is():
    scores = {"min_weight": {"a": torch.arange(1.0, 11.0).double(), "b": torch.arange(11.0, 21.0).double()}}
    figure = drawn(figures.cut_by_threshold(scores, share=0.25))
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0.5, 0.0]


def test_the_tables_are_drawn():
    x, labels = maps()
    table = baselines.information_by_bins(x, labels, [2, 4], [20, 60])
    figure = drawn(figures.information_bias(table))
    assert [axes.get_title() for axes in figure.axes] == ["20 images", "60 images"]
    assert drawn(figures.information_at(x, labels, bins=4, images=30)).axes[0].get_title() == "4 bins, 30 images"
    data = digits_like()
    history = baselines.dying_maps(data, data, (0, 5), rounds=1, updates=1)
    assert len(drawn(figures.dying_maps(history)).axes[0].lines) == 2
    scores = {
        "min_weight": {"a": torch.rand(5), "b": torch.rand(6)},
        "random": {"a": torch.rand(5), "b": torch.rand(6)},
    }
    heat = drawn(figures.criteria_agree(scores)).axes[0]
    assert [text.get_text() for text in heat.texts][0] == "1.00"
    assert len(drawn(figures.score_ranges({"one": scores["random"], "two": scores["random"]}, "random")).axes) == 2
