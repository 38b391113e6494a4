"""The paper's experiments by one command: resumed, gathered over seeds, and equal to the library's own functions."""

import re
import shlex
from functools import partial

import notebook_rules as rules
import pandas as pd
import pytest
import torch
from scipy import stats

from course_lib import cost, criteria, datasets, models, oracle, paths, surgery
from course_lib.classroom import figures, needs, protocol, reproduce, results, session

SIZES = {"oracle_images": 8, "oracle_maps": 3, "train_images": 64, "test_images": 32, "network": "vgg16-petals"}
LOOP = {"maps_per_step": 400, "maps_left": 0.5, "updates": 2, "score_images": 8, "curves": ("random",)}


def made(tmp_path, *names, seeds=(0,), **sizes):
    return reproduce.reproduce(names, tmp_path, "ci", seeds, command="typed so", **SIZES | sizes)


def test_the_oracle_and_its_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "REDRAWN", 3)
    by_map, table, layers = (pd.read_csv(path) for path in made(tmp_path, "oracle", "criteria", "layers"))
    lab = session.start("ci", 0, **SIZES)
    model, splits = models.trained("vgg16-petals"), lab.splits()
    batches = list(lab.batches(splits, 8))
    truth = oracle.ablate(model, batches, lab.choice(model), "naive")
    weights = criteria.score(model, None, "min_weight")["min_weight"]
    for name, changes in truth.items():
        known = ~changes.isnan()
        rows = by_map[by_map.layer == name]
        assert rows["map"].tolist() == known.nonzero().flatten().tolist()
        assert torch.allclose(torch.tensor(rows.change.tolist()).double(), changes[known], atol=1e-5)
        right = stats.spearmanr(weights[name][known], changes[known].abs()).statistic
        found = layers[(layers.layer == name) & (layers.criterion == "min_weight")].spearman.item()
        assert found == pytest.approx(right, abs=1e-4)
    assert set(table.criterion) == set(criteria.CRITERIA)
    means = layers.groupby("criterion").spearman.mean()
    assert means.to_dict() == pytest.approx(table.set_index("criterion").mean_of_layers.to_dict(), abs=1e-4)
    assert (table.low <= table.high).all() and (table.maps == 39).all() and (table.images == 8).all()
    assert (table.command == "typed so").all() and (table.seed == 0).all()


def test_figure3_closes_what_the_oracle_ranks_lowest_and_measures_on_images_seen_and_others(tmp_path):
    (path,) = made(tmp_path, "figure3")
    table = pd.read_csv(path)
    run = reproduce.Run(session.start("ci", 0, **SIZES), tmp_path / "again")
    seen = run.lab.batches(run.splits, 8).dataset.indices
    assert sum(len(labels) for _, labels in run.others) == 8
    assert not {image.numpy().tobytes() for images, _ in run.others for image in images} & {
        run.splits.train[index][0].numpy().tobytes() for index in seen
    }
    changes = sorted((float(c), name, i) for name, t in run.truth.items() for i, c in enumerate(t) if c == c)
    plans = {"oracle-loss": changes, "oracle-abs": sorted(changes, key=lambda found: abs(found[0]))}
    for ranking, order in plans.items():
        plan: dict[str, list[int]] = {}
        for _, layer, at in order[: round(0.5 * len(order))]:
            plan.setdefault(layer, []).append(at)
        small = surgery.remove(run.model, {layer: torch.tensor(sorted(maps)) for layer, maps in plan.items()})
        half = table[(table.ranking == ranking) & (table.share == 0.5)].set_index("pictures")
        for kind, batches in {"seen": run.batches, "others": run.others}.items():
            right, row = sum(int((small(x).argmax(1) == y).sum()) for x, y in batches), half.loc[kind]
            assert row.accuracy == right / 8 and row.maps_left == pytest.approx(1 - round(0.5 * 39) / 1056)
    paper = pd.read_csv(paths.data_dir() / "paper" / "figure3.csv")
    assert set(paper.ranking) <= set(table.ranking) == {"oracle-abs", "oracle-loss", "random"}
    figures.closing_curves(table, paper)


def test_what_is_finished_is_kept_and_seeds_are_gathered(tmp_path, monkeypatch):
    calls = []

    def experiment(run):
        calls.append(run.lab.seed)
        return [{"value": run.lab.seed * 10}]

    monkeypatch.setitem(reproduce.EXPERIMENTS, "oracle", experiment)
    made(tmp_path, "oracle", seeds=[2, 10])
    (path,) = made(tmp_path, "oracle", seeds=[2, 1])
    assert calls == [2, 10, 1]
    assert pd.read_csv(path)[["seed", "value"]].to_numpy().tolist() == [[1, 10], [2, 20], [10, 100]]


