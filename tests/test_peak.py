"""Peak counts the memory of what was started, and not that of the one who starts it."""

import multiprocessing
import time

import psutil
import pytest

from course_lib.classroom import peak


@pytest.mark.parametrize("young", [60, 0.5])
def test_a_process_that_is_being_started_does_not_count_as_its_parent(young, monkeypatch):
    monkeypatch.setattr(peak, "YOUNG", young)
    held = bytearray(200_000_000)
    started = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1.5,))
    with peak.Peak() as measured:
        started.start()
        started.join()
    assert started.exitcode == 0 and psutil.Process().memory_info().rss > len(held)
    assert measured.bytes < 50e6 if young == 60 else measured.bytes > 150e6  # at last it is a process like any other
