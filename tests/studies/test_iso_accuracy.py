"""Savings at equal accuracy: which pairs qualify, which is told, and the band of its ratio."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import attention_block
from points import make_point

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.ratio import ratio
from hwsim.metrics import pack_right
from studies.draws import energy_terms
from studies.iso_accuracy import (
    MARGIN,
    IsoAccuracy,
    cost_ratio,
    gain_difference,
    iso_accuracies,
)
from studies.statistics import paired_share_difference, share_difference
from studies.table import Point

BEST = {0: 0.970, 1: 0.975, 2: 0.965}


def first(points: list[Point]) -> IsoAccuracy:
    """The comparison at the accuracy of the most accurate student."""
    return next(iso_accuracies(points, "energy_pj"))


def near(loss: float, jitter: float) -> dict[int, float]:
    """Accuracies that lie `loss` below the best ones, give or take `jitter`."""
    return {s: v - loss + jitter * d for (s, v), d in zip(BEST.items(), (-1, 0, 1), strict=True)}


def test_the_cheapest_that_is_shown_to_be_equal_is_told() -> None:
    points = [
        make_point("int8", "bad", BEST, 100.0),
        make_point("int8", "good", BEST, 10.0),
        make_point("loses", "good", near(0.03, 0.0001), 1.0),
        make_point("unsure", "good", near(0.004, 0.02), 2.0),
        make_point("equal", "good", near(0.004, 0.0005), 4.0),
        make_point("equal", "bad", near(0.004, 0.0005), 5.0),
        make_point("dear", "good", near(0.0001, 0.0005), 50.0),
    ]
    random.Random(1).shuffle(points)
    found = first(points)
    # the baseline is the best student where it is cheapest: 100 would flatter everybody
    assert (found.baseline.student, found.baseline.machine) == ("int8", "good")
    assert (found.candidates, found.equal) == (4, 3)
    assert found.saving is not None
    assert (found.saving.cheap.student, found.saving.cheap.machine) == ("equal", "good")
    assert found.saving.shown
    assert found.saving.ratio.nominal == 10.0 / 4.0
    assert found.saving.difference.mean == pytest.approx(-0.004)
    assert found.saving.difference.count == 3

    found = first([p for p in points if p.student != "equal"])
    assert found.saving is not None
    assert found.saving.cheap.student == "unsure"
    assert not found.saving.shown

    # less by 0.9 points for certain, but perhaps by more than 1: neither shown nor open
    points.append(make_point("less", "good", near(0.009, 0.002), 3.0))
    assert gain_difference(points[-1], found.baseline).high < 0  # type: ignore[operator]
    assert first(points).equal == 3
    found = first([p for p in points if p.student in ("int8", "loses")])
    assert (found.candidates, found.equal, found.saving) == (1, 0, None)
    assert list(iso_accuracies([], "energy_pj")) == []


def test_a_wide_interval_makes_no_accuracy_equal() -> None:
    # the interval of two wild seeds holds 0, and everything else
    points = [make_point("A", "x", {0: 0.99, 1: 0.97}, 9.0), make_point("B", "x", {0: 0.7, 1: 0.99}, 1.0)]  # fmt: skip
    difference = gain_difference(points[1], points[0])
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < 0 < difference.high
    assert first(points).saving is None


@pytest.mark.parametrize(("correct", "equal"), [(96, 1), (95, 0)])
def test_a_loss_of_exactly_the_margin_is_within_it(correct: int, equal: int) -> None:
    points = [make_point("A", "x", {0: 0.97}, 9.0), make_point("B", "x", {0: correct / 100}, 1.0)]
    assert MARGIN == 0.01
    assert first(points).equal == equal


def test_one_seed_has_the_interval_of_its_test_set() -> None:
    a, b = make_point("A", "x", {3: 0.9}, 1.0), make_point("B", "x", {3: 0.8, 4: 0.1}, 1.0)
    assert gain_difference(a, b) == share_difference((90, 100), (80, 100))
    assert share_difference((90, 100), (80, 100)).low is not None
    rows = np.arange(100)
    right = (rows >= 10, rows >= 20)
    known = [
        replace(p, rows=(replace(p.rows[0], right=pack_right(r)), *p.rows[1:]))
        for p, r in zip((a, b), right, strict=True)
    ]
    assert gain_difference(*known) == paired_share_difference(*right)
    assert gain_difference(known[0], b) == share_difference((90, 100), (80, 100))
    uncounted = make_point("C", "x", {3: 0.8}, 1.0, total=None)
    assert gain_difference(a, uncounted).low is None
    # a shared test set cannot show that nothing is lost when the samples are few
    found = first([make_point("A", "x", {3: 0.91}, 2.0), make_point("B", "x", {3: 0.9}, 1.0)])  # fmt: skip
    assert found.saving is not None
    assert not found.saving.shown


def test_other_seeds_are_no_pair() -> None:
    points = [make_point("A", "x", {0: 0.9}, 9.0), make_point("B", "x", {1: 0.9}, 1.0)]
    assert first(points).candidates == 0


def test_the_band_is_that_of_the_simulators_ratio() -> None:
    graph = attention_block("INT8", "TERNARY")
    ledgers = {n: cost(graph, load_machine(n)).steady.ledger for n in ("int8_edge", "ternary_edge")}
    dear, cheap = (
        make_point("A", name, BEST, ledger.nominal_pj, energy_terms(ledger))
        for name, ledger in ledgers.items()
    )
    found = cost_ratio(dear, cheap, "energy_pj")
    expected = ratio(*ledgers.values()).band
    assert found.nominal == expected.nominal
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), rtol=1e-12)
    # bands of the two energies, taken as independent, would be wider
    a, b = (ledger.total for ledger in ledgers.values())
    assert found.high / found.low < 0.8 * (a.high / b.low) / (a.low / b.high)


def test_an_exact_cost_has_a_ratio_without_a_band() -> None:
    slow, fast = (make_point("A", "x", BEST, 1.0, latency_s=s) for s in (3.0, 2.0))
    found = cost_ratio(slow, fast, "latency_s")
    assert (found.low, found.nominal, found.high) == (1.5, 1.5, 1.5)


def test_every_student_is_asked_for_the_most_accurate_first() -> None:
    points = [
        make_point("int8", "x", near(0.001, 0.0005), 6.0),
        make_point("bit", "x", BEST, 2.0),
        make_point("bad", "x", near(0.1, 0.0005), 3.0),
    ]
    found = list(iso_accuracies(points, "energy_pj"))
    assert [f.baseline.student for f in found] == ["bit", "int8", "bad"]
    # the cheapest is the most accurate: nobody undercuts it, it undercuts the others
    assert [f.saving and f.saving.cheap.student for f in found] == [None, "bit", "bit"]
    assert [f.candidates for f in found] == [0, 2, 1]


def test_of_equally_accurate_students_the_dearest_is_asked_for_first() -> None:
    points = [make_point(f"cost {c}", "x", BEST, float(c)) for c in (2, 3, 1)]
    found = list(iso_accuracies(points, "energy_pj"))
    assert [f.baseline.student for f in found] == ["cost 3", "cost 2", "cost 1"]
    assert [f.equal for f in found] == [2, 1, 0]
    assert found[0].saving is not None
    assert found[0].saving.ratio.nominal == 3.0
