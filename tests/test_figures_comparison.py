"""Figures of notebook 08: each is drawn, from the data it says, also at the ends of its controls."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn

from course_lib.classroom import comparison, figures

pytestmark = pytest.mark.usefixtures("figure_style")

NAMES = [f"features.{i}" for i in range(13)]
FEW = ["taylor", "obd", "random"]
COLUMNS = list(comparison.ROWS.values())


def scores(seed, sign=False):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn if sign else torch.rand
    return {name: draw(8 + i, generator=generator) for i, name in enumerate(NAMES)}


def truth():
    found = scores(0, sign=True)
    found[NAMES[0]][1] = torch.nan  # a map that was not measured
    return found


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_table_by_layer_shows_of_the_paper_what_it_has():
    ours = pd.DataFrame(np.linspace(-1, 1, 39).reshape(3, 13), index=FEW, columns=NAMES)
    paper = ours.drop("random").rename(columns=dict(zip(NAMES, range(1, 14), strict=True)))
    above, below = drawn(figures.table_by_layer(ours, paper)).axes
    assert len(texts(above)) == 39 and len(texts(below)) == 26
    assert below.get_xticklabels()[0].get_text() == "conv1_1"


def test_normalizations_beside_the_papers():
    ours = pd.DataFrame(np.linspace(-1, 1, 12).reshape(3, 4), index=FEW, columns=["none", "l1", "l2", "minmax"])
    left, right = drawn(figures.table_of_normalizations(ours, ours.iloc[:2])).axes
    assert len(texts(left)) == 12 and len(texts(right)) == 8


def test_table_3_has_the_range_over_seeds():
    rows = [(name, layer, 0.1 * seed, seed) for name in FEW for layer in NAMES for seed in (1, 2, 6)]
    layers = pd.DataFrame(rows, columns=["criterion", "layer", "spearman", "seed"])
    names = ["all_layers", "all_layers_l1", "all_layers_l2", "all_layers_minmax"]
    table = pd.DataFrame([(name, seed, *[0.1 * seed] * 4) for name in FEW for seed in (1, 2, 6)])
    table.columns = ["criterion", "seed", *names]
    figure = drawn(figures.table3_over_seeds(layers, table, "Petals"))
    assert figure.get_suptitle().startswith("Petals: mean and range over")
    for axes, columns in zip(figure.axes, (13, 4), strict=True):
        assert len(axes.containers) == 3
        for dots, _, (bars,) in axes.containers:
            assert dots.get_ydata() == pytest.approx([0.3] * columns)
            assert np.array(bars.get_segments())[:, :, 1] == pytest.approx(np.array([[0.1, 0.6]] * columns))


@pytest.mark.parametrize("column", COLUMNS)
def test_error_bars_stand_at_their_numbers(column):
    ours = pd.DataFrame([[0.6, 0.2, 0.7], [0.5, 0.7, 0.6], [0.0, 0.0, 0.1]], index=FEW, columns=COLUMNS)
    spread = pd.concat({"low": ours - 0.1, "high": ours + 0.1}, axis=1)
    recorded = pd.concat([ours.rename_axis("criterion").reset_index()] * 3)
    paper = ours.drop("random")
    (axes,) = drawn(figures.error_bars(ours, spread, recorded, paper, column, ceiling=0.8)).axes
    bars, dots, *_ = axes.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], ours[column].sort_values())
    np.testing.assert_allclose([s[:, 0] for s in bars.get_segments()], dots.get_offsets()[:, :1] + [[-0.1, 0.1]])
    assert any(line.get_xdata()[0] == 0.8 for line in axes.lines) is (column == "mean_of_layers")


def test_levels_are_bars_and_the_blind_are_grey():
    (axes,) = drawn(figures.levels({"a": 0.5, "b": -0.2}, ["b"])).axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, -0.2]
    assert axes.patches[1].get_facecolor()[:3] == (0.6, 0.6, 0.6) != axes.patches[0].get_facecolor()[:3]


@pytest.mark.parametrize("how", ["none", "l2"])
def test_ranks_of_the_oracle_itself_lie_on_the_oracles(how):
    t = truth()
    same = {"taylor": {k: v.abs().nan_to_num() for k, v in t.items()}}
    (axes,) = drawn(figures.ranks_against_oracle(same, t, "taylor", how)).axes
    oracle, criterion = (line.get_ydata() for line in axes.lines[:2])
    assert np.allclose(oracle, criterion) is (how == "none")


def test_the_best_weight_is_chosen_on_the_first_kind_of_pictures():
    weights = [0.0, 0.5, 1.0]
    rows = [("obd", "here", w, v, v) for w, v in zip(weights, (0.1, 0.3, 0.2), strict=True)]
    rows += [("obd", "there", w, v, v) for w, v in zip(weights, (0.1, 0.05, 0.4), strict=True)]
    curves = pd.DataFrame(rows, columns=["partner", "pictures", "weight", "mean_of_layers", "all_layers"])
    for column in ("mean_of_layers", "all_layers"):
        (axes,) = drawn(figures.mixing(curves, "obd", column)).axes
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["here: +0.200 at weight 0.5", "there: -0.050 at weight 0.5"]


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_product_and_factors(share):
    taylor = scores(1)
    left, right = drawn(figures.product_and_factors(taylor, taylor, scores(2), share)).axes
    assert "Spearman 1.00" in left.get_title() and "1.00" not in right.get_title()
    assert len(left.collections[0].get_offsets()) == round(share * sum(map(len, taylor.values())))


def test_the_leaderboard_shows_your_own_in_black():
    table = pd.DataFrame(0.5, index=["my_criterion", *FEW], columns=[*COLUMNS, "accuracy"])
    table.loc["random", "accuracy"] = np.nan
    panels = drawn(figures.leaderboard(table)).axes
    assert panels[0].patches[0].get_facecolor()[:3] == (0, 0, 0)
    assert texts(panels[2]) == ["50%", "50%", "50%", ""]


def test_worth_has_a_dot_for_each_criterion():
    columns = [*COLUMNS, "right_after_the_cut", "after_tuning"]
    table = pd.DataFrame(np.linspace(0, 1, 15).reshape(3, 5), index=FEW, columns=columns)
    left, right = drawn(figures.worth(table)).axes
    assert len(left.collections) == len(right.collections) == 3
