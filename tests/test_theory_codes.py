"""Every code is a code: it satisfies Kraft, and what was written can be read."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.theory import codes


def prefix_free(words):
    words = sorted(map(tuple, words))
    return not any(b[: len(a)] == a for a, b in itertools.pairwise(words))


@pytest.mark.parametrize("code", [codes.elias_gamma, codes.elias_delta])
def test_elias_is_prefix_free_and_complete(code):
    words = [code(n) for n in range(1, 2**10)]
    assert prefix_free(words) and all(set(word) <= {0, 1} for word in words)
    total = codes.kraft_sum([len(word) for word in words])
    assert total < 1  # some words are still to come ...
    if code is codes.elias_gamma:
        assert total == 1 - 2**-10  # ... exactly those with more digits


def test_the_first_words_as_elias_printed_them():
    assert [codes.elias_gamma(n) for n in (1, 2, 3, 4)] == [[1], [0, 1, 0], [0, 1, 1], [0, 0, 1, 0, 0]]
    assert codes.elias_delta(1) == [1] and codes.elias_delta(17) == [0, 0, 1, 0, 1, 0, 0, 0, 1]


@given(st.lists(st.integers(0, 12), max_size=60))
def test_lengths_that_satisfy_kraft_have_words(lengths):
    while codes.kraft_sum(lengths) > 1:
        lengths = lengths[1:]
    words = codes.words(lengths)
    assert [len(word) for word in words] == lengths
    assert prefix_free(words) and all(set(word) <= {0, 1} for word in words)


def test_words_are_the_left_ends_of_intervals():
    assert codes.words([2, 1, 3, 3]) == [[1, 0], [0], [1, 1, 0], [1, 1, 1]]


def test_lengths_that_break_kraft_are_refused():
    with pytest.raises(ValueError, match="1.125, above 1"):
        codes.words([1, 2, 2, 3])


@given(st.lists(st.integers(1, 10**12), max_size=20))
def test_a_stream_needs_no_commas(numbers):
    stream = [bit for n in numbers for bit in codes.elias_delta(n)]
    assert list(codes.read_delta(stream)) == numbers


def test_integers_below_one_are_refused():
    for code in (codes.elias_gamma, codes.elias_delta):
        with pytest.raises(ValueError, match="from 1 on, not 0"):
            code(0)


def test_signed_integers_cost_what_their_word_is_long():
    z = np.array([[0, 1, -1], [2, -2, 900], [-901, 2**20, -(2**20)]])
    order = {0: 1, 1: 2, -1: 3, 2: 4, -2: 5, 900: 1800, -901: 1803, 2**20: 2**21, -(2**20): 2**21 + 1}
    expected = [[len(codes.elias_delta(order[int(i)])) for i in row] for row in z]
    np.testing.assert_array_equal(codes.integer_bits(z), expected)
    assert codes.kraft_sum(codes.integer_bits(np.arange(-5000, 5001))) < 1


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=40))
def test_huffman_is_complete_and_within_a_bit_of_the_entropy(weights):
    p = np.array(weights) / sum(weights)
    lengths = codes.huffman_lengths(p)
    assert codes.kraft_sum(lengths) == 1
    entropy = codes.entropy_bits(p)
    assert entropy - 1e-9 <= p @ lengths < entropy + 1


def test_huffman_is_optimal_among_all_lengths():
    p = [0.45, 0.3, 0.15, 0.1]
    lengths = itertools.product(range(1, 5), repeat=4)
    best = min(np.dot(p, tried) for tried in lengths if codes.kraft_sum(tried) <= 1)
    assert np.dot(p, codes.huffman_lengths(p)) == pytest.approx(best)


def test_entropy():
    assert codes.entropy_bits([0.5, 0.25, 0.25, 0]) == 1.5


@pytest.mark.parametrize("n", [0, 1, 5, 9])
def test_patterns_fill_kraft_exactly(n):
    lengths = [codes.pattern_bits(n, sum(pattern)) for pattern in itertools.product((0, 1), repeat=n)]
    assert codes.kraft_sum(lengths) == pytest.approx(1)


def test_patterns_beyond_n_are_refused():
    assert codes.pattern_bits(6, 2) == pytest.approx(math.log2(7 * math.comb(6, 2)))
    for k in (-1, 7):
        with pytest.raises(ValueError, match=f"not {k}"):
            codes.pattern_bits(6, k)


@pytest.mark.parametrize(("symbols", "n"), [(1, 4), (2, 7), (3, 5), (5, 3)])
def test_the_adaptive_code_fills_kraft_exactly(symbols, n):
    sequences = itertools.product(range(symbols), repeat=n)
    lengths = [codes.adaptive_bits(np.bincount(s, minlength=symbols)) for s in sequences]
    assert codes.kraft_sum(lengths) == pytest.approx(1)


def test_the_adaptive_code_is_its_predictions_in_any_order():
    rng = np.random.default_rng(0)
    sequence, seen, bits = rng.integers(4, size=60), np.zeros(4), 0.0
    for symbol in sequence:
        bits -= np.log2((seen[symbol] + 0.5) / (seen.sum() + 2))
        seen[symbol] += 1
    assert codes.adaptive_bits(seen) == pytest.approx(bits)


def test_arrays_are_a_code_for_arrays():
    # what is missing to 1 are the arrays with larger entries
    top = 12
    arrays = itertools.product(range(-top, top + 1), repeat=2)
    lengths = [codes.array_bits(a) for a in arrays]
    assert 0.5 < codes.kraft_sum(lengths) < 1
    assert codes.array_bits(np.zeros((3, 4), int)) == 1  # the one number 0, and nothing left to say
    z = np.random.default_rng(1).integers(-3, 4, size=(5, 6))
    assert codes.array_bits(z) == codes.array_bits(z.T)
    assert codes.array_bits([]) == 1
