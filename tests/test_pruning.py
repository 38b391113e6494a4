"""The pruning loop: budgets, numbers, and runs that are killed and go on to the identical result."""

import copy
import io
import json
import os
import subprocess
import sys
import textwrap
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from networks import batches, small_vgg
from torch import nn
from torch.utils.data import TensorDataset
from tqdm.std import tqdm

from course_lib import cost, criteria, models, pruning, ranking, training
from course_lib.datasets import DataError, Splits
from course_lib.feature_maps import Chain, UnsupportedModel
from course_lib.pruning import prune
from course_lib.surgery import remove

FAST = {"maps_per_step": 3, "updates": 2, "images": 24, "batch_size": 8, "lr": 1e-2, "progress": False}


def examples(n, seed):
    images, labels = batches(3, 8, 8, n=1, size=n, seed=seed)[0]
    return TensorDataset((images + labels[:, None, None, None] - 1.5).float(), labels)


def tiny_splits():
    return Splits("tiny", examples(40, 0), examples(10, 1), examples(24, 2), list("abcd"))


def network(**options):
    """18 feature maps in layers of 5, 6 and 7."""
    return small_vgg(**options).float()


def test_a_bar_counts_the_maps_that_are_gone(monkeypatch, tmp_path):
    seen = []

    class Bar(tqdm):
        def update(self, n=1):
            super().update(n)
            seen.append((self.n, self.total))

    monkeypatch.setattr(pruning, "meter", lambda *_, **__: Bar(file=io.StringIO()))
    how = {"maps_left": 9, "folder": tmp_path} | FAST
    assert len(list(pruning.prune(network(), tiny_splits(), **how))) == 4
    assert seen == [(0, 9), (3, 9), (6, 9), (9, 9)]
    list(pruning.prune(network(), tiny_splits(), **how))  # only read, and counted as well
    assert seen[4:] == seen[:4]
    list(pruning.prune(network(), tiny_splits(), macs_left=0.6, **FAST))
    assert seen[-1][1] is None  # nobody knows how many maps that is


def run(model=None, **options):
    model = network() if model is None else model
    return list(prune(model, tiny_splits(), **{"maps_left": 9, **FAST, **options}))


def removed(step):
    return sum(map(len, step.removed.values()))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(value, b[name]) for name, value in a.items())


def timeless(rows):
    return [{key: value for key, value in step.record().items() if key != "seconds"} for step in rows]


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("evaluate_on", ["test", "val"])
def test_every_number_of_every_step_is_the_networks(evaluate_on):
    steps, data = run(batch_norm_network(), evaluate_on=evaluate_on), getattr(tiny_splits(), evaluate_on)
    assert [step.number for step in steps] == [0, 1, 2, 3]
    assert steps[0].removed == {} and steps[0].accuracy_before_tuning == steps[0].accuracy
    for step in steps:
        found = training.evaluate(step.model, data)
        assert (step.accuracy, step.loss) == (found.accuracy, found.loss)
        assert step.maps_left == cost.feature_maps(step.model) == 18 - 3 * step.number
        assert step.macs == cost.macs(step.model, (3, 8, 8)) and step.params == cost.parameters(step.model)
        assert step.seconds > 0 and not step.model.training
    for before, after in zip(steps, steps[1:], strict=False):
        layers = Chain(after.model).layers
        for name, layer in Chain(before.model).layers.items():
            assert layers[name].channels == layer.channels - len(after.removed.get(name, []))
        assert removed(after) == 3
        cut = remove(before.model, after.removed)
        assert after.accuracy_before_tuning == training.evaluate(cut, data).accuracy
        assert after.row() == {**after.record(), "removed": 3} and "model" not in after.row()
        json.dumps(after.row())


def batch_norm_network():
    return network(batch_norm=True)


@pytest.mark.parametrize("criterion, how", [("taylor", "l2"), ("min_weight", "none"), ("activation_mean", "l1")])
def test_without_fine_tuning_it_removes_the_lowest_scores(criterion, how):
    steps = run(criterion=criterion, normalization=how, updates=0, images=40)
    data = tiny_splits().train.tensors
    for before, after in zip(steps, steps[1:], strict=False):
        scores = criteria.score(before.model, [data], criterion, progress=False)[criterion]
        plan = ranking.lowest(ranking.normalize(scores, how), 3)
        assert after.removed == {name: maps.tolist() for name, maps in plan.items()}
        assert same(after.model, remove(before.model, plan))
        assert after.accuracy == after.accuracy_before_tuning


