"""Hypervolume and knee against brute force and hand-computed numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from points import make_point

from studies.front import Front, hypervolume, knee
from studies.pareto import front_mask

SIDE = 4
GRIDS = st.integers(2, 5).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, SIDE + 1)] * d), min_size=1, max_size=8)
)


@given(GRIDS)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_hypervolume_is_the_number_of_unit_cells(points: list[tuple[int, ...]]) -> None:
    cells = sum(
        any(all(x <= c for x, c in zip(p, cell, strict=True)) for p in points)
        for cell in itertools.product(range(SIDE), repeat=len(points[0]))
    )
    found = hypervolume(np.array(points, dtype=np.float64), np.full(len(points[0]), float(SIDE)))
    assert math.isclose(found, cells, abs_tol=1e-9)


def test_hypervolume_by_hand_and_by_darts() -> None:
    # the documented example of moocore.hypervolume: 8 * 3 + 6 * 1 + 5 * 1 + 3 * 1
    points = np.array([[5, 5], [4, 6], [2, 7], [7, 4]], dtype=np.float64)
    assert hypervolume(points, np.array([10.0, 10.0])) == 38
    assert hypervolume(points[::-1], np.array([10.0, 10.0])) == 38
    assert hypervolume(points, np.array([10.0, 4.0])) == 0  # nobody reaches the reference
    assert hypervolume(np.empty((0, 2)), np.ones(2)) == 0
    generator = np.random.default_rng(3)
    points = generator.random((20, 3))
    darts = generator.random((40_000, 3))
    hit = np.zeros(len(darts), dtype=bool)
    for point in points:
        hit |= (point <= darts).all(axis=1)
    error = math.sqrt(hit.mean() * (1 - hit.mean()) / len(darts))
    assert abs(hypervolume(points, np.ones(3)) - hit.mean()) < 4 * error


def test_a_volume_needs_finite_numbers() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            hypervolume(np.array([[bad, 1.0]]), np.ones(2))
        with pytest.raises(ValueError, match="finite"):
            hypervolume(np.ones((1, 2)), np.array([1.0, bad]))


def distance_from_chord(front: np.ndarray) -> list[float]:
    """Signed distances of the points of a scaled front from the line between its ends, positive towards the origin."""
    a, b = front[front[:, 0].argmin()], front[front[:, 0].argmax()]
    along = (b - a) / np.linalg.norm(b - a)
    return [float(along[1] * (p - a)[0] - along[0] * (p - a)[1]) for p in front]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=20))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_knee_is_farthest_from_the_chord(points: list[tuple[int, int]]) -> None:
    costs = np.unique(np.array(points, dtype=np.float64), axis=0)
    front = costs[front_mask(costs)]
    found = knee(front)
    if len(front) < 3:
        assert found is None
        return
    scaled = (front - front.min(axis=0)) / np.ptp(front, axis=0)
    distances = distance_from_chord(scaled)
    if max(distances) < 1e-9:
        assert found is None
    else:
        assert found is not None
        assert distances[found] > max(distances) - 1e-9
        assert min(scaled[found]) > 0  # never an end
    turned = knee(front[::-1])
    assert turned == (None if found is None else len(front) - 1 - found)


def test_knees_by_hand() -> None:
    assert knee(np.array([[0.0, 1.0], [0.2, 0.3], [0.5, 0.25], [1.0, 0.0]])) == 1
    # bulging the other way, straight, too short, and one point twice
    assert knee(np.array([[0.0, 1.0], [0.6, 0.9], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [0.3, 0.7], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])) is None
    with pytest.raises(ValueError, match="dominated"):
        knee(np.array([[0.0, 1.0], [0.2, 0.3], [1.0, 0.3]]))
    with pytest.raises(ValueError, match="two objectives"):
        knee(np.ones((3, 3)))


POINTS = [
    make_point("A", "x", {0: 0.90, 1: 0.90}, 1.0),
    make_point("B", "x", {0: 0.96, 1: 0.96}, 10.0),
    make_point("C", "y", {0: 0.97, 1: 0.97}, 1000.0),
    make_point("D", "y", {0: 0.89, 1: 0.89}, 1000.0),
]


def test_front_of_points_with_costs_on_a_logarithmic_scale() -> None:
    front = Front(POINTS, ("energy_pj", "score"))
    assert front.members == [0, 1, 2]
    assert front.knee == 1
    assert front.probability.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert not front.exact  # two seeds that agree have an interval, of no width
    # a tenth of 3 decades, and of 8 points, beyond the worst
    assert front.reference == pytest.approx([10**3.3, 0.882])
    # decades times points: 3.3 x 1.8 of A, 2.3 x 6 more of B, 0.3 x 1 more of C
    whole = 3.3 * 1.8 + 2.3 * 6 + 0.3 * 1
    assert front.share(lambda p: p.student == "A") == pytest.approx(3.3 * 1.8 / whole)
    assert front.share(lambda p: p.machine == "x") == pytest.approx(1 - 0.3 / whole)
    assert front.share(lambda p: p.machine == "y") == pytest.approx(0.3 * 8.8 / whole)
    assert front.share(lambda p: p.student == "D") == pytest.approx(0.3 * 0.8 / whole)
    assert Front(POINTS[:1], ("energy_pj", "score")).share(lambda p: True) is None


def test_front_without_accuracy_is_exact_where_its_costs_are() -> None:
    points = [
        make_point("A", m, {0: 0.5}, e, latency_s=t)
        for m, e, t in (("x", 1.0, 3.0), ("y", 2.0, 2.0), ("z", 3.0, 2.5))
    ]
    front = Front(points, ("latency_s", "energy_pj"))
    assert front.members == [1, 0]
    assert Front(points, ("latency_s", "latency_s")).exact
