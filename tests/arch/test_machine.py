"""Machines: what runs where, what is lacking, memories, DRAM, identity, and arrays of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwsim import registry
from hwsim.arch.machine_checks import quantities
from hwsim.arch.spec import Quantity
from hwsim.config.load import list_machines, load_machine
from hwsim.errors import ConfigError, GraphError
from hwsim.graph.dtype import BIPOLAR, TERNARY, int_, uint
from hwsim.graph.ir import Attr, Constant, Node, QuantGraph, Tensor
from hwsim.graph.ops import OPERATORS

INT8 = int_(8)


def graph() -> QuantGraph:
    """Return linear (INT16 x INT8) -> softmax -> relayout: two things that a small machine may lack."""
    tensors = [
        Tensor("x", int_(16), (4, 8)),
        Tensor("fc1", int_(32), (4, 4)),
        Tensor("fc2", int_(32), (4, 4)),
        Tensor("p", uint(17), (4, 4)),
        Tensor("t", uint(17), (4, 4)),
    ]
    constants = [
        Constant("w", INT8, np.ones((4, 8), np.int8)),
        Constant("table", int_(32), np.zeros((1, 9), np.int64)),
    ]
    softmax: dict[str, Attr] = {"mode": "direct", "shift": 0, "causal": False, "masked": False}
    return QuantGraph(
        nodes=(
            Node("fc1", "linear", ("x",), {"weight": "w"}),
            Node("fc2", "linear", ("x",), {"weight": "w"}),
            Node("p", "softmax", ("fc1",), {"table": "table"}, softmax),
            Node("t", "relayout", ("p",)),
        ),
        tensors={t.name: t for t in tensors},
        constants={c.name: c for c in constants},
        inputs=("x",),
        outputs=("t", "fc2"),
    )


def test_everything_lacking_is_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "poor.yaml"
    path.write_text("extends: toy\nname: poor\nvector_unit: null\n", encoding="utf-8")
    with pytest.raises(GraphError) as caught:
        load_machine(path).check(graph())
    assert str(caught.value) == (
        "machine poor cannot run this graph, it lacks:\n"
        "  linear of INT16 x INT8: fc1, fc2\n"
        "  vector operator softmax: p\n"
        "  vector operator relayout: t"
    )


def test_products_go_to_the_main_array_first_and_then_to_the_dot_unit() -> None:
    machine = load_machine("xnor_edge")
    assert machine.array_for(BIPOLAR, BIPOLAR).name == "main"
    assert machine.array_for(uint(8), TERNARY).name == "dot"
    with pytest.raises(GraphError, match="machine xnor_edge has no array for INT16 x INT8"):
        machine.array_for(int_(16), INT8)


def test_edge_machines_have_a_cost_for_every_vector_operator() -> None:
    vector = {op for op, entry in OPERATORS.items() if entry.unit == "vector"}
    for name, _ in list_machines(published=False):
        unit = load_machine(name).spec.vector_unit
        assert unit is not None
        assert set(unit.operators) == vector


def test_vector_cycles_are_overhead_rows_and_sweeps() -> None:
    unit = load_machine("toy").vector_unit
    assert unit is not None
    # 2 to start; 3 rows of division at 10; 3 passes over ceil(3 * 7 / 4) = 6 groups of lanes
    assert unit.cycles("softmax", rows=3, elements=21) == 2 + 3 * 10 + 3 * 6
    assert unit.cycles("add", rows=3, elements=21) == 2 + 6


def test_dram_transfers_round_up_to_bursts_and_cycles() -> None:
    machine = load_machine("toy")
    assert machine.dram.bus_bits(1) == 64
    assert machine.dram.bus_bits(65) == 128
    # 2 to set up, 10 of latency, 128 bits at 64 a cycle
    assert machine.dram.transfer_cycles(128, machine.spec.dma) == 2 + 10 + 2
    slow = load_machine("toy", ["dram.bandwidth_bytes_per_s=300000000"])  # 24 bits a cycle
    assert slow.dram.transfer_cycles(128, slow.spec.dma) == 2 + 10 + 6


def test_identity_changes_with_any_key_and_with_nothing_else() -> None:
    assert load_machine("toy").sha256 == load_machine("toy").sha256
    changed = load_machine("toy", ["dram.latency_cycles=11"])
    assert changed.sha256 != load_machine("toy").sha256


def test_measured_is_only_said_of_what_was_measured() -> None:
    """No unit energy of a shipped machine comes from a measurement of that very component."""
    for name, _ in list_machines(published=False):
        for path, quantity in quantities(load_machine(name).spec):
            assert quantity.kind in ("model", "assumed"), (name, path)
            assert len(quantity.source) > 10, (name, path)


def test_one_name_is_one_unknown_on_all_machines() -> None:
    spread: dict[str, tuple[float, float]] = {}
    for name, _ in list_machines(published=False):
        for path, q in quantities(load_machine(name).spec):
            if q.shared is not None:
                here = (q.low / q.value, q.high / q.value)
                assert spread.setdefault(q.shared, here) == pytest.approx(here), (name, path)


def test_scaling_a_quantity_keeps_its_provenance_and_draw() -> None:
    q = Quantity.model_validate(
        {"value": 2.0, "low": 1.0, "high": 8.0, "kind": "model", "source": "s", "shared": "n"}
    )
    twice = q.scaled(2)
    assert (twice.low, twice.value, twice.high) == (2, 4, 16)
    assert (twice.kind, twice.source, twice.shared) == ("model", "s", "n")


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(
        ValueError, match=r"array kind 'int' is registered twice: by hwsim\.arch\.int_array"
    ):
        registry.register("array", "int")(object)
    with pytest.raises(KeyError, match="did you mean 'ternary'"):
        registry.lookup("array", "ternry")


PLUGIN = """
from typing import Literal

