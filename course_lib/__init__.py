"""Why and how to prune a neural network: the library behind the notebooks.

`import course_lib` is light: the modules below are loaded when they are first used, and nothing is ever
downloaded at import. Start with ``lab = course_lib.start()``.
"""

from importlib import import_module

__version__ = "0.1.0"

#: The address of this course. A fork changes it by `python -m course_lib stamp`, which changes its copies, too.
REPOSITORY = "https://github.com/OWNER/REPO"
#: Where its pages are published.
SITE = "https://{3}.github.io/{4}".format(*REPOSITORY.split("/"))

_MODULES = {
    *("classroom", "cost", "criteria", "datasets", "derivatives", "distributed"),
    *("export", "feature_maps", "models", "names", "oracle", "paths", "petals"),
    *("progress", "pruning", "ranking", "residual", "surgery", "training"),
    *("weight_code", "weight_sharing"),
}
_FUNCTIONS = {
    "start": "course_lib.classroom.session",
    "doctor": "course_lib.classroom.doctor",
    "explore": "course_lib.classroom.explore",
    "frames": "course_lib.classroom.frames",
}

__all__ = ["REPOSITORY", "SITE", "__version__", *_FUNCTIONS, *sorted(_MODULES)]


def __getattr__(name):
    """Load a module, or one of the classroom's functions, at its first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"course_lib.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'course_lib' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
