"""The README's results are those of the recorded runs."""

from course_lib import paths
from course_lib.classroom import report


def readme():
    return (paths.data_dir().parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_was_recorded():
    assert report.insert(readme()) == readme(), "run: python -m course_lib.classroom.report"


def test_the_section_is_found_and_replaced():
    changed = readme().replace("**Which criterion", "**WHICH criterion")
    assert changed != readme()
    assert report.insert(changed) == readme()


def test_taylor_is_above_minimum_weight_and_random_in_what_was_recorded():
    """The course's main claim on its own data: in every recorded seed, not in the mean alone."""
    from course_lib.classroom import figures, results

    correlations = results.read("petals_criteria").pivot(index="seed", columns="criterion", values="mean_of_layers")
    assert len(correlations) >= 3
    assert (correlations.taylor > correlations[["min_weight", "random"]].max(axis=1)).all()
    curves = figures.shares(results.read("petals_pruning")).query("number > 0")
    means = curves.groupby(["seed", "curve"]).accuracy.mean().unstack()
    assert len(means) >= 3
    assert (means.taylor > means.random).all()
