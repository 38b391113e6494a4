"""Figures of the benchmarks: how many times faster, and what the arithmetic alone would allow."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_lib.classroom.figures.style import COLOURS


def ratios(table: pd.DataFrame) -> Figure:
    """How many times our time others need for the same work; the bar is what fewer MACs alone explain.

    Args:
        table: one row a comparison: work, against, ratio, and arithmetic_limit, which may be missing.
    """
    table = table.dropna(subset="ratio")
    works = list(dict.fromkeys(table.work))
    figure, axes = plt.subplots(figsize=(15, 1.5 + 0.62 * len(works)))
    limits = table.groupby("work").arithmetic_limit.first().reindex(works)
    axes.barh(works, limits, height=0.75, color="0.88", label="by fewer MACs alone")
    paints = zip(dict.fromkeys(table.against), "osD^v", COLOURS.values(), strict=False)
    for other, marker, paint in paints:
        rows = table[table.against == other]
        axes.plot(rows.ratio, rows.work, marker, ms=11, color=paint, label=f"than {other}")
    axes.set(xscale="log", xlabel="times faster (logarithmic)", title="The same work, timed side by side")
    axes.set_xticks(ticks := [1, 2, 5, 10, 20], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=15)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    return figure
