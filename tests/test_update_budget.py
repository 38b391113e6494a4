"""Experiments of notebook 10: the quadratic model against least squares and gradient steps, and the runs themselves."""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import small_vgg
from scipy import optimize
from torch.utils.data import TensorDataset

from course_lib import cost, datasets, pruning, ranking, surgery, training
from course_lib.classroom import baselines, repair, results, session
from course_lib.classroom import update_budget as study
from course_lib.feature_maps import Chain

REMOVED, KEPT = [1, 4], [0, 2, 3, 5]


@pytest.fixture(scope="module")
def problem():
    """Inputs (N, 6), correlated, targets (N, 3), and a function that gives the cost of weights, all centred."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6)) + 3
    targets = x @ generator.normal(size=(6, 3)) + generator.normal(size=(200, 3))
    x, targets = x - x.mean(0), targets - targets.mean(0)
    return x, targets, lambda w, columns: ((x[:, columns] @ w - targets) ** 2).sum() / 200 / 2


def test_rises_are_those_of_least_squares(problem):
    x, targets, cost_of = problem
    loss = repair.least_squares(x, targets)
    cut, stays = repair.rise(loss, REMOVED)
    assert cost_of(loss.optimum[KEPT], KEPT) - loss.lowest == pytest.approx(cut)
    refitted = np.linalg.lstsq(x[:, KEPT], targets, rcond=None)[0]
    assert cost_of(refitted, KEPT) - loss.lowest == pytest.approx(stays)
    smaller = repair.without(loss, REMOVED)
    np.testing.assert_allclose(smaller.optimum, refitted)
    assert smaller.lowest == pytest.approx(cost_of(refitted, KEPT))


def test_the_rise_after_updates_is_that_of_gradient_steps(problem):
    x, targets, cost_of = problem
    loss = repair.least_squares(x, targets)
    rate, w = 0.7 / np.linalg.eigvalsh(loss.hessian).max(), loss.optimum[KEPT].copy()
    stepped = [cost_of(w, KEPT)]
    for _ in range(15):
        w -= rate * x[:, KEPT].T @ (x[:, KEPT] @ w - targets) / len(x)
        stepped.append(cost_of(w, KEPT))
    np.testing.assert_allclose(repair.rise_after(loss, REMOVED, rate, range(16)), np.array(stepped) - loss.lowest)


def test_greedy_one_at_a_time_is_fitted_anew_each_time(problem):
    x, targets, cost_of = problem
    run, kept = repair.greedy(repair.least_squares(x, targets), 1, 3), list(range(6))
    for expected in run.itertuples():
        w = np.linalg.lstsq(x[:, kept], targets, rcond=None)[0]
        assert (expected.left, expected.loss) == (len(kept), pytest.approx(cost_of(w, kept)))
        kept.pop(((w**2).sum(1) * (x[:, kept] ** 2).mean(0)).argmin())


def test_bites_reach_the_number_asked_for(problem):
    run = repair.greedy(repair.least_squares(*problem[:2]), 4, 1)
    assert run.left.tolist() == [6, 2, 1]


def test_a_shortened_kernel_is_the_proximal_step():
    kernels, length = np.array([[0.9, -0.4, 0.2], [0.1, 0.1, -0.2], [0.0, 0.0, 0.0]]), 0.5
    for kernel, found in zip(kernels, repair.shortened(kernels, length), strict=True):

        def objective(v, a=kernel):
            return ((v - a) ** 2).sum() / 2 + length * np.linalg.norm(v)

        best = optimize.minimize(objective, kernel / 2, method="Nelder-Mead", tol=1e-12).x
        np.testing.assert_allclose(found, best, atol=1e-5)
    assert (repair.shortened(kernels, length)[1:] == 0).all()


def test_it_is_the_step_of_notebook_05s_optimizer():
    conv = torch.nn.Conv2d(2, 4, 3).double()
    rows = torch.cat([conv.weight.detach().flatten(1), conv.bias.detach()[:, None]], dim=1).numpy()
    length = float(np.median(np.linalg.norm(rows, axis=1)))
    baselines.shorten(conv, length)
    after = torch.cat([conv.weight.detach().flatten(1), conv.bias.detach()[:, None]], dim=1).numpy()
    np.testing.assert_allclose(after, repair.shortened(rows, length))


def test_the_same_total_is_the_same_total():
    runs = list(study.same_total(29, 8, 10))
    assert {"maps_per_step": 29, "updates": 10} in runs and {"maps_per_step": 232, "updates": 80} in runs
    for how in runs:
        assert 8 * 29 / how["maps_per_step"] * how["updates"] == pytest.approx(80, rel=0.05)


@pytest.fixture
def tiny():
    """A network with 18 maps in three layers, and 40 pictures of its ten classes."""
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = small_vgg().float()
    with torch.no_grad():
        labels = model(images).argmax(1)
    split = TensorDataset(images, labels)
    return model, datasets.Splits("tiny", split, split, split, [str(i) for i in range(10)], None, None)


def test_a_curve_is_the_loops_own_with_its_settings(tiny):
    how = {"criterion": "min_weight", "seed": 3, "updates": 1, "maps_per_step": 5, "maps_left": 0.5, "images": 8}
    rows = study.curve(*tiny, "mine", **how)
    loop = [step.row() for step in pruning.prune(*tiny, **how)]
    for row, step in zip(rows, loop, strict=True):
        told = {"curve": "mine", "seed": 3, "updates": 1, "maps_per_step": 5}
        assert {**row, "seconds": 0} == {**told, **step, "seconds": 0}


def test_half_of_each_layer_from_random_weights(tiny):
    model, splits = tiny
    small = study.halved(model, seed=0)
    expected = {name: layer.channels // 2 for name, layer in Chain(model).layers.items()}
    assert {name: layer.channels for name, layer in Chain(small).layers.items()} == expected
    kept = surgery.remove(model, {n: torch.arange(0, x.channels, 2) for n, x in Chain(model).layers.items()})
    assert not any(torch.equal(a, b) for a, b in zip(small.parameters(), kept.parameters(), strict=True) if a.any())
    single = surgery.remove(model, {next(iter(expected)): torch.arange(1, 2 * next(iter(expected.values())))})
    assert Chain(study.halved(single, seed=0)).layers[next(iter(expected))].channels == 1
    row = study.from_scratch(model, splits, updates=2, lr=1e-3, seed=0)
    assert row["maps_left"] == sum(expected.values()) and row["updates"] == 2


def test_dead_maps_go_without_a_change(tiny):
    model, splits = tiny
    names = list(Chain(model).layers)
    with torch.no_grad():
        for name, dead in ((names[0], [1, 3]), (names[1], range(6))):
            conv = Chain(model).layers[name].conv
            conv.weight[list(dead)] = 0
            conv.bias[list(dead)] = 0
    plan = study.dead_maps(model)
    assert plan[names[0]].tolist() == [1, 3]
    assert len(plan[names[1]]) == Chain(model).layers[names[1]].channels - 1  # the last one stays
    small, images = surgery.remove(model, plan), splits.test.tensors[0]
    assert torch.allclose(small(images), model(images), atol=1e-6)


def test_a_penalty_kills_maps_of_its_layer_only_and_leaves_the_network_alone(tiny):
    model, splits = tiny
    before, last = [parameter.clone() for parameter in model.parameters()], list(Chain(model).layers)[-1]
    weak, strong = study.penalised(model, splits, last, (0.0, 60.0), updates=30, lr=1e-3, seed=0)
    layer = Chain(model).layers[last].channels
    assert weak["layer_maps"] == layer > strong["layer_maps"] >= 1
    assert cost.feature_maps(model) - strong["maps_left"] == layer - strong["layer_maps"]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_greedy_in_one_layer_takes_equal_bites_of_it(tiny):
    model, splits = tiny
    last = list(Chain(model).layers)[-1]
    rows = study.one_layer(model, splits, last, 3, updates=6, lr=1e-3, images=8, seed=0)
    assert [row["layer_maps"] for row in rows] == [5, 3]
    assert [row["maps_left"] for row in rows] == [16, 14]


def test_greedy_in_one_layer_records_the_updates_that_it_made(tiny, monkeypatch):
    made, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **how: made.append(len(fit(*a, **how))))
    last = list(Chain(tiny[0]).layers)[-1]
    rows = study.one_layer(*tiny, last, 4, updates=9, lr=1e-3, images=8, seed=0)
    assert [row["updates"] for row in rows] == np.cumsum(made).tolist() == [2, 4, 6]


def test_cuts_say_what_surgery_leaves(tiny):
    model, splits = tiny
    scores = {"mine": {n: torch.arange(x.channels).double() for n, x in Chain(model).layers.items()}}
    table = study.cuts(model, scores, splits.test, (0.5, 1.0), (1, 3), seconds=0.001)
    assert len(table) == 4 and table.attrs["maps"] == {n: x.channels for n, x in Chain(model).layers.items()}
    whole = table[table.share == 1].iloc[0]
    assert (whole.macs, whole.params) == (1, 1)
    assert whole.accuracy == training.evaluate(model, splits.test).accuracy
    row = table.query("share == 0.5 and floor == 3").iloc[0]
    small = surgery.remove(model, ranking.lowest(scores["mine"], 9, keep_at_least=3))
    assert row.macs == pytest.approx(cost.macs(small, (3, 8, 8)) / cost.macs(model, (3, 8, 8)))
    assert [row[name] for name in table.attrs["maps"]] == [x.channels for x in Chain(small).layers.values()]


def test_adapted_sizes_give_way_to_what_was_asked_for(capsys):
    lab = session.start("ci", updates=7)
    other = lab.adapted(updates=3, maps_per_step=5)
    assert (other.profile.updates, other.profile.maps_per_step, other.profile.name) == (7, 5, "ci")
    assert lab.profile.maps_per_step != 5


@pytest.mark.parametrize("profile", study.SIZES)
def test_sizes_are_fields_of_the_profile(profile):
    assert session.choose(profile, **study.SIZES[profile]).name == profile


def test_the_study_covers_what_the_notebook_draws(monkeypatch, tiny):
    monkeypatch.setattr(study, "CRITERIA", ("taylor",))
    monkeypatch.setattr(study, "UPDATES", (0, 1, 2))
    monkeypatch.setattr(study, "STRENGTHS", (1,))
    lab = session.start("ci", maps_per_step=5, updates=1, maps_left=0.5, score_images=8)
    table = pd.concat(study.study(lab, tiny[1], tiny[0], seed=2))
    assert set(table.experiment) == {"criteria", "updates", "steps", "scratch", "one layer"}
    assert (table.seed == 2).all()
    assert set(table[table.experiment == "updates"].updates) == {0, 2}


def test_what_was_recorded_is_whole_and_says_what_the_course_says():
    table = results.read("alexnet_pruning")
    assert table.groupby("experiment").seed.nunique().to_dict() == dict.fromkeys(
        ("criteria", "one layer", "scratch", "steps", "updates"), table.seed.nunique()
    )
    assert table.seed.nunique() >= 3 and table.command.str.startswith("python -m course_lib.classroom").all()
    means = table[table.experiment == "criteria"].query("number > 0").groupby(["seed", "curve"]).accuracy.mean()
    assert (means.unstack().taylor > means.unstack().random).all()
    by_updates = (
        table[(table.experiment == "updates") & (table.number > 0)].groupby(["seed", "updates"]).accuracy.mean()
    )
    assert (by_updates.unstack().diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    correlations = results.read("alexnet_criteria").pivot(index="seed", columns="criterion", values="mean_of_layers")
    assert (correlations.taylor > correlations[["min_weight", "random"]].max(axis=1)).all()
