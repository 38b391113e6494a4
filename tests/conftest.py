"""What all tests share."""

import os
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

# Tests are small: more threads than this wait for each other longer than they compute.
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs, digits and weights, which is not part of this repository."""
    folder = Path(os.environ.get("COURSE_LIB_REAL") or Path(__file__).resolve().parents[2] / "shared" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set COURSE_LIB_REAL to its folder")
    return folder


@pytest.fixture(autouse=True)
def close_figures():
    """No test sees the figures that another one has left open."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def figure_style():
    """The style of a session, in which a warning, of a missing glyph for instance, is an error."""
    from matplotlib import pyplot

    from course_lib.classroom import session

    with pyplot.rc_context(), warnings.catch_warnings():
        session.figure_style()
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def browser():
    """Chromium: the system's or playwright's own. Without one the test is skipped, but in CI it fails."""
    # Not for the whole session: while playwright runs, no other test could run an event loop of its own.
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _no_browser("playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if not (found or Path(playwright.chromium.executable_path).exists()):
            _no_browser("there is no Chromium: apt-get install chromium, or python -m playwright install chromium")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def _no_browser(why: str) -> None:
    (pytest.fail if os.environ.get("COURSE_LIB_CI") == "1" else pytest.skip)(why)


@pytest.fixture
def page(browser):
    """A page that cannot leave this machine: `page.outside` has the addresses it tried, `page.errors` what it said."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.outside, page.errors = [], []
    context.route(re.compile(r"^(?!(http://127\.0\.0\.1|http://localhost|file:|data:|blob:))"), _refuse(page.outside))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()


def _refuse(outside: list):
    def refuse(route):
        outside.append(route.request.url)
        route.abort()

    return refuse
