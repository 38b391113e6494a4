"""Links that were written for the repository's own pages, made to lead somewhere on the site; and whether all do."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Set
from html.parser import HTMLParser
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

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


def written(site: Path) -> list[Path]:
    """The pages of a built site, but for what others made that lies below `_static`."""
    return [path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts]


def broken(site: Path) -> list[str]:
    """Links of a built site that lead nowhere within it, as "page -> link": no such file, or no such place in it."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in written(site)}
    found = []
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(address.fragment)
            if not target.exists() or (place and target in pages and place not in pages[target].places):
                found.append(f"{path.relative_to(site.resolve())} -> {link}")
    return found


class _Page(HTMLParser):
    """The links of a page and the places in it that links can lead to."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.places = set(), {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name in ("href", "src")):
                self.links.add(value)
            elif value and name in ("id", "name"):
                self.places.add(value)
