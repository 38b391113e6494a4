"""Links that were written for the repository's own pages, made to lead somewhere on the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Set
from pathlib import Path, PurePath

import course_lib

_LINK = re.compile(r"\]\((?!\w+:|#)([^()#\s]+)(#[^()\s]*)?\)")
#: A badge: a picture from elsewhere that is a link. The site asks nothing of others, and has buttons of its own.
_BADGE = re.compile(r"^\[!\[[^]]*\]\(https?:[^)]*\)\]\([^)]*\)\s*\n?", re.MULTILINE)


def mended(text: str, here: PurePath, pages: Set[str], root: Path) -> str:
    """Markdown of a page in the folder `here`, with each relative link to a page of the site or to the repository.

    Args:
        pages: what the site has, relative to `root`, the repository's folder. A link to what is neither a page nor
            a file of the repository is left as it is, for Sphinx to complain about.
    """

    def mend(match: re.Match) -> str:
        target, anchor = posixpath.normpath(posixpath.join(here.as_posix(), match[1])), match[2] or ""
        target = "index.md" if target == "README.md" else target
        if f"{target}/README.md" in pages:
            target = f"{target}/README.md"
        if target in pages:
            return f"]({posixpath.relpath(target, here.as_posix())}{anchor})"
        if Path(target).suffix in (".png", ".gif", ".svg") or not (root / target).exists():
            return match[0]
        kind = "tree" if (root / target).is_dir() else "blob"
        return f"]({course_lib.REPOSITORY}/{kind}/main/{target}{anchor})"

    return _LINK.sub(mend, _BADGE.sub("", text))
