"""What the study keeps of the simulator's reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studies.ledger import Attempt
from studies.row import outcome, score_of
from studies.trial import curve, file_bytes, row_of, verified_of


def reports() -> tuple[dict[str, Any], dict[str, Any]]:
    share = {"cycles_frac": 0.5, "energy_frac": 0.6}
    band = {"low": 1.0, "nominal": 2.0, "high": 3.0}
    run = {
        "accuracy": {"correct": 9, "total": 10, "value": 0.9},
        "energy_pj": band,
        "energy_cold_pj": band,
        "energy_by_component_pj": {"dram": band, "array": band},
        "share_assumed_frac": 0.25,
        # not in alphabetical order: the first one is the main array
        "arrays": {"xnor": share, "dot": {"cycles_frac": 0.2, "energy_frac": 0.1}},
        "latency_cycles": {"cold": 5, "steady": 4},
        "latency_s": {"cold": 5e-9, "steady": 4e-9},
        "sequence_length": 17,
        "memory": {"weight_bytes": 7, "peak_activation_bytes": 8, "spills": []},
        "not_modelled": ["clock tree"],
        "hashes": {"model": "a", "machine": "b", "code": "c"},
        "operators": ["many"],
    }
    verification = {
        "ok": False,
        "unequal": [{"tensor": "t"}],
        "tensors": 120,
        "samples": 10,
        "decode": None,
    }
    return run, verification


def test_row_keeps_the_main_numbers_and_counts_unequal_tensors() -> None:
    run, verification = reports()
    row = row_of(run, [("dram_bit", 4.0, 0.5)])
    assert row["energy_terms"] == [("dram_bit", 4.0, 0.5)]
    assert verified_of(verification) == {
        "ok": False,
        "unequal_tensors": 1,
        "compared_tensors": 120,
        "samples": 10,
    }
    # a token that was decoded wrongly counts, too
    decode = {"unequal": [{"tensor": "t"}, {"tensor": "u"}], "tensors": 30}
    decoded = verified_of({**verification, "decode": decode})
    assert (decoded["unequal_tensors"], decoded["compared_tensors"]) == (3, 150)
    assert row["energy_by_component_pj"] == {"dram": 2.0, "array": 2.0}
    assert row["side_arrays"] == {"cycles_frac": 0.2, "energy_frac": 0.1}
    assert (row["weight_bytes"], row["peak_activation_bytes"], row["tokens"]) == (7, 8, 17)
    assert row["energy_cold_pj"]["nominal"] == 2.0
    assert row_of(run | {"sequence_length": 0}, [])["tokens"] is None  # an image
    assert "operators" not in row  # stays in the node's folder; a ledger line is no report


def test_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"12345")
    (tmp_path / "sub" / "b.bin").write_bytes(b"1")
    assert file_bytes(tmp_path) == {"a.bin": 5, "sub/b.bin": 1}
    assert file_bytes(tmp_path, "a.bin", "absent") == {"a.bin": 5}


def test_a_curve_has_the_evaluations_alone(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    assert curve(log, "accuracy") == []
    log.write_text(
        '{"step": 1, "event": "step", "loss": 0.3}\n'
        '{"step": 2, "event": "validation", "accuracy": 0.5, "loss": 0.4}\n'
        '{"step": 4, "event": "validation", "accuracy": 0.75, "loss": 0.2}\n'
    )
    assert curve(log, "accuracy") == [[2, 0.5], [4, 0.75]]


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_rows_are_counted_right_by_an_accuracy_alone(metric: str) -> None:
    # `metric: [f1, accuracy]`: the counts of the second metric are not those of the first
    measured = {"metric": metric, "value": 0.5, "correct": 3, "total": 4, "right": "e0"}
    run, verification = reports()
    result = {
        **row_of(run, []),
        "accuracy": measured,
        "area_um2": None,
        "verify": verified_of(verification) | {"unequal_tensors": 0},
    }
    export = {"rungs": {"measured": {"graph": measured}}}
    evaluated, exported = (
        Attempt("n", 1, "ok", kind, "n", {}, (), r)
        for kind, r in (("evaluate", result), ("export", export))
    )
    found = outcome(evaluated, exported)
    assert (found["metric"], found["score"], found["total"]) == (metric, 0.5, 4)
    counted = metric == "accuracy"
    assert (found["correct"], found["right"]) == ((3, "e0") if counted else (None, None))


def test_the_score_is_that_of_all_held_out_rows_where_the_machine_computes_the_same() -> None:
    ran = {"metric": "accuracy", "value": 0.5, "correct": 2, "total": 4}
    graph = {"metric": "accuracy", "value": 0.9, "correct": 90, "total": 100}
    export = {"rungs": {"measured": {"graph": graph}}}
    equal, unequal = ({"accuracy": ran, "verify": {"unequal_tensors": n}} for n in (0, 1))
    assert score_of(equal, export) == graph
    assert score_of(unequal, export) == ran
    assert score_of(equal, None) == ran
    assert score_of({"accuracy": None}, export) is None  # untrained