def test_one_folder_holds_one_choice_of_sizes(tmp_path, monkeypatch):
    monkeypatch.setitem(reproduce.EXPERIMENTS, "oracle", lambda run: [{"value": 1}])
    made(tmp_path, "oracle")
    with pytest.raises(ValueError, match=r"other sizes, .*\"oracle_images\": 8.*--out"):
        made(tmp_path, "oracle", oracle_images=16)


def test_pruning_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    (whole,) = made(tmp_path / "whole", "pruning", **LOOP)
    scratch = reproduce.from_scratch

    def killed(run, updates):
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "from_scratch", killed)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "killed", "pruning", **LOOP)
    monkeypatch.setattr(reproduce, "from_scratch", scratch)
    (again,) = made(tmp_path / "killed", "pruning", **LOOP)
    numbers = ["curve", "number", "maps_left", "layers", "macs", "params", "accuracy", "loss"]
    whole, again = pd.read_csv(whole)[numbers], pd.read_csv(again)[numbers]
    assert whole.equals(again)
    assert whole.layers.map(lambda text: sum(map(int, text.split()))).equals(whole.maps_left)
    assert set(whole.curve) == {"random", "taylor_flops", "scratch"}
    assert whole.groupby("curve").maps_left.min().to_dict() == {"random": 528, "taylor_flops": 528, "scratch": 528}


def test_a_network_from_scratch_is_one_point_of_the_recorded_curves(tmp_path):
    (path,) = made(tmp_path, "pruning", **LOOP)
    table = pd.read_csv(path)
    whole, small = table[table.curve == "scratch"].itertuples()
    assert (whole.maps_left, small.maps_left) == (1056, 528) and pd.isna(whole.accuracy)
    assert figures.near_half(table).set_index("curve").maps_left.to_dict() == dict.fromkeys(table.curve, 528)
    ranking = protocol.accuracy_at(table, "feature maps", 0.75)
    assert set(ranking.index) == {"random", "taylor_flops"}  # nothing is known of it between whole and half


