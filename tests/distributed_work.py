"""Everything that processes share, on a tiny network, as a command that torchrun can launch."""

import os
import signal
import sys
from pathlib import Path

import torch
from networks import batches, small_vgg
from torch.utils.data import TensorDataset

from course_lib import __main__, distributed, oracle, pruning, training
from course_lib.classroom import commands
from course_lib.datasets import Splits

COMMAND = ["--examples", "8", "--layers", "features.0", "--out"]


def examples(n: int, seed: int) -> TensorDataset:
    return TensorDataset(*batches(3, 8, 8, n=1, size=n, seed=seed)[0])


def fitted(model: torch.nn.Module, **options) -> dict[str, torch.Tensor]:
    """Losses and weights after some updates on batches that no two processes can share evenly, the last one of two."""
    losses = training.fit(model, examples(23, 3), epochs=2, batch_size=7, seed=1, progress=False, **options)
    return {"losses": torch.tensor(losses, dtype=torch.float64), **model.state_dict()}


def everything(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """{what: {name: numbers}}."""
    model, data = small_vgg(dropout=True), batches(3, 8, 8, n=3)
    found = {"oracle": oracle.effects(model, data, {"0": [3, 1], "3": range(6)}, folder=folder / "oracle")}
    found["sampled oracle"] = oracle.estimate(model, data, 0.4, progress=False).scores
    found["dropout"] = fitted(small_vgg(dropout=True), augment=True)
    found["penalty"] = fitted(small_vgg(), penalty=lambda model: 0.1 * model[0].weight.abs().sum())
    found["batch norm"] = fitted(small_vgg(batch_norm=True))
    splits = Splits("tiny", examples(40, 0), examples(10, 1), examples(23, 2), list("abcd"))
    for watched in (False, True):
        how = {"maps_per_step": 3, "updates": 3, "images": 24, "batch_size": 7, "lr": 1e-2, "momentum": 0.5}
        how |= {"score_while_tuning": watched, "folder": folder / f"prune-{watched}", "progress": False}
        for step in pruning.prune(model, splits, maps_left=9, **how):
            numbers = torch.tensor([step.maps_left, step.accuracy, step.loss, step.accuracy_before_tuning])
            found[f"step {step.number}, {watched}"] = {"numbers": numbers, **step.model.state_dict()}
    return found


def kill_the_second_process() -> None:
    """SIGKILL, while it fine-tunes in the second step of a pruning run."""
    real = pruning.training.fit

    def fit(*arguments, label="", **options):
        is_new = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if is_new and label.startswith("step 2") and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, label=label, **options)

    pruning.training.fit = fit


@commands.plainly
def work(argv: list[str]) -> None:
    """Save what `everything` finds in a folder, and what a command does; with a second word, be killed on the way."""
    folder, *killed = argv
    if killed:
        kill_the_second_process()
    found = everything(Path(folder))
    distributed.first(torch.save, found, Path(folder) / "found.pt")
    commands.measure_oracle.__wrapped__([*COMMAND, str(Path(folder) / "oracle.csv")])


if __name__ == "__main__":
    __main__.COMMANDS["work"] = ("distributed_work", "work", "")
    sys.exit(__main__.main(["work", *sys.argv[1:]]))
