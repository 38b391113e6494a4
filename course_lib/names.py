"""Names that are not known: an error that lists the nearest ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that is not among the known ones, with those that come nearest first."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"There is no {what} {name!r}.{hint} Known: {', '.join(known)}."


class UnknownName(KeyError, ValueError):
    """A name (of a criterion, a layer, a data set, ...) that does not exist; its message lists the nearest."""

    def __init__(self, what: str, name: str, known: Iterable[str]):
        super().__init__(unknown(what, name, known))

    def __str__(self) -> str:
        return self.args[0]  # a KeyError would show the message in quotes