from hwsim.arch.component import ArraySpec
from hwsim.arch.int_array import IntArray
from hwsim.registry import register


class SlowSpec(ArraySpec):
    kind: Literal["slow"]
    slowness: int


@register("array", "slow")
class Slow(IntArray):
    spec_class = SlowSpec

    def passes(self, a, w):
        return self.spec.slowness
"""


def test_an_array_of_ones_own_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "slow_array.py").write_text(PLUGIN, encoding="utf-8")
    info = tmp_path / "slow_array-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-array\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bitwright.arrays]\nslow = slow_array\n")
    machine = tmp_path / "mine.yaml"
    machine.write_text("extends: toy\narrays: {main: {rows: 2}}\n", encoding="utf-8")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from hwsim.config.load import load_machine
from hwsim.errors import ConfigError
from hwsim.graph.dtype import int_
good = ["arrays.main.kind=slow", "arrays.main.slowness=5"]
print(load_machine({str(machine)!r}, good).arrays["main"].beats(2, 4, 8, int_(8), int_(8)))
try:
    load_machine({str(machine)!r}, ["arrays.main.kind=slow", "arrays.main.slownes=5"])
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    beats, fault = done.stdout.splitlines()
    assert beats == "5"
    assert fault == (
        "--set arrays.main.slownes=5: arrays.main.slownes: must be a known key;"
        " did you mean 'slowness'? (that one is missing)"
    )


def test_an_entry_point_that_fails_names_its_distribution(tmp_path: Path) -> None:
    info = tmp_path / "bad_array-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-array\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bitwright.arrays]\nbad = no_such_module\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom hwsim.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "check", "toy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "entry point 'bad' of bad-array (no_such_module) cannot be loaded" in done.stderr


def test_machine_files_need_no_torch() -> None:
    script = (
        "import sys; from hwsim.config.load import load_machine; load_machine('xnor_edge');"
        "import hwsim.cli; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_config_errors_hold_their_faults() -> None:
    error = ConfigError(["a", "b"])
    assert error.faults == ("a", "b")
    assert str(error) == "a\nb"
