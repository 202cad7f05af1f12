"""Budgets of a sweep, and what a dry run says of the time that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import standins

from studies.allowance import Allowance
from studies.coordinator import Coordinator, blocked_by
from studies.estimate import describe, duration, known_seconds, rows_trained, shared
from studies.executor import LocalPool, SerialExecutor
from studies.ledger import Attempt, Ledger
from studies.plan import Plan
from studies.space import Budget


def run(plan: Plan, folder: Path, allowance: Allowance, workers: int = 0) -> list[str]:
    executor = LocalPool(workers) if workers else SerialExecutor()
    with Ledger(folder) as ledger, executor:
        coordinator = Coordinator(
            plan, folder, ledger, standins.FUNCTIONS, retries=0, allowance=allowance
        )
        return [n.label for n in coordinator.run(executor, max(1, 2 * workers))]


@pytest.mark.parametrize("workers", [0, 2])
def test_so_many_attempts_begin_and_the_next_sweep_goes_on(tmp_path: Path, workers: int) -> None:
    plan = standins.make_plan(tmp_path / "count")
    left = [len(plan.nodes)]
    while left[-1]:
        allowance = Allowance(Budget(nodes=4))
        left.append(len(run(plan, tmp_path / "runs", allowance, workers)))
        assert allowance.refused == (left[-1] > 0)
    assert left == [11, 7, 3, 0]  # a refusal of a machine is an attempt, too
    assert (tmp_path / "count").stat().st_size == 9


def test_hours_are_those_since_the_sweep_began(tmp_path: Path) -> None:
    now = [1000.0]

    def later() -> float:
        now[0] += 900.0  # each look at the clock is a quarter of an hour later
        return now[0]

    plan = standins.make_plan(tmp_path / "count")
    allowance = Allowance(Budget(hours=1), clock=later)
    assert len(run(plan, tmp_path / "runs", allowance)) == 11 - 3
    assert allowance.refused


def test_no_budget_refuses_nothing(tmp_path: Path) -> None:
    allowance = Allowance()
    assert run(standins.make_plan(tmp_path / "count"), tmp_path / "runs", allowance) == []
    assert not allowance.refused


def test_what_was_not_begun_has_not_failed(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count", fail=True)
    nodes = {n.label: n for n in plan.nodes}
    unfinished = [n for n in plan.nodes if n.label not in ("teacher", "student a")]
    failed = blocked_by(unfinished, {nodes["teacher"].id, nodes["student bb"].id})
    assert list(failed) == [nodes["student bb"].id]
    (waiting,) = failed.values()
    assert [n.label for n in waiting] == ["export bb", "bb on x", "bb on y", "bb on refuser"]


def ledger(folder: Path, kind: str, *seconds: float, status: str = "ok") -> None:
    with Ledger(folder) as opened:
        for number, took in enumerate(seconds):
            opened.append(
                Attempt(
                    f"{kind}{number}", 1, status, kind, kind, {}, (), {}, None, {"seconds": took}
                )
            )


def test_the_time_that_is_left_comes_from_ledgers_or_is_not_known(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count")
    own, other = tmp_path / "own", tmp_path / "other"
    ledger(own, "train", 60.0, 30.0, 90.0)
    ledger(own, "export", 1.0, status="failed")  # says nothing of how long one takes that ends
    ledger(other, "train", 5.0)
    ledger(other, "evaluate", 10.0, 20.0)
    assert known_seconds(own)["train"].seconds == [60.0, 30.0, 90.0]
    text = describe(plan, own)
    assert f"train     about 3 min one after the other (median of 3 in {own})" in text
    assert f"evaluate  about 90 s one after the other (median of 2 in {other})" in text
    assert "export    not known before the first of its kind has run" in text
    assert "student bb" in text


def test_what_is_shared_is_said(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count")
    assert shared(plan.nodes) == [
        "each of 1 train serves 2 train",
        "each of 2 export serves 3 evaluate",
    ]


def test_durations_have_a_unit_that_suits() -> None:
    assert [duration(s) for s in (0.034, 42.4, 99.4, 99.6, 5400, 9000)] == [
        "0.034 s",
        "42 s",
        "99 s",
        "2 min",
        "90 min",
        "2.5 h",
    ]


def test_trainings_are_estimated_by_the_rows_that_they_read(tmp_path: Path) -> None:
    def training(steps: int | None) -> dict[str, object]:
        return {"run": {"train": {"steps": steps, "batch_size": 8, "accumulate": 2}}}

    assert [rows_trained(training(n)) for n in (10, 0, None)] == [160, 0, None]
    assert rows_trained({"machine": "toy"}) is None
    own = tmp_path / "own"
    with Ledger(own) as opened:
        for number, (steps, took) in enumerate(((10, 80.0), (20, 160.0), (None, 7.0))):
            name = f"train{number}"
            opened.append(
                Attempt(
                    name, 1, "ok", "train", name, training(steps), (), {}, None, {"seconds": took}
                )
            )
    known = known_seconds(own)["train"]
    assert known.seconds_a_row == [0.5, 0.5]
    assert (
        known.text(3, 1200)
        == f"about 10 min one after the other (median of 2, row by row, in {own})"
    )
    assert known.text(3, 0).startswith("about 0 s")
    assert known.text(3) == f"about 4 min one after the other (median of 3 in {own})"
