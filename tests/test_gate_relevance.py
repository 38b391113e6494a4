"""Relevance of gates: the linear model's Hessian is the network's, and what is kept is what is said."""

import numpy as np
import pytest
import torch
from networks import batches, small_vgg

from course_lib import loss
from course_lib.classroom import ablations, gate_relevance
from course_lib.feature_maps import Chain
from course_lib.theory import evidence

LAYER = "3"  # the second convolution: six maps


@pytest.fixture(scope="module")
def case():
    return small_vgg(), batches(3, 8, 8, n=2, size=4)


def test_the_design_has_the_hessian_by_the_gates(case):
    model, pictures = case
    chain, images, labels = Chain(model), *(torch.cat(parts) for parts in zip(*pictures, strict=True))

    def total(gates):
        return loss.per_example(chain.run(images, gates={LAYER: gates}), labels).sum()

    hessian = torch.autograd.functional.hessian(total, torch.ones(6, dtype=torch.float64))
    root, examples = gate_relevance.design(model, pictures, LAYER)
    assert examples == 8 and root.shape == (6, 6)
    np.testing.assert_allclose(root.T @ root, hessian, atol=1e-10)


def test_gates_set_anew_minimise_the_parabola_and_its_prior(case):
    root, _ = gate_relevance.design(*case, LAYER)
    kept = np.array([True, False, True, True, False, True])
    gates = gate_relevance.anew(root, kept, 100.0).double().numpy()
    assert (gates[~kept] == 0).all()
    H = 100 * root.T @ root
    slope = H @ (gates - 1) + gates  # of (g - 1)' H (g - 1) / 2 + g'g / 2
    assert np.abs(slope[kept]).max() < 1e-4 * np.abs(H).max()
    nearly_all = gate_relevance.anew(root, np.ones(6, bool), 1e12)
    np.testing.assert_allclose(nearly_all, 1, atol=1e-2)


def test_a_dead_map_is_not_relevant_and_one_that_all_depends_on_is():
    root = np.diag([0.0, 0.5, 2.0])  # curvatures 0, 0.25, 4: below one, below one, above
    assert gate_relevance.relevant(root, 1.0, steps=3000).tolist() == [False, False, True]
    assert gate_relevance.relevant(root, 5.0, steps=3000).tolist() == [False, True, True]  # more images


def test_a_map_that_can_stand_in_for_two_others_replaces_them():
    one, two = np.random.default_rng(0).standard_normal((2, 50))
    root = np.column_stack([one, two, one + two])
    kept = gate_relevance.relevant(root, 1.0, steps=3000)
    assert kept.tolist() == [False, False, True]  # each of the three has a curvature far above one
    assert gate_relevance.anew(root, kept, 1.0)[2] == pytest.approx(2, abs=0.05)


def test_the_best_are_the_highest():
    assert gate_relevance.best(torch.tensor([0.3, 2.0, -1.0, 0.4]), 2).tolist() == [False, True, False, True]
    assert gate_relevance.best(torch.tensor([0.3, 2.0]), 0).tolist() == [False, False]


def test_compare_measures_what_it_says(case):
    model, pictures = case
    root, _ = gate_relevance.design(model, pictures, LAYER)
    kept = np.array([True, True, False, True, False, True])
    table = gate_relevance.compare(model, iter(pictures), {"me": {LAYER: kept}}, {LAYER: root}, 10.0)
    assert table.gates.tolist() == ["open", "anew"]
    assert table[["chosen_by", "layer", "maps", "kept"]].drop_duplicates().values.tolist() == [["me", LAYER, 6, 4]]
    closed = ablations.evaluate_closed(model, pictures, {LAYER: torch.tensor([2, 4])})
    assert (table.accuracy[0], table.loss[0]) == pytest.approx((closed.accuracy, closed.loss))
    anew = ablations.evaluate_gated(model, pictures, {LAYER: gate_relevance.anew(root, kept, 10.0)})
    assert table.loss[1] == pytest.approx(anew.loss) and table.loss[1] != table.loss[0]


def test_the_rule_is_curvature_above_one_when_gates_do_not_interact():
    curvature = np.array([0.2, 0.9, 1.1, 7.0])
    kept = gate_relevance.relevant(np.diag(np.sqrt(curvature)), 1.0, steps=5000)
    assert kept.tolist() == (curvature > 1).tolist()
    assert evidence.GONE < evidence.LARGEST
