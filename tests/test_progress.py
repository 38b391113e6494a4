"""Progress: silent when it is short or switched off, lines in a log, and never in the way of the items."""

import io
import re
import sys
import time
from types import SimpleNamespace

import pytest

from course_lib import progress

TIME_LEFT = r"\[\d\d:\d\d(<|&lt;)\d\d:\d\d"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)


def slowly(items):
    for item in items:
        time.sleep(0.02)
        yield item


def test_items_pass_unchanged_and_short_work_is_silent(capfd):
    assert list(progress.track(range(5), "short")) == list(range(5))
    assert capfd.readouterr() == ("", "")


def test_a_log_gets_lines_with_label_and_share(impatient, capfd):
    assert list(progress.track(slowly("abc"), "pruning", total=3)) == list("abc")
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("pruning: 100%") and "3/3" in lines[-1]
    assert all("\r" not in line for line in lines) and re.search(TIME_LEFT, lines[0])


def test_a_terminal_gets_one_line_that_moves(impatient, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress.track(slowly(range(10)), "pruning", total=10))
    said = terminal.getvalue()
    assert said.count("\n") <= 1 and "\rpruning:  50%" in said and re.search(TIME_LEFT, said)


def test_a_notebook_gets_a_widget_that_moves(impatient, monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    bar, seen = progress.track(slowly(range(10)), "pruning", total=10), []
    for _ in bar:
        label, moving, rest = bar.container.children
        seen.append((label.value, moving.value, rest.value))
    assert "pruning" in seen[-1][0] and 0 < seen[-1][1] < 10 and re.search(TIME_LEFT, seen[-1][2])


def test_a_log_is_not_flooded(monkeypatch, capfd):
    monkeypatch.setattr(progress, "DELAY", 0.01)
    list(progress.track(slowly(range(10)), "sparse", total=10))
    assert len(capfd.readouterr().err.splitlines()) <= 1


def test_one_switch_turns_it_off(impatient, monkeypatch, capfd):
    monkeypatch.setenv("COURSE_LIB_PROGRESS", "0")
    assert list(progress.track(slowly("ab"), "off")) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


def test_a_consumer_may_stop_early_and_errors_pass_through(impatient):
    assert next(iter(progress.track(range(10), "early"))) == 0
    with pytest.raises(ZeroDivisionError):
        list(progress.track((1 // x for x in (1, 0)), "error"))


@pytest.mark.parametrize(
    ("content", "watched"),
    [({"allow_stdin": True}, True), ({"allow_stdin": False}, False), ({"data": "a slider moved"}, True)],
)
def test_a_front_end_is_recognised_by_what_it_can_answer(monkeypatch, content, watched):
    kernel = SimpleNamespace(get_parent=lambda channel: {"content": content})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel)))
    monkeypatch.delenv("COURSE_LIB_STATIC", raising=False)
    assert progress.is_watched() is watched
    monkeypatch.setenv("COURSE_LIB_STATIC", "1")
    assert progress.is_watched() is False


def test_a_script_is_not_watched(monkeypatch):
    monkeypatch.delenv("COURSE_LIB_STATIC", raising=False)
    assert progress.is_watched() is False
