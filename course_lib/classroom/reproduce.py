"""The paper's tables and figures from runs: ``python -m course_lib reproduce``.

An experiment is a short function of a `Run`, one network fine-tuned with one seed, that returns the rows of a table.
What is finished is kept, and what was begun goes on: the same command again comes to the same numbers.

| experiment | of Molchanov et al. 2017 |
|---|---|
| oracle | Figures 2 and 11: the change of the loss, map by map |
| figure3 | Figure 3: accuracy while maps are closed by the oracle with and without its sign, without fine-tuning |
| criteria | Table 1, with all normalisations and error bars |
| layers | Table 3 and Figure 10: correlations within each layer |
| pruning | Figures 4 and 5: accuracy while feature maps are removed, and the network trained from scratch |
| steps | where we depart from the paper: more than one feature map a step |
| updates | Figure 6: more or less fine-tuning between two steps |
| latency | Table 2: arithmetic and measured speed-up |
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from course_lib import (
    cost,
    criteria,
    datasets,
    distributed,
    oracle,
    paths,
    pruning,
    ranking,
    surgery,
    training,
)
from course_lib.classroom import ablations, comparison, figures, needs, results, runner, session, update_budget
from course_lib.classroom.commands import DTYPES, plainly
from course_lib.feature_maps import Chain, Scores

REDRAWN = 50  # times the images are redrawn for the error bars of Table 1
STEPS = (1, 16, 64, 256)  # feature maps a step


@dataclasses.dataclass
class Run:
    """One network, fine-tuned to the profile's data with one seed, and what has been found out about it.

    Attributes:
        lab: the session: its sizes, its seed, its device.
        folder: where half-finished work is kept.
        dtype: of the oracle's changes; see `oracle.effects`.
    """

    lab: session.Lab
    folder: Path
    dtype: torch.dtype | None = None

    @cached_property
    def splits(self) -> datasets.Splits:
        return self.lab.splits()

    @cached_property
    def model(self) -> torch.nn.Module:
        return self.lab.network(self.splits, quiet=True)  # `_say` has said more

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.splits.train[0][0].shape)

    @cached_property
    def batches(self) -> list:
        """The images of oracle and criteria: the same ones in the same order, so that they can be redrawn together."""
        return list(self.lab.batches(self.splits, self.lab.profile.oracle_images))

    @cached_property
    def others(self) -> list:
        """As many training images that the oracle does not see, or as many as are left."""
        train, n, seed = self.splits.train, self.lab.profile.oracle_images, self.lab.seed
        once, twice = (set(datasets.subset(train, min(k * n, len(train)), seed).indices) for k in (1, 2))
        return list(datasets.batches(torch.utils.data.Subset(train, sorted(twice - once))))

    @cached_property
    def effects(self) -> Scores:
        """{layer: (N, C)}, the exact oracle of every image; kept as it grows."""
        choice, folder = self.lab.choice(self.model), self.folder / "oracle"
        return oracle.effects(self.model, self.batches, choice, dtype=self.dtype, folder=folder)

    @cached_property
    def truth(self) -> Scores:
        return {name: change.mean(0) for name, change in self.effects.items()}

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Every criterion on the images of the oracle."""
        names, seed = list(criteria.CRITERIA), self.lab.seed
        return criteria.score(self.model, self.batches, names, draws=comparison.DRAWS, seed=seed)

    def prune(self, name: str, **settings) -> list[dict]:
        """The rows of one pruning run by the profile's settings, but for `settings`; it goes on where it was killed."""
        how = self.lab.loop | {"maps_left": self.lab.profile.maps_left} | settings
        steps = pruning.prune(self.model, self.splits, **how, folder=self.folder / name)
        return [{"curve": name, **step.row(), "layers": _channels(step.model)} for step in steps]


def _channels(model: torch.nn.Module) -> str:
    """How many maps each layer has, the first one first: '64 64 128 ...'."""
    return " ".join(str(layer.channels) for layer in Chain(model).layers.values())


def oracle_by_map(run: Run) -> list[dict]:
    """The oracle itself, and how far it would move with other images."""
    return ablations.table(run.effects).to_dict("records")


