"""What the pages say of the course and of its recorded runs: tables and pictures, made from notebooks and results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd

import course_lib
from course_lib import paths
from course_lib.classroom import comparison, needs, results, session, true_oracle, weight_sharing
from course_lib.classroom.comparison import BEYOND
from course_lib.classroom.figures import animation
from course_lib.classroom.figures.pruning import milestones, near_half, pruning_curves, shrinking_network
from course_lib.classroom.figures.style import title

MADE = "made by python -m course_lib.classroom.report"
TOPICS = {
    "oracle": "The exact oracle",
    "sampling": "The oracle from a sample of its evaluations",
    "criteria": "All criteria in one pass",
    "surgery": "Surgery",
    "latency": "Realised against arithmetic speed-up",
    "loop": "A step of the pruning loop, as shares of its CPU time",
    "start": "Before any learning",
    "widgets": "From a key press to the picture, in JupyterLab",
}
RUN = r"\d+ minutes? to run"  # in the first cell of a notebook
DRILLS = ("prune", "oracle", "run", "reproduce")
WORDS = {"spearman_all": "Spearman, all", "spearman_mean_of_layers": "Spearman, mean of layers"}


def notebooks_section() -> str:
    """The notebooks in their order: question, time, and where to run, to read and to project each."""
    site, rows = course_lib.SITE, []
    for path in sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb")):
        first = nbformat.read(path, as_version=4).cells[0].source
        badge = re.search(r"\((https://colab[^)]*/github/[^)]*)\)", first)[1]
        minutes = "read {}, run {}".format(
            *re.search(r"(\d+) minutes? to read.*?(\d+) minutes? to run", first).groups()
        )
        places = (
            f"[Colab]({badge}) · [page]({site}/notebooks/{path.stem}.html) · [slides]({site}/slides/{path.stem}.html)"
        )
        question = first.splitlines()[0].removeprefix("# ")
        rows.append([f"[{path.stem}](notebooks/{path.name})", question, minutes, places])
    return _table(["notebook", "question", "minutes", "open"], rows)


def made_from(*tables: str, up: str = "") -> str:
    """The line below a table: the recorded and printed ones it is made from, 'results/NAME' or 'paper/NAME', as links.

    `up`: the way from the page to the folder of `data`, "../" from a page in `docs`.
    """
    return "Made from " + ", ".join(f"[{table}.csv]({up}data/{table}.csv)" for table in tables) + "."


def profiles_section() -> str:
    """What each profile takes, as Markdown, from `python -m course_lib run --profile NAME --save`."""
    rows = []
    for name in session.PROFILES:
        if not results.recorded(f"run_{name}"):
            rows.append([f"`{name}`", "never recorded", "", "", ""])
            continue
        run = results.read(f"run_{name}")
        slow, large = run.loc[run.seconds.idxmax()], run.loc[run.peak_mb.idxmax()]
        longest = f"{needs.duration(slow.seconds)} ({slow.notebook[:2]})"
        memory = f"{needs.gigabytes(1e6 * large.peak_mb)} ({large.notebook[:2]})"
        link = f"[`{name}`](data/results/run_{name}.csv)"
        rows.append([link, needs.duration(run.seconds.sum()), longest, memory, run.machine[0]])
    return _table(["profile", "all notebooks", "longest", "most memory", "measured on"], rows)


def with_minutes(notebook: str, text: str) -> str:
    """The text of a notebook's file, its first cell saying the minutes that profile laptop took, if it was recorded."""
    if not results.recorded("run_laptop"):
        return text
    seconds = results.read("run_laptop").set_index("notebook").seconds.get(notebook)
    if seconds is None:
        return text
    minutes = math.ceil(seconds / 60)
    return re.sub(RUN, f"{minutes} minute{'s' * (minutes > 1)} to run", text, count=1)


