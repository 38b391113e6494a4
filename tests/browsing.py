"""Driving real pages: Chromium, JupyterLab, and the figures to play with in a notebook that it shows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from course_lib.classroom.browser import NoBrowser, chromium  # noqa: F401 (conftest takes them from here)

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_SETTINGS = {"windowingMode": "none"}  # every cell is in the page, not only those that one sees


#: As small as the notebooks run: what is tried here is the front end.
SIZES = {"train_images": 200, "test_images": 100, "score_images": 48, "oracle_images": 32, "epochs": 1, "updates": 1}
SIZES |= {"maps_per_step": 264, "sharing_epochs": 6}
PAGE = 5  # steps of a slider at a press of PageUp
OUTSIDE = re.compile(r"^(?!http://127\.0\.0\.1|http://localhost|file:|data:|blob:).")


@contextlib.contextmanager
def offline_page(browser, **context_options) -> Iterator:
    """A page that cannot leave this machine: `.outside` has the addresses it asked for, `.errors` its red console."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **context_options)
    page = context.new_page()
    page.outside, page.errors = [], []

    def refuse(route):
        page.outside.append(route.request.url)
        route.abort()

    def listen(message):
        if message.type == "error" and not OUTSIDE.match(message.location["url"]):  # these are in page.outside
            page.errors.append(message.text)

    context.route(OUTSIDE, refuse)
    page.on("console", listen)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    context.close()


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path, log: Path | None = None) -> Iterator[str]:
    """JupyterLab on the notebooks of `folder`, for this machine alone; its address.

    `home`: for all that it keeps; `log`: the file for what it says, if not there.
    """
    log = log or home / "server.log"
    settings = home / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(NOTEBOOK_SETTINGS))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COURSE_LIB_")}
    environment |= {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    environment |= {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    environment.pop("MPLBACKEND", None)
    port, token = _free_port(), secrets.token_hex(16)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    options += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly", "--LabApp.news_url=None"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(log, "w") as said:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, log)
        yield f"http://127.0.0.1:{port}/lab?token={token}"
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(1200):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def small_copies(notebooks: list[Path], folder: Path) -> None:
    """The notebooks, copied into a folder, at the smallest sizes."""
    import nbformat

    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        parameters.source += f'\nprofile, overrides = "ci", {SIZES}'
        nbformat.write(notebook, folder / path.name)


class Lab:
    """A page with JupyterLab in it: opens notebooks, runs them, and hands out their figures to play with."""

    def __init__(self, page, address: str):
        self.page = page
        page.goto(address)
        page.wait_for_function("() => window.jupyterapp")
        page.evaluate("() => window.jupyterapp.restored.then(() => true)")
        page.evaluate(_HELPERS)

    def show(self, name: str):
        """Open a notebook without running it; the place to look into."""
        self.page.evaluate("name => course.open(name)", name)
        return self.page.locator(f'[data-notebook="{name}"]')

    def begin(self, name: str) -> None:
        """Open a notebook and begin to run all its cells, unless that was done, without waiting for them."""
        self.page.evaluate("name => course.begin(name)", name)

    def outputs(self, name: str, seconds: float = 240) -> dict[str, list]:
        """{cell id: its outputs} after the last cell has run, or one has failed; the notebook is in front then."""
        self.page.wait_for_function("name => course.ended(name)", arg=name, timeout=1000 * seconds, polling=200)
        return self.page.evaluate("name => course.outputs(name)", name)

    def explored(self, name: str) -> list[Explored]:
        """What `explore` shows in a notebook that has run."""
        boxes = self.page.locator(f'[data-notebook="{name}"] .widget-vbox:has(> .widget-html)')
        return [Explored(self.page, boxes.nth(i)) for i in range(boxes.count())]

    def first_paint(self, name: str, cell: str) -> float:
        """Run a cell of the notebook in front again: milliseconds until its figure to play with has a picture."""
        return self.page.evaluate("([name, cell]) => course.firstPaint(name, cell)", [name, cell])

    def close(self, name: str) -> None:
        """Shut the notebook's kernel down and close it, unsaved."""
        self.page.evaluate("name => course.close(name)", name)


def timed(page, box, move) -> float:
    """Call `move`, which presses a key or chooses from a menu: milliseconds until the box has another picture, +-16."""
    page.evaluate(_CLOCK, box.element_handle())
    move()
    return page.evaluate("() => window.clock")


_CLOCK = """box => {
  const picture = () => [...box.querySelectorAll('img')].find(image => image.offsetParent) || {};
  const before = picture().alt;
  window.clock = new Promise(done => {
    const begin = () => {
      ['keydown', 'change'].forEach(kind => document.removeEventListener(kind, begin, true));
      const began = performance.now();
      const look = () => {
        const taken = performance.now() - began;
        if (picture().complete && picture().alt !== before) done(taken);
        else if (taken > 20000) done(NaN);
        else requestAnimationFrame(look);
      };
      look();
    };
    ['keydown', 'change'].forEach(kind => document.addEventListener(kind, begin, true));
  });
  return true;
}"""


class Explored:
    """One figure to play with: its controls, moved as a reader moves them, and its picture."""

    def __init__(self, page, box):
        self.page, self.box = page, box
        self.cell = box.evaluate("box => box.closest('[data-cell]').dataset.cell")

    def controls(self) -> list:
        """The handles, menus and tick boxes, in order; each can have the focus."""
        found = self.box.locator(".noUi-handle, select, input[type=checkbox]")
        return [found.nth(i) for i in range(found.count())]

    def value(self, control) -> str:
        """The value that a control shows."""
        return control.evaluate("control => course.valueOf(control)")

    def bring(self, control, value: str) -> None:
        """Bring a control to a value as a reader does: in its menu, by a tick, or by keys from its lower end."""
        if control.get_attribute("type") == "checkbox":
            control.set_checked(value == "True")
            return
        if control.get_attribute("role") != "slider":
            control.select_option(index=control.evaluate("(menu, value) => course.place(menu, value)", value))
            return
        self.press(control, "Home")
        low = self.value(control)
        if value != low:
            self.press(control, "ArrowRight")
            # Not by aria-valuenow, which has one digit after the point only.
            step = float(self.value(control)) - float(low)
            pages, steps = divmod(round((float(value) - float(low)) / step) - 1, PAGE)
            for key in ["PageUp"] * pages + ["ArrowRight"] * steps:
                self.press(control, key)
        assert self.value(control) == value, f"{self.cell}: the steps of a slider never meet {value}"

    def moved(self, control, key: str) -> tuple[str, str]:
        """The picture after a key was pressed on a control."""
        self.press(control, key)
        return self.picture()

    def picture(self, seconds: float = 20) -> tuple[str, str]:
        """What the picture says and its address, once it is that of the values that the controls show."""
        box = self.box.element_handle()
        self.page.wait_for_function("box => course.settled(box)", arg=box, timeout=1000 * seconds)
        image = self.box.locator(".widget-html img")
        return image.get_attribute("alt"), image.get_attribute("src")

    def press(self, control, key: str) -> None:
        """Press a key with the focus on a control; on a tick box any key ticks it."""
        control.focus()
        self.page.keyboard.press("Space" if control.get_attribute("type") == "checkbox" else key)

    def drag(self, handle) -> None:
        """Drag the handle of a slider from where it is to the right end, fast."""
        handle.scroll_into_view_if_needed()
        rail, grip = handle.locator("xpath=../../..").bounding_box(), handle.bounding_box()
        x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(rail["x"] + rail["width"] + 20, y, steps=30)
        self.page.mouse.up()


_HELPERS = """() => {
  const app = window.jupyterapp, panels = {};
  const codes = name => panels[name].content.widgets.filter(cell => cell.model.type === 'code');
  const asNumber = text => text.trim() !== '' && !isNaN(text) ? String(Number(text)) : text;
  const valueOf = control => control.type === 'checkbox' ? (control.checked ? 'True' : 'False')
    : control.tagName === 'SELECT' ? asNumber(control.selectedOptions[0].textContent)
    : asNumber(control.closest('.widget-slider').querySelector('.widget-readout').textContent.replace('\\u2212', '-'));
  const nameOf = control => control.type === 'checkbox' ? control.closest('.widget-checkbox').textContent.trim()
    : control.closest('.jupyter-widgets').querySelector('.widget-label').textContent.trim();
  window.course = {
    valueOf,
    place(menu, value) {
      return [...menu.options].findIndex(option => asNumber(option.textContent) === value);
    },
    async open(name) {
      const panel = panels[name] = await app.commands.execute('docmanager:open', {path: name, factory: 'Notebook'});
      await panel.revealed; await panel.context.ready; await panel.sessionContext.ready;
      panel.node.dataset.notebook = name;
    },
    async begin(name) {
      if (panels[name]) return;
      const before = app.shell.currentWidget;
      await course.open(name);
      app.commands.execute('notebook:run-all-cells');
      if (before) app.shell.activateById(before.id);
    },
    ended(name) {
      if (!panels[name]) return false;
      const failed = codes(name).some(cell => cell.model.outputs.toJSON().some(o => o.output_type === 'error'));
      return failed || codes(name).filter(cell => cell.model.sharedModel.getSource().trim())
        .every(cell => cell.model.executionState === 'idle' && cell.model.executionCount);
    },
    outputs(name) {
      app.shell.activateById(panels[name].id);
      codes(name).forEach(cell => { cell.node.dataset.cell = cell.model.id; });
      return Object.fromEntries(codes(name).map(cell => [cell.model.id, cell.model.outputs.toJSON()]));
    },
    said(box) {
      const controls = [...box.querySelectorAll('.noUi-handle, select, input[type=checkbox]')];
      const all = controls.map(control => `${nameOf(control)} = ${valueOf(control)}`).join(', ');
      return all.replaceAll('\u00a0', ' ').replaceAll('\u200b', '');  // widgets keep their spaces apart
    },
    settled(box) {
      const image = box.querySelector('.widget-html img');
      return image && image.complete && (image.alt + ' ').startsWith(course.said(box) + '. ');
    },
    async firstPaint(name, id) {
      const notebook = panels[name].content;
      notebook.deselectAll();
      notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
      await app.commands.execute('notebook:clear-cell-output');
      const shown = () => notebook.activeCell.node.querySelector('.widget-html img');
      const failed = () => notebook.activeCell.model.outputs.toJSON().find(o => o.output_type === 'error');
      while (shown()) await new Promise(requestAnimationFrame);
      const began = performance.now();
      app.commands.execute('notebook:run-cell');
      while (!(shown() && shown().complete)) {
        if (failed()) throw new Error(`${id}: ${failed().ename}: ${failed().evalue}`);
        if (performance.now() - began > 60000) throw new Error(`${id}: no picture after a minute`);
        await new Promise(requestAnimationFrame);
      }
      return performance.now() - began;
    },
    async close(name) {
      await panels[name].sessionContext.shutdown();
      panels[name].dispose();
      delete panels[name];
    },
  };
}"""
