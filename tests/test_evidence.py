"""The evidence: against numerical integration, finite differences, scikit-learn, and models fitted without a weight."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from sklearn.linear_model import ARDRegression, BayesianRidge

from course_lib.theory import evidence

SHAPES = [(7, 3), (4, 6), (1, 2), (5, 1), (1, 1)]
NO_HYPER_PRIORS = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0, "fit_intercept": False}


def data(shape, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal(shape), random.standard_normal(shape[0])


def by_integration(design, targets, alpha, beta):
    """log of the likelihood averaged over the prior, by quadrature; one or two weights."""
    alpha = np.broadcast_to(alpha, design.shape[1])

    def joint(*w):
        w = np.array(w)
        likelihood = stats.norm.pdf(targets, design @ w, beta**-0.5).prod()
        return likelihood * stats.norm.pdf(w, 0, alpha**-0.5).prod()

    return np.log(integrate.nquad(joint, [(-12, 12)] * design.shape[1], opts={"limit": 200, "epsabs": 1e-13})[0])


@pytest.mark.parametrize("shape", [(5, 1), (1, 1), (1, 2), (3, 2)])
def test_evidence_is_the_average_likelihood(shape):
    design, targets = data(shape)
    assert evidence.log_evidence(design, targets, 0.7, 2.0).total == pytest.approx(
        by_integration(design, targets, 0.7, 2.0), abs=1e-7
    )


def test_every_weight_may_have_its_own_alpha():
    design, targets = data((3, 2))
    alpha = np.array([0.5, 3.0])
    found = evidence.log_evidence(design, targets, alpha, 2.0).total
    assert found == pytest.approx(by_integration(design, targets, alpha, 2.0), abs=1e-7)
    assert found == pytest.approx(evidence.log_marginal(design, targets, alpha, 2.0), abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_and_without_weights_it_is_the_same_number(shape):
    design, targets = data(shape)
    found = evidence.log_evidence(design, targets, 0.3, 5.0)
    assert found.total == pytest.approx(evidence.log_marginal(design, targets, 0.3, 5.0), abs=1e-10)
    noise = targets - design @ evidence.posterior(design, targets, 0.3, 5.0).mean
    assert found.best_fit == pytest.approx(stats.norm.logpdf(noise, 0, 5.0**-0.5).sum())
    assert found.occam < 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_posterior_is_the_minimum_of_the_objective_and_its_curvature(shape):
    design, targets = data(shape)
    mean, precision = evidence.posterior(design, targets, 0.3, 5.0)
    lowest = optimize.minimize(evidence.objective, 0 * mean, (design, targets, 0.3, 5.0), tol=1e-10)
    np.testing.assert_allclose(mean, lowest.x, atol=1e-5)
    step = np.random.default_rng(1).standard_normal(len(mean))
    rise = evidence.objective(mean + step, design, targets, 0.3, 5.0) - evidence.objective(
        mean, design, targets, 0.3, 5.0
    )
    assert rise == pytest.approx(step @ precision @ step / 2)
    np.testing.assert_allclose(evidence.Gaussian(mean, precision).covariance @ precision, np.eye(len(mean)), atol=1e-9)


def test_the_objective_is_minus_the_log_probability_up_to_a_constant():
    design, targets = data((7, 3))

    def apart(w):
        joint = evidence.log_likelihood(w, design, targets, 5.0) + evidence.log_prior(w, 0.3)
        return joint + evidence.objective(w, design, targets, 0.3, 5.0)

    assert apart(np.zeros(3)) == pytest.approx(apart(np.array([1.0, -2.0, 0.5])))


def test_a_saddle_has_no_evidence():
    for signs in ([1, -1], [-1, -1], [1, 0]):
        with pytest.raises(ValueError, match="Train to convergence"):
            evidence.laplace(0.0, 0.0, np.diag(signs).astype(float))


def test_legendre_polynomials_have_mean_square_one():
    x, weights = np.polynomial.legendre.leggauss(20)
    design = evidence.legendre(x, 5)
    np.testing.assert_allclose(design.T @ (design * weights[:, None]) / 2, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_effective_parameters_are_the_trace_of_the_hat_matrix(shape):
    design, _ = data(shape)
    hat = 5.0 * design @ np.linalg.inv(5.0 * design.T @ design + 0.3 * np.eye(shape[1])) @ design.T
    assert evidence.effective_parameters(design, 0.3, 5.0) == pytest.approx(np.trace(hat))


def test_at_the_fixed_point_the_evidence_is_stationary():
    x, targets = evidence.example(31, seed=3)
    design = evidence.legendre(x, 6)
    fit = evidence.fixed_point(design, targets)
    alpha, beta = fit.alpha[0], fit.beta

    def total(log_alpha, log_beta):
        return evidence.log_marginal(design, targets, np.exp(log_alpha), np.exp(log_beta))

    for step in ((1e-3, 0), (0, 1e-3)):
        up = total(np.log(alpha) + step[0], np.log(beta) + step[1])
        down = total(np.log(alpha) - step[0], np.log(beta) - step[1])
        assert (up - down) / 2e-3 == pytest.approx(0, abs=1e-5)
    misfit = np.sum((targets - design @ fit.weights.mean) ** 2)
    assert alpha * np.sum(fit.weights.mean**2) == pytest.approx(fit.gamma.item())
    assert beta * misfit == pytest.approx(31 - fit.gamma.item())
    assert fit.gamma.item() == pytest.approx(evidence.effective_parameters(design, alpha, beta))


@pytest.mark.parametrize(("seed", "degree"), [(0, 8), (1, 3), (2, 12), (4, 5)])
def test_the_fixed_point_is_scikit_learns(seed, degree):
    x, targets = evidence.example(30, seed=seed)
    design = evidence.legendre(x, degree)
    fit = evidence.fixed_point(design, targets)
    ridge = BayesianRidge(tol=1e-10, max_iter=5000, compute_score=True, **NO_HYPER_PRIORS).fit(design, targets)
    np.testing.assert_allclose([fit.alpha[0], fit.beta], [ridge.lambda_, ridge.alpha_], rtol=1e-3)
    np.testing.assert_allclose(fit.weights.mean, ridge.coef_, rtol=1e-3, atol=1e-6)
    total = evidence.log_evidence(design, targets, fit.alpha, fit.beta).total
    assert total == pytest.approx(ridge.scores_[-1], abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relevance_determination_is_scikit_learns(seed):
    x, targets = evidence.example(30, seed=seed)
    design = evidence.legendre(x, 8)
    fit = evidence.fixed_point(design, targets, np.arange(9))
    ard = ARDRegression(tol=1e-10, max_iter=5000, threshold_lambda=evidence.GONE, **NO_HYPER_PRIORS)
    ard.fit(design, targets)
    np.testing.assert_allclose(fit.weights.mean, ard.coef_, rtol=1e-3, atol=1e-5)
    assert fit.beta == pytest.approx(ard.alpha_, rel=1e-3)
    kept = fit.alpha < evidence.GONE
    assert 0 < kept.sum() < 9
    np.testing.assert_allclose(fit.alpha[kept], ard.lambda_[kept], rtol=1e-3)


def test_a_group_shares_its_alpha_and_goes_as_a_whole():
    design, targets, inputs = evidence.some_relevant(200, irrelevant=4, noise=0.3, seed=1)
    fit = evidence.fixed_point(design, targets, inputs)
    for group in range(7):
        assert len(set(fit.alpha[inputs == group])) == 1
    kept = set(inputs[fit.alpha < evidence.GONE])
    assert {0, 1, 2} <= kept and len(kept) < 7
    assert len(fit.gamma) == 7


def test_a_weight_is_pruned_when_it_is_within_a_standard_error_of_zero():
    # One weight, beta known: data with precision s and estimate q / s.
    for z in (0.9, 1.1):
        design, targets = np.array([[2.0]]), np.array([z])  # s = 4, q = 2 z, so q^2 / s = z^2
        alpha = np.ones(1)
        for _ in range(2000):
            alpha, _, _ = evidence.re_estimate(design, targets, alpha, 1.0, np.zeros(1, int))
        if z < 1:
            assert alpha[0] == evidence.LARGEST
        else:
            assert alpha[0] == pytest.approx(16 / (4 * z**2 - 4), rel=1e-6)


def test_a_weight_that_the_data_say_nothing_of_is_pruned_and_harms_nobody():
    x, targets = evidence.example(30)
    design = evidence.legendre(x, 4)
    idle = np.column_stack([design, np.zeros(30)])
    fit = evidence.fixed_point(idle, targets, np.arange(6))
    assert fit.alpha[5] > evidence.GONE and fit.weights.mean[5] == 0
    np.testing.assert_allclose(fit.alpha[:5], evidence.fixed_point(design, targets, np.arange(5)).alpha, rtol=1e-5)


@pytest.mark.parametrize("shape", [(7, 3), (4, 6), (5, 1)])
def test_the_gain_is_the_evidence_with_minus_without(shape):
    design, targets = data(shape)
    alpha = np.linspace(0.3, 2, shape[1])
    weights = evidence.posterior(design, targets, alpha, 2.0)
    found = evidence.gain(weights.mean, np.diag(weights.covariance), alpha)
    whole = evidence.log_marginal(design, targets, alpha, 2.0)
    for i in range(shape[1]):
        rest = np.delete(design, i, 1)
        without = evidence.log_marginal(rest, targets, np.delete(alpha, i), 2.0)
        assert found[i] == pytest.approx(whole - without, abs=1e-9)


def test_an_idle_weight_gains_nothing_and_costs_nothing():
    assert evidence.gain(np.zeros(1), np.array([0.5]), 2.0) == pytest.approx([0.0])


@pytest.mark.parametrize("coin", [(0, 1, 0.01), (1, 1, 10.0), (4, 5, 0.1), (25, 50, 1.0), (0, 0, 2.0)])
def test_the_coins_peak_and_its_curvature(coin):
    heads, tosses, alpha = coin
    peak, precision = evidence.coin_peak(*coin)
    found = optimize.minimize_scalar(lambda a: evidence.coin(a, *coin), bounds=(-20, 20), options={"xatol": 1e-10})
    assert peak == pytest.approx(found.x, abs=1e-4)
    d = 1e-4
    second = sum(evidence.coin(peak + i * d, *coin) * c for i, c in ((-1, 1), (0, -2), (1, 1))) / d**2
    assert precision == pytest.approx(second, rel=1e-4)
    p = 1 / (1 + np.exp(-0.3))
    joint = heads * np.log(p) + (tosses - heads) * np.log(1 - p) + stats.norm.logpdf(0.3, 0, alpha**-0.5)
    assert evidence.coin(0.3, *coin) == pytest.approx(-joint)


def test_examples_repeat():
    for one, two in zip(evidence.example(9, seed=2), evidence.example(9, seed=2), strict=True):
        np.testing.assert_array_equal(one, two)
    design, targets, inputs = evidence.some_relevant(9, 0)
    assert design.shape == (9, 9) and targets.shape == (9,) and inputs.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