def test_scores_are_averaged_over_steps_if_asked():
    options = {"updates": 3, "lr": 0.1, "images": 40, "maps_left": 3, "maps_per_step": 2}
    steps, data, mean = run(memory=0.75, **options), tiny_splits().train.tensors, None
    for before, after in zip(steps, steps[1:], strict=False):
        fresh = criteria.score(before.model, [data], "taylor", progress=False)["taylor"]
        mean = fresh if mean is None else {name: 0.75 * mean[name] + 0.25 * fresh[name] for name in fresh}
        plan = ranking.lowest(ranking.normalize(mean), removed(after))
        assert after.removed == {name: maps.tolist() for name, maps in plan.items()}
        for name, maps in after.removed.items():
            mean[name] = mean[name][[k for k in range(len(mean[name])) if k not in maps]]
    assert [step.removed for step in run(**options)] != [step.removed for step in steps]  # and here it matters


@pytest.mark.parametrize("criterion", ["taylor", "activation_std"])
def test_scores_gathered_while_tuning_are_those_of_its_updates(criterion, monkeypatch):
    """By hand: the network as it was before every update of the fine-tuning, scored on that update's images."""
    updates, passes = record_updates(monkeypatch), []
    score, data = criteria.score, tiny_splits().train
    monkeypatch.setattr(criteria, "score", lambda *a, **k: passes.append(1) or score(*a, **k))
    steps = run(criterion=criterion, score_while_tuning=True, updates=3)
    assert len(passes) == 1 and len(steps) == 4  # the first step has no fine-tuning before it
    for after, seen in zip(steps[2:], updates, strict=False):
        batch = [(images, labels_of(images, data)) for _, images in seen]
        once = [score(net, [b], criterion, progress=False)[criterion] for (net, _), b in zip(seen, batch, strict=True)]
        if criterion == "activation_std":  # its spread is taken over all images at once, not averaged
            once = [one_spread(seen)]
        mean = {name: torch.stack([scores[name] for scores in once]).mean(0) for name in once[0]}
        plan = ranking.lowest(ranking.normalize(mean), removed(after))
        assert after.removed == {name: maps.tolist() for name, maps in plan.items()}
    own_pass = run(criterion=criterion, updates=3)
    assert [step.removed for step in own_pass[:2]] == [step.removed for step in steps[:2]]


def record_updates(monkeypatch):
    """[[(network before the update, its images)] of each fine-tuning], filled while training.fit runs."""
    fit, place, found, inside = training.fit, training.place, [], []

    def recording_fit(model, *args, **kwargs):
        found.append([])
        inside.append(model)
        try:
            return fit(model, *args, **kwargs)
        finally:
            inside.pop()

    def recording_place(images, device):
        if inside:
            found[-1].append((remove(inside[-1], {}), images.clone()))
        return place(images, device)

    monkeypatch.setattr(training, "fit", recording_fit)
    monkeypatch.setattr(training, "place", recording_place)
    return found


def labels_of(images, data):
    at = [int((data.tensors[0] == image).flatten(1).all(1).nonzero()) for image in images]
    return data.tensors[1][at]


def one_spread(seen):
    spread = {}
    for name in Chain(seen[0][0]).layers:
        z = []
        for net, images in seen:
            taps = {}
            Chain(net).run(images, taps=taps)
            z.append(taps[name].detach().double())
        spread[name] = torch.cat(z).std((0, 2, 3), correction=0)
    return spread


def test_criteria_that_tuning_cannot_show_score_in_a_pass_of_their_own():
    for criterion in ("obd", "min_weight", "random"):
        asked, plain = (run(criterion=criterion, score_while_tuning=on) for on in (True, False))
        assert timeless(asked) == timeless(plain)


def test_flops_regularisation_prefers_costly_layers():
    mflops = cost.mflops_per_map(network(), (3, 8, 8))
    costly = max(mflops, key=mflops.get)
    plain, strong = run(flops_strength=0)[1], run(flops_strength=1e6)[1]
    assert list(plain.removed) != [costly]
    assert list(strong.removed) == [costly] and strong.macs < plain.macs