def results_section() -> str:
    """What was found, as Markdown, read from `data/results`."""
    measured = {"petals": results.read("petals_criteria"), "photographs": results.read("flowers102_criteria")}
    pruned = {"petals": results.read("petals_pruning"), "photographs": results.read("flowers102_pruning")}
    narrow, cuts = results.read("alexnet_criteria"), results.read("petals_true_oracle")
    return "\n\n".join(
        [
            in_short(measured, pruned),
            "**Which criterion is nearest to the oracle?** Spearman rank correlation with the exact oracle; "
            + "; ".join(f"{data}: {_measured(table)}" for data, table in measured.items())
            + ".",
            correlations(*measured.values()),
            made_from("results/petals_criteria", "results/flowers102_criteria", "paper/table1"),
            "**How small can it get?** Test accuracy after fine-tuning, at the step nearest to half of the maps; "
            + "; ".join(f"{data}: {_seeds(table)}" for data, table in pruned.items())
            + f". {at_the_end(pruned['photographs'])} {more_updates(results.read('flowers102_updates'))}",
            curves(pruned),
            made_from(
                "results/petals_pruning",
                "results/flowers102_pruning",
                "results/flowers102_updates",
                "paper/figure4",
            ),
            "**AlexNet**, a quarter as wide, on petals: Spearman rank correlation with the exact oracle, mean and "
            f"range over {narrow.seed.nunique()} samples of {narrow.images.max()} images, beside the paper's on "
            "Flowers-102.",
            alexnet(narrow),
            made_from("results/alexnet_criteria", "paper/table1"),
            "**Does the oracle choose the better network?** The embedded VGG-16 cut in many ways to equal MACs, each "
            f"cut retrained, with {cuts.seed.nunique()} seeds: rank correlation of what is known before with the "
            "accuracy after; in brackets nine bootstrap redraws of the cuts in ten. An interval that holds zero is not "
            "told from chance.",
            foretold(cuts),
            made_from("results/petals_true_oracle"),
            "**Soft weight-sharing**: test error, weights that are left, compression rate; mean and range over seeds.",
            sharing({name: results.read(f"{name}_weight_sharing") for name in ("digits", "mnist")}),
            made_from("results/digits_weight_sharing", "results/mnist_weight_sharing", "paper/weight_sharing"),
        ]
    )


def in_short(measured: dict[str, pd.DataFrame], pruned: dict[str, pd.DataFrame]) -> str:
    """The main results in two sentences: Taylor beside minimum weight, and beside random choice; {data: table}."""
    near, kept = [], []
    for data, table in measured.items():
        means = table.groupby("criterion").mean_of_layers.mean()
        near.append(f"{means.taylor:.2f} on {data} (minimum weight: {means.min_weight:.2f})")
    for data, table in pruned.items():
        half, whole = near_half(table).groupby("curve").accuracy.mean(), table.query("number == 0").accuracy.mean()
        kept.append(f"{half.taylor:.1%} on {data} (whole network {whole:.1%}, chosen at random {half.random:.1%})")
    return (
        f"**In short.** Taylor's rank correlation with the oracle within a layer is {' and '.join(near)}. With half of "
        f"the feature maps removed by Taylor the test accuracy is {' and '.join(kept)}."
    )


def at_the_end(table: pd.DataFrame) -> str:
    """A sentence: the best and the worst accuracy where the curves end, and how much fine-tuning led there."""
    last = table[table.maps_left == table.maps_left.min()].accuracy
    share, bite = table.maps_left.min() / table.maps_left.max(), table.removed.max()
    updates = re.findall(r"\bupdates=(\d+)", table.command.iloc[0]) or [session.PROFILES["paper"].updates]
    return (
        f"The curves of the photographs go on to {share:.0%} of the maps and end between {last.min():.1%} and "
        f"{last.max():.1%}: they had {updates[0]} updates after every {bite:.0f} maps, the paper's have 30 after each."
    )


def more_updates(table: pd.DataFrame) -> str:
    """A sentence: what Taylor's curve keeps with few and with many updates after every cut, of one network."""
    found = milestones(dict(iter(table.groupby("updates"))))
    few, many = found.loc[found.index.min()], found.loc[found.index.max()]
    half, end = (f"{many[at]:.1%} instead of {few[at]:.1%}" for at in ("at half", "at the end"))
    return (
        f"With {many.name} updates instead of {few.name} Taylor keeps {half} at half of the maps and {end} at the "
        f"end (one network, whole {few.whole:.1%}; that it had more training in all is part of it)."
    )


def performance_section() -> str:
    """What `make bench` measured, as Markdown: one folded table for each topic that was recorded."""
    parts = []
    for topic, heading in TOPICS.items():
        if results.recorded(f"benchmark_{topic}"):
            table = results.read(f"benchmark_{topic}")
            parts.append(f"<details><summary>{heading}</summary>\n\n`{table.command.iloc[0]}`")
            link = made_from(f"results/benchmark_{topic}", up="../")
            parts.append(f"{benchmark(table.drop(columns=results.ORIGIN))}\n\n{link}\n\n</details>")
    return "\n\n".join(parts)


def reliability_section() -> str:
    """What `make drill` survived, as Markdown, read from `data/results`: what was recorded of it."""
    parts = []
    for shown, names in ((_survived, DRILLS), (_repeated, ("repeat",)), (_together, ("load",))):
        recorded = [f"drill_{name}" for name in names if results.recorded(f"drill_{name}")]
        if recorded:
            parts.append(shown(pd.concat([results.read(name) for name in recorded])))
            parts.append(made_from(*(f"results/{name}" for name in recorded)))
    return "\n\n".join(parts)


