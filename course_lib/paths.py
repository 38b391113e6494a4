"""Where things are, in a checkout and in an installed wheel.

In a checkout `data/` and `notebooks/` lie beside the package; a wheel carries them inside it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The folder of data that travels with the course: cards, paper tables, recorded results, checkpoints."""
    return _shipped("data")


def notebooks_dir() -> Path:
    """The folder of the course's notebooks."""
    return _shipped("notebooks")


def cache_dir() -> Path:
    """The folder for downloads, made if it is missing: ``$COURSE_LIB_CACHE``, or the user's cache folder.

    Raises PermissionError, saying what to do, when nothing can be written there.
    """
    import pooch

    folder = Path(os.environ.get("COURSE_LIB_CACHE") or pooch.os_cache("course_lib")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f"Cannot write to the cache folder {folder} ({error.strerror}). "
            "Set the environment variable COURSE_LIB_CACHE to a folder you can write to."
        ) from error
    return folder


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, made anew with its folder; it becomes `path` only if the block succeeds.

    So `path` is always whole: the old file or the new one, never a half-written one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _shipped(name: str) -> Path:
    # The checkout first: an editable install must see the files that are being edited.
    beside, inside = _PACKAGE.parent / name, _PACKAGE / name
    if (_PACKAGE.parent / "pyproject.toml").exists() and beside.is_dir():
        return beside
    if inside.is_dir():
        return inside
    raise FileNotFoundError(
        f"The course's folder '{name}' is neither at {beside} (a checkout) nor at {inside} (an installed wheel). "
        "Install the course again, or clone it whole."
    )
