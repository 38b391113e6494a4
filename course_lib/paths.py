"""Where things are, in a checkout and in an installed wheel.

In a checkout `data/` and `notebooks/` lie beside the package; a wheel carries them inside it.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What a system says where nothing can be written: the disk is full or over its quota, or not ours to write to, or a
#: file stands in the place of a folder.
_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST),
)
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
        return writable(folder)
    except OSError as error:
        raise PermissionError(
            f"Cannot write to the cache folder {folder} ({(error.__cause__ or error).strerror}). "
            "Set the environment variable COURSE_LIB_CACHE to a folder you can write to."
        ) from error


def writable(folder: str | Path) -> Path:
    """The folder, made if it is missing, when a file can be made in it; else OSError, saying what to do.

    To be asked before long work, not after it.
    """
    folder = Path(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)  # on a full disk a file can still be made, but nothing written into it
    return folder


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, made anew with its folder; it becomes `path` only if the block succeeds.

    So `path` is always whole: the old file or the new one, never a half-written one. OSError, saying what to do, where
    it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """The folder, made if it is missing, for this run alone as long as the block lasts.

    The lock is the operating system's: it ends with the process, however that ends. What a killed run has left half
    written is removed. BlockingIOError where another run is at work there; OSError where nothing can be written.
    """
    import filelock

    folder = Path(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise BlockingIOError(
                f"Another run is at work in {folder}. Wait until it ends, or give this one another folder."
            ) from error
    try:
        for left in folder.glob(".*.[0-9]*.tmp"):
            left.unlink()
        yield
    finally:
        lock.release()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An error of writing, in words."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise OSError(
            error.errno,
            f"{path} could not be written: {error.strerror}. What was written before is kept. Make room on the disk, "
            "or give a folder that you can write to",
        ) from error


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
