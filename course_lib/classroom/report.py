"""The results and performance sections of the README and their figure, made from the recorded runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from course_lib import paths
from course_lib.classroom import results, session
from course_lib.classroom.figures.pruning import near_half, pruning_curves
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
WORDS = {"spearman_all": "Spearman, all", "spearman_mean_of_layers": "Spearman, mean of layers"}


def results_section() -> str:
    """What was found, as Markdown, read from `data/results`."""
    petals, photographs = results.read("petals_criteria"), results.read("flowers102_criteria")
    return "\n\n".join(
        [
            f"**Which criterion is nearest to the oracle?** Spearman rank correlation with the exact oracle; petals: "
            f"mean and range over {petals.seed.nunique()} fine-tuning seeds, all {petals.maps.max():,} maps, "
            f"{petals.images.max()} images; photographs: {photographs.maps.max()} maps sampled from every layer of the "
            f"full-width VGG-16, {photographs.images.max()} images.",
            correlations(petals, photographs),
            "**How small can it get?** Test accuracy after fine-tuning, at the step nearest to half of the maps.",
            curves({"petals": results.read("petals_pruning"), "photographs": results.read("flowers102_pruning")}),
        ]
    )


def performance_section() -> str:
    """What `make bench` measured, as Markdown: one folded table for each topic that was recorded."""
    folder, parts = paths.data_dir() / "results", []
    for topic, heading in TOPICS.items():
        if (folder / f"benchmark_{topic}.csv").exists():
            table = results.read(f"benchmark_{topic}")
            parts.append(f"<details><summary>{heading}</summary>\n\n`{table.command.iloc[0]}`")
            parts.append(benchmark(table.drop(columns=results.ORIGIN)) + "\n\n</details>")
    return "\n\n".join(parts)


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
    return f"{value:.1e}" if "error" in column else f"{value:,.4g}"


def correlations(petals: pd.DataFrame, photographs: pd.DataFrame) -> str:
    """One row a criterion: mean over layers, over all layers after l2, here and in the paper's Table 1."""
    paper = pd.read_csv(paths.data_dir() / "paper" / "table1.csv").query(
        "network == 'VGG-16' and data == 'Flowers-102'"
    )
    printed = paper.pivot(index="criterion", columns="row", values="spearman")
    rows = []
    for name, runs in petals.groupby("criterion", sort=False):
        real = photographs.set_index("criterion").loc[name]
        said = printed.loc[name] if name in printed.index else {}
        cells = [_range(runs.mean_of_layers), _range(runs.all_layers_l2), _two(real.mean_of_layers)]
        cells += [_two(real.all_layers_l2), _two(said.get("per layer")), _two(said.get("all layers, l2"))]
        rows.append((runs.mean_of_layers.mean(), [title(name), *cells]))
    head = ["criterion", "petals, per layer", "petals, all layers, l2", "photographs, per layer"]
    head += ["photographs, all layers, l2", "paper, per layer", "paper, all layers, l2"]
    return _table(head, [cells for _, cells in sorted(rows, key=lambda row: -row[0])])


def curves(tables: dict[str, pd.DataFrame]) -> str:
    """One row a curve: accuracy, maps and MACs at the step nearest to half of the maps, and what it started from."""
    found: dict[str, dict[str, str]] = {}
    for data, table in tables.items():
        whole = table.query("number == 0").accuracy.mean()
        for name, runs in near_half(table).groupby("curve", sort=False):
            left = f"{runs.maps_share.mean():.0%} of the maps, {runs.macs_share.mean():.0%} of the MACs"
            text = f"{_range(runs.accuracy, '.1%')} ({left})"
            found.setdefault(title(name), {})[f"{data} (whole network {whole:.1%})"] = text
    columns = sorted({column for cells in found.values() for column in cells})
    return _table(["criterion", *columns], [[n, *(cells.get(c, "") for c in columns)] for n, cells in found.items()])


def _range(values: pd.Series, form: str = ".2f") -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:{form}}"
    return f"{values.mean():{form}} [{values.min():{form}}, {values.max():{form}}]"


def _two(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def insert(readme: str) -> str:
    """The README's text with each section between its two marks made anew."""
    for name, section in (("results", results_section), ("performance", performance_section)):
        begin, end = f"<!-- {name}: {MADE} -->", f"<!-- end of {name} -->"
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(end)
        readme = f"{before}{begin}\n\n{section()}\n\n{end}{after}"
    return readme


def main() -> None:
    """Rewrite the sections in README.md, and their figure."""
    path = Path(paths.data_dir()).parent / "README.md"
    session.figure_style()
    figure = pruning_curves(results.read("petals_pruning"), heading="VGG-16 on petals: mean and range over three seeds")
    figure.savefig(paths.data_dir() / "results" / "petals_pruning.png", dpi=90, metadata={"Software": None})
    path.write_text(insert(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
