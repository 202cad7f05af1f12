"""Results as data and on the console; results of different inputs are not compared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from rich.console import Console

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.errors import BitwrightError
from hwsim.graph.ir import QuantGraph
from hwsim.report.result import Result, ResultMismatch, code_sha256, require_comparable
from hwsim.report.table import bytes_text, energy_text, print_result, time_text


@pytest.fixture(scope="module")
def data(block: Callable[..., QuantGraph]) -> dict[str, Any]:
    machine = load_machine("xnor_edge")
    report = cost(block("BIPOLAR", "BIPOLAR"), machine)
    accuracy = {
        "metric": "accuracy",
        "value": 0.5,
        "metrics": {"f1": 0.25},
        "wilson_95": [0.1, 0.9],
    }
    result = Result("digits[w1a1]", "ab" * 32, machine.sha256, report, accuracy, ["a note"])
    loaded: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    return loaded


def test_result_holds_what_a_reader_needs(data: dict[str, Any]) -> None:
    assert data["schema_version"] == "hwsim/result/1"
    assert data["accuracy"]["value"] == 0.5
    assert data["latency_cycles"].keys() == data["latency_s"].keys() == {"cold", "steady"}
    assert data["hashes"]["code"] == code_sha256()
    assert all(len(h) == 64 for h in data["hashes"].values())
    assert {"weight_bytes", "peak_activation_bytes", "traffic_bytes"} <= data["memory"].keys()
    assert {"node", "cycles", "binding", "utilisation_frac"} <= data["operators"][0].keys()


def test_equal_inputs_may_be_compared(data: dict[str, Any]) -> None:
    require_comparable(data, deepcopy(data))


def test_different_inputs_may_not(data: dict[str, Any]) -> None:
    other = deepcopy(data)
    other["hashes"] |= {"machine": "00" * 32, "code": "11" * 32}
    with pytest.raises(ResultMismatch, match=r"machine: .* against 0{12}; code: .* against 1{12}"):
        require_comparable(data, other)
    with pytest.raises(BitwrightError, match="code"):
        require_comparable(data, other, may_differ=["machine"])
    require_comparable(data, other, may_differ=["machine", "code"])


def test_different_draws_and_lengths_may_not(data: dict[str, Any]) -> None:
    other = deepcopy(data)
    other["provenance"]["energy_seed"] += 1
    other["sequence_length"] = 3
    with pytest.raises(ResultMismatch, match=r"energy_seed.*sequence_length: 12 against 3"):
        require_comparable(data, other)


def test_console_shows_totals_and_what_is_not_modelled(data: dict[str, Any]) -> None:
    out = io.StringIO()
    print_result(data, Console(file=out, width=160), top=3)
    text = out.getvalue()
    assert "digits[w1a1] on xnor_edge" in text  # brackets are not markup
    assert "latency, cold" in text
    assert "f1 0.2500" in text
    assert "0.1000 .. 0.9000" in text
    assert "(3 of" in text
    assert "mapped for cycles" in text
    assert "0.00% steady, 0.00% cold" in text
    assert "note: a note" in text
    assert "not modelled: overlap of operators" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (energy_text(2.5e12), "2.5 J"),
        (energy_text(999.0), "999 pJ"),
        (time_text(2.0), "2 s"),
        (time_text(5e-9), "5 ns"),
        (bytes_text(3 << 20), "3.0 MiB"),
    ],
)
def test_numbers_carry_a_readable_unit(text: str, wanted: str) -> None:
    assert text == wanted
