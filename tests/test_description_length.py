"""Description lengths against slow and independent computations; the runs on networks against their definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import small_vgg
from scipy import integrate, optimize, stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from torch.utils.data import TensorDataset

from course_lib import cost, criteria, pruning, ranking, surgery, training
from course_lib.classroom import description_length as networks
from course_lib.classroom import session
from course_lib.feature_maps import Chain
from course_lib.theory import codes
from course_lib.theory import description_length as theory

# ---------------------------------------------------------------------------------------------------------------- coin


def test_coin_bits_are_minus_log_of_the_product():
    labels = [1, 0, 0, 1, 1, 0, 0]
    p = math.prod(0.3 if label else 0.7 for label in labels)
    assert theory.coin_bits(7, 3, 0.3) == pytest.approx(-math.log2(p))


@pytest.mark.parametrize(("n", "cells"), [(10, 1), (10, 3), (100, 7), (64, 64)])
def test_two_parts_take_the_cell_that_holds_the_share(n, cells):
    for k in range(n + 1):
        centre = next(c for c in range(cells) if k / n < (c + 1) / cells or c == cells - 1)
        told, labels = theory.coin_two_part(n, k, cells)
        assert told == math.log2(cells)
        assert labels == pytest.approx(theory.coin_bits(n, k, (centre + 0.5) / cells))
    np.testing.assert_array_equal(
        theory.coin_two_part(n, np.arange(n + 1), cells)[1],
        [theory.coin_two_part(n, k, cells)[1] for k in range(n + 1)],
    )


@pytest.mark.parametrize("n", [1, 4, 9])
def test_two_part_codes_of_a_coin_satisfy_kraft(n):
    ones = [bin(message).count("1") for message in range(2**n)]
    for cells in (1, 2, 5):
        assert codes.kraft_sum([sum(theory.coin_two_part(n, k, cells)) for k in ones]) <= 1


# ----------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("n", "information"), [(50, 4.0), (10_000, 0.3)])
def test_the_best_step_is_the_minimum(n, information):
    found = optimize.minimize_scalar(
        lambda log: theory.precision_bits(np.exp(log), n, information), bounds=(-12, 2), method="bounded"
    )
    assert theory.best_step(n, information) == pytest.approx(np.exp(found.x), rel=1e-3)
    price = theory.precision_bits(theory.best_step(n, information), n, information)
    assert price == pytest.approx(np.log2(n) / 2 + np.log2(np.e * information / 12) / 2)


def test_the_law_of_precision_is_what_two_part_codes_lose():
    n, share, cells = 20_000, 0.3, 60
    near = np.arange(5000, 7001)
    lost = np.mean(theory.coin_two_part(n, near, cells)[1] - theory.coin_bits(n, near, near / n))
    law = theory.precision_bits(1 / cells, n, 1 / (share * (1 - share))) - np.log2(cells)
    assert lost == pytest.approx(law, rel=0.05)


def test_rounded_arrays_are_near_and_cost_what_their_parts_cost():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 3, (5, 4)), rng.normal(0, 0.01, 7), np.zeros(3), rng.normal(0, 1, (1, 1, 1, 1))]
    for precision in (-2, 0, 4):
        told = theory.rounded(arrays, precision)
        bits = int(codes.integer_bits(precision))
        for array, decoded in zip(arrays, told.arrays, strict=True):
            size = np.sqrt((array**2).mean())
            exponent = round(math.log2(size)) if size else 0
            step = 2.0**exponent / 2**precision
            assert np.abs(array - decoded).max() <= step / 2
            assert decoded.shape == array.shape and np.all(decoded / step == np.round(decoded / step))
            bits += int(codes.integer_bits(exponent)) + codes.array_bits((decoded / step).astype(int))
        assert told.bits == pytest.approx(bits)
    assert theory.rounded(arrays, 4).bits > theory.rounded(arrays, 1).bits


# --------------------------------------------------------------------------------------------------------- polynomials


def test_the_design_is_orthonormal_on_the_interval():
    x, w = np.polynomial.legendre.leggauss(20)
    basis = theory.design(x, 6)
    np.testing.assert_allclose(basis.T @ (basis * w[:, None]) / 2, np.eye(7), atol=1e-12)


def test_polynomial_code_by_hand():
    x, resolution = np.linspace(-1, 1, 9), 2.0**-3
    y = np.round((x**2 - x + np.random.default_rng(0).normal(0, 0.2, 9)) / resolution) * resolution
    told = theory.polynomial_code(x, y, 2, 3, resolution)
    assert np.all(told.coefficients * 8 == np.round(told.coefficients * 8)) and len(told.coefficients) == 3
    integers = [2, 3, told.noise, *(told.coefficients * 8).astype(int)]
    assert told.parameter_bits == sum(int(codes.integer_bits(i)) for i in integers)
    sd, mean = 2 ** (told.noise / 4), theory.design(x, 2) @ told.coefficients
    p = [
        integrate.quad(stats.norm(m, sd).pdf, v - resolution / 2, v + resolution / 2)[0]
        for m, v in zip(mean, y, strict=True)
    ]
    assert told.data_bits == pytest.approx(-np.log2(p).sum())
    assert told.bits == told.parameter_bits + told.data_bits


def test_the_noise_is_the_one_that_makes_the_message_shortest(monkeypatch):
    x, resolution = np.linspace(-1, 1, 30), 2.0**-4
    y = np.round(np.random.default_rng(1).normal(0, 0.5, 30) / resolution) * resolution
    best = theory.polynomial_code(x, y, 1, 2, resolution)
    for noise in theory.NOISES:
        monkeypatch.setattr(theory, "NOISES", np.array([noise]))
        assert theory.polynomial_code(x, y, 1, 2, resolution).bits >= best.bits


def test_every_measurement_has_a_word():
    cells = np.arange(-400, 401) * 2.0**-3  # one x, one y: the words of all y, under one model
    lengths = [theory.polynomial_code([0.0], [y], 0, 0, 2.0**-3).data_bits for y in cells]
    assert np.isfinite(lengths).all()


# ----------------------------------------------------------------------------------------------------------- bits-back


def test_kl_equals_its_integral_and_torchs():
    mean, sd, prior = np.array([0.7, -0.1, 0.0]), np.array([0.2, 0.5, 0.9]), 0.9
    by_integral = 0.0
    for m, s in zip(mean, sd, strict=True):
        q, p = stats.norm(m, s), stats.norm(0, prior)
        by_integral += integrate.quad(lambda w, q=q, p=p: q.pdf(w) * (q.logpdf(w) - p.logpdf(w)), m - 9 * s, m + 9 * s)[
            0
        ]
    found = theory.gaussian_kl_bits(mean, sd, prior)
    assert found == pytest.approx(by_integral / math.log(2))
    q = torch.distributions.Normal(torch.tensor(mean), torch.tensor(sd))
    p = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), prior)
    assert found == pytest.approx(float(torch.distributions.kl_divergence(q, p).sum()) / math.log(2))
    assert theory.gaussian_kl_bits(0.0, prior, prior) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("step", [0.1, 0.001])
def test_bits_back_leaves_the_divergence_whatever_the_step(step):
    paid, back = theory.bits_back(0.8, 0.3, 1.0, step)
    assert paid - back == pytest.approx(theory.gaussian_kl_bits(0.8, 0.3, 1.0), abs=1e-6)
    assert back == pytest.approx(np.log2(0.3 * np.sqrt(2 * np.pi * np.e) / step), abs=1e-6)


def test_the_formula_of_bits_back_is_what_the_grid_comes_to():
    grid = theory.bits_back(-0.5, 0.2, 0.7, 0.01)
    assert theory.bits_back_formula(-0.5, 0.2, 0.7, 0.01) == pytest.approx(grid, abs=1e-9)


def test_the_best_prior_makes_the_divergence_least():
    mean, sd = np.array([0.5, -2, 0.1]), np.array([0.1, 0.3, 0.2])
    best = theory.best_prior_sd(mean, sd)
    least = theory.gaussian_kl_bits(mean, sd, best)
    assert all(theory.gaussian_kl_bits(mean, sd, best * factor) > least for factor in (0.9, 1.1))


def test_noisy_weights_without_noise_predict_as_they_are():
    rng = np.random.default_rng(0)
    w, b, x, labels = rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(8, 4)), rng.integers(3, size=8)
    told, given = theory.noisy_bits(w, b, x, labels, sd=1e-9, draws=2)
    assert given == pytest.approx(theory.linear_label_bits(w, b, x, labels), rel=1e-6)
    assert told > theory.noisy_bits(w, b, x, labels, sd=0.1)[0]
    exponent = round(4 * math.log2(theory.best_prior_sd(np.append(w, b), 0.1)))
    expected = theory.gaussian_kl_bits(np.append(w, b), np.full(15, 0.1), 2 ** (exponent / 4))
    assert theory.noisy_bits(w, b, x, labels, sd=0.1)[0] == pytest.approx(expected + int(codes.integer_bits(exponent)))


# ---------------------------------------------------------------------------------------------------------- prediction


def test_label_bits_of_a_linear_classifier():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 3)), rng.integers(4, size=40)
    fit = LogisticRegression().fit(x, labels)
    expected = -sum(math.log2(p[label]) for p, label in zip(fit.predict_proba(x), labels, strict=True))
    assert theory.label_bits(fit.predict_proba(x), labels) == pytest.approx(expected)
    assert theory.linear_label_bits(fit.coef_, fit.intercept_, x, labels) == pytest.approx(expected)
    assert math.isfinite(theory.linear_label_bits(1e4 * fit.coef_, fit.intercept_, x, labels))


@pytest.mark.parametrize(("n", "first", "growth"), [(1197, 10, 1.5), (7, 10, 2), (100, 1, 1.1), (10, 10, 2)])
def test_blocks_grow_and_end_at_the_last_label(n, first, growth):
    ends = theory.blocks(n, first, growth)
    assert ends[0] == min(first, n) and ends[-1] == n and ends == sorted(set(ends))


class Frequencies(ClassifierMixin, BaseEstimator):
    """Predicts each class by how often it was seen: the adaptive code as a learner."""

    def fit(self, x, labels):
        self.classes_, self.counts = np.unique(labels, return_counts=True)
        return self

    def predict_proba(self, x):
        return np.tile(self.counts / self.counts.sum(), (len(x), 1))


def test_prediction_by_hand_one_label_at_a_time():
    labels = np.array([2, 2, 0, 2, 1, 0, 2])
    expected = []
    for t, label in enumerate(labels):
        seen = labels[:t].tolist()
        frequency = seen.count(label) / t if len(set(seen)) > 1 else None
        expected.append(1 / 3 if frequency is None else 1 / (t + 1) / 3 + t / (t + 1) * frequency)
    found = theory.prequential_bits(Frequencies(), np.zeros((7, 1)), labels, range(1, 8), 3)
    np.testing.assert_allclose(found, -np.log2(expected))


def test_prequential_codes_satisfy_kraft():
    messages = np.array(np.meshgrid(*[range(3)] * 6)).reshape(6, -1).T
    lengths = [theory.prequential_bits(Frequencies(), np.zeros((6, 1)), m, [2, 3, 6], 3).sum() for m in messages]
    assert codes.kraft_sum(lengths) == pytest.approx(1)


def test_the_future_is_not_seen():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 2)), rng.integers(3, size=60)
    ends = [20, 40, 60]
    before = theory.prequential_bits(LogisticRegression(), x, labels, ends, 3)
    changed = labels.copy()
    changed[40:] = (changed[40:] + 1) % 3
    after = theory.prequential_bits(LogisticRegression(), x, changed, ends, 3)
    np.testing.assert_array_equal(before[:2], after[:2])
    assert before[2] != after[2]


def test_labels_compress_if_and_only_if_there_is_something_to_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    x = np.eye(4)[labels] + rng.normal(0, 0.3, (400, 4))
    ends, uniform = theory.blocks(400), 400 * 2
    assert theory.prequential_bits(LogisticRegression(), x, labels, ends, 4).sum() < uniform / 3
    assert theory.prequential_bits(LogisticRegression(), x, rng.permutation(labels), ends, 4).sum() > uniform


def test_weights_are_told_in_the_cheapest_way_of_those_tried():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    labels = (x @ rng.normal(size=(3, 4)) + rng.gumbel(size=(60, 4))).argmax(1)
    told = networks.told_weights(x, labels, strengths=(0.1, 1.0), precisions=(0, 3), noises=(0.1, 1.0))
    fits = [LogisticRegression(C=strength, max_iter=200).fit(x, labels) for strength in (0.1, 1.0)]
    plain = told.loc["two parts, float32"]
    assert plain.model_bits == 32 * (4 * 3 + 4)
    assert plain.label_bits == pytest.approx(theory.label_bits(fits[1].predict_proba(x), labels))
    rounded = [theory.rounded((fit.coef_, fit.intercept_), precision) for fit in fits for precision in (0, 3)]
    lengths = [code.bits + theory.linear_label_bits(*code.arrays, x, labels) for code in rounded]
    assert told.loc["two parts, best precision"].sum() == pytest.approx(min(lengths))
    noisy = [sum(theory.noisy_bits(fit.coef_, fit.intercept_, x, labels, sd)) for fit in fits for sd in (0.1, 1.0)]
    assert told.loc["noisy weights, bits back"].sum() == pytest.approx(min(noisy))


# ------------------------------------------------------------------------------------------------------------ networks


def splits(n=60, classes=4):
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for name, size in (("train", n), ("test", 30)):
        images = torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64)
        parts[name] = TensorDataset(images, torch.arange(size) % classes)
    return SimpleNamespace(name="noise", classes=list("abcd"), val=parts["test"], **parts)


def test_a_told_network_is_the_network_rounded():
    model = small_vgg(batch_norm=True)
    told, bits = networks.told_network(model, 12)
    close, few = networks.told_network(model, 1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            size = float(value.square().mean().sqrt())
            assert float((told.state_dict()[name] - value).abs().max()) <= size * 2**-12
            assert not torch.equal(close.state_dict()[name], value) or not value.abs().max()
    state = [v.numpy() for v in model.state_dict().values() if v.is_floating_point()]
    widths = [layer.channels for layer in Chain(model).layers.values()]
    expected = theory.rounded(state, 12).bits + sum(int(codes.integer_bits(w)) for w in widths)
    assert bits == pytest.approx(expected) and few < bits


def test_label_bits_are_the_sum_over_the_data():
    model, data = small_vgg(), splits().train
    with torch.no_grad():
        p = model(data.tensors[0]).softmax(1)[range(60), data.tensors[1]]
    assert networks.label_bits(model, data) == pytest.approx(float(-p.log2().sum()))


def test_a_fine_tuned_run_tells_each_size_at_each_precision():
    model, data = small_vgg(), splits()
    how = {"updates": 2, "images": 20, "optimizer": "adam", "lr": 1e-3, "seed": 0, "maps_per_step": 1}
    table = networks.fine_tuned_run(model, data, (1, 0.5, 0.01), (0, 3), **how)
    layers, whole = len(Chain(model).layers), cost.feature_maps(model)
    assert table.maps.tolist() == [whole] * 2 + [round(whole / 2)] * 2 + [layers] * 2
    assert table.precision.tolist() == [0, 3] * 3
    np.testing.assert_allclose(table.bits, table.model_bits + table.label_bits)
    told, bits = networks.told_network(model, 3)
    assert table.model_bits[1] == bits and table.label_bits[1] == networks.label_bits(told, data.train)
    assert table.test_error[0] == pytest.approx(1 - training.evaluate(model, data.test).accuracy)
    half = list(
        pruning.prune(
            model,
            data,
            "taylor",
            maps_left=round(whole / 2),
            progress=False,
            **how | {"maps_per_step": -(-(whole - round(whole / 2)) // 2)},
        )
    )[-1]
    assert table.parameters[2] == half.params and table.test_error[2] == pytest.approx(1 - half.accuracy)
    least = networks.cheapest(table)
    assert least.share.tolist() == [1, 0.5, 0.01]
    assert least.bits.tolist() == [table.bits[i : i + 2].min() for i in (0, 2, 4)]


def test_what_a_mask_costs():
    whole, left = {"a": 6, "b": 4}, {"a": 2, "b": 4}
    assert networks.mask_bits(whole, left, "activation_std") == pytest.approx(math.log2(11))
    told = math.log2(7 * math.comb(6, 2)) + math.log2(5)
    for criterion in ("taylor", "obd", "mutual_information"):
        assert networks.mask_bits(whole, left, criterion) == pytest.approx(told)


@pytest.mark.parametrize("criterion", networks.PUBLIC)
def test_public_criteria_do_not_look_at_the_labels(criterion):
    images = splits().train.tensors[0]
    found = [
        criteria.score(small_vgg(), [(images, labels)], criterion, seed=1, progress=False)[criterion]
        for labels in (torch.zeros(60, dtype=torch.long), torch.arange(60) % 3)
    ]
    for name, scores in found[0].items():
        assert torch.equal(scores, found[1][name])


def test_a_frozen_run_keeps_the_layers_and_prunes_by_the_criterion():
    model, data = small_vgg(), splits()
    first, second = networks.frozen_run(model, data, "activation_std", (1, 0.6), images=60, seed=0)
    maps = cost.feature_maps(model)
    assert (first.maps, second.maps) == (maps, round(0.6 * maps))
    seen = training.head_inputs(model, data.train).tensors[0].numpy()
    np.testing.assert_allclose(first.features, seen / np.sqrt((seen**2).mean()), rtol=1e-6)
    batches = [(data.train.tensors[0], data.train.tensors[1])]
    scores = criteria.score(model, batches, "activation_std", progress=False)["activation_std"]
    plan = ranking.lowest(ranking.normalize(scores, "l2"), maps - second.maps, keep_at_least=1)
    small = surgery.remove(model, plan)
    expected = training.head_inputs(small, data.train).tensors[0].numpy()
    np.testing.assert_allclose(second.features, expected / np.sqrt((expected**2).mean()), rtol=1e-6)
    fit = theory.fitted(networks.learner(), second.features, second.labels)
    np.testing.assert_allclose(second.layers[1][0], fit.coef_)
    test = training.head_inputs(small, data.test)
    unit = np.sqrt((expected**2).mean())
    assert second.test_error == pytest.approx(1 - fit.score(test.tensors[0].numpy() / unit, test.tensors[1].numpy()))


def test_frozen_codes_add_up():
    run = networks.frozen_run(small_vgg(), splits(), "taylor", (1, 0.5), images=30, seed=0)
    table = networks.frozen_codes(run, (0, 2))
    np.testing.assert_allclose(table.bits, table.mask_bits + table.model_bits + table.label_bits)
    predicted = table[table.code == "prediction"]
    assert (predicted.model_bits == 0).all() and len(predicted) == 2
    frozen = run[1]
    ends = theory.blocks(60, growth=2.0)
    by_hand = theory.prequential_bits(networks.learner(), frozen.features, frozen.labels, ends, 4).sum()
    assert predicted.label_bits.iloc[1] == pytest.approx(by_hand)
    told = table[(table.share == 0.5) & (table.precision == 2)].iloc[0]
    possible = []
    for layer in frozen.layers:
        code = theory.rounded(layer, 2)
        possible.append(code.bits + theory.linear_label_bits(*code.arrays, frozen.features, frozen.labels))
    assert told.bits == pytest.approx(min(possible) + frozen.mask_bits)
    assert len(networks.cheapest(table)) == 4


def test_a_class_without_examples_has_no_weights_and_the_lowest_bias():
    run = networks.frozen_run(small_vgg(), splits(classes=3), "random", (1,), images=30, seed=0)
    for weights, bias in run[0].layers:
        assert weights.shape[0] == len(bias) == 4
        assert not weights[3].any() and bias[3] == bias[:3].min() and weights[:3].any()
    networks.frozen_codes(run, (0,))


def test_the_pretrained_network_has_not_seen_the_flowers():
    lab = session.start("ci", device="cpu")
    with_head = lab.pretrained(SimpleNamespace(classes=["a", "b"]))
    assert training.head(with_head).out_features == 2
    world = session.models.trained("vgg16-world")
    assert torch.equal(next(with_head.parameters()), next(world.parameters()))
    assert not torch.equal(next(with_head.parameters()), next(session.models.trained("vgg16-petals").parameters()))
