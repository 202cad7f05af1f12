"""A student whose modules differ in precision, by name, is the same model on every rung."""

from __future__ import annotations

from pathlib import Path

import pytest
from lowbit_students import Student, build
from test_rung_a import checks_of

from hwsim import api
from qat.recipe import Recipe, load_recipe

WIDE = {
    "weight": {"format": "INT8", "method": "absmax", "granularity": "row"},
    "input": {"format": "INT8", "range": "dynamic"},
}


def mixed() -> Recipe:
    """W2A8, but layer 0 at W8A8 save its key projection, and the second feed-forward layers in float32."""
    values = load_recipe("kd_w2a8").model_dump(mode="json", by_alias=True)
    ternary = values["quantization"]["linear"]["weight"]
    four_bits = {"format": "UINT4", "range": "learned"}
    values["quantization"]["overrides"] = [
        {"modules": "*.layer.0.*", **WIDE},
        {"modules": "*.layer.0.*.key", "weight": ternary},
        {"modules": "*.layer.1.attention.self", "probabilities": four_bits},
        {"modules": "*.layer.?.output.dense", "weight": None, "input": None},
    ]
    return Recipe.model_validate(values)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return build("bert", mixed(), tmp_path_factory.mktemp("mixed") / "model", layers=2)


def test_every_operator_computes_what_the_student_computes(made: Student) -> None:
    checks = checks_of(made)
    assert list(checks) == [n.name for n in made.graph.nodes]
    assert [c for c in checks.values() if not c.holds] == []


def test_the_integer_graph_holds_the_formats_by_layer(made: Student) -> None:
    graph = made.graph
    weights = {
        node.name: graph.constants[node.constants["weight"]].dtype.name
        for node in graph.nodes
        if node.op == "linear"
    }

    def formats(layer: int, part: str) -> set[str]:
        return {f for name, f in weights.items() if f"layer_{layer}_" in name.replace(".", "_") and part in name}  # fmt: skip

    assert formats(0, "query") == formats(0, "intermediate") == {"INT8"}
    assert formats(0, "key") == formats(1, "query") == formats(1, "intermediate") == {"TERNARY"}


@pytest.mark.parametrize("machine", ["ternary_edge", "int8_edge"])
def test_machines_compute_the_same_codes(made: Student, machine: str) -> None:
    found = api.verify(made.model, machine)
    assert found.unequal == []
    assert found.ok


def test_the_export_of_the_disk_is_loaded_from_the_stored_recipe(
    made: Student, tmp_path: Path
) -> None:
    stored = mixed().model_dump_json(by_alias=True)
    assert Recipe.model_validate_json(stored) == mixed()
    assert '"input":null' in stored
    assert Recipe.model_validate_json(stored).quantization.overrides[1].given.keys() == {"weight"}


ONE_SIDED = {
    "weight alone": [{"modules": "*.intermediate.dense", "input": None}],
    "input alone": [{"modules": "*.intermediate.dense", "weight": None}],
    "float queries": [{"modules": "*.attention.self", "query": None}],
    "float maps": [{"modules": "*.attention.self", "probabilities": None}],
    "float products": [
        {"modules": "*.attention.self", "query": None, "key": None, "value": None, "probabilities": None}
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_SIDED)
def test_what_a_recipe_leaves_in_float_has_8_bits_on_the_machine(name: str, tmp_path: Path) -> None:
    values = load_recipe("kd_w2a8").model_dump(mode="json", by_alias=True)
    values["quantization"]["overrides"] = ONE_SIDED[name]
    made = build("bert", Recipe.model_validate(values), tmp_path / "model")
    checks = checks_of(made)
    assert [c for c in checks.values() if not c.holds] == []
    assert api.verify(made.model, "bitserial_edge").ok
