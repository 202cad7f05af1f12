"""Joint draws: the energies that hwsim draws, and means that move as their t intervals say."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import attention_block
from points import make_point
from scipy.stats import beta, kstest, t

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.draws import DRAWS, Band, draw_position
from hwsim.engine.energy import Ledger
from hwsim.engine.ratio import ratio
from hwsim.metrics import pack_right
from studies.criteria import score_draws
from studies.draws import answer_draws, energy_draws, energy_terms, mean_draws, share_draws

MACHINES = ("int8_edge", "ternary_edge", "bitserial_edge")


@pytest.fixture(scope="module")
def ledgers() -> list[Ledger]:
    graph = attention_block("INT8", "TERNARY")
    return [cost(graph, load_machine(name)).steady.ledger for name in MACHINES]


def test_terms_give_back_the_draws_of_the_simulator(ledgers: list[Ledger]) -> None:
    stored = json.loads(json.dumps([energy_terms(ledger) for ledger in ledgers]))
    drawn = energy_draws([[terms] for terms in stored])
    assert drawn.shape == (len(ledgers), DRAWS)
    for row, ledger in zip(drawn, ledgers, strict=True):
        np.testing.assert_allclose(row, ledger.draws, rtol=1e-12)
        assert np.ptp(row) > 0.1 * ledger.nominal_pj


def test_a_ratio_of_drawn_points_is_the_simulators(ledgers: list[Ledger]) -> None:
    first, second = energy_draws([[energy_terms(ledger)] for ledger in ledgers[:2]])
    band = Band.of(first / second, ledgers[0].nominal_pj / ledgers[1].nominal_pj)
    expected = ratio(*ledgers[:2]).band
    for ours, theirs in ((band.low, expected.low), (band.high, expected.high)):
        assert math.isclose(ours, theirs, rel_tol=1e-12)


def test_terms_are_small_and_leave_no_energy_out(ledgers: list[Ledger]) -> None:
    for ledger in ledgers:
        terms = energy_terms(ledger)
        # at most a quarter of what 1,000 draws in float32 take; 10,000 rows then stay under 20 MB
        assert len(json.dumps(terms)) < 1000
        keys = [(name, spread) for name, spread, _ in terms]
        assert len(keys) == len(set(keys))
        lows = math.fsum(
            c.count * price.quantity.low * price.to_pj
            for _, c in ledger.entries
            for price in [ledger.prices.price(c.component, c.action)]
        )
        assert math.isclose(math.fsum(pj for _, _, pj in terms), lows, rel_tol=1e-12)


def test_a_point_is_the_mean_of_its_rows_and_shares_unknowns_with_others() -> None:
    drawn = energy_draws(
        [[[("u", 4.0, 1.0), ("", 1.0, 2.0)], [("u", 4.0, 3.0)]], [[("u", 4.0, 4.0)]], [[]]]
    )
    shared = 4.0 ** draw_position("u")
    np.testing.assert_allclose(drawn[0], (2.0 + 4.0 * shared) / 2, rtol=1e-14)
    np.testing.assert_allclose(drawn[1], 4.0 * shared, rtol=1e-14)
    assert not drawn[2].any()


def test_many_points_are_drawn_as_each_by_itself() -> None:
    points = [[[("u", 4.0, 1.0), (f"m{i}", 2.0, 1.0 + i)]] for i in range(500)]
    drawn = energy_draws(points)
    for index in (0, 1, 250, len(points) - 1):
        np.testing.assert_array_equal(drawn[index], energy_draws([points[index]])[0])


SEEDS = {
    "a": {0: 0.90, 1: 0.93, 2: 0.91, 3: 0.96},
    "b": {0: 0.89, 1: 0.91, 2: 0.91, 3: 0.94},
    "c": {0: 0.5, 7: 0.7},
}


def standardised(drawn: np.ndarray, values: list[float]) -> np.ndarray:
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return (drawn - np.mean(values)) / error


def test_means_have_the_t_distribution_of_their_interval() -> None:
    drawn = mean_draws(list(SEEDS.values()))
    for row, values in zip(drawn, SEEDS.values(), strict=True):
        scores = standardised(row, list(values.values()))
        assert kstest(scores, t(len(values) - 1).cdf).pvalue > 0.01
    # the test can fail: a normal instead of t, a spread that is a third too small
    few = standardised(drawn[2], list(SEEDS["c"].values()))
    assert kstest(few, "norm").pvalue < 0.01
    scores = standardised(drawn[0], list(SEEDS["a"].values()))
    assert kstest(scores * math.sqrt(2 / 3), t(3).cdf).pvalue < 0.01


def test_differences_have_the_t_distribution_of_the_paired_effect() -> None:
    a, b, _ = mean_draws(list(SEEDS.values()))
    differences = [SEEDS["a"][s] - SEEDS["b"][s] for s in SEEDS["a"]]
    assert kstest(standardised(a - b, differences), t(3).cdf).pvalue > 0.01
    unpaired = a - np.roll(b, 1)
    assert kstest(standardised(unpaired, differences), t(3).cdf).pvalue < 1e-6


def test_a_seeds_push_depends_on_the_seed_alone() -> None:
    alone = mean_draws([SEEDS["b"]])[0]
    assert (mean_draws([SEEDS["c"], SEEDS["b"]])[1] == alone).all()
    turned = mean_draws([dict(reversed(SEEDS["b"].items()))])[0]
    np.testing.assert_allclose(turned, alone, rtol=1e-14)
    renamed = mean_draws([{s + 10: v for s, v in SEEDS["b"].items()}])[0]
    assert not np.allclose(renamed, alone)
    assert (mean_draws([{3: 0.25}]) == 0.25).all()


def test_a_share_is_drawn_from_jeffreys_posterior() -> None:
    drawn = share_draws("m", 97, 100)
    assert kstest(drawn, beta(97.5, 3.5).cdf).pvalue > 0.01
    assert (share_draws("m", 97, 100) == drawn).all()
    assert abs(np.corrcoef(drawn, share_draws("n", 97, 100))[0, 1]) < 0.1
    assert (share_draws("m", 10, 10) < 1).all()


def test_answers_to_the_same_rows_are_drawn_together() -> None:
    rows = np.arange(3000)
    right = {"a": rows % 10 > 0, "b": (rows % 10 > 0) & (rows % 100 != 7), "c": (rows + 5) % 10 > 0}
    drawn = answer_draws(right)
    for name, answers in right.items():
        correct = int(answers.sum())
        assert kstest(drawn[name], beta(correct + 0.5, 3000.5 - correct).cdf).pvalue > 0.01
    # a and b differ in one row of a hundred, a and c fail on different rows
    spread = np.std(drawn["a"] - drawn["b"])
    assert spread == pytest.approx(math.sqrt(0.01 * 0.99 / 3000), rel=0.1)
    assert spread < 0.4 * np.std(drawn["a"] - drawn["c"])
    assert np.corrcoef(drawn["a"], drawn["c"])[0, 1] < 0
    # the same whoever else is drawn, up to the rounding of a sum; equal answers are not surely equal models
    again = answer_draws({"a": right["a"], "z": right["a"]})
    np.testing.assert_allclose(again["a"], drawn["a"], rtol=1e-12)
    assert 0 < np.std(again["a"] - again["z"]) < 0.3 * spread
    assert (answer_draws({"m": np.ones(10, np.bool_)})["m"] < 1).all()


def test_points_of_one_seed_are_paired_where_their_answers_are_known() -> None:
    rows = np.arange(200)
    right = {"A": rows % 10 > 0, "B": (rows % 10 > 0) & (rows != 7)}
    points = [make_point(name, "x", {0: answers.mean()}, 1.0, total=200) for name, answers in right.items()]  # fmt: skip
    apart = score_draws(points)
    known = [
        replace(p, rows=(replace(p.rows[0], right=pack_right(right[p.student])),)) for p in points
    ]
    paired = score_draws(known)
    assert np.std(paired[0] - paired[1]) < 0.5 * np.std(apart[0] - apart[1])
    assert np.mean(paired[0] > paired[1]) > 0.7
    # one that is known and one that is not have nothing in common
    assert abs(np.corrcoef(score_draws([known[0], points[1]]))[0, 1]) < 0.1


def test_one_model_has_one_accuracy_on_all_machines() -> None:
    one = [make_point("A", m, {0: 0.9}, 1.0) for m in ("x", "y")]
    several = [make_point("B", m, {0: 0.9, 1: 0.8}, 1.0) for m in ("x", "y")]
    uncounted = make_point("C", "x", {0: 0.9}, 1.0, total=None)
    drawn = score_draws([*one, *several, uncounted])
    assert (drawn[0] == drawn[1]).all()
    assert np.ptp(drawn[0]) > 0
    assert (drawn[2] == drawn[3]).all()
    assert (drawn[4] == 0.9).all()
