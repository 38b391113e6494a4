"""Figures to play with that need no kernel: every picture is drawn beforehand, a little script shows one of them.

What comes out is one piece of HTML that asks for nothing from outside. It moves in JupyterLab, on the slides, on the
site, in an exported page and in a file that is opened by a double click; by mouse and by keyboard, and a screen reader
says what is chosen and shown. Where scripts are not allowed (an untrusted notebook) the first picture stands.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable
from numbers import Real

from matplotlib.figure import Figure

from course_lib.classroom import controls, picture
from course_lib.progress import track

#: Pictures in one output. Each is some 40 kB, and all of them are in the page.
MOST = 64

# The controls are told apart by place, not by id, so that a page may have many outputs and an output many copies.
# `keydown` stops here: on a slide the arrow keys would turn the page as well.
_SCRIPT = """
document.querySelectorAll('.course-frames:not([data-ready])').forEach(box => {
  const controls = [...box.querySelectorAll('input, select')], pictures = [...box.querySelectorAll('.course-frame')];
  const place = c => c.type === 'checkbox' ? +c.checked : c.tagName === 'SELECT' ? c.selectedIndex : +c.value;
  const show = () => {
    let chosen = 0;
    for (const c of controls) {
      chosen = chosen * +c.dataset.count + place(c);
      if (c.type === 'range') {
        const said = c.dataset.values.split('|')[place(c)];
        c.setAttribute('aria-valuetext', said);
        c.nextElementSibling.textContent = said;
      }
    }
    pictures.forEach((p, i) => { p.style.display = i === chosen ? '' : 'none'; });
  };
  controls.forEach(c => {
    c.addEventListener('input', show);
    c.addEventListener('keydown', event => event.stopPropagation());
  });
  box.dataset.ready = 'yes';
  show();
});
"""


def frames(fn: Callable[..., Figure | str], **lists: list):
    """Show the figure that `fn` draws for each of some values, all of them drawn now: it moves without a kernel.

    Args:
        fn: takes the named arguments and returns a matplotlib Figure or an SVG text.
        lists: for each argument the values to draw, the one to begin with first: rising numbers make a slider,
            [False, True] a tick box, anything else a menu. All combinations are drawn.

    Returns:
        What a notebook shows: HTML, with pictures, controls and script in one piece.

    Raises:
        TypeError, ValueError: for an argument that `fn` does not take, for what is not a list, and for more than
            `MOST` combinations; and whatever `fn` raises on any of them.
    """
    controls.check_names(fn, list(lists), "frames")
    for name, choices in lists.items():
        if not isinstance(choices, list) or not choices:
            raise ValueError(
                f"frames({controls.called(fn)}, {name}={choices!r}): give a list of values, as in [1, 2, 5]."
            )
    return drawn(fn, lists, {name: choices[0] for name, choices in lists.items()})


def drawn(fn: Callable[..., Figure | str], lists: dict[str, list], first: dict):
    """`frames` that begins with the values `first`, which are among the `lists`."""
    from IPython.display import HTML

    sizes = [len(choices) for choices in lists.values()]
    if math.prod(sizes) > MOST:
        product = " x ".join(map(str, sizes))
        raise ValueError(
            f"frames({controls.called(fn)}, ...) would draw {product} = {math.prod(sizes)} pictures, more than {MOST}. "
            "Give fewer values, or use explore()."
        )
    pictures = [
        _frame(picture.image(fn(**chosen), said(chosen)), hidden=chosen != first)
        for chosen in track(controls.combinations(lists), f"drawing {controls.called(fn)}")
    ]
    rows = "".join(_control(name, choices, choices.index(first[name])) for name, choices in lists.items())
    label = html.escape(controls.called(fn).replace("_", " "))
    return HTML(
        f'<div class="course-frames" role="group" aria-label="{label}">{rows}{"".join(pictures)}</div>'
        f"<script>{_SCRIPT}</script>"
    )


def said(chosen: dict) -> str:
    """The values of the controls in words, as a picture's description begins with them."""
    return ", ".join(f"{_name(name)} = {_value(value)}" for name, value in chosen.items())


def _frame(image: str, hidden: bool) -> str:
    style = ' style="display: none"' if hidden else ""
    return f'<div class="course-frame"{style}>{image}</div>'


def _control(name: str, choices: list, start: int) -> str:
    # JupyterLab would take the arrow keys for itself, were it not for the attribute.
    common = f'data-lm-suppress-shortcuts="true" data-count="{len(choices)}" aria-label="{html.escape(_name(name))}"'
    shown = [html.escape(_value(value)) for value in choices]
    if choices == [False, True]:
        handle = f'<input type="checkbox" {common}{" checked" if start else ""}>'
    elif _rising(choices):
        handle = (
            f'<input type="range" min="0" max="{len(choices) - 1}" value="{start}" {common} autocomplete="off" '
            f'aria-valuetext="{shown[start]}" data-values="{"|".join(shown)}" style="width: 24em; max-width: 60%">'
            f"<output>{shown[start]}</output>"
        )
    else:
        options = [f"<option{' selected' if i == start else ''}>{text}</option>" for i, text in enumerate(shown)]
        handle = f'<select {common} autocomplete="off">{"".join(options)}</select>'
    look = "display: flex; align-items: center; gap: 0.7em; margin: 0.3em 0"
    return f'<label style="{look}"><span style="min-width: 8em">{html.escape(_name(name))}</span>{handle}</label>'


def _rising(choices: list) -> bool:
    numbers = all(isinstance(x, Real) and not isinstance(x, bool) for x in choices)
    return numbers and len(choices) > 1 and all(a < b for a, b in itertools.pairwise(choices))


def _name(name: str) -> str:
    return name.replace("_", " ")


def _value(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
