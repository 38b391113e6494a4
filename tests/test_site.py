"""The site, built from a stand-in notebook and read in a browser that has no network."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib.classroom import vendor
from course_lib.classroom.frames import frames
from course_lib.classroom.site import build, links, look, notebooks, reference, references

ROOT = Path(__file__).resolve().parents[1]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TEXT = """## 1. One section

**Step 1. A step.** Zebrafish, and notebook 09, which is not here. See [the loop](09_prune_vgg16.ipynb).

$$ a = b $$

$$ c = d $$

| letter | what |
|---|---|
| $a$ | a letter |"""


def stand_in():
    """An executed notebook with what a page can have: equations, a table, a picture, a figure that moves, folds."""
    moving = frames(
        lambda k: f'<svg xmlns="http://www.w3.org/2000/svg"><text y="20">k is {k}</text></svg>', k=[1, 2, 3]
    )
    shown = [new_output("display_data", data={"image/png": PNG, "text/plain": "<Figure>"})]
    shown += [new_output("execute_result", data={"text/html": moving.data}, execution_count=2)]
    printed = [new_output("stream", name="stdout", text="a long line of output " * 20)]
    cells = [
        new_markdown_cell("# What is a stand-in?\n\n20 minutes to read, 1 minute to run (`laptop`).", id="07-title"),
        new_code_cell('profile = "ci"', id="x", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("from course_lib import ranking\nfrom course_lib.classroom import figures", id="07-imports"),
        new_markdown_cell(TEXT, id="07-step-1"),
        new_code_cell("ranking.lowest(scores)\nfigures.methods(table)", id="07-draw", outputs=shown),
        new_code_cell("print(1)", id="07-print", outputs=printed),
        new_markdown_cell("<details><summary>Solution</summary>\n\n*It is here.*\n\n</details>", id="07-solution"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "papermill": {"parameters": {"profile": "ci"}}})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the stand-in and of the real docs/, with two of the library's pages; its folder."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "executed").mkdir()
    nbformat.write(stand_in(), folder / "executed" / "07_taylor.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "modules", lambda: ["course_lib.ranking", "course_lib.names"])
        patch.setattr(build, "_mathjax", _mathjax_if_there)
        return build.build(folder / "executed", folder / "site").parent


_mathjax = build._mathjax


def _mathjax_if_there(into):
    try:
        _mathjax(into)
    except vendor.VendorError as why:
        if os.environ.get("COURSE_LIB_CI") == "1":
            pytest.fail(str(why))


@pytest.fixture(scope="module")
def address(site):
    """Where a server for this machine alone shows the site."""
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_pages_have_links_texts_and_no_leftovers(site):
    page = (site / "notebooks" / "07_taylor.html").read_text()
    assert "(7.1)" in page and "(7.2)" in page
    assert "What is printed and drawn on this page is from profile" in page and "1 minute" in page
    assert 'profile = "ci"' not in page and "blob/main/notebooks/09_prune_vgg16.ipynb" in page
    assert re.search(r'alt="Error before and after[^"]*Figure of notebook 07, section 1, step 1\."', page)
    assert 'href="../docs/api/course_lib.ranking.html#course_lib.ranking.lowest"' in page
    library = (site / "docs" / "api" / "course_lib.ranking.html").read_text()
    assert "Taught in:" in library and "notebook 07, section 1, step 1</span>" in library
    assert "_modules/course_lib/ranking.html" in library
    assert "Pruning curves" in (site / "docs" / "gallery.html").read_text()
    assert links.broken(site) == []


def test_a_dead_link_is_an_error_and_the_old_site_stays(site, monkeypatch, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copytree(ROOT / "docs" / "_static", docs / "_static")
    (docs / "index.md").write_text("# Site\n\n[nothing](nowhere.md)\n\n```{toctree}\nnotebooks/07_taylor\n```\n")
    monkeypatch.setattr(build, "lay_out", _lay_out_little)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("old")
    with pytest.raises(build.SiteError, match=r"(?s)complaints.*nowhere\.md"):
        build.build(site.parent / "executed", tmp_path / "site", docs)
    assert (tmp_path / "site" / "index.html").read_text() == "old"


def _lay_out_little(executed, docs, source):
    shutil.copytree(docs, source)
    (source / "notebooks").mkdir()
    nbformat.write(stand_in(), source / "notebooks" / "07_taylor.ipynb")


def test_links_to_files_that_are_missing_and_to_places_that_are_missing_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="c.png">')
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="https://elsewhere.org/x">3</a><a href="#">4</a>')
    assert sorted(links.broken(tmp_path)) == ["a.html -> b.html#gone", "a.html -> c.png"]


def test_without_executed_notebooks_the_command_says_what_to_do(tmp_path, capsys):
    assert build.main(["--executed", str(tmp_path), "--out", str(tmp_path / "site")]) == 1
    assert "course_lib run" in capsys.readouterr().err


def test_what_is_used_is_found_under_any_name():
    known = {}
    source = "import course_lib\nfrom course_lib import ranking as r\n%pip list\nr.lowest(x); course_lib.start(1)"
    used = set(notebooks._used(source, known))
    assert used == {"course_lib.ranking.lowest", "course_lib.classroom.session.start"}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_letters_and_references_of_every_notebook_are_in_the_courses_lists(path):
    notebook = nbformat.read(path, as_version=4)
    listed = set().union(*references.entries((ROOT / "docs" / "references.md").read_text(encoding="utf-8")).values())
    assert references.cited(notebook) <= listed, "add these to docs/references.md"
    notation = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    letters = {letter for cell in notebook.cells if cell.cell_type == "markdown" for letter in _letters(cell.source)}
    assert {letter for letter in letters if letter not in notation} == set(), "add these to docs/notation.md"


def _letters(text):
    """The letters of a notebook's table of letters."""
    for line in text.splitlines() if re.search(r"^\| letter \|", text, re.MULTILINE) else []:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for cell in cells[::2]:
            yield from re.findall(r"\\?\w+", " ".join(re.findall(r"\$([^$]+)\$", cell)))


