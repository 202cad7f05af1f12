"""The front against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.engine.draws import draw_position
from studies.draws import energy_draws
from studies.pareto import Interval, _always_beaten, front_mask, front_probability, standings

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


@given(POINTS, st.randoms(use_true_random=False))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_front_depends_on_order_of_values_alone(points: list[tuple[int, ...]], random: Any) -> None:
    costs = np.array(points, dtype=np.float64)
    mask = front_mask(costs)
    order = list(range(len(points)))
    random.shuffle(order)
    assert (front_mask(costs[order]) == mask[order]).all()
    # any growing function of an objective; another one for each, and the objectives in another order
    stretched = np.column_stack([f(c) for f, c in zip(STRETCHES, costs.T, strict=False)])
    assert (front_mask(stretched[:, ::-1]) == mask).all()
    # what is dominated can go, and a second copy of anything stands or falls with the first
    assert front_mask(costs[mask]).all()
    kept = mask | (np.arange(len(points)) % 2 == 0)
    assert (front_mask(costs[kept]) == mask[kept]).all()
    assert (front_mask(np.vstack([costs, costs])) == np.tile(mask, 2)).all()


STRETCHES = (np.exp, lambda x: 3 * x - 7, np.cbrt, lambda x: -1 / (1 + x))

DRAWN = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(
            st.lists(st.integers(0, 3), min_size=shape[2], max_size=shape[2]),
            min_size=shape[0],
            max_size=shape[0],
        ),
        min_size=shape[1],
        max_size=shape[1],
    )
)


@given(DRAWN)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_probability_counts_the_draws_in_which_nobody_is_better(
    drawn: list[list[list[int]]],
) -> None:
    exact = [[float(i)] for i in range(len(drawn[0]))]
    costs = [*(np.array(d, dtype=np.float64) for d in drawn), np.array(exact)]
    expected = np.zeros(len(exact))
    for draw in range(len(drawn[0][0])):
        world = [(*(d[p][draw] for d in drawn), int(exact[p][0])) for p in range(len(exact))]
        expected += brute_force(world)
    np.testing.assert_allclose(front_probability(costs), expected / len(drawn[0][0]))


def test_what_points_share_does_not_make_them_doubtful() -> None:
    # equally accurate; one costs a tenth more, and all that either costs is one unknown from 1 to 10
    accuracy = np.array([[-0.9], [-0.9]])
    together = energy_draws([[[("u", 10.0, 1.0)]], [[("u", 10.0, 1.1)]]])
    assert front_probability([together, accuracy]).tolist() == [1.0, 0.0]
    apart = energy_draws([[[("u", 10.0, 1.0)]], [[("v", 10.0, 1.1)]]])
    shares = front_probability([apart, accuracy])
    cheaper = 10.0 ** draw_position("u") < 1.1 * 10.0 ** draw_position("v")
    np.testing.assert_allclose(shares, [cheaper.mean(), 1 - cheaper.mean()])
    assert 0.4 < shares[1] < 0.5


def test_documented_example_of_the_library() -> None:
    # the example of moocore.is_nondominated(..., keep_weakly=True)
    points = np.array([[1, 1], [0, 1], [1, 0], [1, 0]], dtype=np.float64)
    assert front_mask(points).tolist() == [False, True, True, True]


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


def test_points_that_one_always_beats_change_no_share() -> None:
    # one unknown that all share and one of each: clouds that overlap, and many a point below another in every draw
    random = np.random.default_rng(1)
    exact = random.integers(0, 6, (300, 1)).astype(np.float64)
    energy = np.exp(random.normal(size=(300, 1)) + 0.1 * random.normal(size=(300, 40)))
    energy *= np.exp(random.normal(size=(1, 40)))
    costs = [energy, exact]
    always = _always_beaten(costs)
    assert 200 < always.sum() < 300
    worlds = [front_mask(np.column_stack([energy[:, d], exact[:, 0]])) for d in range(40)]
    assert not (always & np.any(worlds, axis=0)).any()
    assert (front_probability(costs) == np.mean(worlds, axis=0)).all()


def test_equals_in_one_draw_are_not_always_beaten() -> None:
    costs = [np.array([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, 1.0]]), np.zeros((4, 1))]
    assert _always_beaten(costs).tolist() == [False, False, True, False]
    assert front_probability(costs).tolist() == [1.0, 0.5, 0.0, 1.0]


def test_a_cost_without_end_is_beaten_only_by_what_is_as_accurate() -> None:
    beyond, one = Interval(np.inf, np.inf, np.inf), Interval(1, 1, 1)
    best = [Interval(0.9, 0.9, 0.9), Interval(0.8, 0.8, 0.8)]
    assert standings(best, [beyond, one]) == ["front", "front"]
    assert standings(best, [one, beyond]) == ["front", "dominated"]


def test_overlapping_bars_are_undecided() -> None:
    accuracy = [Interval(0.95, 0.97, 0.99), Interval(0.93, 0.96, 0.98), Interval(0.5, 0.5, 0.5)]
    energy = [Interval(1, 2, 3), Interval(2, 2.5, 4), Interval(9, 9, 9)]
    assert standings(accuracy, energy) == ["front", "undecided", "dominated"]
