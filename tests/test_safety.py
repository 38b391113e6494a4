"""Safe by default: nothing is unpickled, downloads are encrypted and checked, JupyterLab is for this machine alone."""

import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from course_lib import datasets, models

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("course_lib", "benchmarks", "drills") for path in sorted((ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# --------------------------------------------------------------------------------------------------------- unpickling

# Each of them executes what is in the file, or can be told to.
UNSAFE_MODULES = {"_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_CALLS = (
    r"(pickle\.(load|loads|Unpickler)|joblib\.load|read_pickle|eval|exec|(yaml\.)(load|full_load|unsafe_load))$"
)


def unsafe(source):
    """What in a module could execute the content of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in modules if name.split(".")[0] in UNSAFE_MODULES)
            if modules[0] in ("pickle", "joblib") and isinstance(node, ast.ImportFrom):
                yield f"from {modules[0]} import {', '.join(names)}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if re.search(rf"(^|\.){UNSAFE_CALLS}", called) and not called.endswith(".eval"):
                yield called
            if called.endswith("torch.load") and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if "state_dict_from_url" in called or called.endswith("get_state_dict"):
                yield from (
                    f"{called} without {name}" for name in ("weights_only", "check_hash") if given.get(name) != "True"
                )
            if given.get("allow_pickle", "False") != "False":
                yield f"{called} with allow_pickle"


def code(path):
    """The code of a module; or of a notebook's cells, without what is IPython's own and no Python."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return re.sub(r"^( *)[%!].*$", r"\1pass", "\n".join(cells), flags=re.MULTILINE)


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    assert list(unsafe(code(path))) == []


def test_unpickling_would_be_seen_in_every_cell_of_a_notebook(tmp_path):
    cells = [("code", "if True:\n    %pip install x\n"), ("markdown", "eval(me)"), ("code", "!ls\npickle.load(f)")]
    written = {"cells": [{"cell_type": kind, "source": text.splitlines(True)} for kind, text in cells]}
    (tmp_path / "x.ipynb").write_text(json.dumps(written))
    assert list(unsafe(code(tmp_path / "x.ipynb"))) == ["pickle.load"]
    assert len(NOTEBOOKS) >= 14


@pytest.mark.parametrize(
    "line",
    [
        "joblib.load(path)",
        "from joblib import load",
        "import sklearn, dill",
        "from pickle import load",
        "from cloudpickle import loads",
        "pickle.load(file)",
        "pickle.Unpickler(file).load()",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "eval(text)",
        "yaml.load(file)",
        "weights.get_state_dict(progress=True, weights_only=True)",
        "torch.hub.load_state_dict_from_url(url, check_hash=True)",
    ],
)
def test_unpickling_would_be_seen(line):
    assert list(unsafe(line))


@pytest.mark.parametrize(
    "line", ["torch.load(path, weights_only=True)", "np.load(path)", "model.eval()", "import pickle"]
)
def test_reading_without_unpickling_is_allowed(line):
    assert not list(unsafe(line))


# ---------------------------------------------------------------------------------------------------------- downloads

# Doors to the network; the one that is used, pooch.retrieve, stands in data_files.fetch.
DOORS = r"(urlopen|urlretrieve|requests\.(get|post|request|Session)|HTTPS?Connection|pooch\.(retrieve|create))$"


def test_one_function_fetches_and_it_wants_a_checksum():
    doors = {}
    for path in [*(ROOT / "course_lib").rglob("*.py"), *NOTEBOOKS]:
        calls = [node for node in ast.walk(ast.parse(code(path))) if isinstance(node, ast.Call)]
        doors[path.name] = [call for call in calls if re.search(DOORS, ast.unparse(call.func))]
    (call,) = doors.pop("data_files.py")
    assert ast.unparse(call).startswith("pooch.retrieve(url, known_hash,")
    assert not any(doors.values())


def test_every_data_set_is_fetched_encrypted_and_checked(monkeypatch, tmp_path):
    asked = {}

    def retrieve(url, known_hash, fname, path, **_):
        asked[url] = known_hash
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(b"")
        return Path(path) / fname

    monkeypatch.setenv("COURSE_LIB_CACHE", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", retrieve)
    for name in ("mnist", "flowers102", "birds200"):
        with pytest.raises(datasets.DataError):  # of what came, which is empty
            datasets.load(name)
    assert len(asked) == 8
    for url, known_hash in asked.items():
        assert url.startswith("https://")
        assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", known_hash)


@pytest.mark.parametrize("name", models.TORCHVISION)
def test_weights_are_fetched_encrypted_and_carry_their_checksum(name):
    from torchvision.models import get_model_weights

    assert re.fullmatch(r"https://.*-[0-9a-f]{8,}\.pth", get_model_weights(models.TORCHVISION[name]).DEFAULT.url)


def test_no_address_is_without_encryption():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if name.endswith((".py", ".md", ".ipynb", ".yml", ".toml", ".json", ".js", ".txt")) and "tests/" not in name:
            found = re.findall(r"http://[^\s\"')>]+", (ROOT / name).read_text(encoding="utf-8"))
            assert [url for url in found if not url.startswith(LOCAL_OR_NAMES)] == [], name


# A name space is a name, nobody fetches it.
LOCAL_OR_NAMES = ("http://127.0.0.1", "http://localhost", "http://www.w3.org/")

# --------------------------------------------------------------------------------------------------------- JupyterLab


@pytest.fixture
def lab(tmp_path):
    """The command of `make lab`, without a browser and with nobody's settings: the process, its address, its token."""
    shown = subprocess.run(["make", "-C", ROOT, "-n", "-o", ".venv/.stamp", "lab"], capture_output=True, text=True)
    (line,) = re.findall(r"^\S+ -m jupyterlab .*$", shown.stdout, re.MULTILINE)
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")} | folders
    with open(tmp_path / "log", "w") as log:
        command = [sys.executable, *shlex.split(line)[1:], *options]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(1200):
            if server.poll() is not None or answers(port):
                break
            time.sleep(0.1)
        assert server.poll() is None, (tmp_path / "log").read_text()
        (known,) = (tmp_path / "RUNTIME").glob("jpserver-*.json")
        yield server, f"http://127.0.0.1:{port}", json.loads(known.read_text())["token"]
    finally:
        server.terminate()
        server.wait(60)


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def answer(address, **headers):
    """The status code of an address."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_make_lab_is_for_this_machine_alone_and_wants_its_token(lab):
    server, address, token = lab
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening and {c.laddr.ip for c in listening} == {"127.0.0.1"}
    assert len(token) >= 32
    for place in ("/api/contents", "/api/kernels", "/api/terminals"):
        assert answer(address + place) == 403
        assert answer(address + place, Authorization="token " + token[::-1]) == 403
        assert answer(address + place, Authorization=f"token {token}") == 200