def test_the_site_in_a_browser(page, site, address):
    if not (site / "_static" / "mathjax" / "tex-chtml.js").exists():
        pytest.skip("npm could not bring MathJax: connect once to the internet")
    page.goto(f"{address}/notebooks/07_taylor.html")
    page.wait_for_selector("mjx-container")
    assert page.locator(".eqno").first.inner_text().startswith("(7.1)")

    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    visible = page.locator(".course-frame img:visible")
    assert visible.count() == 1 and "k is 3" in visible.get_attribute("alt")

    for mode in ("dark", "light"):
        page.locator("button.theme-switch-button:visible").first.click()
        page.locator(f'button.theme-change-button[data-mode="{mode}"]:visible').click()
        assert page.evaluate("() => document.documentElement.dataset.theme") == mode

    page.goto(f"{address}/search.html?q=zebrafish")
    page.wait_for_selector("#search-results li")
    assert "stand-in" in page.locator("#search-results").inner_text()
    assert page.outside == [] and page.errors == []


@pytest.fixture
def packages():
    """What npm brings: axe-core, which looks at pages. Without it the test is skipped, but in CI it fails."""
    try:
        return vendor.fetch()
    except vendor.VendorError as why:
        (pytest.fail if os.environ.get("COURSE_LIB_CI") == "1" else pytest.skip)(str(why))


def test_contrast_labels_and_width(browser, packages, site):
    pages = ("index", "notebooks/07_taylor", "docs/gallery", "docs/notation", "docs/api/course_lib.ranking")
    pictures = ROOT / "build" / "screenshots" / "site"
    assert look.look(browser, site, pages, pictures) == []
    assert len({path.read_bytes() for path in pictures.glob("notebooks-07_taylor-*.png")}) == 4  # dark is dark


BROKEN = """<!doctype html><html lang="en"><head><title>t</title></head><body><main>
<h1>Title</h1><p style="color:#999;background:#aaa">pale</p><img src="data:image/png;base64,{png}">
<div style="overflow-x:auto"><div class="held" style="width:3000px">scrolls by itself</div></div>
<p class="wide" style="width:600px">too wide for a phone</p><img alt="" src="https://example.org/x.png">
<script>nothing.there()</script></main></body></html>"""


def test_what_is_pale_unlabelled_too_wide_or_from_elsewhere_is_named_with_its_page(
    browser, packages, tmp_path, monkeypatch, capsys
):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.html").write_text(BROKEN.replace("{png}", PNG))
    found = look.look(browser, tmp_path)
    for mode in look.MODES:
        here = [what.removeprefix(f"docs/page, {mode}: ") for what in found if f", {mode}:" in what]
        for begins, within in (
            ("color-contrast", "pale"),
            ("image-alt", "<img"),
            ("wider than 390 pixels", 'class="wide"'),
            ("asks for https://example.org/x.png", ""),
            ("nothing is not defined", ""),
        ):
            assert [what for what in here if what.startswith(begins) and within in what], (begins, here)
        assert not [what for what in here if "1280" in what or "held" in what]


def test_of_pages_that_are_alike_the_largest_stands_for_all(tmp_path):
    for name, text in {
        "index": "",
        "docs/page": "",
        "docs/api/a": "",
        "docs/api/b": "longer",
        "_modules/c": "",
    }.items():
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = [path.relative_to(tmp_path).as_posix() for path in look._different(tmp_path)]
    assert found == ["_modules/c.html", "docs/api/b.html", "docs/page.html", "index.html"]


def test_the_command_looks_at_the_pages_and_fails_with_a_list(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "build", lambda executed, out: out / "index.html")
    monkeypatch.setattr(build.browser, "chromium", lambda: contextlib.nullcontext("chromium"))
    asked = []
    monkeypatch.setattr(build.look, "look", lambda *given: asked.append(given) or ["notebooks/07, dark: pale"])
    typed = ["--executed", str(tmp_path), "--out", str(tmp_path / "site")]
    assert build.main(typed) == 1
    assert asked == [("chromium", tmp_path / "site")] and "notebooks/07, dark: pale" in capsys.readouterr().out
    monkeypatch.setattr(build.look, "look", lambda *given: [])
    assert build.main(typed) == 0

    def none():
        raise build.browser.NoBrowser("there is none")

    monkeypatch.setattr(build.browser, "chromium", none)
    assert build.main(typed) == 0 and "were not looked at" in capsys.readouterr().out
