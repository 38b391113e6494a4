"""The small network: derivatives against finite differences, its evidence against sampling, its symmetries."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from course_lib.theory import small_network

SHAPES = [(2, 3, 2), (1, 1, 1), (3, 2, 1), (1, 4, 3)]  # inputs, hidden, outputs


def setting(inputs, hidden, outputs, n=5):
    random = np.random.default_rng(0)
    w = random.standard_normal(hidden * (inputs + 1) + outputs * (hidden + 1))
    return w, random.standard_normal((n, inputs)), random.standard_normal((n, outputs))


def misfit(w, x, targets, hidden):
    return np.sum((small_network.predict(w, x, hidden) - targets) ** 2) / 2


def by_loops(w, x, hidden, outputs):
    """The network's outputs, one number at a time."""
    inputs = x.shape[1]
    first, second = w[: hidden * (inputs + 1)], w[hidden * (inputs + 1) :]
    found = np.zeros((len(x), outputs))
    for n, o in itertools.product(range(len(x)), range(outputs)):
        found[n, o] = second[o * (hidden + 1) + hidden]
        for j in range(hidden):
            start = j * (inputs + 1)
            unit = sum(first[start + i] * x[n, i] for i in range(inputs)) + first[start + inputs]
            found[n, o] += second[o * (hidden + 1) + j] * math.tanh(unit)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_their_derivatives(shape):
    w, x, _ = setting(*shape)
    np.testing.assert_allclose(small_network.predict(w, x, shape[1]), by_loops(w, x, shape[1], shape[2]))
    found = small_network.jacobian(w, x, shape[1])
    for i, step in enumerate(1e-6 * np.eye(len(w))):
        up, down = (small_network.predict(w + s, x, shape[1]) for s in (step, -step))
        np.testing.assert_allclose(found[:, :, i], (up - down) / 2e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hessian_is_exact(shape):
    w, x, targets = setting(*shape)
    found = small_network.misfit_hessian(w, x, targets, shape[1])
    d = 1e-4 * np.eye(len(w))

    def at(step):
        return misfit(w + step, x, targets, shape[1])

    for i, j in itertools.product(range(len(w)), repeat=2):
        second = at(d[i] + d[j]) - at(d[i] - d[j]) - at(d[j] - d[i]) + at(-d[i] - d[j])
        assert found[i, j] == pytest.approx(second / 4e-8, abs=1e-5)


def test_copies_are_networks_that_cannot_be_told_apart():
    w, x, _ = setting(2, 3, 2)
    first, second = w[:9].reshape(3, 3), w[9:].reshape(2, 4)
    seen = set()
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        signs, order = np.array(signs), list(order)
        outgoing = np.column_stack([second[:, order] * signs, second[:, 3]])
        copy = np.concatenate([(first[order] * signs[:, None]).ravel(), outgoing.ravel()])
        np.testing.assert_allclose(small_network.predict(copy, x, 3), small_network.predict(w, x, 3))
        seen.add(tuple(copy.round(9)))
    assert small_network.log_copies(3) == pytest.approx(math.log(len(seen)))


def test_groups_are_inputs_biases_outputs():
    assert small_network.groups(2, 3, 1).tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 2, 2, 2]


@pytest.fixture(scope="module")
def trained():
    x, targets = small_network.robot_arm(60, noise=0.1)
    return small_network.train(x, targets, 3, rounds=6), x, targets


def test_training_ends_at_a_minimum_where_the_fixed_point_nearly_rests(trained):
    network, x, targets = trained
    residual = small_network.predict(network.w, x, 3) - targets
    slope = np.einsum("nok,no->k", small_network.jacobian(network.w, x, 3), residual)
    assert np.abs(network.beta * slope + network.alpha * network.w).max() < 1e-4
    assert np.linalg.eigvalsh(network.precision)[0] > 0
    assert len(set(network.alpha.tolist())) == 3
    one = small_network.train(x, targets, 2, separate=False, rounds=3)
    assert len(set(one.alpha.tolist())) == 1


def test_removing_a_weight_is_measured_and_obd_predicts_small_ones(trained):
    network, x, targets = trained
    found = small_network.removals(network, x, targets)

    def M(w):
        return network.beta * misfit(w, x, targets, 3) + np.sum(network.alpha * w**2) / 2

    for i in range(len(network.w)):
        without = network.w.copy()
        without[i] = 0
        assert found[i] == pytest.approx(M(without) - M(network.w))
    step = 1e-4 * np.eye(len(network.w))[0]
    assert M(network.w + step) - M(network.w) == pytest.approx(network.precision[0, 0] * 1e-8 / 2, rel=0.01)


def test_the_evidence_of_one_hidden_unit_agrees_with_importance_sampling():
    random = np.random.default_rng(1)
    x = random.uniform(-2, 2, (40, 1))
    targets = np.tanh(1.5 * x - 0.5) + 0.1 * random.standard_normal((40, 1))
    network = small_network.train(x, targets, 1, rounds=8)
    proposal = stats.multivariate_t(network.w, 1.3 * np.linalg.inv(network.precision), df=5, seed=2)
    draws = proposal.rvs(20_000)
    joint = [
        stats.norm.logpdf(targets, small_network.predict(w, x, 1), network.beta**-0.5).sum()
        + stats.norm.logpdf(w, 0, network.alpha**-0.5).sum()
        for w in draws
    ]
    ratio = np.array(joint) - proposal.logpdf(draws)
    sampled = np.log(np.mean(np.exp(ratio - ratio.max()))) + ratio.max() + np.log(2)  # the other sign is as large
    assert network.evidence.total == pytest.approx(sampled, abs=0.2)


def test_the_arm_has_links_of_two_and_one_point_three():
    angles, hand = small_network.robot_arm(50, noise=0.0, seed=3)
    elbow = 2.0 * np.stack([np.cos(angles[:, 0]), np.sin(angles[:, 0])], 1)
    np.testing.assert_allclose(np.linalg.norm(hand - elbow, axis=1), 1.3)
    noisy = small_network.robot_arm(5000, noise=0.2, seed=3)[1] - small_network.robot_arm(5000, noise=0.0, seed=3)[1]
    assert noisy.std() == pytest.approx(0.2, rel=0.05)
