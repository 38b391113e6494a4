"""The stored form: what is decoded from the bits is what was encoded, and the parts are all there is."""

import numpy as np
import pytest
import torch

from course_lib import weight_code


def sparse(rows, columns, share, values=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    codebook = torch.randn(values, generator=g)
    picked = codebook[torch.randint(values, (rows, columns), generator=g)]
    return picked * (torch.rand(rows, columns, generator=g) < share)


CASES = {
    "usual": [sparse(20, 65, 0.1), sparse(7, 21, 0.3, seed=1)],
    "one by one": [torch.tensor([[0.25]])],
    "all zero": [torch.zeros(3, 50)],
    "full": [torch.full((4, 9), -1.5)],
    "empty rows and long gaps": [torch.eye(3, 900).flip(1) * 0.1],
    "one column": [sparse(30, 1, 0.5)],
}


@pytest.mark.parametrize("gap_bits", [None, 1, 3, 8])
@pytest.mark.parametrize("name", CASES)
def test_decoding_gives_the_same_weights(name, gap_bits):
    matrices = {f"layer {i}": matrix for i, matrix in enumerate(CASES[name])}
    stored = weight_code.encode(matrices, gap_bits)
    found = weight_code.decode(stored.bits)
    assert len(found) == len(matrices)
    for right, yours in zip(matrices.values(), found, strict=True):
        assert yours.dtype == torch.float32 and torch.equal(yours, right)
    assert set(stored.bits) <= {"0", "1"} and sum(stored.parts.values()) == len(stored.bits)


def test_the_parts_counted_by_hand():
    # two rows of 6; three values, so 2 bits an index; gaps of 2 bits: up to 3 zeros
    matrix = torch.tensor([[0, 0, 0.5, 0, -1, 0], [0, 0, 0, 0, 0, 2]])
    stored = weight_code.encode({"a": matrix}, gap_bits=2)
    # entries: row 0 (2, .5) (1, -1); row 1 filler (3, 0), then (1, 2); so counts 2 and 2, of 2 bits each
    assert stored.parts == {"header": 32 + 64, "codebook": 96, "row counts": 4, "gaps": 8, "indices": 8}
    assert stored.bits[-16:] == "10" + "01" + "11" + "01" + "10" + "01" + "00" + "11"
    assert weight_code.rate(stored, 12) == pytest.approx(32 * 12 / 212)


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_relative_places_are_undone_and_gaps_fit(bits):
    rng = np.random.default_rng(0)
    for length in (1, 7, 64, 200):
        row = (rng.integers(1, 9, length) * (rng.random(length) < 0.08)).tolist()
        entries = weight_code.relative(row, bits)
        assert all(0 <= skipped < 2**bits for skipped, _ in entries)
        assert weight_code.spread_out(entries, length) == row
        assert not entries or entries[-1][1] != 0
        fillers = sum(index == 0 for _, index in entries)
        runs = np.diff([-1, *np.flatnonzero(row)]) - 1
        assert fillers == sum(int(run) // 2**bits for run in runs)


def test_the_best_gap_is_chosen_for_each_layer():
    dense, thin = sparse(40, 30, 0.6), sparse(40, 300, 0.01)
    both = weight_code.encode({"a": dense, "b": thin})
    fixed = [len(weight_code.encode({"a": dense, "b": thin}, gap).bits) for gap in weight_code.GAP_BITS]
    assert len(both.bits) < min(fixed)


def test_weights_that_were_not_quantised_are_refused():
    with pytest.raises(ValueError, match="Quantise the weights first"):
        weight_code.encode({"a": torch.randn(300, 300)})
