"""The figures of notebook 10 draw what they are given, and can be rendered, at both ends of every slider."""

import itertools

import numpy as np
import pandas as pd
import pytest
from drawing import drawn
from networks import small_vgg

from course_lib import cost, paths
from course_lib.classroom import figures, repair

pytestmark = pytest.mark.usefixtures("figure_style")


def run(curve, seed, accuracies, **told):
    rows = [
        {"curve": curve, "seed": seed, "number": i, "maps_left": 100 - 10 * i, "macs": 1000 - 200 * i}
        | {"params": 500 - 50 * i, "accuracy": accuracy, "accuracy_before_tuning": accuracy - 0.1}
        for i, accuracy in enumerate(accuracies)
    ]
    return pd.DataFrame(rows).assign(**told)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


@pytest.fixture(scope="module")
def loss():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(100, 5)) @ generator.normal(size=(5, 5))
    return repair.least_squares(x, generator.normal(size=(100, 2)) + x[:, :2])


def test_cost_of_a_map_is_the_papers_count():
    axes = drawn(figures.cost_of_a_map({"one": (small_vgg(), (3, 8, 8))})).axes[0]
    expected = list(cost.mflops_per_map(small_vgg(), (3, 8, 8)).values())
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)
    assert f"{max(expected) / min(expected):.0f}" in axes.get_title()


@pytest.mark.parametrize("feature", [0, 4])
@pytest.mark.parametrize("rate", [0.1, 1.9])
def test_repair_lies_between_the_cut_and_what_stays(loss, feature, rate):
    axes = drawn(figures.repair(loss, feature, rate)).axes[0]
    found = lines(axes)
    cut, stays = repair.rise(loss, [feature])
    curve = found["after so many updates"].get_ydata()
    assert (curve <= cut + 1e-12).all() and (curve >= stays - 1e-12).all() and curve[0] > curve[-1]
    assert f"{1 - stays / cut:.0%}" in axes.get_title()


def test_bites_are_drawn_one_line_each(loss):
    table = pd.concat([repair.greedy(loss, bite, 1) for bite in (1, 4)])
    found = lines(drawn(figures.bites(table)).axes[0])
    assert found["4 at a time"].get_xdata().tolist() == [5, 1]


@pytest.mark.parametrize("length", [0.1, 1.5])
def test_shrinking_has_a_dead_zone_of_that_length(length):
    x, y = lines(drawn(figures.shrinking(length)).axes[0])["lengths (l1, group lasso)"].get_data()
    assert (y[np.abs(x) < length] == 0).all() and (y[np.abs(x) > length + 1e-9] != 0).all()


@pytest.mark.parametrize("axis", ["feature maps", "MACs", "parameters"])
def test_update_curves_are_means_over_seeds(axis):
    paper = pd.read_csv(paths.data_dir() / "paper" / "figure6.csv")
    runs = [run("taylor", s, [0.9, 0.5 + 0.2 * s], updates=3) for s in (0, 1)]
    table = pd.concat([*runs, run("taylor", 0, [0.9, 0.8], updates=30)], ignore_index=True)
    found = lines(drawn(figures.update_curves(table, paper, axis)).axes[0])
    assert found["3 updates"].get_ydata().tolist() == pytest.approx([0.9, 0.6])
    assert ("1000 (paper)" in found) == (axis == "MACs")
    cut = lines(figures.update_curves(table, paper, axis, "right after the cut", fewest=10).axes[0])
    assert list(cut) == ["30 updates"] and cut["30 updates"].get_ydata().tolist() == pytest.approx([0.8, 0.7])


@pytest.mark.parametrize(("axis", "end", "papers"), [("feature maps", 0.8, 0.2), ("MACs", 0.6, 0.1 / 1.46)])
def test_ours_stand_beside_the_papers(axis, end, papers):
    paper = pd.read_csv(paths.data_dir() / "paper" / "figure5.csv")
    scratch = pd.DataFrame({"maps_left": [50], "macs": [300], "accuracy": [0.4]})
    left, right = drawn(figures.beside_paper(run("taylor", 0, [0.9, 0.8, 0.7]), scratch, paper, axis)).axes
    assert lines(left)["Taylor"].get_xdata()[-1] == pytest.approx(end)
    assert lines(left)["From scratch"].get_ydata() == [0.4]
    assert lines(right)["Taylor"].get_xdata()[-1] == pytest.approx(papers)
    assert len(lines(right)) == 7  # six criteria and the mark


def test_same_total_shows_the_ends():
    runs = [run("taylor", 0, [0.9, a], maps_per_step=n, updates=n // 2) for n, a in ((10, 0.8), (20, 0.6))]
    found = lines(drawn(figures.same_total(pd.concat(runs))).axes[0])
    assert found["mean"].get_xdata().tolist() == [10, 20] and found["mean"].get_ydata().tolist() == [0.8, 0.6]


def test_penalty_and_choice_are_drawn_as_shares_of_the_layer():
    table = pd.DataFrame(
        {
            "curve": ["taylor", "taylor", "group_lasso", "group_lasso"],
            "number": [1, 2, np.nan, np.nan],
            "strength": [np.nan, np.nan, 6, 9],
            "layer_maps": [48, 32, 60, 20],
            "accuracy": [0.8, 0.7, 0.75, 0.5],
        }
    )
    found = lines(drawn(figures.penalty_or_greedy(table, 64, 0.9)).axes[0])
    assert found["greedy, Taylor"].get_xdata().tolist() == [0.75, 0.5]
    assert found["group lasso"].get_ydata().tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    ("criterion", "left", "floor"), list(itertools.product(("taylor", "random"), (0.2, 0.95), (1, 4)))
)
def test_the_cockpit_shows_the_nearest_cut(criterion, left, floor):
    rows = [
        {
            "criterion": c,
            "share": s,
            "floor": f,
            "macs": s,
            "params": s,
            "ms": s,
            "accuracy": s / 2,
            "a": 10 * s,
            "b": 4,
        }
        | {"b": 4}
        for c, s, f in itertools.product(("taylor", "random"), (0.3, 0.9), (1, 4))
    ]
    table = pd.DataFrame(rows)
    table.attrs["maps"] = {"a": 10, "b": 8}
    figure = drawn(figures.cockpit(table, run("taylor", 0, [0.9, 0.8]), criterion, left, floor))
    nearest = 0.3 if left < 0.5 else 0.9
    assert figure.axes[0].get_title() == f"{nearest:.0%} of the maps are left"
    assert [bar.get_width() for bar in figure.axes[1].patches] == [nearest] * 3
    assert ("in steps, tuned (recorded)" in lines(figure.axes[2])) == (criterion == "taylor")
