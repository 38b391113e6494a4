"""What npm brings: exact versions with checksums, once, whole or not at all."""

import json
import os
import shutil

import pytest

from course_lib.classroom import vendor


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm on the PATH: notes each call, and brings one package or fails as the test says."""

    def install(script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return lambda: (tmp_path / "calls").read_text().splitlines()

    return install


BRINGS = "mkdir -p node_modules/reveal.js && echo content > node_modules/reveal.js/file"


def test_every_package_has_an_exact_version_and_a_checksum():
    wanted = json.loads((vendor.LOCK / "package.json").read_text())["dependencies"]
    locked = json.loads((vendor.LOCK / "package-lock.json").read_text())["packages"]
    assert locked.pop("")["dependencies"] == wanted and {"reveal.js", "mathjax"} <= set(wanted)
    assert all(locked[f"node_modules/{name}"]["version"] == version for name, version in wanted.items())
    for package in locked.values():
        assert package["integrity"].startswith("sha512-") and "resolved" not in package


def test_npm_is_asked_once_and_again_when_the_versions_change(npm, tmp_path, monkeypatch):
    calls = npm(BRINGS)
    folder = tmp_path / "build" / "vendor"
    packages = vendor.fetch(folder)
    assert (packages / "reveal.js" / "file").read_text() == "content\n"
    vendor.fetch(folder)
    assert len(calls()) == 1 and calls()[0].startswith("ci --ignore-scripts")
    other = shutil.copytree(vendor.LOCK, tmp_path / "vendored")
    (other / "package.json").write_text("{}")
    monkeypatch.setattr(vendor, "LOCK", other)
    vendor.fetch(folder)
    assert len(calls()) == 2 and (folder / "package.json").read_text() == "{}"


def test_a_failure_leaves_what_was_there_and_says_what_to_do(npm, tmp_path, monkeypatch):
    folder = tmp_path / "build" / "vendor"
    npm("echo npm error network unreachable >&2; exit 1")
    with pytest.raises(vendor.VendorError, match="Connect once to the internet(.|\n)*network unreachable"):
        vendor.fetch(folder)
    assert not list(folder.parent.iterdir())
    npm(BRINGS)
    vendor.fetch(folder)
    other = shutil.copytree(vendor.LOCK, tmp_path / "vendored")
    (other / "package.json").write_text("{}")
    monkeypatch.setattr(vendor, "LOCK", other)
    npm("exit 1")
    with pytest.raises(vendor.VendorError):
        vendor.fetch(folder)
    assert (folder / "node_modules" / "reveal.js" / "file").exists()


def test_without_npm_the_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(vendor.VendorError, match="apt-get install npm"):
        vendor.fetch(tmp_path / "vendor")
