"""What runs in an output stage, and what is refused because it does not follow a product alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine, load_workload
from hwsim.engine.cost import cost
from hwsim.errors import ConfigError, GraphError
from hwsim.graph.dtype import BIPOLAR, int_
from hwsim.graph.ir import Constant, Node, QuantGraph, Tensor

NO_VECTOR_UNIT = "extends: toy\nname: staged\nvector_unit: null\noutput_stage: [threshold]\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    path = tmp_path / "staged.yaml"
    path.write_text(NO_VECTOR_UNIT, encoding="utf-8")
    return load_machine(path)


def graph(*outputs: str, twice: bool = False) -> QuantGraph:
    """A product, a view of it, a threshold of that; `twice`: a second threshold reads the product, too."""
    nodes = [
        Node("acc", "linear", ("x",), {"weight": "w"}),
        Node("view", "reshape", ("acc",), {}, {"shape": (2, 8)}),
        Node("signs", "threshold", ("view",), {"threshold": "t", "direction": "d"}),
        *([Node("more", "threshold", ("acc",), {"threshold": "t", "direction": "d"})] if twice else []),
    ]  # fmt: skip
    shapes = {"x": (4, 8), "acc": (4, 4), "view": (2, 8), "signs": (2, 8), "more": (4, 4)}
    types = {"x": int_(8), "acc": int_(32), "view": int_(32), "signs": BIPOLAR, "more": BIPOLAR}
    constants = {
        "w": Constant("w", int_(8), np.ones((4, 8), np.int8)),
        "t": Constant("t", int_(8), np.zeros((1, 1), np.int64)),
        "d": Constant("d", BIPOLAR, np.ones(1, np.int64)),
    }
    tensors = {name: Tensor(name, types[name], shape) for name, shape in shapes.items()}
    return QuantGraph(tuple(nodes), tensors, constants, ("x",), outputs)


def test_a_stage_takes_over_what_alone_follows(machine: Machine) -> None:
    made = graph("signs")
    assert [n.name for n in machine.output_stage(made)] == ["signs"]
    report = cost(made, machine)
    rows = {o.node: (o.op, o.unit, o.cycles) for o in report.steady.operators}
    assert rows["signs"] == ("threshold", "output stage", 0)
    assert rows["acc"][1] == "array:main"
    # four rows of 4 signs, a word each, instead of 4 32-bit sums
    assert report.steady.traffic_bytes()["dram_store"] == 4 * 8


@pytest.mark.parametrize("made", [graph("signs", "more", twice=True), graph("signs", "acc")])
def test_what_has_another_reader_needs_a_vector_unit(machine: Machine, made: QuantGraph) -> None:
    with pytest.raises(GraphError, match="threshold that does not alone follow a product: signs"):
        machine.check(made)


def test_only_operators_that_a_stage_can_have(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(NO_VECTOR_UNIT.replace("threshold", "softmax"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"odd\.yaml:4:\d+: output_stage\.0: must be"):
        load_machine(path)


def test_an_empty_stage_is_no_other_machine() -> None:
    toy = load_machine("toy")
    assert load_machine("toy", ["output_stage=[]"]).sha256 == toy.sha256
    assert load_machine("toy", ["output_stage=[requant]"]).sha256 != toy.sha256


def test_border_products_run_in_full_where_empty_beats_are_skipped(tmp_path: Path) -> None:
    """Their share of the weight is not looked at; with all weights one, nothing is empty anyway."""
    path = tmp_path / "padded.yaml"
    path.write_text(
        "schema: hwsim/workload/1\nname: padded\ndescription: a layer\nsource: made up\nenergy_includes: nothing\n"
        "layers:\n  - {name: a, conv: {image: [5, 5], channels: 8, outputs: 8, kernel: [3, 3], padding: 1,"
        " padding_positions: skipped}, activation: TERNARY, weight: TERNARY, result: TERNARY}\n",
        encoding="utf-8",
    )
    workload = load_workload(path)
    reports = [
        cost(workload.graph(), load_machine("ternary_edge", [f"arrays.main.zero_skipping={flag}"]))
        for flag in ("true", "false")
    ]
    lane_ops = [
        sum(c.count for _, c in r.steady.ledger.entries if c.action.startswith("lane_op"))
        for r in reports
    ]
    assert lane_ops[0] == lane_ops[1] == workload.macs == 13 * 13 * 8 * 8
