"""Intervals against hand-computed and published numbers."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.metrics import wilson_interval
from studies import statistics
from studies.statistics import (
    Effect,
    Estimate,
    adjusted_p_values,
    comparisons_text,
    holm,
    mean_interval,
    paired_effect,
    paired_share_difference,
    share_difference,
)


def test_interval_of_three_seeds_by_hand() -> None:
    # s = 1, t(0.975, 2) = 4.302653 (any table of Student's t), half width 4.302653 / sqrt(3)
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.high is not None
    assert math.isclose(estimate.high, 2 + 2.484138, abs_tol=1e-6)
    assert estimate.low == pytest.approx(2 - 2.484138, abs=1e-6)


def test_student_sleep_data() -> None:
    # Student (1908), the extra hours of sleep by two drugs; published: mean difference 1.58,
    # t = 4.0621, p = 0.00283, 95 % interval (0.70, 2.46)
    first = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
    second = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))
    effect = paired_effect(second, first)
    assert effect.difference.mean == pytest.approx(1.58)
    assert effect.difference.low == pytest.approx(0.7001142, abs=1e-6)
    assert effect.difference.high == pytest.approx(2.4598858, abs=1e-6)
    assert effect.p_value == pytest.approx(0.00283289, abs=1e-7)


def test_few_pairs_give_no_p_value() -> None:
    effect = paired_effect({0: 0.9, 1: 0.8, 2: 0.7, 9: 1.0}, {0: 0.8, 1: 0.7, 2: 0.5, 8: 0.1})
    assert effect.seeds == (0, 1, 2)
    assert effect.p_value is None
    with pytest.raises(ValueError, match="both methods have"):
        paired_effect({0: 1.0}, {1: 1.0})


def test_single_value_has_no_interval_and_bounds_cut() -> None:
    assert mean_interval([0.4]) == statistics.Estimate(0.4, None, None, 1)
    cut = mean_interval([0.98, 1.0, 0.9], bounds=(0.0, 1.0))
    assert cut.high == 1.0
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


# Newcombe (1998), Statistics in Medicine 17, 857: Wilson's method without continuity correction, and
# 17, 873, Table II, method 10, built on it
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals_of_a_share(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_published_intervals_of_a_difference(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    found = share_difference(a, b)
    assert found.mean == a[0] / a[1] - b[0] / b[1]
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples two models got right, from how many each got right alone and together."""
    counts = (both, only_a, only_b, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)  # fmt: skip


# Newcombe (1998), Statistics in Medicine 17, 2635, method 10; of the airways of 21 patients as printed by Fagerland, Lydersen
# and Laake (2014), "Recommended tests and confidence intervals for paired binomial proportions"
@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_published_intervals_of_a_paired_difference(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    found = paired_share_difference(*answers(*table))
    assert found.mean == pytest.approx((table[1] - table[2]) / sum(table), abs=1e-15)
    digits = 5e-5 if table[0] > 1 else 5e-4
    assert (found.low, found.high) == pytest.approx((low, high), abs=digits)


def test_answers_alike_narrow_a_difference_and_independent_ones_do_not() -> None:
    alike = paired_share_difference(*answers(780, 20, 10, 62))
    apart = share_difference((800, 872), (790, 872))
    assert alike.mean == apart.mean
    assert alike.low is not None
    assert apart.low is not None
    assert 0 < alike.mean - alike.low < 0.6 * (apart.mean - apart.low)
    # no correlation: the two methods are one
    independent = paired_share_difference(*answers(48, 12, 32, 8))
    shares = share_difference((60, 100), (80, 100))
    assert (independent.low, independent.high) == pytest.approx((shares.low, shares.high))


def test_equal_answers_have_a_difference_of_nothing_but_not_for_sure() -> None:
    right = np.arange(872) % 10 > 0
    found = paired_share_difference(right, right)
    assert found.mean == 0
    assert found.low is not None
    assert found.high is not None
    assert -0.01 < found.low < 0 < found.high < 0.01
    everything = paired_share_difference(*answers(10, 0, 0, 0))
    # of models that only succeed no correlation is known
    assert (everything.low, everything.high) == pytest.approx((-0.2775, 0.2775), abs=5e-5)


def test_interval_of_a_paired_difference_covers_what_it_says() -> None:
    # every outcome of 20 samples, weighted by how likely it is: shares 0.9 and 0.8, 0.78 of the samples right by both
    chances, n = (0.78, 0.12, 0.02, 0.08), 20
    covered = 0.0
    for a, b, c in itertools.product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        found = paired_share_difference(*answers(a, b, c, d))
        assert found.low is not None
        assert found.high is not None
        ways = math.factorial(n) // math.prod(math.factorial(k) for k in (a, b, c, d))
        chance = ways * math.prod(p**k for p, k in zip(chances, (a, b, c, d), strict=True))
        covered += chance * (found.low <= 0.1 <= found.high)
    assert 0.94 < covered < 0.99


def test_interval_of_a_difference_covers_what_it_says() -> None:
    # every outcome of 30 samples each, weighted by how likely it is: nothing is simulated
    p, q, n = 0.9, 0.8, 30
    chances = [
        [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
        for share in (p, q)
    ]
    covered = 0.0
    for i, j in itertools.product(range(n + 1), repeat=2):
        found = share_difference((i, n), (j, n))
        assert found.low is not None
        assert found.high is not None
        covered += chances[0][i] * chances[1][j] * (found.low <= p - q <= found.high)
    assert 0.93 < covered < 0.98


def test_holm_by_hand() -> None:
    # 4 * 0.005, 3 * 0.01, then 2 * 0.03 and, never below it, 1 * 0.04
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    indices = range(len(p_values))
    subsets = [s for k in indices for s in itertools.combinations(indices, k + 1)]
    closed = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
        for i in indices
    ]
    assert holm(p_values) == pytest.approx(closed)


def test_only_effects_with_a_p_value_are_adjusted() -> None:
    effects = [Effect(Estimate(0, 0, 0, 6), p, ()) for p in (0.01, None, 0.03)]
    assert adjusted_p_values(effects) == [pytest.approx(0.02), None, pytest.approx(0.03)]
    assert comparisons_text(effects[:1]) == ""
    assert comparisons_text(effects).startswith("3 differences are compared: ")
    assert "Holm" in comparisons_text(effects)
    assert "Holm" not in comparisons_text([effects[1]] * 2)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(statistics).failed == 0
