"""Runs that are killed, terminated, interrupted, or meet another run in their folder: nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from networks import small_vgg
from test_pruning import FAST, network, tiny_splits

from course_lib import models, oracle, paths, pruning
from course_lib.__main__ import main
from course_lib.classroom import runner
from drills.__main__ import NAMES

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from course_lib import paths
with paths.alone(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_commands_killed_at_random_moments_and_on_a_full_disk_come_to_the_same_result():
    # In a process of its own: one whose threads have computed something must not be forked.
    drill = [sys.executable, "-m", "drills", *NAMES, "--kills", "2", "--full-disks", "1"]
    done = subprocess.run(drill, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    injected = 8 if "no full disk" in done.stderr else 12
    assert f"{injected} faults injected, {injected} survived." in done.stdout


def _mounts() -> set[str]:
    return {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("tmpfs /")}


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts, on Linux")
def test_a_drill_that_is_terminated_leaves_no_disk_mounted(tmp_path):
    hold = [sys.executable, "-c", HOLD_A_DISK]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    held = subprocess.Popen(hold, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if "mounted" not in held.stdout.readline():
        pytest.skip("no file system may be mounted here")
    assert any(mount.startswith(str(tmp_path)) for mount in _mounts())
    held.terminate()
    assert "Terminated" in held.communicate(timeout=60)[1] and held.returncode == 143
    assert not any(mount.startswith(str(tmp_path)) for mount in _mounts()) and not list(tmp_path.iterdir())


HOLD_A_DISK = """
import os, sys, time
from course_lib.__main__ import stoppable
from drills import faults

def hold():
    with faults.small_disk(1 << 20) as (disk, _):
        child = os.fork()  # a command that is being drilled
        if not child:
            time.sleep(2)  # until the drill waits for it
            print("mounted", flush=True)
            time.sleep(600)
        faults.ended(child)

sys.exit(stoppable(hold))
"""


def test_one_folder_is_for_one_run_and_the_lock_dies_with_its_process(tmp_path, capsys):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment)
    assert holder.stdout.readline() == b"held\n"
    try:
        steps = pruning.prune(network(), tiny_splits(), maps_left=9, folder=tmp_path, **FAST)
        with pytest.raises(BlockingIOError, match=f"Another run is at work in {tmp_path}.*another folder"):
            next(steps)
        images = torch.zeros(2, 3, 8, 8).double(), torch.zeros(2, dtype=torch.long)
        with pytest.raises(BlockingIOError, match="Another run"):
            oracle.ablate(small_vgg(), [images], folder=tmp_path)
        with pytest.raises(BlockingIOError, match="Another run"):
            runner.run([], tmp_path, "ci")
        assert main(["prune", "--model", "vgg16-petals", "--epochs", "1", "--out", str(tmp_path)]) == 2
        assert "Another run is at work" in capsys.readouterr().err  # before it has fine-tuned
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with paths.alone(tmp_path):
        pass


def test_half_written_files_of_a_killed_run_are_removed_and_no_others(tmp_path):
    for name in (".step_0001.safetensors.123.tmp", ".mine.tmp", "step_0000.safetensors"):
        (tmp_path / name).write_bytes(b"half")
    with paths.alone(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mine.tmp", "step_0000.safetensors"]


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "out"
    with pytest.raises(OSError, match=r"out could not be written: Not a directory\. .*a folder that you can write to"):
        next(pruning.prune(network(), tiny_splits(), maps_left=9, folder=below, **FAST))
    with pytest.raises(OSError, match="could not be written"):
        models.save(network(), below / "network.safetensors")
    assert main(["prune", "--epochs", "1", "--out", str(below)]) == 2
    assert "could not be written" in capsys.readouterr().err
    assert main(["oracle", "--examples", "8", "--out", str(below / "oracle.csv")]) == 2
    assert main(["run", "--profile", "ci", "--out", str(below)]) == 2
    said = capsys.readouterr().err
    assert said.count("could not be written") == 2 and "Traceback" not in said
    assert (tmp_path / "file").read_text() == "in the way"


def test_terminated_is_one_line_and_143(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("course_lib.classroom.runner.main", lambda argv: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["run"]) == 143
    assert capsys.readouterr().err == "\nTerminated. What was finished before is kept.\n"
    assert signal.getsignal(signal.SIGTERM) is before


# -------------------------------------------------------------------------------------------------- notebooks that run


def test_a_run_that_was_stopped_executes_what_is_missing_and_one_that_ended_everything(tmp_path, monkeypatch):
    ran, notebooks = [], [tmp_path / f"0{n}.ipynb" for n in range(3)]
    for path in notebooks:
        path.write_text(path.name)

    def execute(path, out, parameters):
        if len(ran) == 2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        ran.append(path.stem)
        return runner.Outcome(path.stem, 1.0, "failed" if path.stem == "01" and len(ran) == 2 else "")

    stopped: list = []
    monkeypatch.setattr(runner, "_run_one", execute)
    with pytest.raises(KeyboardInterrupt):
        runner.run(notebooks, tmp_path / "out", "ci")
    assert ran == ["00", "01"]
    outcomes = runner.run(notebooks, tmp_path / "out", "ci")
    assert ran == ["00", "01", "01", "02"] and [outcome.notebook for outcome in outcomes] == ["00", "01", "02"]
    runner.run(notebooks, tmp_path / "out", "ci")
    assert ran[4:] == ["00", "01", "02"]


def test_what_was_done_counts_only_for_the_same_notebook_and_sizes(tmp_path):
    path = tmp_path / "00.ipynb"
    path.write_text("one")
    keys = {runner._key(path, {"seed": seed}) for seed in (0, 0, 1)}
    path.write_text("another")
    assert len(keys | {runner._key(path, {"seed": 0})}) == 3


CELL = """
import signal, torch
from test_pruning import FAST, network, tiny_splits
from course_lib import criteria, oracle, pruning, training
from networks import small_vgg
signal.signal(signal.SIGINT, signal.default_int_handler)
model, modes = small_vgg(dropout=True).float(), None
images = [(torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.long))] * 200_000
def hooks():
    return sum(len(value) for m in model.modules() for key, value in vars(m).items() if key.endswith("_hooks"))
