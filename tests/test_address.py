"""The address of the course stands in one place, and the command `stamp` takes its copies along."""

import shutil
import subprocess
from pathlib import Path

import pytest

import course_lib
from course_lib.__main__ import main
from course_lib.classroom import address

ROOT = Path(__file__).parents[1]
FORK = "https://github.com/{}/{}".format(
    "a-teacher", "pruning.course"
)  # nowhere in one piece: what follows looks for it


@pytest.fixture
def clone(tmp_path):
    """All that git tracks, as it is now, in a repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts}


def test_a_fork_has_no_trace_of_the_old_address(clone):
    before = files(clone)
    changed = address.stamp(clone, course_lib.REPOSITORY, FORK)
    after = files(clone)
    owner, name = address.slug(course_lib.REPOSITORY).encode().split(b"/")
    left = [
        path for path, content in after.items() if owner + b"/" + name in content or owner + b".github.io" in content
    ]
    assert not left
    assert sorted(changed) == sorted(path for path in after if after[path] != before[path])
    stamped = {str(path.relative_to(clone)) for path in changed}
    everywhere = {"README.md", "CITATION.cff", "pyproject.toml", "course_lib/__init__.py"}
    assert everywhere | {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= stamped

    assert f'REPOSITORY = "{FORK}"'.encode() in after[clone / "course_lib" / "__init__.py"]
    notebook, readme = after[clone / "notebooks" / "00_start_here.ipynb"], after[clone / "README.md"]
    assert f"git+{FORK}@v{course_lib.__version__}".encode() in notebook
    _, in_colab, pages = address.forms(FORK)
    badge = f"colab.research.google.com{in_colab}/blob/main/notebooks/00_start_here.ipynb".encode()
    assert badge in notebook and badge in readme
    assert f"{pages}/notebooks/00_start_here.html".encode() in readme

    address.stamp(clone, FORK, course_lib.REPOSITORY)
    assert files(clone) == before


def test_stamping_with_the_present_address_changes_nothing(clone):
    before = files(clone)
    assert address.stamp(clone, course_lib.REPOSITORY, course_lib.REPOSITORY) == []
    assert files(clone) == before


def test_a_longer_name_that_begins_alike_is_another_repository(tmp_path):
    text = "https://github.com/me/course, https://github.com/me/course-two, https://github.com/me/courses"
    (tmp_path / "links.md").write_text(text)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    address.stamp(tmp_path, "https://github.com/me/course", "https://github.com/you/new")
    changed = (tmp_path / "links.md").read_text()
    assert changed == text.replace("me/course,", "you/new,")


@pytest.mark.parametrize(
    "wrong", ["you/course", "http://github.com/you/course", "https://github.com/you", "https://x.org/y/z"]
)
def test_what_is_no_address_is_refused_in_a_sentence(wrong, capsys):
    assert main(["stamp", wrong]) == 2
    assert "https://github.com/you/course" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_an_address_as_the_browser_or_git_writes_it(ending):
    assert address.slug(f"https://github.com/you/course{ending}") == "you/course"
    assert address.forms(course_lib.REPOSITORY)[2] == course_lib.SITE
