"""The table of all machines against the reference: what a cell says, and that nothing unequal hides in it."""

from __future__ import annotations

import json
from pathlib import Path

from hwsim.config.load import list_machines
from studies.record_library import collect_library, library_section

RECORD = Path(__file__).parents[2] / "studies/results/library.json"


def test_a_cell_says_what_was_compared_and_what_was_not() -> None:
    rows = [
        {"machine": "a", "model": "m", "tensors": 9, "unequal": 2, "on_host": {}},
        {"machine": "b", "model": "m", "tensors": 5, "unequal": 0, "on_host": {"add": 3, "softmax": 1}},
        {"machine": "c", "model": "m", "refused": "machine c cannot run this graph, it lacks:\n  linear"},
        {"machine": "d", "model": "m", "refused": "x: not even the smallest tile fits"},
        {"machine": "e", "model": "m", "tensors": 4, "unequal": 0, "on_host": {},
         "decode": {"tokens": 32, "tensors": 7, "unequal": 1}},
    ]  # fmt: skip
    record = {
        "models": {"m": "00"}, "rows": rows, "samples": 2, "git_revision": "abc", "date": "2000-01-01",
        "host": {"processor": "p"},
    }  # fmt: skip
    lines = library_section(record)
    for line in (
        "| a | 2 of 9 |", "| b | 0 of 5 + 4 host |", "| c | none |", "| d | refused |",
        "| e | 0 of 4; decoded 1 of 7 |",
    ):  # fmt: skip
        assert line in lines


def test_the_record_is_of_every_machine_and_all_are_equal() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    shipped = {
        name for published in (True, False) for name, _ in list_machines(published=published)
    }
    assert {row["machine"] for row in record["rows"]} == shipped
    assert len(record["rows"]) == len(shipped) * len(record["models"])
    compared = [row for row in record["rows"] if "tensors" in row]
    assert {row["machine"] for row in compared} == shipped  # each runs something
    assert all(row["unequal"] == 0 for row in compared)
    assert all(row["decode"]["unequal"] == 0 for row in compared if "decode" in row)


def test_a_model_without_machines_to_run_it_is_a_row_and_no_error(
    tmp_path: Path, monkeypatch
) -> None:
    from hwsim.random_weights import random_model
    from studies import record_library

    random_model("cnv_w2a2", tmp_path / "net", reduce=16)
    monkeypatch.setattr(
        record_library, "list_machines", lambda published: [("yodann", ""), ("finn_cnv", "")] if published else []
    )  # fmt: skip
    first, second = collect_library([tmp_path / "net"], 1)["rows"]
    assert "lacks" in first["refused"]
    assert (second["unequal"], second["on_host"]) == (0, {})
    assert second["tensors"] > 5