def _survived(kills: pd.DataFrame) -> str:
    rows = [[f"`{k.drill}`", k.fault, f"{k.injected}", f"{k.survived}"] for k in kills.itertuples()]
    return (
        f"**Killed at random moments, or on a full disk** ({kills.injected.sum()} faults injected, "
        f"{kills.survived.sum()} survived). Survived: every checkpoint of before is whole and unchanged, and the same "
        "command again comes to the result of an undisturbed run.\n\n"
    ) + _table(["command", "fault", "injected", "survived"], rows)


def _repeated(table: pd.DataFrame) -> str:
    rows = [
        [row.work, row.against, f"{row.compared:,}", f"{row.differ:,}", _largest(row["largest difference"])]
        for _, row in table.iterrows()
    ]
    return (
        "**Same seed, same machine.** Tables made by another process, and numbers computed with data workers or "
        "another number of threads; the largest difference is a share of the largest number.\n\n"
    ) + _table(["work", "against", "compared", "differ", "largest difference"], rows)


def _together(table: pd.DataFrame) -> str:
    rows = [
        [
            f"{row.notebook[:2]} (`{row.profile}`)",
            f"{row.kernels}",
            f"{row.survived}",
            f"{row.answered} of {row.moves}",
            f"{row.threads}",
            f"{row.resident_mb:,} MB",
            f"{row.own_mb:,} MB",
        ]
        for row in table.itertuples()
    ]
    head = ["notebook", "kernels", "survived", "moved sliders answered", "threads", "resident memory", "its own"]
    return (
        f"**Many students, one machine** ({table.machine[0]}). So many kernels at once run a notebook and move every "
        "slider; threads and memory are the most that one of them took, its own being what it shares with no other "
        "process.\n\n"
    ) + _table(head, rows)


def _largest(value: float) -> str:
    return "" if pd.isna(value) or value == 0 else f"{value:.1e}"


def benchmark(table: pd.DataFrame) -> str:
    """A recorded benchmark without its seconds, which another machine would not repeat."""
    shown = table.drop(columns=[name for name in table if name.endswith("seconds")]).dropna(axis="columns", how="all")
    head = [WORDS.get(name, name.replace("_", " ")) for name in shown]
    return _table(head, [[_cell(name, value) for name, value in row.items()] for _, row in shown.iterrows()])


