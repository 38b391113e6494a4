"""The mixture as a prior, merging and quantising; and the experiment of notebook 11 in small."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from scipy.integrate import quad
from torch import nn

from course_lib import datasets, models, training, weight_code
from course_lib import weight_sharing as ws
from course_lib.classroom import weight_sharing as sharing
from course_lib.classroom.figures.weight_sharing import METHODS
from course_lib.weight_sharing import Components, Width


def mixture(size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(size, generator=g, dtype=torch.float64) / 3
    means[0] = 0
    log_variances = torch.randn(size, generator=g, dtype=torch.float64) - 3
    return Components(means, log_variances, torch.randn(size, generator=g, dtype=torch.float64).log_softmax(0))


def random_weights(count=30, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 3


def parts(components):
    return zip(
        *(values.tolist() for values in (components.shares, components.means, components.deviations)), strict=True
    )


def small_prior(weights, **changes):
    options = {"free": 5, "zero_share": 0.9, "zero_width": Width(0.01, 50), "free_width": Width(0.05, 5)}
    return ws.Prior(weights, **(options | changes))


# ------------------------------------------------------------------------------------------------------------- mixture


def test_density_is_scipys_sum_of_normals_and_integrates_to_one():
    components, w = mixture(), random_weights()

    def density(x):
        return sum(share * scipy.stats.norm.pdf(x, mean, deviation) for share, mean, deviation in parts(components))

    np.testing.assert_allclose(ws.log_density(w, components).exp(), density(w.numpy()), rtol=1e-12)
    whole = quad(
        lambda x: float(ws.log_density(torch.tensor([x], dtype=torch.float64), components).exp()), -9, 9, limit=200
    )
    assert whole[0] == pytest.approx(1, abs=1e-6)


def test_code_lengths_of_cells_satisfy_kraft():
    w = torch.arange(-5, 5, 2**-9, dtype=torch.float64)
    lengths = -ws.log_density(w, mixture()) / math.log(2) + 9
    assert float((2**-lengths).sum()) == pytest.approx(1, abs=1e-6)


def test_far_weights_and_vanishing_shares_stay_finite():
    components = Components(*(torch.tensor(x) for x in ([0.0, 0.3], [-12.0, -12.0], [0.0, -200.0])))
    w = torch.tensor([-50.0, 0.3, 80.0], requires_grad=True)
    found = ws.log_density(w, components)
    (slope,) = torch.autograd.grad(found.sum(), w)
    assert found.isfinite().all() and slope.isfinite().all()
    assert ws.assign(w, components).tolist() == [0, 1, 1]


def test_the_pull_is_the_responsibility_weighted_spring():
    components, w = mixture(), random_weights().requires_grad_()
    (slope,) = torch.autograd.grad(-ws.log_density(w, components).sum(), w)
    r = ws.responsibilities(w, components)
    springs = (r * (w[:, None] - components.means) / components.variances).sum(1)
    torch.testing.assert_close(slope, springs)
    torch.testing.assert_close(r.sum(1), torch.ones_like(r[:, 0]))


def test_the_hyper_prior_is_scipys_gamma_over_precisions():
    width = Width(0.02, 250)
    precision = np.array([100.0, 2500.0, 9000.0])
    right = scipy.stats.gamma.logpdf(precision, 250, scale=1 / (250 * 0.02**2))
    np.testing.assert_allclose(ws.log_gamma(torch.tensor(np.log(precision)), width), right, rtol=1e-9)


def test_prior_is_the_sum_of_its_parts_with_the_right_gradients():
    w = random_weights()
    prior = small_prior(w).double()
    components = prior.components()
    assert components.means[0].item() == 0 and components.shares[0].item() == pytest.approx(0.9)
    assert components.shares.sum().item() == pytest.approx(1)
    by_hand = -ws.log_density(w, components).sum()
    for j, log_precision in enumerate(prior.log_precisions):
        by_hand = by_hand - ws.log_gamma(log_precision, Width(0.05, 5) if j else Width(0.01, 50))
    assert prior(w).item() == pytest.approx(by_hand.item())

    def value(means, log_precisions, log_odds):
        return torch.func.functional_call(
            prior, {"means": means, "log_precisions": log_precisions, "log_odds": log_odds}, (w,)
        )

    assert torch.autograd.gradcheck(value, tuple(p.detach().requires_grad_() for p in prior.parameters()))


def test_components_start_over_the_range_of_the_weights_and_overlap():
    w = torch.tensor([-0.5, 0.1, 0.7])
    components = small_prior(w, free=4).components()
    torch.testing.assert_close(components.means, torch.tensor([0.0, -0.5, -0.1, 0.3, 0.7]))
    assert bool((components.deviations > 0.25).all())


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        small_prior(random_weights(), zero_share=share)


# -------------------------------------------------------------------------------------------------- merge and quantise


def test_divergence_equals_numerical_integration():
    components = mixture()
    normals = [scipy.stats.norm(mean, deviation) for _, mean, deviation in parts(components)]
    found = ws.divergence(components)
    for i, p in enumerate(normals):
        for j, q in enumerate(normals):
            right, _ = quad(
                lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), p.mean() - 9, p.mean() + 9, limit=300
            )
            assert float(found[i, j]) == pytest.approx(right, abs=1e-6)


def test_pool_keeps_share_and_mean_and_lacks_the_variance_between():
    shares, means, variances = (torch.tensor(x) for x in ([0.1, 0.3], [-1.0, 1.0], [0.2, 0.4]))
    share, mean, variance = (float(x) for x in ws.pool(shares, means, variances))
    draws = np.concatenate(
        [np.random.default_rng(0).normal(-1, 0.2**0.5, 10**6), np.random.default_rng(1).normal(1, 0.4**0.5, 3 * 10**6)]
    )
    assert share == pytest.approx(0.4) and mean == pytest.approx(draws.mean(), abs=2e-3)
    between = 0.1 * 0.3 / 0.4**2 * 4
    assert variance == pytest.approx(0.35) and variance + between == pytest.approx(draws.var(), abs=5e-3)


def test_join_leaves_the_others_and_zero_stays_zero():
    components = mixture(5)
    joined = ws.join(components, 1, 3)
    share, mean, variance = ws.pool(
        *(values[[1, 3]] for values in (components.shares, components.means, components.variances))
    )
    for values, right in zip((joined.shares, joined.means, joined.variances), (share, mean, variance), strict=True):
        assert float(values[1]) == pytest.approx(float(right))
    for values, before in zip(joined, components, strict=True):
        torch.testing.assert_close(values[[0, 2, 3]], before[[0, 2, 4]])
    assert float(ws.join(components, 0, 2).means[0]) == 0
    assert float(ws.join(components, 0, 2).shares.sum()) == pytest.approx(1)


def test_join_of_vanishing_shares_is_finite():
    components = Components(*(torch.tensor(x) for x in ([0.0, 0.2, 0.4], [-4.0, -4, -4], [0.0, -300.0, -300.0])))
    joined = ws.join(components, 1, 2)
    assert float(joined.means[1]) == pytest.approx(0.3)
    assert float(joined.log_shares[1]) == pytest.approx(-300 + math.log(2))


def test_merge_joins_what_is_near_and_nothing_else():
    log_variances = torch.full((5,), math.log(0.01**2))
    near = Components(torch.tensor([0.0, 0.3, 0.301, 0.9, 0.9]), log_variances, torch.full((5,), 0.2).log())
    merged = ws.merge(near, 0.1)
    torch.testing.assert_close(merged.means, torch.tensor([0.0, 0.3005, 0.9]))
    torch.testing.assert_close(merged.shares, torch.tensor([0.2, 0.4, 0.4]))
    assert len(ws.merge(near, 0).means) == 4  # only those that are the same
    assert len(ws.merge(near, math.inf).means) == 1


def test_near_is_the_mean_of_both_directions():
    deviations = torch.tensor([0.01, 0.05])
    two = Components(torch.zeros(2), 2 * deviations.log(), torch.full((2,), 0.5).log())
    narrow_in_wide, wide_in_narrow = 0.5 * (0.04 - 1 + math.log(25)), 0.5 * (25 - 1 - math.log(25))
    middle = (narrow_in_wide + wide_in_narrow) / 2
    assert [len(ws.merge(two, threshold).means) for threshold in (middle - 0.1, middle + 0.1)] == [2, 1]


def test_quantise_takes_the_mean_of_the_most_responsible_component_and_leaves_the_model():
    torch.manual_seed(0)
    model = models.lenet_300_100(3, pixels=6, hidden=(5, 4))
    before = ws.flat_weights(model).detach().clone()
    components = Components(*(values.float() for values in mixture(6)))
    found = ws.flat_weights(ws.quantise(model, components))
    torch.testing.assert_close(ws.flat_weights(model), before)
    for old, new in zip(before.double().tolist(), found.tolist(), strict=True):
        scores = [share * scipy.stats.norm.pdf(old, mean, deviation) for share, mean, deviation in parts(components)]
        assert new == pytest.approx(float(components.means[int(np.argmax(scores))]))


# ------------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("bias", [True, False])
def test_matrices_have_biases_as_last_column_and_go_back(bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, (2, 1), bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1))
    found = ws.matrices(model)
    assert [tuple(m.shape) for m in found.values()] == [(3, 4 + bias), (1, 7)]
    torch.testing.assert_close(found["3"][:, -1], model[3].bias)
    weights = torch.arange(float(sum(m.numel() for m in found.values())))
    copied = ws.with_weights(model, weights)
    torch.testing.assert_close(ws.flat_weights(copied), weights)
    torch.testing.assert_close(found["0"][:, :4].reshape(3, 2, 2, 1), model[0].weight)
    same = ws.with_weights(copied, ws.flat_weights(model).detach())
    x = torch.randn(1, 2, 3, 1)
    torch.testing.assert_close(same(x), model(x))


def test_a_wrong_number_of_weights_and_batch_norm_are_refused():
    with pytest.raises(ValueError, match="12 weights and biases; 11"):
        ws.with_weights(nn.Linear(3, 3), torch.zeros(11))
    with pytest.raises(ValueError, match="BatchNorm2d.*Fold"):
        ws.matrices(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))


# ---------------------------------------------------------------------------------------------------------- retraining


@pytest.fixture(scope="module")
def splits():
    return datasets.load("digits", train=400, test=200)


@pytest.fixture(scope="module")
def trained(splits):
    recipe = sharing.Recipe(pixels=64, hidden=(30, 20), training_epochs=25, zero_share=0.9)
    return recipe, sharing.train(splits, recipe, 0, torch.device("cpu"))


def run_of(model, splits, epochs=3, seed=0, tau=0.01):
    model = copy.deepcopy(model)
    prior = small_prior(ws.flat_weights(model).detach())
    how = {"tau": tau, "epochs": epochs, "batch_size": 40, "seed": seed}
    return list(ws.retrain(model, splits.train, prior, **how)), model, prior


def test_retraining_yields_the_start_and_every_epoch_and_repeats(trained, splits):
    _, model = trained
    seen, retrained, prior = run_of(model, splits)
    again, other = run_of(model, splits)[0], run_of(model, splits, seed=1)[0]
    assert [epoch.number for epoch in seen] == [0, 1, 2, 3] and math.isnan(seen[0].misfit)
    torch.testing.assert_close(seen[0].weights, ws.flat_weights(model).detach())
    torch.testing.assert_close(seen[-1].weights, ws.flat_weights(retrained).detach())
    assert torch.equal(seen[-1].weights, again[-1].weights) and not torch.equal(seen[-1].weights, other[-1].weights)
    assert seen[-1].complexity == pytest.approx(prior(ws.flat_weights(retrained)).item())
    assert not any(values.requires_grad for values in seen[-1].components)


def test_the_first_update_follows_eq_6_over_n_in_three_groups(trained, splits):
    _, model = trained
    model = copy.deepcopy(model)
    prior = small_prior(ws.flat_weights(model).detach())
    before = [p.detach().clone() for p in (*model.parameters(), *prior.parameters())]
    images, labels = next(iter(torch.utils.data.DataLoader(splits.train, len(splits.train))))
    total = nn.functional.cross_entropy(model(images), labels) + 0.5 / 400 * prior(ws.flat_weights(model))
    slopes = torch.autograd.grad(total, (*model.parameters(), *prior.parameters()))
    rates, how = (1e-3, 2e-3, 1e-2), {"tau": 0.5, "epochs": 1, "batch_size": 400}
    list(ws.retrain(model, splits.train, prior, rates=rates, **how))
    expected = [rates[0]] * len(list(model.parameters())) + [rates[1], rates[2], rates[2]]
    for old, new, slope, rate in zip(before, (*model.parameters(), *prior.parameters()), slopes, expected, strict=True):
        clear = slope.abs() > 1e-5  # the first step of Adam is the rate, against the sign
        torch.testing.assert_close((new - old)[clear], -rate * slope.sign()[clear], rtol=2e-3, atol=1e-6)


def test_weights_gather_around_the_means_and_the_network_survives(trained, splits):
    recipe, model = trained
    before = ws.flat_weights(model).detach().clone()
    retrained, prior = copy.deepcopy(model), sharing.mixture(model, recipe)
    how = {"tau": recipe.tau, "rates": recipe.rates, "batch_size": recipe.batch_size}
    seen = list(ws.retrain(retrained, splits.train, prior, epochs=150, **how))
    away = [e.weights - e.components.means[ws.assign(e.weights, e.components)] for e in (seen[0], seen[-1])]
    assert away[1].abs().mean() < away[0].abs().mean() / 5
    whole = sharing.share(model, splits, recipe, 150, seed=0)
    assert torch.equal(ws.flat_weights(model).detach(), before)
    by_hand = ws.quantise(retrained, ws.merge(seen[-1].components, recipe.threshold))
    assert torch.equal(ws.flat_weights(whole), ws.flat_weights(by_hand))
    row = sharing.row("soft weight-sharing", model, whole, splits, 0)
    assert row["values"] == len(ws.flat_weights(whole).unique()) <= 17 and 0.05 < row["non_zero"] < 0.9
    assert row["error_after"] < row["error_before"] + 0.15
    bits = nn.functional.cross_entropy(
        whole(torch.stack([x for x, _ in splits.train])), splits.train.labels, reduction="sum"
    )
    assert row["label_bits"] == pytest.approx(bits.item() / math.log(2), rel=1e-4)
    assert row["rate"] == pytest.approx(32 * len(before) / row["network_bits"])


def test_the_rival_keeps_the_largest_and_clusters_them(trained, splits):
    recipe, model = trained
    before = ws.flat_weights(model).detach().clone()
    rival = sharing.magnitude(model, splits, 0.3, 7, recipe, 50, seed=0)
    weights = ws.flat_weights(rival)
    assert torch.equal(ws.flat_weights(model).detach(), before)
    assert int((weights != 0).sum()) == round(0.3 * len(weights)) and len(weights.unique()) == 8
    cut = sharing.magnitude(model, splits, 0.3, 7, recipe, 0, seed=0)
    assert training.evaluate(rival, splits.test).loss < training.evaluate(cut, splits.test).loss - 0.2


def test_values_are_trained_together_and_zero_stays(trained, splits):
    _, model = trained
    weights = ws.flat_weights(model).detach()
    coarse = ws.with_weights(model, sharing.clustered(torch.where(weights.abs() > 0.1, weights, 0), 3, seed=0))
    before = ws.flat_weights(coarse).detach().clone()
    tuned = sharing.tune_values(coarse, splits, 1e-3, {"epochs": 10, "batch_size": 100, "seed": 0})
    after = ws.flat_weights(tuned).detach()
    assert {name for name, _ in tuned.named_parameters()} == {name for name, _ in model.named_parameters()}
    for value in before.unique():
        assert len(after[before == value].unique()) == 1
    assert (after[before == 0] == 0).all() and (after[before != 0] != before[before != 0]).all()
    loose = training.evaluate(ws.with_weights(model, before), splits.train).loss
    assert training.evaluate(tuned, splits.train).loss < loose


def test_clusters_of_clear_groups_are_their_means():
    w = torch.tensor([0.0, 1.0, 1.2, -2.0, 0.0, -2.2])
    torch.testing.assert_close(sharing.clustered(w, 2, seed=0), torch.tensor([0.0, 1.1, 1.1, -2.1, 0.0, -2.1]))


def test_tables_of_thresholds_and_gaps(trained, splits):
    _, model = trained
    components = Components(*(values.float() for values in mixture(6)))
    table = sharing.thresholds(model, components, splits, [0.0, 1e9])
    assert table.components.tolist() == [6, 1] and table.error_after[1e9] > 0.7
    quantised = ws.quantise(model, components)
    gaps = sharing.gap_sizes(quantised)
    assert gaps.index.tolist() == list(range(1, 9))
    assert len(weight_code.encode(ws.matrices(quantised)).bits) <= gaps.sum(axis=1).min()


def test_the_command_records_both_methods_of_every_seed(tmp_path, monkeypatch, capsys):
    recipe = sharing.Recipe(pixels=64, hidden=(8, 6), training_epochs=2)
    monkeypatch.setitem(sharing.RECIPES, "digits", recipe)
    sharing.main(["--epochs", "2", "--seeds", "3", "4", "--out", str(tmp_path / "table.csv")])
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.seed.tolist() == [3, 3, 4, 4] and set(table.weights) == {8 * 65 + 6 * 9 + 10 * 7}
    assert table.command[0].endswith("--data digits --epochs 2 --seeds 3 4")
    assert "magnitude and k-means" in capsys.readouterr().out


def test_the_papers_numbers():
    first = sharing.papers().iloc[0]
    assert (first.network, first.method, first.non_zero, first.rate) == (
        "LeNet-300-100",
        "soft weight-sharing",
        0.043,
        64,
    )
    assert first.lost == pytest.approx(0.05)  # 1.89 % and 1.94 %


def test_recorded_tables_hold_both_methods_of_every_seed_and_add_up():
    table = sharing.recorded()
    assert "digits" in set(table.data)
    assert set(table.groupby(["data", "seed"]).method.apply(lambda m: tuple(sorted(m)))) == {tuple(sorted(METHODS))}
    np.testing.assert_allclose(table.rate, 32 * table.weights / table.network_bits)
    assert table.error_after.between(0, 0.5).all() and table.non_zero.between(0, 1).all()
    assert all(f" {seed}" in command for seed, command in zip(table.seed, table.command, strict=True))
