"""Means over seeds with their intervals, and paired effects between methods.

Two different uncertainties appear in a study. The interval over *seeds* (here) says how much a result
would move if the training were repeated. The Wilson interval of one accuracy (`hwsim.metrics`) says how
much it would move on another test set of the same size. Neither contains the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_PAIRS_FOR_P_VALUE = 6
"""Fewer paired seeds than this give an effect and an interval, never a p-value."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval; `low` and `high` are None where one value gives no interval."""

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_interval(
    values: Sequence[float],
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return the mean with its two-sided Student-t interval, cut to what the quantity can be.

    Args:
        values: one value a seed.
        level: coverage, between 0 and 1.
        bounds: smallest and largest possible value, for example (0, 1) for an accuracy.

    Raises:
        ValueError: there is no value.

    >>> mean_interval([0.97, 0.98, 0.99]).mean
    0.98
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, None, 1)
    from scipy.stats import t

    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    half = float(t.ppf(0.5 + level / 2, count - 1)) * math.sqrt(variance / count)
    low, high = bounds
    return Estimate(mean, max(low, mean - half), min(high, mean + half), count)


@dataclass(frozen=True, slots=True)
class Effect:
    """Difference of two methods over the seeds that both have; p_value only from enough pairs."""

    difference: Estimate
    p_value: float | None
    seeds: tuple[int, ...]


def paired_effect(
    a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float], level: float = 0.95
) -> Effect:
    """Return the mean of a - b over common seeds, its interval, and a p-value from six pairs on.

    Pairing removes what a seed does to both methods (its split, its teacher, its data order).

    Raises:
        ValueError: the methods have no seed in common.
    """
    seeds = tuple(sorted(a_by_seed.keys() & b_by_seed.keys()))
    if not seeds:
        raise ValueError("a paired effect needs a seed that both methods have")
    differences = [a_by_seed[s] - b_by_seed[s] for s in seeds]
    p_value = None
    if len(seeds) >= MIN_PAIRS_FOR_P_VALUE:
        from scipy.stats import ttest_1samp

        # equal differences have no spread to test against
        p_value = float(ttest_1samp(differences, 0.0).pvalue) if len(set(differences)) > 1 else None
    return Effect(mean_interval(differences, level), p_value, seeds)
