"""The doctor says of every thing whether it is well, and what to do where it is not."""

import sys
from types import SimpleNamespace

import pytest
from packaging.specifiers import SpecifierSet

import course_lib
from course_lib.__main__ import main
from course_lib.classroom import doctor as module


def well():
    yield module.Result(True, "fine")


def ill():
    yield module.Result(False, "broken. Try: this")


def crashes():
    raise RuntimeError("nobody thought of this")


@pytest.mark.parametrize(
    ("checks", "code", "said"),
    [
        ((well,), 0, "[OK] fine\nAll 1 are well."),
        ((well, ill), 1, "[FAIL] broken. Try: this\n1 of 2 need attention."),
        ((crashes, well), 1, "[FAIL] crashes: nobody thought of this\n[OK] fine"),
    ],
)
def test_lines_and_exit_code(monkeypatch, capsys, checks, code, said):
    monkeypatch.setattr(module, "CHECKS", checks)
    assert main(["doctor"]) == code
    assert said in capsys.readouterr().out


def test_this_machine_in_full(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path))
    results = course_lib.doctor()
    said = capsys.readouterr().out
    for word in ("Python", "torch", "torchvision", "ipywidgets", "cores", "memory", "GPU", "kernel", str(tmp_path)):
        assert word in said
    assert len(said.splitlines()) == len(results) + 1
    assert [result.message for result in results if not result.ok] == []


def test_packages_out_of_range_or_missing_say_what_to_install():
    assert module._package("torch", SpecifierSet(">=2.4")).ok
    old = module._package("torch", SpecifierSet(">=99"))
    assert not old.ok and '-m pip install "torch>=99"' in old.message
    missing = module._package("no-such-package", SpecifierSet(">=1"))
    assert not missing.ok and "is not installed" in missing.message


def test_an_old_python_and_a_full_disk_fail(monkeypatch):
    monkeypatch.setattr(module, "sys", SimpleNamespace(version_info=(3, 9), executable=sys.executable))
    assert not next(module._python()).ok
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e6))
    assert not all(result.ok for result in module._storage())


def test_checkpoints_damaged_missing_or_none(monkeypatch, tmp_path):
    from course_lib import models

    monkeypatch.setattr(module.paths, "data_dir", lambda: tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in ("good", "damaged"):
        (tmp_path / "checkpoints" / name).write_bytes(b"weights")
    right = models.sha256(tmp_path / "checkpoints" / "good")
    monkeypatch.setattr(models, "checksums", lambda: {"good": right, "damaged": "0" * 64, "gone": right})
    good, damaged, gone = module._checkpoints()
    assert good.ok and not damaged.ok and not gone.ok
    assert "damaged is damaged" in damaged.message and "gone is missing" in gone.message
    monkeypatch.setattr(models, "checksums", dict)
    (none,) = module._checkpoints()
    assert not none.ok and "course_lib checkpoints" in none.message
