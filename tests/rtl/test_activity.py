"""Switching activity of whole runs: against the cost model's counts, the golden vectors and SAIF's own rules."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LENGTHS, attention, export

from hwsim.engine.cost import cost
from hwsim.errors import GraphError
from hwsim.graph.serialize import Model
from hwsim.rtl.activity import Activity, activity
from hwsim.rtl.saif import time_scale
from hwsim.rtl.vectors import write_vectors

MACHINES = Path(__file__).parents[1] / "machines"
CASES = {
    "xnor": ("xnor_edge", "BIPOLAR", "BIPOLAR", ()),
    "ternary": ("ternary_edge", "INT8", "TERNARY", ()),
    "skipping": ("ternary_edge", "INT8", "TERNARY", ("arrays.main.zero_skipping=true",)),
    "bit_serial": ("bitserial_edge", "INT4", "BIPOLAR", ()),
    "int": ("toy", "INT8", "INT8", ()),
}
NET = re.compile(r"\((\w+)\\\[(\d+)\\\] \(T0 (\d+)\) \(T1 (\d+)\) \(TX 0\) \(TC (\d+)\) \(IG 0\)\)")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("activity")
    made: dict[str, Model] = {}

    def get(case: str) -> Model:
        if case not in made:
            _, a, w, _ = CASES[case]
            made[case] = export(root / case, attention(a, w, sparse=case == "skipping"))
        return made[case]

    return get


def measured(models: Any, case: str, samples: int | None) -> Activity:
    name, _, _, overrides = CASES[case]
    return activity(models(case), name, samples, overrides)


@pytest.mark.parametrize("case", CASES)
def test_loads_and_cycles_are_those_of_the_cost_model(models, case):
    """Sample 0 is the longest, so its products are those that the report priced, in closed form."""
    found = measured(models, case, 1)
    report = cost(found.session.model.graph, found.session.machine, LENGTHS[0])
    rows = {row.node: row for row in report.steady.operators}
    for port in found.ports:
        row = rows[port.node]
        bits = sum(
            count.count
            for count in row.counts
            if (count.action, count.operand) == ("operand_register_bit", port.operand.port)
        )
        assert port.loaded_bits == bits > 0
        assert port.cycles == row.compute_cycles
        assert 0 < port.toggle_rate <= 1
    assert found.cycles == sum(port.cycles for port in found.ports) / 2


@pytest.mark.parametrize("case", CASES)
def test_the_first_operator_toggles_as_its_vectors_say(models, case, tmp_path):
    """Walk the words of the golden vectors through a register, position by position."""
    name, _, _, overrides = CASES[case]
    model = models(case)
    write_vectors(model, name, "x.acc", "all", tmp_path / "v", overrides=overrides)
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    found = {p.operand.port: p for p in measured(models, case, 1).ports if p.node == "x.acc"}
    for port, flag, size in (("activation", "loads_a", "rows"), ("weight", "loads_w", "cols")):
        bits, lanes = manifest[port]["pass_bits"], manifest[port]["lanes"]
        register: dict[int, int] = {}
        flips = loaded = beats = 0
        for tile in manifest["tiles"]:
            words = read_words(tmp_path / "v" / tile["files"][port]["path"])
            for word, fields in zip(
                words, beat_fields(tmp_path / "v", manifest, tile), strict=True
            ):
                beats += 1
                if not fields[flag]:
                    continue
                for row in range(fields[size]):
                    for lane in range(fields["lanes"]):
                        position = row * lanes + lane
                        value = word >> position * bits & ((1 << bits) - 1)
                        flips += (value ^ register.get(position, 0)).bit_count()
                        loaded += bits
                        register[position] = value
        assert (found[port].beats, found[port].loaded_bits) == (beats, loaded)
        assert found[port].toggles == flips


def read_words(path: Path) -> list[int]:
    return [int(line, 16) for line in path.read_text().splitlines() if not line.startswith("//")]


def beat_fields(folder: Path, manifest: Any, tile: Any) -> list[dict[str, int]]:
    found = []
    for word in read_words(folder / tile["files"]["beats"]["path"]):
        fields, shift = {}, 0
        for field in manifest["beat_fields"]:
            fields[field["name"]] = word >> shift & ((1 << field["bits"]) - 1)
            shift += field["bits"]
        found.append(fields)
    return found


@pytest.mark.parametrize("case", ["ternary", "bit_serial", "int"])
def test_saif_adds_up(models, case, tmp_path):
    found = measured(models, case, None)
    found.write(tmp_path / "new")
    text = (tmp_path / "new" / "activity.saif").read_text()
    assert text.count("(") == text.count(")")
    unit, ticks = time_scale(found.session.machine.spec.clock_hz)
    assert f"(TIMESCALE {unit})" in text
    duration = int(re.search(r"\(DURATION (\d+)\)", text)[1])
    assert duration == found.cycles * ticks
    toggles: dict[tuple[str, str], int] = {}
    for instance in text.split("(INSTANCE ")[1:]:
        array = instance.split()[0]
        for net, bit, low, high, flips in NET.findall(instance):
            assert int(low) + int(high) == duration
            assert int(flips) * ticks <= duration, "a bit changes at most once a beat"
            toggles[array, net] = toggles.get((array, net), 0) + int(flips)
            assert int(bit) < found.registers[array, _PORTS[net]].toggles.size
    want: dict[tuple[str, str], int] = {}
    for port in found.ports:
        key = (port.array, _NETS[port.operand.port])
        want[key] = want.get(key, 0) + port.toggles
    assert toggles == want
    assert sum(want.values()) > 0


_NETS = {"activation": "a_op", "weight": "w_op"}
_PORTS = {net: port for port, net in _NETS.items()}


def test_the_table_has_a_row_an_operator_and_port(models, tmp_path):
    found = measured(models, "ternary", 2)
    found.write(tmp_path)
    with (tmp_path / "activity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["operator"], r["port"]) for r in rows[:2]] == [
        ("x.acc", "activation"),
        ("x.acc", "weight"),
    ]
    assert len(rows) == 8
    for row in rows:
        rate = int(row["toggles"]) / int(row["loaded_bits"])
        assert float(row["toggle_rate"]) == rate
    # The share of zeros is that of the data: of the codes that enter, each as often as another.
    graph = found.session.model.graph
    weight = graph.constant(graph.by_name["x.acc"], "weight")
    assert float(rows[1]["zeros_frac"]) == pytest.approx(np.mean(weight == 0), abs=1e-12)


def test_plus_and_minus_one_have_no_zeros(models):
    found = measured(models, "xnor", 1)
    shares = {(p.node, p.operand.port): p.zeros_frac for p in found.ports}
    assert shares["x.acc", "weight"] == 0
    assert shares["mix.acc", "activation"] > 0, "UNIPOLAR has"


def test_constant_data_never_toggles_again(tmp_path):
    """After the first load nothing changes, however many beats there are."""
    graph = attention("INT8", "INT8")
    model = export(tmp_path / "model", graph)
    model.samples.inputs["x"][:] = 85
    found = activity(model, "toy", 1)
    first = next(p for p in found.ports if (p.node, p.operand.port) == ("x.acc", "activation"))
    mapping = found.session.rows["x.acc"].mapping
    rows, lanes = min(mapping.block[0], mapping.tile[0]), mapping.block[2]
    assert first.toggles == rows * lanes * 4, "01010101 from 0"
    assert first.loaded_bits > 2 * rows * lanes * 8


def test_arrays_with_beats_of_their_own_are_named(tmp_path):
    model = export(tmp_path / "model", attention("INT8", "INT8"))
    with pytest.raises(GraphError, match=r"x\.acc: must run on an array whose beats"):
        activity(model, MACHINES / "systolic_output.yaml", 1)


@pytest.mark.parametrize(
    ("clock_hz", "scale"),
    [(100_000_000, ("10 ns", 1)), (500_000_000, ("1 ns", 2)), (400_000_000, ("100 ps", 25)), (7, ("1 fs", 142857142857143))],
)  # fmt: skip
def test_time_is_that_of_the_clock(clock_hz, scale):
    assert time_scale(clock_hz) == scale