def figure3(run: Run) -> list[dict]:
    """Training accuracy while the lowest maps are closed, ranked once: by the oracle, with its sign, and at random."""
    rankings = {"oracle-abs": {name: change.abs() for name, change in run.truth.items()}, "oracle-loss": run.truth}
    rankings |= criteria.score(run.model, None, ["random"], seed=run.lab.seed)
    pictures = {"seen": run.batches} | ({"others": run.others} if run.others else {})
    return ablations.close_in_order(run.model, pictures, run.truth, rankings).to_dict("records")


def table1(run: Run) -> list[dict]:
    """Correlation of each criterion with oracle-abs; within layers with an interval over redrawn images."""
    measured = {
        "images": len(next(iter(run.effects.values()))),
        "maps": sum(int((~t.isnan()).sum()) for t in run.truth.values()),
        "accuracy": training.evaluate(run.model, run.splits.test).accuracy,
    }
    table = comparison.table1(run.scores, run.truth).join(_other_normalizations(run)).join(_interval(run))
    return [{"criterion": name, **found, **measured} for name, found in table.to_dict("index").items()]


def _other_normalizations(run: Run) -> pd.DataFrame:
    found = comparison.normalizations(run.scores, run.truth)[["l1", "minmax"]]
    return found.rename(columns="all_layers_{}".format)


def _interval(run: Run) -> pd.DataFrame:
    """Columns low and high: nine draws of the images in ten have their mean of layers between these."""
    answers = comparison.answers(run.model, run.batches, seed=run.lab.seed)
    fixed = {name: found for name, found in run.scores.items() if name not in answers}
    found = comparison.intervals(answers, fixed, run.effects, REDRAWN, run.lab.seed)
    return pd.DataFrame({side: found[side, "mean_of_layers"] for side in ("low", "high")})


def table3(run: Run) -> list[dict]:
    """Correlation within each layer."""
    found = comparison.by_layer(run.scores, run.truth).rename_axis("criterion").reset_index()
    return found.melt("criterion", var_name="layer", value_name="spearman").to_dict("records")


def curves(run: Run) -> list[dict]:
    """Accuracy while feature maps are removed: by criteria, by Taylor with a price on FLOPs, and from scratch."""
    rows = [row for name in run.lab.profile.curves for row in run.prune(name, criterion=name)]
    rows += run.prune("taylor_flops", criterion="taylor", flops_strength=flops_strength(run))
    return rows + from_scratch(run, updates=run.lab.profile.updates * max(row["number"] for row in rows))


def flops_strength(run: Run) -> float:
    """The paper's lambda, 1e-3 for a costliest map of 57.9 MFLOPs, scaled to the costliest map of this network."""
    return 1e-3 * 57.9 / max(cost.mflops_per_map(run.model, run.image_shape).values())


def from_scratch(run: Run, updates: int) -> list[dict]:
    """Half of the maps in every layer, random weights, and as many updates as a pruning run has had.

    Two rows, like the steps of a curve: the whole network, which was not trained from scratch and has no accuracy
    here, and this one.
    """
    small, sizes = update_budget.halved(run.model, run.lab.seed), run.lab.profile
    training.fit(small, run.splits.train, updates=updates, lr=sizes.tuning_rate, augment=True, seed=run.lab.seed)
    found = training.evaluate(small, run.splits.test)
    rows = figures.one_point("scratch", small, run.model, run.image_shape, found.accuracy).drop(columns="seed")
    rows["loss"], rows["layers"] = [float("nan"), found.loss], [_channels(run.model), _channels(small)]
    return rows.to_dict("records")


def step_sizes(run: Run) -> list[dict]:
    """Taylor with the paper's single map a step and with more, each map that goes paying for as many updates."""
    settings = _bites(run.lab.profile)
    return [{**how, **row} for how in settings for row in run.prune(f"steps-{how['maps_per_step']}", **how)]


def _bites(sizes: session.Profile) -> list[dict]:
    updates = max(1, round(sizes.updates / sizes.maps_per_step))
    return [{"maps_per_step": maps, "updates": updates * maps} for maps in STEPS]


def tuning(run: Run) -> list[dict]:
    """Taylor with more and fewer updates between two steps."""
    settings = _budgets(run.lab.profile)
    return [{**how, **row} for how in settings for row in run.prune(f"updates-{how['updates']}", **how)]


