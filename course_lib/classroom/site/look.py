"""Opening a built site's pages in a real browser, without a network: contrast, labels, and what is too wide."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from course_lib.classroom import vendor
from course_lib.classroom.site import links
from course_lib.progress import track

#: Of the window, in pixels: a phone's, at which a page is opened, and a laptop's, at which axe looks at it.
WIDTHS, HEIGHT = (390, 1280), 1000
MODES = ("light", "dark")
#: Folders whose many pages are made from the library by one template: the largest page stands for all.
ALIKE = ("_modules", "docs/api")
#: Milliseconds for a page to be set: thousands of formulas, and perhaps a busy machine.
PATIENCE = 300_000
#: What axe-core looks for: the levels A and AA of WCAG 2.
RULES = {"runOnly": ["wcag2a", "wcag2aa"]}
_HERE = re.compile(r"^(?!file:|data:|blob:)")
_SET = "() => document.fonts.ready.then(() => window.MathJax?.startup?.promise).then(() => true)"
#: How far the page scrolls sideways, and the elements that stick out of the window without a box that scrolls.
_TOO_WIDE = """() => {
  const page = document.documentElement, width = page.clientWidth;
  if (page.scrollWidth <= width) return [];
  const scrolls = element => /auto|scroll|hidden|clip/.test(getComputedStyle(element).overflowX);
  const held = element => element !== document.body && element !== page
    && (scrolls(element) || held(element.parentElement));
  const out = [...document.body.querySelectorAll('*')].filter(element =>
    element.getBoundingClientRect().right > width + 1 && !held(element.parentElement));
  const names = out.map(element => element.outerHTML.slice(0, 100)).slice(0, 3);
  return names.length ? names : ['nobody knows what'];
}"""


def look(chromium, site: Path, names: Iterable[str] | None = None, pictures: Path | None = None) -> list[str]:
    """What is wrong with the pages of a site, in light and in dark; empty if nothing is.

    Args:
        site: folder of the built site.
        names: pages, without .html; unless a test says else all that differ in more than their text.
        pictures: folder for a PNG of every page, in every mode and width.
    """
    axe = (vendor.fetch() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    pages = [site / f"{name}.html" for name in names or ()] or _different(site)
    found: list[str] = []
    for mode in MODES:
        # Opened as wide as the first of them: while a window narrows, the columns beside a page slide away over it.
        context = chromium.new_context(viewport={"width": WIDTHS[0], "height": HEIGHT})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        for path in track(pages, f"looking at pages, {mode}"):
            name = path.relative_to(site).with_suffix("").as_posix()
            picture = pictures / f"{name.replace('/', '-')}-{mode}" if pictures else None
            found += [f"{name}, {mode}: {what}" for what in _complaints(context.new_page(), path, axe, picture)]
        context.close()
    return found


def _different(site: Path) -> list[Path]:
    """The pages of a site, but of the folders of pages that are all alike only the largest of each."""
    pages = set(links.written(site))
    for folder in ALIKE:
        alike = {page for page in pages if page.is_relative_to(site / folder)}
        pages -= alike - {max(alike, key=lambda page: (page.stat().st_size, page), default=None)}
    return sorted(pages)


def _complaints(page, path: Path, axe: str, picture: Path | None) -> list[str]:
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.route(_HERE, lambda route: (said.append(f"asks for {route.request.url}"), route.abort()))
    page.goto(path.resolve().as_uri())
    page.evaluate(_SET)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        if picture:
            page.screenshot(path=f"{picture}-{width}.png")
        said += [f"wider than {width} pixels: {what}" for what in page.evaluate(_TOO_WIDE)]
    page.evaluate(axe)
    for rule in page.evaluate("rules => axe.run(rules).then(found => found.violations)", RULES):
        said += [f"{rule['id']} ({rule['help']}): {node['html'][:200]}" for node in rule["nodes"]]
    page.close()
    return said
