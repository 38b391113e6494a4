"""The README's results are those of the recorded runs."""

import re

import pandas as pd
import pytest
from PIL import Image

from course_lib import paths
from course_lib.classroom import comparison, figures, report, results


def text(name):
    return (paths.data_dir().parent / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", report.SECTIONS)
def test_the_page_says_what_was_recorded(name):
    assert report.insert(text(name), report.SECTIONS[name]) == text(name), "run: python -m course_lib.classroom.report"


@pytest.mark.parametrize("name", report.SECTIONS)
def test_every_recorded_table_links_to_what_it_is_made_from(name):
    sections = {key: made() for key, made in report.SECTIONS[name].items() if key != "notebooks"}
    linked = set()
    for key, section in sections.items():
        tables = re.split(r"^\|(?: --- \|)+$", section, flags=re.MULTILINE)[1:]  # the rows, and what follows them
        for table in tables:
            links = re.findall(r"\]\(([^()]+\.csv)\)", table)
            assert links, table[:200]
            assert all((paths.data_dir().parent / name).parent.joinpath(link).resolve().is_file() for link in links)
            linked |= {link.rpartition("/")[2] for link in links}
        assert len(tables) == section.count("Made from") or key == "profiles"
    drilled = {f"drill_{word}.csv" for word in (*report.DRILLS, "repeat", "load") if results.recorded(f"drill_{word}")}
    expected = {"petals_pruning.csv", "figure4.csv", "run_laptop.csv", *drilled}
    assert (expected if name == "README.md" else {"benchmark_oracle.csv"}) <= linked


@pytest.mark.parametrize("name, word", [("README.md", "**Which criterion"), ("docs/performance.md", "captum")])
def test_a_section_is_found_and_replaced(name, word):
    changed = text(name).replace(word, "CHANGED")
    assert changed != text(name)
    assert report.insert(changed, report.SECTIONS[name]) == text(name)


def test_criteria_beyond_the_paper_stand_last_and_may_be_recorded_for_one_data_set_alone():
    petals, photographs = results.read("petals_criteria"), results.read("flowers102_criteria")
    paper = set(comparison.NINE)
    petals, photographs = petals[petals.criterion.isin(paper)], photographs[photographs.criterion.isin(paper)]
    before = report.correlations(petals, photographs).splitlines()
    new = petals[petals.criterion == "taylor"].assign(criterion="linear_logits", mean_of_layers=0.99)
    after = report.correlations(pd.concat([petals, new]), photographs).splitlines()
    assert after[:-1] == before
    cells = [cell.strip() for cell in after[-1].split("|")[1:-1]]
    assert cells[0] == "Linear logits (beyond the paper)" and cells[1].startswith("0.99")
    assert cells[3:] == ["", "", "", ""]


def test_photographs_of_several_seeds_have_a_range():
    petals, photographs = results.read("petals_criteria"), results.read("flowers102_criteria").query("seed == 0")
    twice = pd.concat([photographs, photographs.assign(seed=1, mean_of_layers=photographs.mean_of_layers - 0.1)])
    cell = report.correlations(petals, twice).splitlines()[2].split("|")[4]
    mean, low, high = (float(word.strip("[], ")) for word in cell.split())
    assert high - low == pytest.approx(0.1, abs=0.011) and mean == pytest.approx((low + high) / 2, abs=0.011)


def cells(page, begins):
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {begins} |"))
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_the_other_results_are_the_recorded_ones_beside_the_papers():
    alexnet = results.read("alexnet_criteria").query("criterion == 'taylor'")
    ours, _, papers, papers_l2 = cells(report.alexnet(results.read("alexnet_criteria")), "Taylor")
    assert ours.startswith(f"{alexnet.mean_of_layers.mean():.2f} [{alexnet.mean_of_layers.min():.2f}")
    assert (papers, papers_l2) == ("0.77", "0.75")  # printed in Table 1
    page = report.sharing({"mnist": results.read("mnist_weight_sharing")})
    soft = results.read("mnist_weight_sharing").query("method == 'soft weight-sharing'").error_after
    of_seeds = f"{soft.mean():.1%} [{soft.min():.1%}, {soft.max():.1%}]"
    assert cells(page, "soft weight-sharing, mnist")[1] == of_seeds
    assert cells(page, "paper: soft weight-sharing, LeNet-300-100, MNIST") == ["1.89%", "1.94%", "4.3%", "64"]


def test_where_the_curves_of_the_photographs_end_is_computed():
    table = pd.DataFrame(
        {"curve": ["taylor", "random"] * 2, "maps_left": [100, 100, 40, 40], "removed": [0, 0, 60, 60]}
    )
    table = table.assign(accuracy=[0.9, 0.9, 0.5, 0.25], command="--set updates=7 score_images=9")
    said = report.at_the_end(table)
    assert "40% of the maps and end between 25.0% and 50.0%" in said and "7 updates after every 60 maps" in said
    assert "they had 30 updates" in report.at_the_end(table.assign(command="--profile paper"))
    real = results.read("flowers102_pruning")
    end = real[real.maps_left == real.maps_left.min()].accuracy
    whole = real.query("number == 0 and curve != 'scratch'").accuracy.min()
    assert ("no curve ends above a tenth" in text("README.md")) == (end.max() <= whole / 10)


def test_more_updates_are_compared_on_one_network():
    table = results.read("flowers102_updates")
    few, many = (runs.sort_values("number") for _, runs in table.groupby("updates"))
    assert few.accuracy.iloc[0] == many.accuracy.iloc[0]
    said = report.more_updates(table)
    assert f"{many.accuracy.iloc[-1]:.1%} instead of {few.accuracy.iloc[-1]:.1%} at the end" in said
    assert said in text("README.md")


def test_the_results_in_short_are_those_of_the_tables_below():
    petals, criteria = results.read("petals_pruning"), results.read("petals_criteria")
    said = report.in_short({"petals": criteria}, {"petals": petals})
    correlation = cells(report.correlations(criteria, results.read("flowers102_criteria")), "Taylor")[0].split()[0]
    by = {name: cells(report.curves({"petals": petals}), name)[0].split()[0] for name in ("Taylor", "Random")}
    assert f"is {correlation} on petals" in said
    assert f"is {by['Taylor']} on petals" in said and f"at random {by['Random']})" in said


@pytest.mark.parametrize("sign, answer", [(1, "yes (+1.00"), (-1, "the reverse (-1.00")])
def test_whether_the_oracle_chose_better_is_computed(sign, answer):
    rows = [{"share": 0.5, "family": "taylor", "noise": 0.0, "draw": i} for i in range(8)]
    cuts = pd.DataFrame(rows).assign(spearman=range(8), loss_after_cut=range(8), accuracy_0=0.1)
    cuts["accuracy_9"] = [sign * i for i in range(8)]
    lower_loss, nearer = cells(report.foretold(cuts), "50% | all cuts, 9 updates")[-2:]
    assert nearer.startswith(answer) and not lower_loss.startswith(answer)


def test_every_notebook_is_in_the_table_with_its_minutes():
    table = report.notebooks_section().splitlines()[2:]
    assert len(table) == len(list(paths.notebooks_dir().glob("[0-9]*.ipynb")))
    for row, path in zip(table, sorted(paths.notebooks_dir().glob("[0-9]*.ipynb")), strict=True):
        assert f"(notebooks/{path.name})" in row and f"blob/main/notebooks/{path.name}" in row


def test_notebooks_say_the_minutes_that_were_recorded(monkeypatch):
    for path in sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb")):
        said = path.read_text(encoding="utf-8")
        assert report.with_minutes(path.stem, said) == said, "run: python -m course_lib.classroom.report"
    run = pd.DataFrame({"notebook": ["05_baselines", "06_oracle"], "seconds": [61.0, 20.0], "peak_mb": [900, 1500]})
    monkeypatch.setattr(results, "recorded", lambda name: name == "run_laptop")
    monkeypatch.setattr(results, "read", lambda name: run.assign(machine="Linux 2 cores"))
    first = "50 minutes to read and try, 9 minutes to run (`laptop`)."
    assert "to read and try, 2 minutes to run" in report.with_minutes("05_baselines", first)
    assert "to read and try, 1 minute to run" in report.with_minutes("06_oracle", first)
    assert report.with_minutes("07_taylor", first) == first
    _, _, ci, laptop, paper = report.profiles_section().splitlines()
    _, first, *others, _ = (cell.strip() for cell in laptop.split("|"))
    assert first == "[`laptop`](data/results/run_laptop.csv)"
    assert others == ["81 seconds", "61 seconds (05)", "1.5 GB (06)", "Linux 2 cores"]
    assert "never recorded" in ci and "never recorded" in paper


def test_the_moving_picture_shows_every_step(tmp_path):
    report.pictures(tmp_path)
    steps = results.read("petals_shrinking").query("curve == 'taylor'")
    with Image.open(tmp_path / "vgg16_shrinking.gif") as picture:
        assert picture.n_frames == len(steps)
    assert (tmp_path / "petals_pruning.png").stat().st_size > 10_000


def test_taylor_is_above_minimum_weight_and_random_in_what_was_recorded():
    """The course's main claim on its own data: in every recorded seed, not in the mean alone."""
    correlations = results.read("petals_criteria").pivot(index="seed", columns="criterion", values="mean_of_layers")
    assert len(correlations) >= 3
    assert (correlations.taylor > correlations[["min_weight", "random"]].max(axis=1)).all()
    curves = figures.shares(results.read("petals_pruning")).query("number > 0")
    means = curves.groupby(["seed", "curve"]).accuracy.mean().unstack()
    assert len(means) >= 3
    assert (means.taylor > means.random).all()


def test_what_was_drilled_survived_and_repeats_within_the_stated_tolerance():
    from course_lib.classroom import results

    for name in ("prune", "oracle", "run"):
        table = results.read(f"drill_{name}")
        assert table.injected.sum() >= 20 and (table.survived == table.injected).all()
    repeated = results.read("drill_repeat")
    assert (repeated[repeated.against != "two threads"].differ == 0).all()
    assert (repeated["largest difference"].dropna() < 1e-5).all()
    assert "within 1e-5" in text("README.md")


def test_the_kernels_that_were_recorded_together_are_on_the_page():
    row = {"notebook": "03_vc", "profile": "ci", "kernels": 10, "survived": 9, "moves": 50, "answered": 49}
    row |= {"threads": 18, "resident_mb": 1900, "own_mb": 700, "machine": "Linux 2 cores"}
    said = report._together(pd.DataFrame([row]))
    assert "| 03 (`ci`) | 10 | 9 | 49 of 50 | 18 | 1,900 MB | 700 MB |" in said and "(Linux 2 cores)" in said
    if results.recorded("drill_load"):
        table = results.read("drill_load")
        assert (table.survived == table.kernels).all() and (table.kernels >= 10).all()
