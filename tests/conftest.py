"""What all tests share."""

import os
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