def _budgets(sizes: session.Profile) -> list[dict]:
    return [{"updates": updates} for updates in sizes.update_budgets]


def latency(run: Run) -> list[dict]:
    """Arithmetic and measured speed-up of networks that Taylor leaves, on this machine."""
    scores, whole = ranking.normalize(run.scores["taylor"], "l2"), cost.feature_maps(run.model)
    networks = {1.0: run.model}
    for share in (0.66, 0.5, 0.33):
        plan = ranking.lowest(scores, round((1 - share) * whole), keep_at_least=1)
        networks[share] = surgery.remove(run.model, plan)
    return [
        {
            "maps_share": share,
            "macs": cost.macs(net, run.image_shape),
            "params": cost.parameters(net),
            "median_ms": distributed.first(cost.latency, net, run.image_shape, batch_size=16).median_ms,
        }
        for share, net in networks.items()
    ]


EXPERIMENTS: dict[str, Callable[[Run], list[dict]]] = {
    "oracle": oracle_by_map,
    "figure3": figure3,
    "criteria": table1,
    "layers": table3,
    "pruning": curves,
    "steps": step_sizes,
    "updates": tuning,
    "latency": latency,
}


def needed(run: Run, model: torch.nn.Module, names: Iterable[str]) -> needs.Needs:
    """What experiments need for one seed, at most: fine-tuning such a network, the oracle and every pruning run."""
    lab, sizes = run.lab, run.lab.profile
    total = needs.of_tuning(model, run.image_shape, len(run.splits.train), sizes.epochs)
    if {"oracle", "figure3", "criteria", "layers"} & set(names):
        image = run.splits.train[0][0][None]
        total = total.then(needs.of_oracle(model, image, sizes.oracle_images, lab.choice(model)))
    if "figure3" in names:  # three rankings, images seen and others
        passes = 3 * len(ablations.SHARES) * 2 * sizes.oracle_images
        total = total.then(needs.Needs(0, passes * cost.macs(model, run.image_shape)))
    loops = {"pruning": [{}] * (len(sizes.curves) + 1), "steps": _bites(sizes), "updates": _budgets(sizes)}
    for how in (how for name in names for how in loops.get(name, [])):
        settings = pruning.Settings(**lab.loop | how)
        total = total.then(needs.of_pruning(model, run.image_shape, sizes.maps_left, len(run.splits.test), settings))
    return total


def _say(run: Run, names: Iterable[str]) -> None:
    """Print what a seed needs. needs.TooLarge for what does not fit."""
    model = run.lab.pretrained(run.splits)
    found = needed(run, model, names)
    needs.room(found, run.folder)
    shorter = "Smaller sizes by --set, fewer experiments by --only; a killed run goes on."
    print(f"For each seed: {needs.said(found, model, run.splits.train, shorter)}", flush=True)


def reproduce(
    names: Iterable[str],
    out: Path,
    profile: str,
    seeds: Iterable[int],
    *,
    command: str,
    dtype: torch.dtype | None = None,
    **overrides,
) -> list[Path]:
    """Run experiments for every seed and write a table of each, ``<out>/<experiment>.csv``.

    Args:
        names: keys of `EXPERIMENTS`.
        out: folder of the tables. A folder holds the runs of one choice of sizes; seeds may be added later.
        command: how a reader makes the tables again; it stands in every row.
        overrides: fields of the profile to replace.

    Raises:
        ValueError: for a folder that holds runs of other sizes. needs.TooLarge: for a run that would not fit, before
            anything is begun. BlockingIOError: for a folder in which another run is at work. OSError: for one that
            cannot be written to.
    """
    names = list(names)
    with distributed.alone(out):
        distributed.first(_same_sizes, out, {"profile": profile, "dtype": str(dtype), **overrides})
        said = False
        for seed in seeds:
            run = Run(session.start(profile, seed, **overrides), out / "work" / f"seed-{seed}", dtype)
            left = [name for name in dict.fromkeys(names) if not distributed.first((run.folder / f"{name}.csv").exists)]
            if left and not said:
                _say(run, left)
                said = True
            for name in left:
                print(f"{name}, seed {seed} ...", flush=True)
                rows = pd.DataFrame(EXPERIMENTS[name](run)).assign(seed=seed)
                distributed.first(results.record, rows, run.folder / f"{name}.csv", command=command, seed=None)
        return [distributed.first(_gathered, name, out) for name in names]