def test_rounded_counts_through_the_whole_loop(tmp_path):
    options = {"round_to": 2, "maps_left": 8, "maps_per_step": 3}  # of 5, 6 and 7 maps
    steps = run(folder=tmp_path, **options)
    for step in steps[1:]:
        for name, layer in Chain(step.model).layers.items():
            before = Chain(steps[0].model).layers[name].channels
            assert layer.channels % 2 == 0 or layer.channels == before
    assert [removed(step) for step in steps[1:-1]] and all(3 <= removed(step) <= 4 for step in steps[1:-1])
    assert 7 <= steps[-1].maps_left <= 8
    assert timeless(run(folder=tmp_path, **options)) == timeless(steps)
    assert run(round_to=2, maps_left=6)[-1].maps_left == 6
    with pytest.raises(ValueError, match="keeps 1 of its feature maps in multiples of 2, 6 are left"):
        run(round_to=2, maps_left=5)
    with pytest.raises(ValueError, match="other settings .round_to=2"):
        run(folder=tmp_path, **{**options, "round_to": 1})


def test_without_a_budget_the_rounded_loop_ends_at_its_floor():
    steps = run(maps_left=None, min_accuracy=0.0, round_to=4)
    assert {name: layer.channels for name, layer in Chain(steps[-1].model).layers.items()} == {"0": 4, "3": 4, "5": 4}


def test_fine_tuning_trains_and_carries_the_optimizer(tmp_path):
    run(optimizer="adam", updates=4, folder=tmp_path)
    for number in (1, 2, 3):
        tensors, _ = models.read_safetensors(tmp_path / f"step_000{number}.safetensors")
        assert tensors["optimizer/0.weight/step"] == 4 * number
        assert tensors["optimizer/3.weight/exp_avg"].shape == tensors["model/3.weight"].shape
    tuned, cut = run(updates=30, maps_per_step=9)[1], run(updates=0, maps_per_step=9)[1]
    assert tuned.removed == cut.removed and tuned.accuracy_before_tuning == cut.accuracy
    assert tuned.loss < cut.loss


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr": 2e-2}, {"weight_decay": 0.5}, {"momentum": 0.0}, {"augment": 1}]
)
def test_settings_reach_the_fine_tuning(change):
    assert run()[1].loss == run()[1].loss != run(**change)[1].loss


# ------------------------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("budget, left", [(9, 9), (0.5, 9), (10, 10), (0.39, 7), (3, 3), (18, 18), (1.0, 18)])
def test_maps_left_is_met_exactly(budget, left):
    steps = run(maps_left=budget, maps_per_step=4, updates=0)
    assert steps[-1].maps_left == left
    assert [step.maps_left for step in steps] == [*range(18, left, -4), left]


@pytest.mark.parametrize("name, field", [("macs_left", "macs"), ("params_left", "params")])
@pytest.mark.parametrize("share", [True, False])
def test_the_first_step_within_the_budget_is_the_last(name, field, share):
    whole = {"macs": cost.macs(network(), (3, 8, 8)), "params": cost.parameters(network())}[field]
    limit = round(0.6 * whole)
    steps = run(maps_left=None, **{name: 0.6 if share else limit}, maps_per_step=1, updates=0)
    assert getattr(steps[-1], field) <= limit < getattr(steps[-2], field)


def test_of_several_budgets_the_first_met_stops():
    assert run(maps_left=0.5, macs_left=0.99)[-1].number == 1
    assert run(maps_left=15, macs_left=0.3)[-1].maps_left == 15


@pytest.mark.parametrize("name", ["macs_left", "params_left"])
def test_a_budget_at_the_floor_is_reached(name):
    smallest = remove(network(), {"0": range(2, 5), "3": range(2, 6), "5": range(2, 7)})
    least = {"macs_left": cost.macs(smallest, (3, 8, 8)), "params_left": cost.parameters(smallest)}[name]
    options = {"maps_left": None, "keep_at_least": 2, "updates": 0, "maps_per_step": 5}
    assert run(**options, **{name: least})[-1].maps_left == 6
    with pytest.raises(ValueError, match=f"{least - 1:,} {name[:-5]} cannot be reached.*{least:,} are left"):
        prune(network(), tiny_splits(), **{**FAST, **options, name: least - 1})


