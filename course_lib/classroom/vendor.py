"""JavaScript of others that slides and pages need beside themselves: brought by npm, never committed.

``vendored/package.json`` names exact versions and ``vendored/package-lock.json`` their checksums; npm refuses anything
else. To add a package or to move a version: edit package.json, then, in that folder,
``npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved``.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("vendored")
FOLDER = Path("build/vendor")


class VendorError(OSError):
    """npm is missing, or could not bring the packages; the message says what to do."""


def fetch(folder: Path = FOLDER) -> Path:
    """The folder with one folder a package (``reveal.js``, ``mathjax``, ...), filled by npm where it is not yet.

    Args:
        folder: is wholly vendor's own: another version of it is thrown away.

    Raises:
        VendorError: without npm or without a network (only the first time needs one); nothing half done is left.
    """
    packages = folder / "node_modules"
    if not _is_current(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary) / folder.name
            shutil.copytree(LOCK, fresh)
            print(f"npm brings reveal.js, MathJax and their like into {folder} ...", flush=True)
            _npm_ci(fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.replace(folder)
    return packages


def _is_current(folder: Path) -> bool:
    # The folder appears whole or not at all, so the lock beside the packages vouches for them.
    names = ("package.json", "package-lock.json")
    return all((folder / n).exists() and (folder / n).read_bytes() == (LOCK / n).read_bytes() for n in names)


def _npm_ci(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError(
            "npm is needed once, to bring reveal.js and MathJax, and it is not there. Install Node.js (18 or newer; "
            "Debian: apt-get install npm), or copy build/vendor from a machine that has it."
        )
    # No scripts: nothing of what is brought runs here.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:6])
        raise VendorError(
            f"npm could not bring the packages of {LOCK / 'package.json'}. Connect once to the internet and try again, "
            f"or copy build/vendor from a machine that has it. npm said:\n{said}"
        )
