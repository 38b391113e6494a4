"""Where things are, the cache, and files that are whole or not there."""

import os

import pytest

from course_lib import paths


def test_the_checkout_has_data_and_notebooks():
    assert paths.data_dir().name == "data" and paths.data_dir().is_dir()
    assert (paths.notebooks_dir() / "TEMPLATE.ipynb").exists()


def test_a_wheel_has_them_inside(monkeypatch, tmp_path):
    (tmp_path / "course_lib" / "data").mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "course_lib")
    assert paths.data_dir() == tmp_path / "course_lib" / "data"
    with pytest.raises(FileNotFoundError, match="'notebooks' is neither at"):
        paths.notebooks_dir()


def test_a_stranger_beside_an_installed_package_is_not_the_course(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()  # site-packages/data of some other package
    (tmp_path / "course_lib" / "data").mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "course_lib")
    assert paths.data_dir() == tmp_path / "course_lib" / "data"


def test_the_cache_is_made_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path / "a" / "b"))
    assert paths.cache_dir() == tmp_path / "a" / "b"
    assert paths.cache_dir().is_dir() and not list(paths.cache_dir().iterdir())


def test_a_cache_that_cannot_be_written_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PermissionError, match="COURSE_LIB_CACHE"):
        paths.cache_dir()


def test_atomic_replaces_only_when_all_is_written(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with paths.atomic(path) as temporary:
        temporary.write_text("old")
        assert not path.exists() and temporary.parent == path.parent
    with pytest.raises(RuntimeError), paths.atomic(path) as temporary:
        temporary.write_text("ha")
        raise RuntimeError("killed half-way")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.txt"]
