"""Means over seeds with their intervals, paired effects between methods, and what many of them at once mean.

Two different uncertainties appear in a study. The interval over *seeds* (here) says how much a result
would move if the training were repeated. The Wilson interval of one accuracy (`hwsim.metrics`) says how
much it would move on another test set of the same size. Neither contains the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    half = _t_quantile(0.5 + level / 2, count - 1) * math.sqrt(variance / count)
    low, high = bounds
    return Estimate(mean, max(low, mean - half), min(high, mean + half), count)


@lru_cache(maxsize=64)
def _t_quantile(share: float, freedom: int) -> float:
    """Remember quantiles: thousands of means are over as many seeds."""
    from scipy.stats import t

    return float(t.ppf(share, freedom))


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


def share_difference(a: tuple[int, int], b: tuple[int, int], confidence: float = 0.95) -> Estimate:
    """Return the share of `a` minus that of `b`, each (successes, trials), with its hybrid score interval.

    Newcombe (1998), "Interval estimation for the difference between independent proportions: comparison of eleven
    methods", method 10. Two models that were tested on the same samples are no independent shares: of those whose answers are known see
    `paired_share_difference`.

    Returns:
        The estimate; `count` is 1, for it is one pair of models.

    >>> difference = share_difference((56, 70), (48, 80))
    >>> round(difference.low, 4), round(difference.high, 4)
    (0.0524, 0.3339)
    """
    share_a, share_b = a[0] / a[1], b[0] / b[1]
    low_a, high_a = share_interval(*a, confidence)
    low_b, high_b = share_interval(*b, confidence)
    mean = share_a - share_b
    low = mean - math.hypot(share_a - low_a, high_b - share_b)
    high = mean + math.hypot(high_a - share_a, share_b - low_b)
    return Estimate(mean, low, high, 1)


def paired_share_difference(
    a: NDArray[np.bool_], b: NDArray[np.bool_], confidence: float = 0.95
) -> Estimate:
    """Return the share of successes in `a` minus that in `b`, on the same samples, with its score interval.

    Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17, 2635, method 10: that of `share_difference` with the correlation of the two, taken
    cautiously (continuity-corrected) where it is positive.

    Args:
        a, b: which samples were successes, [samples] each.

    Returns:
        The estimate; `count` is 1, for it is one pair of models.
    """
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    count = len(a)
    share_a, share_b = (both + only_a) / count, (both + only_b) / count
    low_a, high_a = share_interval(both + only_a, count, confidence)
    low_b, high_b = share_interval(both + only_b, count, confidence)
    product = math.prod((both + only_a, neither + only_b, both + only_b, neither + only_a))
    together: float = both * neither - only_a * only_b
    if together > 0:
        together = max(together - count / 2, 0.0)
    phi = together / math.sqrt(product) if product else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    mean = share_a - share_b
    low = mean - reach(share_a - low_a, high_b - share_b)
    high = mean + reach(high_a - share_a, share_b - low_b)
    return Estimate(mean, low, high, 1)


@lru_cache(maxsize=4096)
def share_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of a share; remembered, for thousands of models share a test set, and so a few hundred counts."""
    from hwsim.metrics import wilson_interval

    return wilson_interval(successes, trials, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for how many they are, in their order.

    Rejecting what is at most alpha after the adjustment errs anywhere among them with probability alpha at most, however
    they depend on each other (Holm 1979, "A simple sequentially rejective multiple test procedure").

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    held = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        held = max(held, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = held
    return adjusted


def adjusted_p_values(effects: Sequence[Effect]) -> list[float | None]:
    """Return the p-value of each effect adjusted for all that have one, None where it has none."""
    adjusted = iter(holm([e.p_value for e in effects if e.p_value is not None]))
    return [None if e.p_value is None else next(adjusted) for e in effects]


def comparisons_text(effects: Sequence[Effect]) -> str:
    """Say what a reader must know of several effects that are printed side by side; nothing of a single one."""
    count = len(effects)
    if count < 2:
        return ""
    text = f"{count} differences are compared: each interval covers 95 % by itself, so one in 20 may miss"
    if any(e.p_value is not None for e in effects):
        text += "; p-values are adjusted for how many there are (Holm)"
    return f"{text}."
