"""Bounds: identities, limits, and simulations in which they must hold."""

import math

import numpy as np
import pytest
from scipy.special import xlogy

from course_lib.theory import risk_bounds as rb


def test_the_gap_by_growth_is_its_formula():
    assert rb.growth_gap(0.0, 50, 0.05) == pytest.approx(math.sqrt(math.log(20) / 100))
    assert rb.growth_gap(8.0, 100, 1.0) == pytest.approx(0.4)
    assert rb.vc_gap(3, 100, 0.1) == pytest.approx(
        math.sqrt(2 * 3 * math.log(math.e * 100 / 3) / 100) + math.sqrt(math.log(10) / 200)
    )


def test_beyond_as_many_dimensions_as_examples_every_labelling_is_possible():
    assert rb.log_sauer(100, 100) == rb.log_sauer(100, 10**9) == pytest.approx(100 * math.log(2))
    assert rb.vc_gap(10**6, 1000) == rb.vc_gap(10**9, 1000) > 1
    assert rb.log_sauer(1000, 3) == pytest.approx(3 * math.log(math.e * 1000 / 3))


def test_vapniks_form_as_in_burges():
    d, n, delta = 200, 10_000, 0.05
    assert rb.vapnik_gap(d, n, delta) == pytest.approx(
        math.sqrt((d * (math.log(2 * n / d) + 1) - math.log(delta / 4)) / n)
    )


@pytest.mark.parametrize(("gap", "n"), [(0.1, 10**6), (0.5, 5000), (1.0, 1_281_167)])
def test_the_largest_dimension_just_reaches_the_gap(gap, n):
    d = rb.largest_dimension(gap, n)
    assert rb.vc_gap(d, n) == pytest.approx(gap)
    assert rb.vc_gap(1.01 * d, n) > gap


def test_the_largest_dimension_when_nothing_or_everything_is_allowed():
    assert rb.largest_dimension(0.01, 10) == 0
    assert rb.largest_dimension(5.0, 10) == 10


def test_dimension_of_a_network_is_of_the_order_of_weights_times_layers():
    lower, upper = rb.network_dimension(138_357_544, 16)
    assert upper == pytest.approx(138_357_544 * 16 * math.log2(138_357_544))
    assert upper - lower == pytest.approx(138_357_544 * 16 * 4)  # log2 of 16 layers
    assert 5e10 < lower < upper < 7e10  # FACTS: about 6e10


@pytest.mark.parametrize(("dimension", "layers"), [(900, 14), (240_000, 16), (50, 1)])
def test_the_largest_network_has_that_dimension(dimension, layers):
    weights = rb.largest_network(dimension, layers)
    assert rb.network_dimension(weights, layers)[1] == pytest.approx(dimension)


def test_structural_risk_shares_the_risk_of_failure():
    errors, growths = np.array([0.5, 0.3, 0.1]), np.array([1.0, 5.0, 30.0])
    bounds = rb.structural_risk(errors, growths, 400, 0.05)
    for k, bound in enumerate(bounds):
        assert bound == pytest.approx(errors[k] + rb.growth_gap(growths[k], 400, 0.05 / ((k + 1) * (k + 2))))
    assert sum(1 / ((k + 1) * (k + 2)) for k in range(10_000)) <= 1


def test_the_gap_holds_for_thresholds_in_simulation():
    rng, n = np.random.default_rng(0), 50
    x = np.sort(rng.random((2000, n)))
    gaps = (x - np.arange(n) / n).max(1)  # the true label is +1 everywhere: the error of threshold t is t
    assert (gaps > rb.growth_gap(math.log(n + 1), n, 0.05)).mean() <= 0.05
    assert gaps.mean() > 0.3 * rb.growth_gap(math.log(n + 1), n, 1.0) - 0.1  # of the same size, not just below


def test_occam_bound_is_hoeffding_with_a_share_of_delta():
    assert rb.occam_bound(0.1, 0, 100, 0.05) == pytest.approx(0.1 + math.sqrt(math.log(20) / 200))
    share = 0.05 * 2.0**-30
    assert rb.occam_bound(0.0, 30, 100, 0.05) == pytest.approx(math.sqrt(math.log(1 / share) / 200))
    assert rb.occam_bound(0, 2 * 1000 / math.log(2), 1000, 1.0) == pytest.approx(1)  # three bits an example


def test_the_chernoff_form_solves_its_equation_and_is_never_above():
    for error, bits, n in ((0.0, 100, 1000), (0.05, 700, 1197), (0.4, 20, 300)):
        q = rb.occam_bound_kl(error, bits, n)
        divergence = xlogy(error, error / q) + xlogy(1 - error, (1 - error) / (1 - q))
        assert n * divergence == pytest.approx(bits * math.log(2) + math.log(20), rel=1e-6)
        assert error < q <= rb.occam_bound(error, bits, n)
    assert rb.occam_bound_kl(0.5, 1e9, 10) == 1


def test_code_lengths_of_sparse_weights_satisfy_kraft():
    total, bits = 6, 2
    lengths = [rb.sparse_code_bits(k, total, bits) for k in range(total + 1)]
    networks = [math.comb(total, k) * 2 ** (bits * k) for k in range(total + 1)]
    assert sum(count * 2.0**-length for count, length in zip(networks, lengths, strict=True)) == pytest.approx(1)
    assert rb.sparse_code_bits(640, 640, 1) == pytest.approx(640 + math.log2(641))
