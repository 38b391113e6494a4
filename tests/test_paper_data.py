"""The paper's numbers: complete, in range, and they agree with each other."""

import pandas as pd
import pytest

from course_lib import criteria, paths

FOLDER = paths.data_dir() / "paper"
ROWS = {
    "table1": 88,
    "table2": 23,
    "table3": 119,
    "figure3": 4,
    "figure4": 135,
    "figure5": 94,
    "figure6": 3,
    "weight_sharing": 5,
}
NOT_CRITERIA = {"taylor_flops", "scratch", "unpruned"}
PRINTED, READ = {"printed"}, {"read from plot", "read from plot by eye"}
SOURCES = {"table": PRINTED, "figure": READ, "weight_sharing": PRINTED}


def table(name):
    return pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False)


def test_every_table_is_described_and_nothing_else_is_there():
    assert {path.stem for path in FOLDER.glob("*.csv")} == set(ROWS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in ROWS:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}.csv`"))
        assert name == "figure5" or all(f"`{column}`" in row for column in table(name).columns[:-1])


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_complete_unique_and_of_known_origin(name):
    found = table(name)
    assert len(found) == ROWS[name]
    assert not (found.drop(columns="rate", errors="ignore") == "").any(axis=None)  # the tutorial prints no rate
    numbers = [c for c in ("spearman", "accuracy", "ms", "speedup", "gflops", "left") if c in found]
    assert all(pd.api.types.is_numeric_dtype(found[column]) for column in numbers)
    keys = [c for c in found.columns if c not in ("spearman", "accuracy", "ms", "speedup", "source")]
    assert not found.duplicated(keys).any()
    assert set(found.source) <= SOURCES[name.rstrip("123456")]


@pytest.mark.parametrize("name", [name for name in ROWS if "criterion" in table(name)])
def test_criteria_have_the_librarys_names(name):
    assert set(table(name).criterion) <= set(criteria.CRITERIA) | NOT_CRITERIA


def test_shares_are_shares_and_correlations_correlations():
    assert table("table1").spearman.between(-1, 1).all() and table("table3").spearman.between(-1, 1).all()
    for name in ("table2", "figure3", "figure4", "figure5", "figure6"):
        assert table(name).accuracy.between(0, 1).all()


def test_means_of_table_3_are_table_1s_row_per_layer():
    by_layer = table("table3").query("layer != 'all'").groupby("criterion").spearman.agg(["mean", "size"])
    assert (by_layer["size"] == 13).all() and len(by_layer) == 7
    printed = table("table1").query("network == 'VGG-16' and data == 'Birds-200' and row == 'per layer'")
    printed = printed.set_index("criterion").spearman
    # Numbers printed to two places: half a hundredth on the right, less on the left, where 13 roundings average out.
    assert (by_layer["mean"] - printed).abs().max() < 0.006


@pytest.mark.parametrize(("row", "how"), [("all layers", "none"), ("all layers, l2", "l2")])
def test_table_3s_rows_over_all_layers_are_table_1s(row, how):
    of_three = table("table3").query("layer == 'all' and normalization == @how").set_index("criterion").spearman
    of_one = table("table1").query("network == 'VGG-16' and data == 'Birds-200' and row == @row")
    of_one = of_one.set_index("criterion").spearman
    assert dict(of_three.loc[of_one.index]) == dict(of_one)
    assert set(of_three.index) - set(of_one.index) == (set() if how == "none" else {"obd"})  # "-" in Table 1


def test_normalising_lifts_taylor_and_lowers_weight_everywhere():
    wide = table("table1").pivot(index=["network", "data"], columns=["criterion", "row"], values="spearman")
    assert (wide["taylor"]["all layers, l2"] > wide["taylor"]["all layers"]).all()
    assert (wide["min_weight"]["all layers, l2"] < wide["min_weight"]["all layers"]).all()


def test_printed_speed_ups_are_ratios_of_printed_times():
    times = table("table2")
    whole = times[times.version == "unpruned"].set_index(["network", "hardware", "batch"]).ms
    key = pd.MultiIndex.from_frame(times[["network", "hardware", "batch"]])
    ratio = whole.loc[key].to_numpy() / times.ms
    assert (ratio - times.speedup).abs().max() < 0.06  # printed to one place; 226.4 / 121.4 is printed as 1.9


@pytest.mark.parametrize("name", ["figure4", "figure5"])
def test_curves_fall_as_maps_go(name):
    curves = table(name).query("criterion not in ('scratch', 'unpruned')")
    for _, curve in curves.groupby(["axis", "criterion"]):
        steps = curve.sort_values("left", ascending=False).accuracy.diff().dropna()
        assert len(steps) >= 6 and steps.max() <= 0.01 + 1e-9  # reading error
        assert curve.accuracy.max() <= table(name).query("criterion == 'unpruned'").accuracy.min() + 0.01


def test_random_is_second_only_to_taylor_on_the_axis_of_gflops():
    at = table("figure4").query("axis == 'gflops' and left in (20, 15, 11.5, 10, 8, 5, 3, 2)")
    best = at.pivot(index="left", columns="criterion", values="accuracy")
    others = best.drop(columns=["taylor", "taylor_flops", "random"])
    assert (others.max(axis=1) < best.random).all() and (best.random < best.taylor).all()


def test_the_orders_of_figure_3():
    curves = table("figure3").pivot(index="maps_percent", columns="ranking", values="accuracy")
    assert (curves["oracle-abs"] > curves["oracle-loss"]).all()


def test_more_updates_are_higher_in_figure_6():
    points = table("figure6").set_index(["updates", "gflops"]).accuracy
    assert points[1000, 0.5] > points[1000, 0.08] > points[10, 0.08]
