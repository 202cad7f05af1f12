"""Intervals against hand-computed and published numbers."""

from __future__ import annotations

import doctest
import math

import pytest

from studies import statistics
from studies.statistics import mean_interval, paired_effect


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


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(statistics).failed == 0