def test_saved_tables_stand_where_readers_look_for_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce.paths, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(reproduce, "_say", lambda *_: None)  # would look for a network there
    monkeypatch.setitem(reproduce.EXPERIMENTS, "criteria", lambda run: [{"criterion": "taylor", "value": 1}])
    monkeypatch.setitem(reproduce.EXPERIMENTS, "oracle", lambda run: [{"map": 0, "change": run.lab.seed}])
    typed = ["--profile", "ci", "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    assert reproduce.main([*typed, "--only", "criteria", "--save", "mine"]) == 0
    recorded = results.read("mine_criteria")
    assert recorded.seed.tolist() == [0, 1] and not recorded.command.str.contains("--save|--out").any()
    with pytest.raises(SystemExit):
        reproduce.main([*typed, "--save", "mine"])
    assert "--only" in capsys.readouterr().err
    assert reproduce.main([*typed, "--only", "oracle", "--save", "mine"]) == 2
    assert "one network" in capsys.readouterr().err
    kept = tmp_path / "data" / "results" / "mine_criteria.csv"
    recorded.assign(needed=1).to_csv(kept, index=False)
    before = kept.read_bytes()
    assert reproduce.main([*typed, "--only", "criteria", "--save", "mine"]) == 2
    assert "no column ['needed']" in capsys.readouterr().err and kept.read_bytes() == before


@pytest.mark.parametrize("name, column", [("steps", "maps_per_step"), ("updates", "updates")])
def test_a_departure_is_one_setting_of_the_loop(name, column, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "STEPS", (14, 42))  # as many updates as maps, at least
    (path,) = made(tmp_path, name, **LOOP | {"maps_left": 1014, "update_budgets": [0, 1]})
    table = pd.read_csv(path)
    assert table[column].nunique() == 2 and table.groupby(column).maps_left.min().tolist() == [1014, 1014]


def test_criteria_can_be_gathered_during_the_updates_as_in_the_paper(tmp_path, monkeypatch):
    passes, score = [], criteria.score
    monkeypatch.setattr(criteria, "score", lambda *given, **how: passes.append(given) or score(*given, **how))
    for watching, own in ((False, 2), (True, 1)):  # two steps; of the first a pass of its own in any case
        passes.clear()
        lab = session.start("ci", 0, **SIZES | LOOP | {"score_while_tuning": watching})
        reproduce.Run(lab, tmp_path / str(watching)).prune("taylor")
        assert len(passes) == own


@pytest.mark.parametrize("sizes", [{"maps_per_step": 66, "updates": 30}, {"maps_per_step": 1, "updates": 30}])
def test_every_step_size_has_as_many_updates_for_each_map_that_goes(sizes, monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce.Run, "prune", lambda run, name, **how: asked.append(how) or [])
    reproduce.step_sizes(reproduce.Run(session.start("ci", **sizes), None))
    assert [how["maps_per_step"] for how in asked] == list(reproduce.STEPS)
    assert len({how["updates"] / how["maps_per_step"] for how in asked}) == 1 and asked[0]["updates"] >= 1


def test_a_run_that_would_not_fit_begins_nothing_and_one_that_does_says_what_it_needs(tmp_path, monkeypatch, capsys):
    typed = ["--profile", "ci", "--only", "oracle", "pruning", "--out", str(tmp_path)]
    monkeypatch.setattr(needs, "available", lambda device=None: 1 << 20)
    assert reproduce.main(typed) == 2
    assert "Nothing was begun" in capsys.readouterr().err and not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.undo()
    for name in ("oracle", "pruning"):
        monkeypatch.setitem(reproduce.EXPERIMENTS, name, lambda run: [{"value": 1}])
    assert reproduce.main(typed) == 0
    assert re.search("For each seed: Needs at most about .* of memory, and .* of disk", capsys.readouterr().out)


def test_more_experiments_need_more():
    run = reproduce.Run(session.start("ci", **SIZES), None)
    model = run.lab.pretrained(run.splits)
    macs = [reproduce.needed(run, model, names).macs for names in ([], ["layers"], ["layers", "pruning"], ["pruning"])]
    assert macs[0] < macs[1] < macs[2] and macs[2] - macs[1] == macs[3] - macs[0] > 0


def test_the_readmes_commands_ask_for_what_there_is():
    lines = re.findall(r"^python -m course_lib reproduce ([^#\n]+)", rules.README, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        options = reproduce._parser().parse_args(shlex.split(line))
        sizes = session.choose(options.profile, **dict(options.set))
        assert sizes.network in models.names() and sizes.dataset in datasets.names()
        assert all(isinstance(number, int | float) for number in (sizes.updates, sizes.epochs, sizes.tuning_rate))


def test_the_same_experiments_on_an_alexnet(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "REDRAWN", 3)
    table, layers = (pd.read_csv(p) for p in made(tmp_path, "criteria", "layers", network="alexnet-petals"))
    assert len(table) == len(criteria.CRITERIA) and layers.layer.nunique() == 5
    steps = pd.read_csv(
        made(tmp_path / "curves", "pruning", network="alexnet-petals", **LOOP | {"maps_per_step": 80})[0]
    )
    assert steps.maps_left.max() == 288 and steps.groupby("curve").maps_left.min().le(144).all()


def test_latency_of_smaller_and_smaller_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce.cost, "latency", partial(cost.latency, seconds=0.1))
    table = pd.read_csv(made(tmp_path, "latency")[0])
    assert table.macs.is_monotonic_decreasing and table.params.is_monotonic_decreasing
    assert (table.median_ms > 0).all()


def test_the_command_is_written_as_a_reader_types_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "_say", lambda *_: None)  # would look into the folder of photographs
    monkeypatch.setitem(reproduce.EXPERIMENTS, "oracle", lambda run: [{"value": run.lab.profile.oracle_images}])
    typed = ["--profile", "ci", "--only", "oracle", "--seeds", "3", "--out", str(tmp_path)]
    assert reproduce.main([*typed, "--set", "oracle_images=8", "data_root=/home/me/photos"]) == 0
    row = pd.read_csv(tmp_path / "oracle.csv").iloc[0]
    assert row.command == (
        "python -m course_lib reproduce --profile ci --only oracle --seeds 3 --set oracle_images=8 data_root=photos"
    )
    assert row.value == 8 and row.seed == 3
    assert "oracle.csv: 1 rows" in capsys.readouterr().out
    assert reproduce.main([*typed]) == 2  # other sizes, said in one sentence
    assert "other sizes" in capsys.readouterr().err
