"""Time two or more ways of doing the same work in turn, and put them side by side as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

REPEATS = 3


def cpu_seconds(works: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median CPU seconds of each work, run in turn so that all of them see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def rows(
    work: str,
    seconds: dict[str, float],
    *,
    share: dict[str, float] | None = None,
    limit: dict[str, float] | None = None,
    error: float | None = None,
) -> list[dict]:
    """One row for each rival of "ours".

    Args:
        work: what was done, in words, with its size.
        seconds: name -> CPU seconds; one of the names is "ours".
        share: what part of our work a rival did in its seconds; 1 if not named.
        limit: the ratio that arithmetic (MACs of theirs / MACs of ours) would allow, for rivals where that is known.
        error: the largest difference between our result and the right one, relative to the largest right one.
    """
    found = []
    for name, taken in seconds.items():
        if name == "ours":
            continue
        theirs = taken / (share or {}).get(name, 1.0)
        ratio, most = theirs / seconds["ours"], (limit or {}).get(name)
        found.append(
            {
                "work": work,
                "against": name,
                "ours_seconds": seconds["ours"],
                "theirs_seconds": theirs,
                "ratio": ratio,
                "arithmetic_limit": most,
                "share_of_limit": most and ratio / most,
                "max_error": error,
            }
        )
    return found
