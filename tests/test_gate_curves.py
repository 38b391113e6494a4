"""The loss along a gate, against the definition and against finite differences."""

import pytest
import torch
from networks import batches, small_vgg
from torch.nn import functional as F

from course_lib import criteria, loss, oracle
from course_lib.classroom import gate_curves
from course_lib.feature_maps import Chain

LAYER = "3"  # the second convolution


@pytest.fixture(scope="module")
def case():
    model = small_vgg()
    ((images, labels),) = batches(3, 8, 8, n=1)
    return model, images, labels


def by_definition(model, images, labels, index, value):
    gate = torch.ones(6, dtype=torch.float64)
    gate[index] = value
    return loss.per_example(Chain(model).run(images, gates={LAYER: gate}), labels).detach()


def test_losses_are_those_with_this_gate_at_this_value(case):
    found = gate_curves.losses_along(*case, LAYER, [4, 1], [0, 0.5, 1])
    assert found.shape == (2, 3, 5)
    for i, index in enumerate((4, 1)):
        for j, value in enumerate((0, 0.5, 1)):
            torch.testing.assert_close(found[i, j], by_definition(*case, index, value))


def test_derivatives_are_those_of_the_curve(case):
    slope, bend = gate_curves.derivatives(*case, LAYER, [4, 1])
    for i, index in enumerate((4, 1)):
        low, mid, high = (by_definition(*case, index, 1 + d) for d in (-1e-4, 0, 1e-4))
        torch.testing.assert_close(slope[i], (high - low) / 2e-4, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(bend[i], (high - 2 * mid + low) / 1e-8, rtol=1e-3, atol=1e-6)


def test_curvature_from_the_logits_is_the_second_derivative(case):
    model, images, _ = case
    slopes, p = gate_curves.logit_slopes(model, images, LAYER)
    assert slopes.shape == (5, 4, 6) and p.shape == (5, 4)
    _, bend = gate_curves.derivatives(*case, LAYER, range(6))
    torch.testing.assert_close(gate_curves.curvature(slopes, p), bend.T)


def test_curvature_is_the_hessian_of_the_cross_entropy():
    torch.manual_seed(0)
    slopes, p = torch.randn(1, 5, 4, dtype=torch.float64), torch.rand(1, 5, dtype=torch.float64).softmax(1)

    def cost(gates):  # logits linear in the gates; p with all of them open
        return F.cross_entropy(p[0].log() + slopes[0] @ (gates - 1), torch.tensor(2))

    hessian = torch.autograd.functional.hessian(cost, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(gate_curves.curvature(slopes, p)[0], hessian.diagonal())


@pytest.mark.parametrize("signs", ["classes", "gates"])
def test_estimates_of_the_curvature_are_unbiased(signs):
    torch.manual_seed(0)
    slopes, p = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64).softmax(1)
    draws = torch.stack(list(gate_curves.curvature_draws(slopes, p, signs, 20_000)))
    error = draws.mean(0) - gate_curves.curvature(slopes, p)
    assert (error.abs() < 5 * draws.std(0) / 20_000**0.5 + 1e-12).all()


def test_per_example_averages_to_the_score():
    model, data = small_vgg(), batches(3, 8, 8)
    found = gate_curves.per_example(model, data, criteria.taylor)
    for name, score in criteria.score(model, data, "taylor", progress=False)["taylor"].items():
        assert found[name].shape == (10, len(score))
        torch.testing.assert_close(found[name].mean(0), score)


def test_curves_hold_what_the_oracle_measures(case):
    model, images, labels = case
    truth = oracle.ablate(model, [(images, labels)], progress=False)
    choice = gate_curves.typical_maps(truth, [LAYER])
    curve = gate_curves.curves(model, images, labels, choice)[LAYER]["critical"]
    assert curve.values[0] == 0 and curve.values[10] == 1
    change = (curve.losses[0] - curve.losses[10]).mean()
    assert change == pytest.approx(float(truth[LAYER][curve.index]))
    assert abs(change) == pytest.approx(float(truth[LAYER].abs().max()))


def test_maps_that_were_not_measured_are_not_chosen():
    nan = torch.nan
    found = gate_curves.typical_maps({"a": torch.tensor([nan, -3.0, 1.0, nan, 2.0])}, ["a"])
    assert found == {"a": {"critical": 1, "typical": 4, "idle": 2}}
