"""The JSON Schema of a machine file: what editors complete, and that they refuse nothing that `hwsim check` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, ValidationError

from hwsim import registry
from hwsim.arch.machine_spec import array_class
from hwsim.config.load import machine_files
from hwsim.config.schema import DIALECT, machine_schema
from hwsim.config.source import parse_yaml, read_yaml

SCHEMA = machine_schema()
EDITOR = Draft7Validator(SCHEMA)
OURS = sorted((Path(__file__).parents[1] / "machines").glob("*.yaml"))
TOY = next(path for path in machine_files() if path.stem == "toy")


def complaints(data: dict[str, Any]) -> list[str]:
    """Return what an editor would underline, `path: message`; of alternatives what each of them lacks."""

    def leaves(error: ValidationError) -> Iterator[str]:
        for below in error.context or ():
            yield from leaves(below)
        if not error.context:
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"

    return sorted(line for error in EDITOR.iter_errors(data) for line in leaves(error))


def test_it_is_a_schema() -> None:
    assert SCHEMA["$schema"] == DIALECT
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", [*machine_files(), *OURS], ids=lambda path: path.stem)
def test_an_editor_takes_every_machine(path: Path) -> None:
    assert complaints(read_yaml(path).data) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A change of another machine's array, quantity, memory or DRAM need not be whole ...
        ("arrays: {main: {rows: 16}}", []),
        ("arrays: {main: {energy: {lane_op_fj: {value: 3.0}}}}", []),
        ("memories: {weights: {capacity_bytes: 4KiB, scaling: null}}", []),
        ("dram: {latency_cycles: 3}", []),
        ("vector_unit: {operators: {softmax: {cycles_per_row: 3}}}", []),
        # ... but what replaces it must be.
        ("arrays: {main: {kind: int, rows: 16}}", ["arrays.main: 'cols' is a required property"]),
        ("control_pj_per_step: {value: 3.0, kind: model}", ["'source' is a required property"]),
        ("operating_points: [{name: low}]", ["'clock_hz' is a required property"]),
        ("dram: {preset: hbm3, latency_ns: 3}", []),
        # Names and values are known.
        ("dram: {preset: hbm4}", ["dram.preset: 'hbm4' is not one of ["]),
        ("arrays: {main: {kind: lutt}}", ["arrays.main.kind: 'lutt' is not one of ["]),
        (
            "arrays: {main: {rwos: 16}}",
            ["arrays.main: Additional properties are not allowed ('rwos' was unexpected)"],
        ),
        ("vector_unit: {operators: {gelu: {}}}", ["vector_unit.operators: Additional properties"]),
        (
            "memories: {weights: {capacity_bytes: 64KB}}",
            ["memories.weights.capacity_bytes: '64KB'"],
        ),
        (
            "arrays: {main: {energy: {from: table.txt}}}",
            ["arrays.main.energy.from: 'table.txt' does not match"],
        ),
    ],
)
def test_a_file_that_extends_another_says_what_differs(text: str, expected: list[str]) -> None:
    found = complaints(parse_yaml(f"extends: toy\n{text}\n", "text").data)
    assert bool(found) == bool(expected)
    for part in expected:
        assert any(part in line for line in found), found


def test_a_file_that_stands_alone_says_everything() -> None:
    data = read_yaml(TOY).data
    del data["memories"]["buffer"]["read_pj"]
    del data["dma"]["channels"]
    assert complaints(data) == [
        "dma: 'channels' is a required property",
        "memories.buffer: 'read_pj' is a required property",
    ]


@pytest.mark.parametrize("kind", registry.kinds("array"))
def test_a_kind_brings_its_own_keys_and_no_others(kind: str) -> None:
    data = read_yaml(TOY).data
    spec = array_class(kind).spec_class
    data["arrays"]["main"] = {"kind": kind, "no_such_key": 1}
    found = " ".join(complaints(data))
    for name, field in spec.model_fields.items():
        assert (f"'{name}' is a required" in found) == (field.is_required() and name != "kind")
    assert found.count("'no_such_key' was unexpected") == 1


def test_every_key_says_what_it_is() -> None:
    def keys(part: Any, name: str) -> Iterator[tuple[str, Any]]:
        for key, value in part.get("properties", {}).items():
            yield f"{name}.{key}", value
        if "else" in part:
            yield from keys(part["else"], name)

    described = dict(pair for name, part in SCHEMA["$defs"].items() for pair in keys(part, name))
    assert len(described) > 200
    assert [name for name, value in described.items() if "description" not in value] == []


def test_formats_are_offered_and_others_taken() -> None:
    weight = SCHEMA["$defs"]["FormatPair"]["properties"]["weight"]
    formats = Draft7Validator(weight)
    assert all(formats.is_valid(name) for name in ("TERNARY", "INT8", "UINT7", "INT4N"))
    assert not formats.is_valid("FP8")
