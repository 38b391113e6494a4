"""Opening a deck in a real browser, without a network: what is cut off or too small, and a picture of every slide."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

#: Slides on a contact sheet, in a row of it, and the width of one in pixels.
SHEET, ROW, SMALL = 12, 3, 640
#: Milliseconds for a deck to be set: thousands of formulas, and perhaps a busy machine.
PATIENCE = 300_000
_HERE = re.compile(r"^(?!file:|data:|blob:)")


def look(chromium, deck: Path, pictures: Path | None = None) -> list[str]:
    """What is wrong with a deck, slide by slide, as a projector shows it; empty if nothing is.

    Args:
        deck: the page that `page.write` made, in its furnished folder.
        pictures: folder for a PNG of every slide, and contact sheets of `SHEET` slides.
    """
    if pictures:
        shutil.rmtree(pictures / deck.stem, ignore_errors=True)
        (pictures / deck.stem).mkdir(parents=True)
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(PATIENCE)
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"{deck.name}: {error}"))
    page.route(_HERE, lambda route: (found.append(f"{deck.name} asks for {route.request.url}"), route.abort()))
    page.goto(deck.resolve().as_uri())
    page.wait_for_selector("body.deck-ready", state="attached")
    slides = page.evaluate("Reveal.getSlides().length")
    shots = []
    for number in range(slides):
        page.evaluate("Deck.show", number)
        found += [f"{deck.name}, slide {number + 1}: {what}" for what in page.evaluate("Deck.complaints()")]
        if pictures:
            shots.append(pictures / deck.stem / f"{number + 1:02d}.png")
            page.screenshot(path=shots[-1])
    page.close()
    if pictures:
        _contact_sheets(shots, pictures / deck.stem)
    return found


def _contact_sheets(shots: list[Path], folder: Path) -> None:
    for first in range(0, len(shots), SHEET):
        some = [
            Image.open(shot).convert("RGB").resize((SMALL, SMALL * 9 // 16)) for shot in shots[first : first + SHEET]
        ]
        rows = -(-len(some) // ROW)
        sheet = Image.new("RGB", (ROW * (SMALL + 8), rows * (SMALL * 9 // 16 + 8)), "grey")
        for at, picture in enumerate(some):
            sheet.paste(picture, (at % ROW * (SMALL + 8), at // ROW * (SMALL * 9 // 16 + 8)))
        sheet.save(folder / f"sheet-{first // SHEET + 1}.png")
