"""What a sweep says last."""

from __future__ import annotations

from pathlib import Path

import pytest
import standins

from studies import ending, synthetic
from studies.coordinator import blocked_by
from studies.ending import failure_lines, last_word
from studies.plan import Plan
from studies.report import problems
from studies.table import load_results


def test_it_is_the_rows_and_what_the_report_warns_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = synthetic.make_folder(
        tmp_path / "bad", (0, 1), {"W8A8": 0.97, "W1A1 BiT": 0.93}, unequal=True, fail=True
    )
    results = load_results(folder)
    head, rule, *lines = last_word(folder).splitlines()
    names = ["student", "seed", "machine", "status", "metric", "score", "energy_pj"]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [*names, "latency_s_steady"]
    assert set(rule) <= set("|-:")
    shown = lines[: len(results.rows)]
    for line, row in zip(shown, results.rows, strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[:4] == [row.student, str(row.seed), row.machine, row.status]
        assert cells[6] == ("" if row.energy_pj is None else f"{row.energy_pj:.6g}")
    assert problems(results)
    assert lines[len(results.rows) :] == [f"the report warns: {p}" for p in problems(results)]

    monkeypatch.setattr(ending, "MOST_LINES", 1)
    row, more_rows, problem, *more = last_word(folder).splitlines()[2:]
    assert row.startswith("| W8A8")
    assert more_rows == f"1 of {len(shown)} rows; the others: python -m studies.query {folder}"
    assert problem == f"the report warns: {problems(results)[0]}"
    assert more == [f"and of {len(problems(results)) - 1} more"]


def test_what_waits_is_counted_by_what_it_waits_for(tmp_path: Path) -> None:
    plan = standins.make_plan(tmp_path / "count")
    node = {n.label: n for n in plan.nodes}
    folder = tmp_path / "runs"

    def told(*tried: str) -> list[str]:
        failed = blocked_by(plan.nodes, {node[label].id for label in tried})
        lines = failure_lines(folder, plan.nodes, failed)
        return [line.partition("  ")[0] for line in lines]

    assert told("teacher") == ["failed: teacher", "10 further nodes wait for teacher"]
    # the nearest failure is what a node waits for; one that hangs below nothing that failed is not told
    assert told("student a", "export a", "bb on x") == [
        "failed: student a",
        "failed: export a",
        "3 further nodes wait for export a",
        "failed: bb on x",
    ]
    one = Plan(plan.study, plan.nodes[:2])
    failed = blocked_by(one.nodes, {one.nodes[0].id})
    where = folder / "nodes" / one.nodes[0].folder_name
    assert list(failure_lines(folder, one.nodes, failed)) == [
        f"failed: teacher  {where}",
        "1 further node waits for teacher",
    ]
