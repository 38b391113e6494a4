"""Executing the notebooks: each by papermill in a fresh kernel, with a page to read and a line to report.

A notebook that fails is shown with its cell and its traceback, the others still run, and the exit code says so.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat

from course_lib import paths
from course_lib.classroom import results, session, solved
from course_lib.classroom.peak import Peak
from course_lib.names import UnknownName

UNFINISHED = ".unfinished.json"  # in a run's folder: what a run that was stopped has done
PARAMETERS = ("profile", "seed", "overrides")
#: Seconds that one cell may take; None: no limit, the paper's runs take hours. Nor is there one for sizes of your own.
CELL_TIMEOUT = {"ci": 180, "laptop": 600, "paper": None}


@dataclass(frozen=True)
class Outcome:
    """How one notebook went. `error` is empty if all is well, and otherwise names the cell and has the traceback.

    `peak`: bytes of memory that its kernel, and what that started, took at most.
    """

    notebook: str
    seconds: float
    error: str = ""
    peak: int = 0


def numbered(only: list[str] | None = None) -> list[Path]:
    """The course's notebooks in order, or those whose names begin with one of `only`.

    ValueError, with the nearest names, for an entry that fits none.
    """
    found = sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
    for start in only or []:
        if not any(path.name.startswith(start) for path in found):
            raise UnknownName("notebook", start, [path.stem for path in found])
    return [path for path in found if only is None or path.name.startswith(tuple(only))]


def run(notebooks: list[Path], out: Path, profile: str = "laptop", seed: int = 0, **overrides) -> list[Outcome]:
    """Execute notebooks into `out`, one after the other, and print how each went.

    After a run that was stopped (killed, Ctrl-C, no electricity) the same call executes what it had not finished yet.
    After one that came to its end everything is executed anew.

    Args:
        notebooks: paths; each is checked before anything runs, and left as it is.
        out: folder for the executed notebooks and a page (HTML) of each; also what the notebooks write files into.
        overrides: fields of the profile to replace.

    Raises:
        BlockingIOError: another run is at work in `out`. OSError: `out` cannot be written to.
    """
    session.choose(profile, **overrides)
    out = out.resolve()  # the kernels work in there
    parameters = {"profile": profile, "seed": seed, "overrides": overrides}
    with paths.alone(out):
        done, outcomes = _unfinished(out), []
        for number, path in enumerate(notebooks, start=1):
            at, key = f"[{number}/{len(notebooks)}] {path.stem}", _key(path, parameters)
            if key in done:
                print(f"{at}: done before this run was stopped, {done[key]['seconds']:.0f} s", flush=True)
                outcomes.append(Outcome(**done[key]))
                continue
            print(f"{at} ...", flush=True)
            outcome = _run_one(path, out, parameters)
            print(f"{at}: {_verdict(outcome)}, {_spent(outcome)}", flush=True)
            outcomes.append(outcome)
            if outcome.error:
                print(outcome.error, flush=True)
                continue
            done[key] = asdict(outcome)
            with paths.atomic(out / UNFINISHED) as temporary:
                temporary.write_text(json.dumps(done), encoding="utf-8")
        (out / UNFINISHED).unlink(missing_ok=True)
    return outcomes


def _unfinished(out: Path) -> dict[str, dict]:
    """What a run that was stopped had done in this folder: the key of each notebook that went well, its outcome."""
    kept = out / UNFINISHED
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}


def _key(path: Path, parameters: dict) -> str:
    """What decides what a notebook shows: itself, its parameters and the library."""
    digest = hashlib.sha256(json.dumps([path.name, parameters], sort_keys=True, default=str).encode())
    for file in [path, *sorted(Path(paths.__file__).parent.rglob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _run_one(path: Path, out: Path, parameters: dict) -> Outcome:
    began, error, peak = time.perf_counter(), check(path), Peak()
    if not error:
        executed, growing = out / path.name, out / f".{path.name}"  # the same name only when it is complete
        for left in (executed, growing):
            left.unlink(missing_ok=True)  # what is left of an earlier run must not pass for this one's
        with peak:
            error = _execute(path, growing, parameters)
        if growing.exists():
            os.replace(growing, executed)
            _page(executed)
    return Outcome(path.stem, round(time.perf_counter() - began, 1), error, peak.bytes)


def check(path: Path) -> str:
    """What papermill would not notice, or say badly; empty if there is nothing to complain about."""
    return complaint(nbformat.read(path, as_version=4), path.name)


def complaint(notebook: nbformat.NotebookNode, name: str) -> str:
    """`check` for a notebook that was read already."""
    if not notebook.metadata.get("kernelspec"):
        return f"{name} has no kernelspec in its metadata. Copy that of TEMPLATE.ipynb."
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return f"{name} has {len(tagged)} cells tagged 'parameters'; exactly one is needed, see TEMPLATE.ipynb."
    missing = [parameter for parameter in PARAMETERS if parameter not in _assigned(tagged[0].source)]
    if missing:
        return f"The parameters cell of {name} does not set {', '.join(missing)}; see TEMPLATE.ipynb."
    return ""


def _assigned(source: str) -> set[str]:
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _execute(path: Path, executed: Path, parameters: dict) -> str:
    """Run one notebook; the error with its cell, or nothing."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        with _headless():
            papermill.execute_notebook(
                path,
                executed,
                parameters=parameters,
                kernel_name="python3",
                cwd=executed.parent,
                execution_timeout=None if parameters["overrides"] else CELL_TIMEOUT[parameters["profile"]],
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings are none of the reader's business
            )
    except PapermillExecutionError as error:
        return _located(path, executed, "\n".join(error.traceback) or f"{error.ename}: {error.evalue}")
    except Exception as error:  # a cell over its time, a kernel that died: one notebook's end, not the run's
        return _located(path, executed, f"{type(error).__name__}: {error}")
    return ""