"""
WORK = {
    "fit": "training.fit(model, tiny_splits().train, updates=10**6, progress=False)",
    "oracle": "oracle.ablate(model, images, progress=False)",
    "score": "criteria.score(model, images, ['taylor', 'obd'], progress=False)",
    "prune": "list(pruning.prune(model, tiny_splits(), maps_left=4, folder=folder, **FAST | {'updates': 10**6}))",
}
AFTER = (
    "import json; print(json.dumps([model.training, hooks(), model[0].weight.grad is None, torch.is_grad_enabled()]))"
)


def test_an_interrupted_kernel_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    manager = pytest.importorskip("jupyter_client.manager")
    folders = [str(ROOT), str(ROOT / "tests")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(f"{CELL}\nfolder = {str(tmp_path)!r}", output_hook=lambda message: None, timeout=120)
        first = tmp_path / "step_0000.safetensors"
        for name, work in WORK.items():
            assert _interrupted(kernel, client, work, first if name == "prune" else None), name
            said = []
            client.execute_interactive(AFTER, output_hook=lambda m, said=said: said.append(m["content"]), timeout=60)
            training, hooks, no_gradient, grad = json.loads(next(c["text"] for c in said if "text" in c))
            assert (training, hooks, grad) == (False, 0, True), name
            assert no_gradient or name == "fit"
            client.execute_interactive("model.zero_grad()", timeout=60)
        assert models.read_safetensors(first)[1]["step"]["number"] == 0
        with paths.alone(tmp_path):  # the lock is gone
            pass
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def _interrupted(kernel, client, work: str, written: Path | None) -> bool:
    """Whether the cell ended by the interrupt that it got at work: a moment after it began, or once it has written."""

    def hook(message):
        if message["msg_type"] == "stream" and "begun" in message["content"]["text"]:
            threading.Thread(target=interrupt, daemon=True).start()

    def interrupt():
        time.sleep(0.5)
        until = time.monotonic() + 60  # then it is interrupted all the same, and what it should have written is missed
        while written and not written.exists() and time.monotonic() < until:
            time.sleep(0.05)
        kernel.interrupt_kernel()

    begun = "print('begun', flush=True)\n"
    reply = client.execute_interactive(begun + work, output_hook=hook, timeout=120)
    return reply["content"].get("ename") == "KeyboardInterrupt"
