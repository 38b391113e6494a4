"""What all tests share."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import browsing
import pytest
import torch

# Tests are small: more threads than this wait for each other longer than they compute. Beside other workers of
# pytest-xdist each has one core, and so has all that it starts.
BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
torch.set_num_threads(1 if BESIDE_OTHERS else min(2, torch.get_num_threads()))
if BESIDE_OTHERS:
    os.environ["OMP_NUM_THREADS"] = "1"


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
    """Chromium. Without one the test is skipped, but in CI (COURSE_LIB_CI=1) it fails."""
    # Not for the whole session: while playwright runs, no other test could run an event loop of its own.
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(browsing.chromium())
        except browsing.NoBrowser as why:
            (pytest.fail if os.environ.get("COURSE_LIB_CI") == "1" else pytest.skip)(str(why))


@pytest.fixture
def page(browser):
    """A page that cannot leave this machine; see `browsing.offline_page`."""
    with browsing.offline_page(browser) as page:
        yield page
