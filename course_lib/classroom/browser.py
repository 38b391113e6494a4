"""Chromium, to look at what we make as a reader sees it: slides, pages, figures that move."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


class NoBrowser(RuntimeError):
    """There is nothing to drive; the message says what to install."""


@contextlib.contextmanager
def chromium() -> Iterator:
    """Chromium, the system's or playwright's own. Raises NoBrowser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowser("playwright is not installed: pip install playwright") from error
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if not (found or Path(playwright.chromium.executable_path).exists()):
            raise NoBrowser("there is no Chromium: apt-get install chromium, or python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