def _gathered(name: str, out: Path) -> Path:
    """One table of all seeds that have been run, whichever call ran them."""
    parts = sorted((out / "work").glob(f"seed-*/{name}.csv"), key=lambda part: int(part.parent.name[5:]))
    with paths.atomic(out / f"{name}.csv") as temporary:
        pd.concat([pd.read_csv(part) for part in parts], ignore_index=True).to_csv(temporary, index=False)
    return out / f"{name}.csv"


def save(made: Iterable[Path], data: str) -> list[Path]:
    """Put tables among the recorded results, which notebooks and README read: ``data/results/<data>_<experiment>.csv``.

    Args:
        made: of `reproduce`. They replace what was recorded before.
        data: how the names begin: 'petals', 'flowers102', ...

    Raises:
        ValueError: for a table that lacks a column of the recorded one, or for an oracle of several networks; nothing
            is replaced then.
    """
    targets = {path: paths.data_dir() / "results" / f"{data}_{path.name}" for path in made}
    for path, target in targets.items():
        table, before = pd.read_csv(path), pd.read_csv(target).columns if target.exists() else []
        if lost := [name for name in before if name not in table]:
            raise ValueError(f"{path} has no column {lost}, which the readers of {target.name} may need.")
        if path.stem == "oracle" and table.seed.nunique() > 1:
            raise ValueError(f"A recorded oracle is of one network, and {path} is of {table.seed.nunique()} seeds.")
    for path, target in targets.items():
        with paths.atomic(target) as temporary:
            temporary.write_bytes(path.read_bytes())
    return list(targets.values())


def _same_sizes(out: Path, sizes: dict) -> None:
    """Two choices of sizes must not meet in one table."""
    kept, now = out / "work" / "sizes.json", json.dumps(sizes, sort_keys=True, default=str)
    if kept.exists() and kept.read_text(encoding="utf-8") != now:
        raise ValueError(
            f"{out} holds runs of other sizes, {kept.read_text(encoding='utf-8')}. Give the same ones to go on with "
            "them, or another folder with --out."
        )
    with paths.atomic(kept) as temporary:
        temporary.write_text(now, encoding="utf-8")


@plainly
def main(argv: list[str] | None = None) -> None:
    """``python -m course_lib reproduce``: the same command again goes on where it was killed."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.save and not options.only:
        parser.error("--save replaces recorded tables: say with --only which ones.")
    command = _command(options)
    made = reproduce(
        options.only or EXPERIMENTS,
        options.out,
        options.profile,
        options.seeds,
        command=command,
        dtype=DTYPES.get(options.dtype),
        **dict(options.set),
    )
    if options.save:
        made += distributed.first(save, made, options.save)
    print("\n".join(f"{path}: {len(pd.read_csv(path))} rows" for path in made))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="course-lib reproduce",
        description="The paper's tables and figures from runs. The same command again goes on where it was killed.",
    )
    parser.add_argument("--profile", default="paper", choices=session.PROFILES, help="sizes (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="one network each (0)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the oracle; bfloat16 is fast where the processor has it")
    parser.add_argument("--out", type=Path, default=Path("build/reproduce"), help="folder of tables (%(default)s)")
    parser.add_argument(
        "--save", metavar="DATA", help="record the tables as data/results/DATA_NAME.csv, too, for instance petals"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], type=runner.setting, metavar="FIELD=VALUE", help="replace fields of the profile"
    )
    return parser


def _command(options: argparse.Namespace) -> str:
    """The command as a reader types it; of paths only their last part, the rest says where they lie on one machine."""
    words = ["python -m course_lib reproduce --profile", options.profile]
    words += ["--only", *options.only] if options.only else []
    words += ["--seeds", *map(str, options.seeds)]
    words += ["--dtype", options.dtype] if options.dtype else []
    return " ".join(words) + session.as_typed(dict(options.set))
