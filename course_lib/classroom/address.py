"""The address of the course: `course_lib.REPOSITORY`, and its copies in badges, set-up cells, README and metadata."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import course_lib

_FORM = re.compile(r"https://github\.com/([\w-]+/[\w.-]+)")


def slug(address: str) -> str:
    """``owner/name`` of ``https://github.com/owner/name``. ValueError for anything else: Colab opens nothing else."""
    address = address.strip().removesuffix("/").removesuffix(".git")
    if not (found := _FORM.fullmatch(address)):
        raise ValueError(
            f"{address!r} is no address of a repository. One looks like this: https://github.com/you/course"
        )
    return found[1]


def forms(address: str) -> list[str]:
    """All that is written of an address: of the repository, of a notebook of it in Colab, of its pages."""
    owner, name = slug(address).split("/")
    return [f"https://github.com/{owner}/{name}", f"/github/{owner}/{name}", f"https://{owner}.github.io/{name}"]


def stamp(checkout: Path, old: str, new: str) -> list[Path]:
    """Write the address `new` wherever `old` stands in the files that git tracks. Returns the files that changed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=True).stdout
    # Of a longer name the address may only be the beginning.
    swaps = [
        (re.compile(re.escape(was.encode()) + rb"(?![\w-])"), now.encode())
        for was, now in zip(forms(old), forms(new), strict=True)
    ]
    changed = []
    for path in (checkout / name.decode() for name in listed.split(b"\0") if name):
        stamped = before = path.read_bytes()
        for was, now in swaps:
            stamped = was.sub(now, stamped)
        if stamped != before:
            path.write_bytes(stamped)
            changed.append(path)
    return changed


def main(argv: list[str] | None = None) -> int:
    """``python -m course_lib stamp``: the address of a fork in place of the present one."""
    parser = argparse.ArgumentParser(prog="course-lib stamp", description="Write the address of a fork everywhere.")
    parser.add_argument("address", help="for instance https://github.com/you/course")
    options = parser.parse_args(argv)
    checkout = Path(course_lib.__file__).parents[1]
    try:
        changed = stamp(checkout, course_lib.REPOSITORY, options.address)
    except subprocess.CalledProcessError:
        print(f"{checkout} is no clone. Clone your fork, and stamp it there.", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(changed)} files changed." + "".join(f"\n  {path.relative_to(checkout)}" for path in changed))
    return 0
