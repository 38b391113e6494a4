"""What the capacity of a class says about the error on new data, and what the length of a network says.

Errors are shares of wrong answers, `n` the training examples, `delta` the probability that a bound may fail.
Taught in: notebooks/03_vc_dimension.ipynb and notebooks/01_over_complexity.ipynb.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr

from course_lib.theory import codes

DELTA = 0.05


def growth_gap(log_growth: float, n: int, delta: float = DELTA) -> float:
    """Largest gap between test and training error: sqrt(2 ln growth / n) + sqrt(ln(1 / delta) / 2n).

    Mohri, Rostamizadeh and Talwalkar, Foundations of Machine Learning, 2nd edition 2018, chapter 3: the
    generalisation bound by the growth function.
    """
    return np.sqrt(2 * log_growth / n) + np.sqrt(np.log(1 / delta) / (2 * n))


def log_sauer(n: int, d: float) -> float:
    """Natural logarithm of the bound (e n / d)^d on a growth function; n ln 2 where n <= d."""
    return d * np.log(np.e * n / d) if n > d else n * np.log(2)


def vc_gap(d: float, n: int, delta: float = DELTA) -> float:
    """`growth_gap` for a class of which only the VC dimension d is known."""
    return growth_gap(log_sauer(n, d), n, delta)


def vapnik_gap(d: float, n: int, delta: float = DELTA) -> float:
    """Vapnik's form, sqrt((d (ln(2n / d) + 1) + ln(4 / delta)) / n) for n > d.

    Vapnik, The Nature of Statistical Learning Theory, 1995; eq. 3 of Burges, A tutorial on support vector machines,
    1998.
    """
    return np.sqrt((d * (np.log(2 * n / d) + 1) + np.log(4 / delta)) / n)


def largest_dimension(gap: float, n: int, delta: float = DELTA) -> float:
    """The largest VC dimension for which `vc_gap` is at most `gap`; 0 if there is none."""
    if vc_gap(1, n, delta) > gap:
        return 0.0
    return brentq(lambda d: vc_gap(d, n, delta) - gap, 1, n) if vc_gap(n, n, delta) > gap else float(n)


def network_dimension(weights: float, layers: int) -> tuple[float, float]:
    """Orders of magnitude of a ReLU network's VC dimension: W L log2(W / L), W L log2 W, without their constants.

    Bartlett, Harvey, Liaw and Mehrabian, JMLR 20, 2019: some networks reach the first, none exceeds the second.
    """
    return weights * layers * np.log2(weights / layers), weights * layers * np.log2(weights)


def largest_network(dimension: float, layers: int) -> float:
    """How many weights W a network of so many layers has when W L log2 W, without a constant, is this dimension."""
    return brentq(lambda weights: network_dimension(weights, layers)[1] - dimension, 1, max(dimension, 2))


def structural_risk(train_errors: np.ndarray, log_growths: np.ndarray, n: int, delta: float = DELTA) -> np.ndarray:
    """Bounds on the test errors of the best classifiers of nested classes k = 0, 1, ..., all valid at once.

    Class k may fail with probability delta / ((k + 1) (k + 2)); these add up to at most delta.
    Vapnik, Statistical Learning Theory, 1998, chapter 6: structural risk minimisation takes the smallest.
    """
    parts = [delta / ((k + 1) * (k + 2)) for k in range(len(train_errors))]
    return np.array([e + growth_gap(g, n, part) for e, g, part in zip(train_errors, log_growths, parts, strict=True)])


def regression_factor(d: float, n: int) -> float:
    """What a squared training error is multiplied by: 1 / (1 - sqrt(q - q ln q + ln n / 2n)) with q = d / n.

    Vapnik's bound for regression with the constants that Cherkassky et al. choose, IEEE Transactions on Neural
    Networks 10(5), 1999: a working rule, not a proof. Infinite where the root reaches one.
    """
    q = min(d / n, 1.0)
    rest = 1 - np.sqrt(q - q * np.log(q) + np.log(n) / (2 * n))
    return 1 / rest if rest > 0 else np.inf


def occam_bound(train_error: float, bits: float, n: int, delta: float = DELTA) -> float:
    """Bound on the test error of a classifier with a code of so many bits: error + sqrt((bits ln 2 + ln 1/delta) / 2n).

    The code is agreed on before the data are seen and is prefix-free, so that the sum of 2^-bits is at most one.
    Shalev-Shwartz and Ben-David, Understanding Machine Learning, 2014, section 7.3 (there two-sided: ln 2/delta).
    """
    return train_error + np.sqrt((bits * np.log(2) + np.log(1 / delta)) / (2 * n))


def occam_bound_kl(train_error: float, bits: float, n: int, delta: float = DELTA) -> float:
    """`occam_bound` by Chernoff's inequality: the largest q with n KL(error || q) <= bits ln 2 + ln(1 / delta).

    Never above Hoeffding's form, and well below it where the training error is small.
    """
    budget = (bits * np.log(2) + np.log(1 / delta)) / n

    def excess(q):
        return rel_entr(train_error, q) + rel_entr(1 - train_error, 1 - q) - budget

    top = 1 - 1e-12
    return brentq(excess, train_error, top) if excess(top) > 0 else 1.0


def sparse_code_bits(kept: int, total: int, bits_per_weight: int) -> float:
    """Bits for `kept` of `total` weights: how many, log2(total + 1); which, log2 C(total, kept); and their values."""
    return codes.pattern_bits(total, kept) + kept * bits_per_weight
