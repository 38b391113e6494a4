"""The command line: ``python -m course_lib <command>``, each with ``--help``."""

import signal
import sys
from collections.abc import Callable
from importlib import import_module

#: command -> the module and function that carry it out, and what it does.
COMMANDS = {
    "doctor": ("course_lib.classroom.doctor", "main", "say whether this machine is ready for the course"),
    "run": ("course_lib.classroom.runner", "main", "execute the notebooks; pages and a summary table"),
    "slides": ("course_lib.classroom.slides.command", "main", "make a deck of slides of every notebook"),
    "prune": ("course_lib.classroom.commands", "prune", "make a trained network smaller"),
    "oracle": ("course_lib.classroom.commands", "measure_oracle", "measure what each feature map is worth"),
    "reproduce": ("course_lib.classroom.reproduce", "main", "the paper's tables and figures from runs"),
    "seminar": ("course_lib.classroom.seminar", "main", "notebooks for students and for the teacher, in one zip"),
    "site": ("course_lib.classroom.site.build", "main", "build the site from executed notebooks"),
    "stamp": ("course_lib.classroom.address", "main", "write a fork's address into badges, set-up cells and README"),
    "checkpoints": ("course_lib.classroom.checkpoints", "main", "train the embedded networks again"),
}


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception: what is open is closed and what is half done removed, as after Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Hand the arguments to a command.

    Exit codes: 0 done, 1 not well, 2 not understood, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(f"There is no command {name!r}.\n\n{_usage()}", file=sys.stderr)
        return 2
    module, function, _ = COMMANDS[name]
    return stoppable(lambda: getattr(import_module(module), function)(rest) or 0)


def stoppable(command: Callable[[], int]) -> int:
    """A command's exit code; where Ctrl-C or SIGTERM stop it, it cleans up and says so in one line: 130 or 143."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return command()
    except KeyboardInterrupt as stopped:
        word, code = ("Terminated", 143) if isinstance(stopped, Terminated) else ("Interrupted", 130)
        print(f"\n{word}. What was finished before is kept.", file=sys.stderr)
        return code
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_) -> None:
    raise Terminated


def _usage() -> str:
    lines = [f"  {name:12} {what}" for name, (_, _, what) in COMMANDS.items()]
    return "\n".join(["usage: python -m course_lib COMMAND ... (or COMMAND --help)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
