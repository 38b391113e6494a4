"""One progress bar for everything: legible in a terminal, in Jupyter and in a log."""

import os
import sys
from collections.abc import Iterable

from tqdm.std import tqdm

#: Shorter work than this (seconds) shows no bar.
DELAY = 1.5
#: Seconds between two lines where nobody is watching (a log, a headless notebook).
LINE_EVERY = 15.0


def track(iterable: Iterable, label: str, total: int | None = None) -> Iterable:
    """`iterable`, with a bar that shows `label`, what is done and the time left.

    `total`: number of items, where ``len(iterable)`` does not say. The bar appears after `DELAY` seconds. In a log a
    line is written every `LINE_EVERY` seconds instead. ``COURSE_LIB_PROGRESS=0`` switches it off.
    """
    return iterable if _is_off() else _bar(iterable, desc=label, total=total)


def meter(label: str, unit: str, *, show: bool = True) -> tqdm:
    """A bar to be moved by hand, for work whose items take different times: ``with meter("oracle", "MAC") as bar:``.

    `bar.total` and `bar.update(n)` count in units that take about the same time each, so that the time left is right.
    """
    if _is_off() or not show:
        return tqdm(disable=True)
    return _bar(desc=label, unit=unit, unit_scale=True, smoothing=0)


def _is_off() -> bool:
    return os.environ.get("COURSE_LIB_PROGRESS") == "0"


def _bar(iterable: Iterable | None = None, **options) -> tqdm:
    options |= {"delay": DELAY, "leave": None}
    if is_watched():
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar(iterable, **options)
    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    return tqdm(iterable, file=_Lines(), mininterval=LINE_EVERY, miniters=1, ncols=88, ascii=" #", **options)


class _Lines:
    """A stream for tqdm that ends each state of the bar as a line of its own, instead of overwriting the last."""

    def __init__(self):
        # A notebook paints what is written to stderr as if it were an error.
        self._stream = sys.stdout if _kernel() else sys.stderr

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            self._stream.write(text + "\n")

    def flush(self) -> None:
        self._stream.flush()


def _kernel():
    """The Jupyter kernel that runs this code, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None)


def is_watched() -> bool:
    """Whether this code runs in a notebook with a front end that can answer (JupyterLab, Colab, VS Code).

    A front end lets code ask questions with `input`; nbclient, hence papermill and nbconvert, does not.
    ``COURSE_LIB_STATIC=1`` says no in any case.
    """
    kernel = _kernel()
    if kernel is None or os.environ.get("COURSE_LIB_STATIC") == "1":
        return False
    request = kernel.get_parent("shell") or {}
    return bool(request.get("content", {}).get("allow_stdin", True))