def test_accuracy_stops_before_it_falls_too_low():
    model = network()
    training.fit(model, tiny_splits().train, updates=60, lr=5e-3, progress=False)
    longer = run(model, maps_left=3, updates=0, maps_per_step=1)
    enough = longer[2].accuracy
    fallen = next(step.number for step in longer if step.accuracy < enough)
    steps = run(model, maps_left=None, min_accuracy=enough, updates=0, maps_per_step=1)
    assert timeless(steps) == timeless(longer[:fallen])
    assert run(model, min_accuracy=1.1) == []


def test_with_accuracy_alone_it_ends_when_nothing_more_may_go():
    steps = run(maps_left=None, min_accuracy=0.0, updates=0, maps_per_step=7, keep_at_least=2)
    assert [step.maps_left for step in steps] == [18, 11, 6]
    assert {layer.channels for layer in Chain(steps[-1].model).layers.values()} == {2}


def test_a_layer_that_is_narrower_than_the_floor_keeps_what_it_has():
    steps = run(maps_left=17, keep_at_least=6, updates=0, maps_per_step=1)
    assert {name: layer.channels for name, layer in Chain(steps[-1].model).layers.items()} == {"0": 5, "3": 6, "5": 6}


# ------------------------------------------------------------------------------------------------------- independence


def test_nothing_runs_before_it_is_asked_for(monkeypatch):
    calls = []
    for module, name in ((training, "evaluate"), (criteria, "score"), (training, "fit")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _name=name, _real=real, **k: (calls.append(_name), _real(*a, **k))[1]
        )
    steps = prune(network(), tiny_splits(), maps_left=9, **FAST)
    assert calls == []
    assert next(steps).number == 0 and calls == ["evaluate"]
    next(steps)
    assert calls == ["evaluate", "score", "evaluate", "fit", "evaluate"]


