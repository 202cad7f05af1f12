"""The shipped targets: what was predicted first still stands, and the page shows what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.config.load import list_machines, machines_folder
from hwsim.report.validation import markdown
from hwsim.validation.judge import Validation, validate
from hwsim.validation.lock import LOCK_NAME

PAGE = Path(__file__).parents[2] / "docs" / "validation.md"
LOCK = machines_folder() / LOCK_NAME


@pytest.fixture(scope="module")
def everything() -> Validation:
    """Hold all shipped machines; every target must have its first prediction already."""
    before = LOCK.read_bytes()
    result = validate()
    assert LOCK.read_bytes() == before, "a target came without a prediction committed before it"
    return result


def test_the_page_shows_what_the_command_prints(everything: Validation) -> None:
    table = markdown(everything)
    assert table in PAGE.read_text(encoding="utf-8"), (
        "replace the table by the output of `python -m hwsim validate --markdown`"
    )


def test_no_prediction_has_changed_unrecorded(everything: Validation) -> None:
    assert [f"{r.machine}, {r.target}" for r in everything.changed] == []


def test_every_published_machine_has_a_target_and_every_miss_its_analysis(
    everything: Validation,
) -> None:
    machines = {name for name, _ in list_machines(published=True)}
    assert {r.machine for r in everything.rows} == machines
    assert len(machines) >= 12
    text = PAGE.read_text(encoding="utf-8")
    analysis = text[text.index("## The misses") :]
    for row in everything.rows:
        if row.standing != "arithmetic" and abs(row.error) > 0.1:
            assert f"**{row.machine}" in analysis, f"{row.machine}: {row.error:+.0%}"


def test_peaks_that_follow_from_size_and_clock_do() -> None:
    """The arithmetic class is met to the digits that were published; one machine runs, the cheapest."""
    rows = [r for r in validate(["bismo", "braintta"]).rows if r.standing == "arithmetic"]
    assert len(rows) == 4
    assert all(abs(r.error) < 0.01 for r in rows)


def test_the_list_is_one_line_a_prediction() -> None:
    entries = [json.loads(line) for line in LOCK.read_text(encoding="utf-8").splitlines()]
    first = {(e["machine"], e["target"], e["metric"]): e for e in reversed(entries)}
    assert len(first) >= 30
    assert all(e["revision"] and e["date"] and e["machine_sha256"] for e in entries)
