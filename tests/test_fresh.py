"""The drill of a fresh machine sees what is not well. `make fresh` runs it whole."""

import subprocess
import sys

import pytest

from drills import fresh


@pytest.fixture
def course(tmp_path):
    """What `run` leaves behind of one notebook that went well."""
    (tmp_path / "summary.csv").write_text("notebook,seconds,outcome\n00_start,3,ok\n")
    (tmp_path / "00_start.ipynb").write_text("{}")
    (tmp_path / "00_start.html").write_text("<html></html>")
    return tmp_path


def test_a_course_is_well_if_every_notebook_ended_and_has_its_page(course):
    assert fresh.check_course(["00_start"], course) == "1 notebooks executed, each with its page"
    with pytest.raises(fresh.NotWell, match="01_next"):
        fresh.check_course(["00_start", "01_next"], course)
    (course / "00_start.html").write_text("<html>")
    with pytest.raises(fresh.NotWell, match="no page"):
        fresh.check_course(["00_start"], course)
    (course / "summary.csv").write_text("notebook,seconds,outcome\n00_start,3,FAILED\n")
    with pytest.raises(fresh.NotWell, match="not executed"):
        fresh.check_course(["00_start"], course)


@pytest.mark.parametrize(
    "tests, failures, errors, skipped, said",
    [
        (3, 0, 0, 1, "2 tests passed, 1 were skipped"),
        (3, 1, 0, 0, None),
        (3, 0, 1, 0, None),
        (3, 0, 0, 3, None),
        (0, 0, 0, 0, None),
    ],
)
def test_tests_are_well_if_some_ran_and_none_failed(tests, failures, errors, skipped, said, tmp_path):
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    report = tmp_path / "report.xml"
    report.write_text(f'<testsuites name="pytest tests"><testsuite name="pytest" {counts}/></testsuites>')
    if said:
        assert fresh.check_tests(report) == said
    else:
        with pytest.raises(fresh.NotWell, match="tests"):
            fresh.check_tests(report)


def test_a_clone_that_got_a_file_is_not_as_it_was(tmp_path):
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert fresh.check_clone(tmp_path)
    (tmp_path / "left").write_text("")
    with pytest.raises(fresh.NotWell, match="left"):
        fresh.check_clone(tmp_path)


def test_the_environment_has_a_home_of_its_own_and_no_cache(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "PYTHONPATH", "COURSE_LIB_CACHE", "PIP_CACHE_DIR_NOT"):
        monkeypatch.setenv(name, "/somewhere")
    variables = fresh.environment(tmp_path)
    assert variables["HOME"].startswith(str(tmp_path)) and variables["TMPDIR"].startswith(str(tmp_path))
    assert variables["PIP_NO_CACHE_DIR"] == "1"
    assert not {"XDG_CACHE_HOME", "PYTHONPATH", "COURSE_LIB_CACHE"} & set(variables)


def test_without_network_programs_reach_this_machine_alone(tmp_path):
    variables = fresh.without_network(fresh.environment(tmp_path))
    code = "import urllib.request; urllib.request.urlopen('http://example.org', timeout=20)"
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert "Connection refused" in run.stderr  # by the proxy: the name was not even looked up
    code = "import urllib.request; print(bool(urllib.request.proxy_bypass('127.0.0.1')))"
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert run.stdout == "True\n"