def test_the_given_model_is_untouched():
    model = network(batch_norm=True, dropout=True).train()
    model[0].weight.requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    steps = run(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert not model[0].weight.requires_grad and not steps[-1].model[0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not same(steps[0].model, steps[-1].model) and steps[0].maps_left == cost.feature_maps(model)


def test_what_is_done_to_a_steps_network_does_not_change_the_run():
    plain, disturbed = run(), []
    for step in prune(network(), tiny_splits(), maps_left=9, **FAST):
        disturbed.append(timeless([step])[0])
        step.model.train()
        for p in step.model.parameters():
            p.data.fill_(7)
    assert disturbed == timeless(plain)


@pytest.mark.parametrize("options", [{"criterion": "random"}, {"augment": True}])
def test_the_same_seed_repeats_and_another_does_not(options):
    first, again = run(dropout_network(), seed=3, **options), run(dropout_network(), seed=3, **options)
    assert timeless(first) == timeless(again) and same(first[-1].model, again[-1].model)
    assert not same(first[-1].model, run(dropout_network(), seed=4, **options)[-1].model)


def test_every_step_has_a_seed_of_its_own(monkeypatch):
    seeds, real = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **options: seeds.append(options["seed"]) or real(*a, **options))
    for seed in (0, 1, 2):
        run(seed=seed)
    assert len(set(seeds)) == len(seeds) == 9  # else each step would see the same few images


def dropout_network():
    return network(dropout=True)


def renamed(model):
    """With layers 8, 11 and 13, which a file's alphabet puts in the order 11, 13, 8."""
    return nn.Sequential(OrderedDict((str(number), module) for number, module in enumerate(model, start=8)))


# ---------------------------------------------------------------------------------------------------------- going on

CASES = {
    "sgd": (network, {}),
    "adam": (network, {"optimizer": "adam"}),
    "dropout": (dropout_network, {"augment": True}),
    "batch norm": (batch_norm_network, {"optimizer": "adam", "flops_strength": 1e-2}),
    "memory": (network, {"memory": 0.9, "criterion": "obd"}),
    "random": (network, {"criterion": "random", "updates": 0}),
    "scores while tuning": (dropout_network, {"score_while_tuning": True, "augment": True, "memory": 0.5}),
    "names out of order": (lambda: renamed(network()), {"score_while_tuning": True, "criterion": "apoz"}),
    "channels last": (lambda: dropout_network().to(memory_format=torch.channels_last), {"momentum": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_after_any_step_goes_on_to_the_same_bytes(case, tmp_path, monkeypatch):
    build, options = CASES[case]
    monkeypatch.setattr(pruning, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # seconds are in the files too
    whole = run(build(), folder=tmp_path / "whole", maps_per_step=4, **options)
    files = sorted((tmp_path / "whole").glob("[!.]*"))
    assert [file.name for file in files] == [f"step_000{i}.safetensors" for i in range(4)]
    for stop in range(len(whole)):
        folder = tmp_path / f"killed after {stop}"
        steps = prune(build(), tiny_splits(), maps_left=9, folder=folder, **{**FAST, "maps_per_step": 4, **options})
        for _ in range(stop + 1):
            next(steps)
        del steps
        assert len(list(folder.glob("[!.]*"))) == stop + 1
        resumed = run(build(), folder=folder, maps_per_step=4, **options)
        assert [step.record() for step in resumed] == [step.record() for step in whole]
        assert all(same(a.model, b.model) for a, b in zip(resumed, whole, strict=True))
        assert [file.read_bytes() for file in sorted(folder.glob("[!.]*"))] == [file.read_bytes() for file in files]


def test_a_finished_run_is_read_and_not_run_again(tmp_path, monkeypatch):
    steps = run(folder=tmp_path)
    times = [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("[!.]*"))]
    monkeypatch.setattr(training, "evaluate", lambda *args, **options: pytest.fail("evaluated again"))
    again = run(folder=tmp_path)
    assert [step.record() for step in again] == [step.record() for step in steps]  # with the seconds of the first time
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("[!.]*"))] == times
    assert all(not step.model.training for step in again)


def test_a_smaller_budget_goes_on_from_a_finished_run(tmp_path):
    run(folder=tmp_path, maps_left=12)
    assert timeless(run(folder=tmp_path, maps_left=6)) == timeless(run(maps_left=6))


DRILL = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    sys.path.insert(0, sys.argv[1])
    from test_pruning import run
    torch.set_num_threads(1)
    folder, kills, chance = Path(sys.argv[2]), 0, random.Random(0)

    def steps():
        return len(list(folder.glob("step_*"))) if folder.exists() else 0

    while True:
        before, child = steps(), os.fork()
        if child == 0:
            run(folder=folder, maps_left=5, maps_per_step=1)
            os._exit(0)
        done = (0, 0)
        while done[0] == 0 and steps() == before:
            done = os.waitpid(child, os.WNOHANG)
        if done[0] == 0:
            time.sleep(chance.random() / 50)  # somewhere in the next step, or in the writing of its file
            os.kill(child, signal.SIGKILL)
            done = os.waitpid(child, 0)
        if not os.WIFSIGNALED(done[1]):
            break
        kills += 1
    print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_again_and_again_ends_in_the_same_result(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRILL), os.path.dirname(__file__), str(tmp_path / "killed")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2  # 13 to 20 where nothing else runs
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = run(folder=tmp_path / "whole", maps_left=5, maps_per_step=1)
        killed = run(folder=tmp_path / "killed", maps_left=5, maps_per_step=1)
    finally:
        torch.set_num_threads(threads)
    assert timeless(killed) == timeless(whole)
    for file in (tmp_path / "whole").glob("step_*"):
        one, other = models.read_safetensors(file)[0], models.read_safetensors(tmp_path / "killed" / file.name)[0]
        assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# -------------------------------------------------------------------------------------------------- damage and errors


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_never_taken_for_whole(tmp_path, damage):
    run(folder=tmp_path)
    newest = tmp_path / "step_0003.safetensors"
    whole = newest.read_bytes()
    flipped = whole[:-30] + bytes([whole[-30] ^ 4]) + whole[-29:]
    newest.write_bytes({"truncated": whole[: len(whole) // 2], "flipped": flipped, "empty": b""}[damage])
    steps = prune(network(), tiny_splits(), maps_left=9, folder=tmp_path, **FAST)
    assert [next(steps).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="step_0003.safetensors is (not a whole|damaged)"):
        next(steps)
    newest.unlink()  # what the message leads to: without the damaged file the run goes on
    assert timeless(run(folder=tmp_path)) == timeless(run())


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    steps = prune(network(), tiny_splits(), maps_left=9, folder=tmp_path, **FAST)
    next(steps), next(steps)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            next(steps)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")} == before
    assert timeless(run(folder=tmp_path)) == timeless(run())


@pytest.mark.parametrize(
    "change, told",
    [
        ({"criterion": "apoz"}, "criterion='taylor'"),
        ({"lr": 0.5}, "lr=0.01"),
        ({"evaluate_on": "val"}, "evaluate_on='test'"),
        ({"seed": 1, "updates": 3}, "updates=2, seed=0"),
    ],
)
def test_a_folder_with_other_settings_is_refused(tmp_path, change, told):
    run(folder=tmp_path)
    with pytest.raises(ValueError, match=f"other settings .{told}.*another folder"):
        run(folder=tmp_path, **change)


def test_a_folder_of_another_network_or_other_data_is_refused(tmp_path):
    run(folder=tmp_path)
    with pytest.raises(ValueError, match="other settings .network="):
        run(network(seed=1), folder=tmp_path)
    other = Splits("other", *[getattr(tiny_splits(), split) for split in ("train", "val", "test")], list("abcd"))
    with pytest.raises(ValueError, match="other settings .data=.'tiny', 40, 24"):
        list(prune(network(), other, maps_left=9, folder=tmp_path, **FAST))


def test_a_folder_with_something_else_is_refused(tmp_path):
    models.save(network(), tmp_path / "step_0000.safetensors")
    with pytest.raises(ValueError, match="step_0000.safetensors is no checkpoint of a pruning run"):
        run(folder=tmp_path)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"criterion": "taylr"}, KeyError, "no criterion 'taylr'. Did you mean 'taylor'"),
        ({"map_per_step": 3}, TypeError, "'map_per_step'. Did you mean 'maps_per_step'"),
        ({"optimizer": "adamm"}, KeyError, "no optimizer 'adamm'. Did you mean 'adam'"),
        ({"normalization": "l3"}, KeyError, "no normalization 'l3'"),
        ({"evaluate_on": "tset"}, KeyError, "no split 'tset'. Did you mean 'test'"),
        ({"maps_left": None}, ValueError, "Say when to stop: maps_left, macs_left, params_left"),
        ({"maps_left": 2}, ValueError, "budget of 2 maps cannot be reached.*keeps 1 .* 3 are left"),
        ({"maps_left": 11, "keep_at_least": 4}, ValueError, "budget of 11 maps cannot be reached.* 12 are left"),
        ({"maps_left": -4}, ValueError, "cannot be reached"),
        ({"macs_left": 5}, ValueError, "budget of 5 macs cannot be reached"),
        ({"params_left": 0.001}, ValueError, "params cannot be reached"),
        ({"maps_per_step": 0}, ValueError, "maps_per_step and keep_at_least"),
        ({"keep_at_least": 0}, ValueError, "maps_per_step and keep_at_least"),
        ({"round_to": 0}, ValueError, "and round_to"),
    ],
)
def test_errors_come_at_once(options, error, message):
    with pytest.raises(error, match=message):
        prune(network(), tiny_splits(), **{"maps_left": 9, **FAST, **options})


def test_networks_that_cannot_be_pruned_are_refused_at_once():
    with pytest.raises(UnsupportedModel, match="no feature maps"):
        prune(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), tiny_splits(), maps_left=0.5)


def test_more_images_than_there_are():
    with pytest.raises(DataError, match="41 examples were asked for; this data set has 40"):
        run(images=41)


def test_labels_beyond_the_outputs():
    with pytest.raises(ValueError, match="the network has 2 outputs"):
        run(network(classes=2))


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(TypeError, match=r"model\.float\(\)"):
        run(network().half())


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_its_checkpoints(tmp_path):
    model = network()
    model[3].weight.data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        run(model)
    with pytest.raises(FloatingPointError, match="learning rate"):
        run(folder=tmp_path, lr=1e20, updates=9)
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["step_0000.safetensors"]
    assert models.read_safetensors(tmp_path / "step_0000.safetensors")[1]["step"]["number"] == 0
