"""Shattering: the linear program against exact arithmetic on integers; counting against formulas."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.theory import vc_dimension as vc

SQUARE = np.array([[0, 0], [1, 1], [1, 0], [0, 1]])
DEGENERATE = {
    "collinear": [[0, 0], [1, 2], [2, 4], [3, 6]],
    "repeated": [[0, 0], [0, 0], [1, 0]],
    "all the same": [[2, 1], [2, 1], [2, 1]],
    "collinear and repeated": [[0, 0], [1, 1], [1, 1], [3, 3]],
    "point on an edge": [[0, 0], [4, 0], [0, 4], [2, 2]],
    "square": SQUARE.tolist(),
    "grid": [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]],
    "one point": [[3, -2]],
}


def cross(o, a, b):
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def on_segment(x, a, b):
    return cross(a, b, x) == 0 and all(min(a[i], b[i]) <= x[i] <= max(a[i], b[i]) for i in (0, 1))


def in_triangle(x, a, b, c):
    signs = {np.sign(int(cross(*pair, x))) for pair in ((a, b), (b, c), (c, a))} - {0}
    return len(signs) == 1 and cross(a, b, c) != 0 and signs == {np.sign(int(cross(a, b, c)))}


def segments_meet(a, b, c, d):
    proper = cross(a, b, c) * cross(a, b, d) < 0 and cross(c, d, a) * cross(c, d, b) < 0
    return proper or on_segment(a, c, d) or on_segment(b, c, d) or on_segment(c, a, b) or on_segment(d, a, b)


def hulls_meet(A, B):
    """Do two sets of integer points in the plane surround a common point? By pairs and triples, without rounding."""
    for these, those in ((A, B), (B, A)):
        if any(on_segment(x, a, b) for x in these for a in those for b in those):
            return True
        if any(in_triangle(x, *three) for x in these for three in itertools.combinations(those, 3)):
            return True
    edges = [itertools.combinations(part, 2) for part in (A, B)]
    return any(segments_meet(*one, *two) for one, two in itertools.product(*edges))


def agrees_with_brute_force(points):
    X = np.array(points)
    for y in vc.labellings(len(X)):
        A, B = (X[y == sign].tolist() for sign in (1, -1))
        exact = not hulls_meet(A, B)
        assert vc.separable(X.astype(float), y) == exact, (points, y)
        assert (vc.common_point(X[y > 0].astype(float), X[y < 0].astype(float)) is None) == exact
    return True


@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_points_as_by_brute_force(points):
    assert agrees_with_brute_force(points)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=5))
def test_any_integer_points_as_by_brute_force(points):
    assert agrees_with_brute_force(points)


def test_points_in_general_position_as_by_brute_force():
    rng = np.random.default_rng(0)
    for m in (3, 4, 5, 6):
        points = rng.integers(-1000, 1000, (m, 2))
        triples = itertools.combinations(points.tolist(), 3)
        assert all(cross(*three) != 0 for three in triples)  # general position indeed
        assert agrees_with_brute_force(points.tolist())


def test_collinear_only_up_to_rounding_is_collinear():
    X = np.array([[0.1, 0.3], [0.2, 0.6], [0.3, 0.9]])
    assert len(vc.dichotomies(X)) == 6 and not vc.shatters(X)


def test_the_line_that_is_found_separates_also_far_from_the_origin():
    rng = np.random.default_rng(1)
    for p in (1, 2, 7):
        X = 50 + rng.standard_normal((2 * p + 4, p))
        y = np.where(X[:, 0] > np.median(X[:, 0]), 1, -1)
        w, b = vc.separator(X, y)
        assert (y * (X @ w + b) >= 1 - 1e-6).all()


def test_a_common_point_is_in_both_hulls():
    point = vc.common_point(SQUARE[:2].astype(float), SQUARE[2:].astype(float))
    np.testing.assert_allclose(point, [0.5, 0.5])
    assert vc.common_point(SQUARE.astype(float), np.empty((0, 2))) is None


def test_half_spaces_shatter_p_plus_one_points_and_no_more():
    rng = np.random.default_rng(2)
    for p in (1, 2, 3):
        assert vc.shatters(rng.standard_normal((p + 1, p)))
        assert not vc.shatters(rng.standard_normal((p + 2, p)))


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_radon_partition(p):
    X = np.random.default_rng(p).standard_normal((p + 2, p))
    labels, point = vc.radon(X)
    assert set(labels) == {-1, 1} and not vc.separable(X, labels)
    for sign in (1, -1):  # the point is an average of each class
        part = X[labels == sign]
        shares = np.linalg.lstsq(np.vstack([part.T, np.ones(len(part))]), [*point, 1], rcond=None)[0]
        assert (shares > 0).all()
        np.testing.assert_allclose(shares @ part, point, atol=1e-9)


def test_radon_leaves_out_a_point_that_is_not_needed():
    labels, point = vc.radon(np.array([[0.0, 0], [2, 0], [1, 0], [5, 7]]))
    assert labels[3] == 0 and labels[0] == labels[1] == -labels[2]
    np.testing.assert_allclose(point, [1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="give 4 rows"):
        vc.radon(np.zeros((3, 2)))


def test_labellings_are_binary_numbers():
    every = vc.labellings(4)
    np.testing.assert_array_equal((every > 0) @ [8, 4, 2, 1], np.arange(16))


@pytest.mark.parametrize(("m", "p"), [(1, 1), (4, 1), (3, 2), (5, 2), (6, 2), (6, 3)])
def test_covers_count_of_points_in_general_position(m, p):
    X = np.random.default_rng(3).standard_normal((m, p))
    assert len(vc.dichotomies(X)) == vc.half_space_growth(m, p) <= vc.sauer(m, p + 1)


def test_points_on_a_circle_are_in_general_position():
    X = vc.on_a_circle(6)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1)
    assert len(vc.dichotomies(X)) == vc.half_space_growth(6, 2)


def test_growth_is_everything_up_to_the_dimension_and_polynomial_beyond():
    for d in (1, 3, 5):
        for m in range(1, 15):
            assert (vc.sauer(m, d) == 2**m) == (m <= d)
            assert (vc.half_space_growth(m, d) == 2**m) == (m <= d + 1)
            if m >= d:
                assert vc.sauer(m, d) <= (math.e * m / d) ** d
    assert vc.half_space_growth(2 * (10 + 1), 10) * 2 == 2**22  # Cover: at two labels a weight, one half


def naive_dimension(family):
    rows = {tuple(row) for row in family.tolist()}
    m, best = family.shape[1], 0
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(m), k) for k in range(m + 1)):
        if all(any(all(row[i] == y for i, y in zip(chosen, wanted, strict=True)) for row in rows)
               for wanted in itertools.product([-1, 1], repeat=len(chosen))):  # fmt: skip
            best = max(best, len(chosen))
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4).flatmap(lambda m: st.sets(st.integers(0, 2**m - 1), min_size=1).map(lambda rows: (m, rows))))
def test_dimension_of_a_family_pajor_and_sauer(case):
    m, rows = case
    family = vc.labellings(m)[sorted(rows)]
    d = vc.family_dimension(family)
    assert d == naive_dimension(family)
    assert len(family) <= len(vc.shattered_sets(family)) <= vc.sauer(m, d)


def test_a_shattered_set_has_shattered_subsets_and_the_empty_set_counts():
    family = vc.dichotomies(SQUARE.astype(float))
    found = set(vc.shattered_sets(family))
    assert () in found and (0, 1, 2, 3) not in found and len([s for s in found if len(s) == 3]) == 4
    assert all(tuple(sub) in found for s in found for sub in itertools.combinations(s, max(len(s) - 1, 0)))


@pytest.mark.parametrize("m", [1, 2, 5, 11])
def test_the_sine_shatters_its_points(m):
    every, x = vc.labellings(m), vc.sine_points(m)
    produced = np.array([np.sin(vc.sine_frequency(y) * x) for y in every])
    np.testing.assert_array_equal(np.sign(produced), every)
    assert np.abs(produced).min() > np.sin(np.pi * 0.5**m) / 2  # not by luck of rounding
