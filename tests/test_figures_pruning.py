"""The figures of notebooks 00 and 09: they draw what they are given, and they can be rendered."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn
from networks import small_vgg
from PIL import Image, ImageSequence

from course_lib import cost, datasets, paths, surgery
from course_lib.classroom import figures
from course_lib.classroom.figures import animation, style
from course_lib.feature_maps import Chain

pytestmark = pytest.mark.usefixtures("figure_style")


def run(curve, seed, accuracies):
    return [
        {
            "curve": curve,
            "seed": seed,
            "number": i,
            "maps_left": 100 - 10 * i,
            "macs": 1000 - 200 * i,
            "params": 500 - 50 * i,
            "accuracy": accuracy,
            "accuracy_before_tuning": accuracy - 0.1,
        }
        for i, accuracy in enumerate(accuracies)
    ]


@pytest.fixture
def table():
    return pd.DataFrame(run("taylor", 0, [0.9, 0.8, 0.7]) + run("random", 0, [0.9, 0.5, 0.3]))


def lines(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}


@pytest.mark.parametrize("axis, end", [("feature maps", 0.8), ("MACs", 0.6), ("parameters", 0.8)])
def test_curves_are_drawn_against_what_is_left(table, axis, end):
    figure = drawn(figures.pruning_curves(table, axis=axis))
    line = lines(figure)["Taylor"]
    assert line.get_xdata().tolist() == pytest.approx([1, (1 + end) / 2, end])
    assert line.get_ydata().tolist() == [0.9, 0.8, 0.7]
    assert figure.axes[0].get_xlabel() == f"{axis} left"


def test_curves_before_tuning_and_recorded_ones(table):
    recorded = pd.DataFrame(run("taylor", 0, [0.9, 0.8]) + run("taylor", 1, [0.9, 0.6]))
    shown = lines(drawn(figures.pruning_curves(table, recorded, when="right after the cut")))
    assert shown["Random"].get_ydata().tolist() == pytest.approx([0.8, 0.4, 0.2])
    assert shown["Taylor (recorded)"].get_ydata().tolist() == pytest.approx([0.8, 0.6])


@pytest.mark.parametrize("axis, column", [("feature maps", "maps_percent"), ("FLOPs", "gflops")])
def test_the_papers_figure_4_shows_every_number_read_from_it(axis, column):
    paper = pd.read_csv(paths.data_dir() / "paper" / "figure4.csv")
    shown = [line.get_ydata().tolist() for line in drawn(figures.papers_figure4(paper, axis)).axes[0].get_lines()]
    rows = paper[paper.axis == column]
    assert sorted(sum(shown, [])) == sorted(rows.accuracy) and len(shown) == rows.criterion.nunique()


def test_a_network_from_scratch_is_one_point_on_every_axis(table):
    whole = small_vgg()
    half = surgery.remove(
        whole, {name: torch.arange(0, layer.channels, 2) for name, layer in Chain(whole).layers.items()}
    )
    point = figures.one_point("scratch", half, whole, (3, 8, 8), 0.4)
    together = pd.concat([table, point], ignore_index=True)
    left = {"feature maps": 8 / 18, "MACs": cost.macs(half, (3, 8, 8)) / cost.macs(whole, (3, 8, 8))}
    for axis, share in left.items():
        line = lines(figures.pruning_curves(together, axis=axis))["From scratch"]
        assert np.isnan(line.get_ydata()[0]) and line.get_ydata()[1] == 0.4
        assert line.get_xdata().tolist() == pytest.approx([1, share])


def test_shares_of_two_seeds_do_not_mix():
    table = pd.DataFrame(run("taylor", 0, [0.9, 0.8]) + run("taylor", 1, [0.9, 0.8]))
    assert figures.shares(table).maps_share.tolist() == [1, 0.9, 1, 0.9]


def test_cost_by_layer_shows_shares_of_each():
    figure = drawn(figures.cost_by_layer(small_vgg(), (3, 8, 8)))
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert all(sum(panel) == pytest.approx(1) for panel in widths)
    assert widths[0] == pytest.approx([5 / 18, 6 / 18, 7 / 18])
    # MACs by hand: 64 positions, 3 x 9 weights, 5 maps; 16 positions for the two others
    macs = [64 * 27 * 5, 16 * 45 * 6, 16 * 54 * 7]
    assert widths[2] == pytest.approx([m / sum(macs) for m in macs])


def test_surviving_maps_counts_what_is_left():
    figure = drawn(figures.surviving_maps([{"a": 4, "b": 8}, {"a": 2, "b": 8}], step=1))
    assert "After step 1: 83%" in figure.axes[0].get_title()


def test_realised_speed_is_relative_to_the_whole_network():
    table = pd.DataFrame({"macs": [100.0, 50.0], "median_ms": [10.0, 8.0]}, index=["whole", "taylor, end"])
    shown = {
        label: (*line.get_xdata(), *line.get_ydata()) for label, line in lines(figures.realised_speed(table)).items()
    }
    assert shown["whole"] == (1, 1)
    assert shown["Taylor, end"] == (2, 1.25)


def test_the_papers_table_2_stands_beside_our_speed():
    table = pd.DataFrame(
        {"maps": [8, 4], "macs": [100.0, 50.0], "median_ms": [10.0, 8.0]}, index=["whole", "taylor, end"]
    )
    printed = pd.read_csv(paths.data_dir() / "paper" / "table2.csv")
    hollow = lines(drawn(figures.realised_speed(table, printed)))["VGG-16 (paper)"]
    assert hollow.get_ydata().tolist() == [1.7, 2.1, 2.2, 3.4, 2.5, 3.3]  # Table 2, from top to bottom
    assert hollow.get_xdata()[:2] == pytest.approx([30.96 / 11.5, 30.96 / 8])
    beside = figures.speed_beside_paper(table, printed)
    assert list(beside.index[0]) == ["Taylor, end", 0.5, 2.0]
    assert beside.iloc[0].dropna().to_dict() == {"this machine, 16": 1.25}
    alexnet = beside.loc["AlexNet (paper)"]
    assert alexnet["TITAN X Pascal, 512"].tolist() == [2.4, 3.2]
    assert alexnet["Jetson TX1, 4"].isna().all()  # that is VGG-16's batch there
    assert beside.notna().to_numpy().sum() == 1 + (printed.version != "unpruned").sum()


def test_pictures_of_images_and_feature_maps():
    splits = datasets.load("petals", train=10, val=10, test=20)
    drawn(figures.contact_sheet(splits))
    model = small_vgg().float()
    model[-1] = torch.nn.Linear(9, 10)
    model[9] = torch.nn.Linear(7 * 64, 9)
    draw = figures.feature_map_gallery(model, splits, n=2, maps=4)
    figure = drawn(draw(layer="3", image=1))
    assert "conv2: 4 feature maps of 16 x 16" in figure.axes[1].get_title()


def test_every_criterion_has_a_colour_of_its_own():
    assert len(set(style.COLOURS.values())) == len(style.TITLES) == len(style.COLOURS)
    assert style.title("my_own") == "my own"
    assert style.layer_labels([str(i) for i in range(13)])[-1] == "conv5_3"


def test_near_half_takes_the_nearest_step_of_every_run():
    table = pd.DataFrame(run("taylor", 0, [0.9] * 7) + run("random", 1, [0.8] * 4))
    found = figures.near_half(table).set_index("curve").maps_share
    assert found.to_dict() == {"taylor": 0.5, "random": 0.7}
    scrambled = table.sample(frac=1, random_state=0)
    assert figures.near_half(scrambled).set_index("curve").maps_share.to_dict() == found.to_dict()


def test_lead_compares_at_the_same_share_between_steps():
    table = pd.DataFrame(run("taylor", 0, [0.9, 0.8, 0.7]) + run("random", 0, [0.9, 0.5, 0.3]))
    assert figures.lead(table, "taylor", "random", "feature maps", 0.85) == pytest.approx(0.75 - 0.4)
    assert figures.lead(table, "taylor", "random", "MACs", 0.8) == pytest.approx(0.8 - 0.5)


def test_lead_is_unknown_where_a_curve_does_not_reach():
    table = pd.DataFrame(run("taylor", 0, [0.9, 0.8]) + run("random", 0, [0.9, 0.5, 0.3]))
    assert np.isnan(figures.lead(table, "taylor", "random", "feature maps", 0.8))


def test_milestones_are_the_turning_points_of_each_run():
    few = run("taylor", 0, [0.9, 0.6, 0.5, 0.4, 0.35, 0.3, 0.1])
    many = run("taylor", 0, [0.9, 0.8]) + run("taylor", 1, [0.7, 0.6])
    found = figures.milestones({"few": pd.DataFrame(few), "many": pd.DataFrame(many)})
    assert found.loc["few"].tolist() == pytest.approx([0.9, 0.5, 0.6, 0.3, 0.1])
    assert found.loc["many"].tolist() == pytest.approx([0.8, 0.6, 0.7, 0.7, 0.7])


@pytest.fixture
def shrinking():
    return pd.DataFrame(run("taylor", 0, [0.9, 0.85, 0.6])).assign(layers=["20 80", "15 75", "15 65"])


@pytest.mark.parametrize("step, now", [(0, (20, 80)), (1, (15, 75)), (-1, (15, 65))])
def test_a_shrinking_network_shows_what_is_left_before_what_was(shrinking, step, now):
    left, right = drawn(figures.shrinking_network(shrinking, step)).axes
    heights = [patch.get_height() for patch in left.patches]
    assert heights == [20, 80, *now]
    passed = right.lines[1].get_xdata()
    assert list(passed) == pytest.approx([1, 0.9, 0.8][: step + 1 or 3])
    text = left.figure.get_suptitle()
    assert text.startswith(f"{sum(now)} feature maps") and f"{shrinking.accuracy.iloc[step]:.1%}" in text


def test_a_gif_has_a_frame_for_each_figure_and_rests_on_the_last(shrinking):
    made = animation.gif((figures.shrinking_network(shrinking, step) for step in range(3)), milliseconds=200)
    with Image.open(io.BytesIO(made)) as picture:
        assert picture.n_frames == 3 and picture.info["loop"] == 0
        waits = [ImageSequence.Iterator(picture)[at].info["duration"] for at in range(3)]
        assert waits == [200, 200, 3000]
        assert len({frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(picture)}) == 3
