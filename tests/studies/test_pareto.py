"""The front against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.pareto import Interval, front_mask, standings

# few distinct values on purpose: ties and duplicates are where fronts go wrong
POINTS = st.integers(1, 4).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, 4)] * d), min_size=1, max_size=40)
)


def brute_force(points: list[tuple[int, ...]]) -> list[bool]:
    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return [not any(dominates(q, p) for q in points) for p in points]


@given(POINTS)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_front_is_what_brute_force_finds(points: list[tuple[int, ...]]) -> None:
    assert front_mask(np.array(points, dtype=np.float64)).tolist() == brute_force(points)


def test_empty_single_and_nan() -> None:
    assert front_mask(np.empty((0, 2))).tolist() == []
    assert front_mask(np.array([[np.inf, 1.0]])).tolist() == [True]
    with pytest.raises(ValueError, match="nan"):
        front_mask(np.array([[np.nan, 1.0]]))


def test_ten_thousand_points_are_quick() -> None:
    points = np.random.default_rng(0).random((10_000, 2))
    mask = front_mask(points)
    order = np.argsort(points[mask][:, 0])
    assert (np.diff(points[mask][order, 1]) < 0).all()


INTERVALS = st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 2)).map(
    lambda t: Interval(t[0] - t[1], t[0], t[0] + t[2])
)


@given(st.lists(st.tuples(INTERVALS, INTERVALS), min_size=1, max_size=15))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_dominated_holds_for_every_position_in_the_bars(
    points: list[tuple[Interval, Interval]],
) -> None:
    result = standings([p[0] for p in points], [p[1] for p in points])
    on_front = brute_force([(-round(b.nominal), round(c.nominal)) for b, c in points])
    assert [s == "front" for s in result] == on_front
    for standing, (benefit, cost) in zip(result, points, strict=True):
        # this point at its best, every other one at its worst
        rivals = [(-b.low, c.high) for b, c in points if (b, c) != (benefit, cost)]
        best = (-benefit.high, cost.low)
        certain = any(r[0] <= best[0] and r[1] <= best[1] and r != best for r in rivals)
        assert (standing == "dominated") == (certain and standing != "front")


def test_overlapping_bars_are_undecided() -> None:
    accuracy = [Interval(0.95, 0.97, 0.99), Interval(0.93, 0.96, 0.98), Interval(0.5, 0.5, 0.5)]
    energy = [Interval(1, 2, 3), Interval(2, 2.5, 4), Interval(9, 9, 9)]
    assert standings(accuracy, energy) == ["front", "undecided", "dominated"]