@contextlib.contextmanager
def _headless() -> Iterator[None]:
    """The kernel's environment: static figures, sleeping threads, and this very course_lib, installed or not."""
    before = dict(os.environ)
    checkout = Path(results.__file__).parents[2]
    os.environ.update(COURSE_LIB_STATIC="1", OMP_WAIT_POLICY="passive", JUPYTER_PREFER_ENV_PATH="1")
    os.environ.pop("MPLBACKEND", None)  # one that is set for scripts would leave the notebooks without figures
    if (checkout / "pyproject.toml").exists():
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(checkout), before.get("PYTHONPATH")]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _located(path: Path, executed: Path, message: str) -> str:
    """The message below the cell it came from: its place in the course's notebook, and its id."""
    from nbconvert.filters import strip_ansi

    ran = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    ids = [c.id for c in ran if c.metadata.get("papermill", {}).get("exception") is not None]
    sources = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    at = f"cell {sources.index(ids[-1]) + 1} ({ids[-1]})" if ids and ids[-1] in sources else "before its first cell"
    return f"{path.name} failed in {at}:\n{strip_ansi(message)}"


def _page(executed: Path) -> None:
    """The executed notebook as one HTML file, with its pictures inside."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    with paths.atomic(executed.with_suffix(".html")) as temporary:
        temporary.write_text(body, encoding="utf-8")


def _verdict(outcome: Outcome) -> str:
    return "FAILED" if outcome.error else "ok"


def _spent(outcome: Outcome) -> str:
    return f"{outcome.seconds:.0f} s, {outcome.peak / 1e6:,.0f} MB"


def summary(outcomes: list[Outcome]) -> str:
    """A table of all notebooks: name, seconds, peak memory, outcome; at the end the sum and the largest peak."""
    well = f"{sum(not o.error for o in outcomes)} of {len(outcomes)} ok"
    rows = [(o.notebook, o.seconds, o.peak, _verdict(o)) for o in outcomes]
    rows.append(("all", sum(o.seconds for o in outcomes), max(o.peak for o in outcomes), well))
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{name:{width}} {s:8.0f} s {peak / 1e6:8,.0f} MB  {said}" for name, s, peak, said in rows)


def main(argv: list[str] | None = None) -> int:
    """``python -m course_lib run``: exit code 1 if a notebook failed."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.save and (options.only or options.set or options.solved):
        parser.error("--save records the whole course as it is: leave out --only, --set and --solved")
    try:
        notebooks = numbered(options.only)
        if options.solved:
            notebooks = [solved.write(path, options.out / "solved" / path.name) for path in notebooks]
        outcomes = run(notebooks, options.out, options.profile, options.seed, **dict(options.set))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if not outcomes:
        print(f"There are no notebooks in {paths.notebooks_dir()}.", file=sys.stderr)
        return 2
    command = f"python -m course_lib run --profile {options.profile} --seed {options.seed}"
    command += " --solved" * options.solved
    rows = [
        {"notebook": o.notebook, "seconds": o.seconds, "peak_mb": round(o.peak / 1e6), "outcome": _verdict(o)}
        for o in outcomes
    ]
    results.record(rows, options.out / "summary.csv", command=command, seed=options.seed)
    print(f"\n{summary(outcomes)}\nExecuted notebooks and pages are in {options.out}.")
    failed = any(outcome.error for outcome in outcomes)
    if options.save and not failed:
        path = paths.data_dir() / "results" / f"run_{options.profile}.csv"
        print(f"Recorded: {results.record(rows, path, command=f'{command} --save', seed=options.seed)}")
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course-lib run", description="Execute the course's notebooks.")
    parser.add_argument("--profile", default="laptop", choices=session.PROFILES, help="sizes (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="beginnings of names, for instance: 06 09")
    parser.add_argument("--out", type=Path, default=Path("build/course"), help="folder of what is made (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solved", action="store_true", help="with the right answers in the stubs of the exercises")
    parser.add_argument("--save", action="store_true", help="record minutes and memory in data/results/run_PROFILE.csv")
    parser.add_argument(
        "--set", nargs="+", default=[], type=setting, metavar="FIELD=VALUE", help="replace fields of the profile"
    )
    return parser


def setting(text: str) -> tuple[str, object]:
    """``field=value`` as a pair; a value that is not Python's is a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE, for instance oracle_images=64")
    try:
        read = ast.literal_eval(value)
        return name, list(read) if isinstance(read, tuple) else read  # papermill would make a text of a tuple
    except (SyntaxError, ValueError):
        return name, value