def _cell(column: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if "error" in column:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def correlations(petals: pd.DataFrame, photographs: pd.DataFrame) -> str:
    """One row a criterion: mean over layers, over all layers after l2, here and in the paper's Table 1."""
    return _table1({"petals, ": petals, "photographs, ": photographs}, "VGG-16")


def alexnet(table: pd.DataFrame) -> str:
    """The same of one network and data set."""
    return _table1({"": table}, "AlexNet")


def _table1(tables: dict[str, pd.DataFrame], network: str) -> str:
    """{what stands before the headings: table}, and what the paper prints of the network on Flowers-102.

    Rows by the first table, the best first, those beyond the paper last.
    """
    columns = {"mean_of_layers": "per layer", "all_layers_l2": "all layers, l2"}
    means = next(iter(tables.values())).groupby("criterion").mean_of_layers.mean().sort_values(ascending=False)
    names = sorted(means.index, key=lambda name: name in BEYOND)  # a stable sort: the paper's first
    printed = pd.read_csv(paths.data_dir() / "paper" / "table1.csv")
    paper = comparison.papers_table1(printed, network, "Flowers-102", names)
    rows = []
    for name in names:
        ours = [_range(table.loc[table.criterion == name, column]) for table in tables.values() for column in columns]
        rows.append([_beyond(name), *ours, *(_two(paper.loc[name, column]) for column in columns)])
    heads = [f"{begins}{heading}" for begins in (*tables, "paper, ") for heading in columns.values()]
    return _table(["criterion", *heads], rows)


def curves(tables: dict[str, pd.DataFrame]) -> str:
    """One row a curve: accuracy, maps, MACs at the step nearest to half of the maps; and the paper's Figure 4."""
    found: dict[str, dict[str, str]] = {}
    for data, table in tables.items():
        whole = table.query("number == 0").accuracy.mean()  # from scratch has none there
        for name, runs in near_half(table).groupby("curve", sort=False):
            left = f"{runs.maps_share.mean():.0%} of the maps, {runs.macs_share.mean():.0%} of the MACs"
            text = f"{_range(runs.accuracy, '.1%')} ({left})"
            found.setdefault(_beyond(name), {})[f"{data} (whole network {whole:.1%})"] = text
    printed = pd.read_csv(paths.data_dir() / "paper" / "figure4.csv").query("axis == 'maps_percent'")
    whole = printed.query("criterion == 'unpruned'").accuracy.iloc[0]
    for row in printed.query("left == 50").itertuples():
        if _beyond(row.criterion) in found:
            found[_beyond(row.criterion)][f"paper, Birds-200 (whole network {whole:.1%})"] = f"{row.accuracy:.0%}"
    columns = sorted({column for cells in found.values() for column in cells}, key=lambda name: ("paper" in name, name))
    return _table(["criterion", *columns], [[n, *(cells.get(c, "") for c in columns)] for n, cells in found.items()])


def foretold(cuts: pd.DataFrame) -> str:
    """What is known of a cut before retraining against its accuracy in the end, by MACs left and kind of cut."""
    rows = []
    for share, those in cuts.groupby("share", sort=False):
        found = true_oracle.predictions(those)
        last = found[(found.updates == found.updates.max()) & found.cuts.isin(["all cuts", "criteria as they are"])]
        for kind, pair in last.groupby("cuts", sort=False):
            answers = pair.set_index("known").apply(true_oracle.answer, axis=1)
            rows.append([f"{share:.0%}", f"{kind}, {last.updates.iloc[0]} updates", *answers[list(true_oracle.KNOWN)]])
    return _table(["MACs left", "cuts", *(f"{known}: better?" for known in true_oracle.KNOWN)], rows)


def sharing(tables: dict[str, pd.DataFrame]) -> str:
    """Error before and after, share of weights that are not zero and compression rate; ours, then the paper's."""
    rows = []
    for data, table in tables.items():
        for method, runs in table.groupby("method", sort=False):
            errors = [_range(runs[f"error_{when}"], ".1%") for when in ("before", "after")]
            rows.append([f"{method}, {data}", *errors, _range(runs.non_zero, ".1%"), _range(runs.rate, ".0f")])
    for row in weight_sharing.papers().itertuples():
        rate = "" if pd.isna(row.rate) else f"{row.rate:.0f}"
        name = f"paper: {row.method}, {row.network}, {row.data}"
        rows.append([name, f"{row.error_before:.2%}", f"{row.error_after:.2%}", f"{row.non_zero:.1%}", rate])
    return _table(["method, data", "error before", "error after", "weights left", "rate"], rows)


def _measured(table: pd.DataFrame) -> str:
    """What stands behind the numbers of a table of correlations."""
    return f"{_seeds(table)}, {table.maps.max():,} maps, {table.images.max():,} images"


def _seeds(table: pd.DataFrame) -> str:
    count = table.seed.nunique()
    return f"mean and range over {count} fine-tuning seeds" if count > 1 else "one seed"


def _beyond(name: str) -> str:
    return f"{title(name)} (beyond the paper)" if name in BEYOND else title(name)


def _range(values: pd.Series, form: str = ".2f") -> str:
    if len(values) < 2:
        return "".join(f"{value:{form}}" for value in values)
    return f"{values.mean():{form}} [{values.min():{form}}, {values.max():{form}}]"


def _two(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


#: file, from the root of the course -> the sections in it, each between its two marks.
SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "notebooks": notebooks_section,
        "profiles": profiles_section,
        "results": results_section,
        "reliability": reliability_section,
    },
    "docs/performance.md": {"performance": performance_section},
}


def insert(page: str, sections: dict[str, Callable[[], str]]) -> str:
    """A page's text with each section between its two marks made anew."""
    for name, section in sections.items():
        begin, end = f"<!-- {name}: {MADE} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n\n{section()}\n\n{end}{after}"
    return page


def pictures(folder: Path) -> None:
    """The curves of the results section, and the front page's moving picture of VGG-16 shrinking."""
    session.figure_style()
    table = results.read("petals_pruning")
    seeds = table.seed.nunique()
    figure = pruning_curves(table, heading=f"VGG-16 on petals: mean and range over {seeds} seeds")
    figure.savefig(folder / "petals_pruning.png", dpi=90, metadata={"Software": None})
    run = results.read("petals_shrinking").query("curve == 'taylor'").reset_index(drop=True)
    moving = animation.gif((shrinking_network(run, step) for step in range(len(run))), milliseconds=300)
    with paths.atomic(folder / "vgg16_shrinking.gif") as temporary:
        temporary.write_bytes(moving)


def main() -> None:
    """Rewrite the notebooks' minutes, the sections of all pages, and the pictures."""
    root = Path(paths.data_dir()).parent
    pictures(root / "data" / "results")
    for path in sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb")):
        path.write_text(with_minutes(path.stem, path.read_text(encoding="utf-8")), encoding="utf-8")
    for name, sections in SECTIONS.items():
        page = root / name
        page.write_text(insert(page.read_text(encoding="utf-8"), sections), encoding="utf-8")


if __name__ == "__main__":
    main()
