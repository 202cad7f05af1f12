"""Break-even points, sensitivities and equal areas, against the costs of the machines that they speak of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from graph_maker import two_products

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import Ledger, Prices
from hwsim.engine.ratio import ratio
from hwsim.errors import ConfigError
from hwsim.graph.ir import QuantGraph
from hwsim.report.breakeven import bisect, breakeven
from hwsim.report.equal_area import equal_area, require_area
from hwsim.report.keys import numbers, with_quantity
from hwsim.report.sensitivity import sensitivity

SOURCES = ("int8_edge", "ternary_edge")


@pytest.fixture(scope="module")
def graph() -> QuantGraph:
    return two_products()


@pytest.fixture(scope="module")
def attention(block: Callable[..., QuantGraph]) -> QuantGraph:
    return block("INT8", "TERNARY", width=16, heads=2, length=8)


@pytest.fixture(scope="module")
def machines() -> tuple[Machine, Machine]:
    return load_machine(SOURCES[0]), load_machine(SOURCES[1])


def test_an_energy_s_crossing_makes_both_equal(
    attention: QuantGraph, machines: tuple[Machine, Machine]
) -> None:
    """`ternary_edge` multiplies activations on its `dot`, `int8_edge` on its main array: a dear `dot` decides."""
    key = "arrays.dot.energy.lane_op_fj"
    found = breakeven(attention, "m", machines, SOURCES, key)
    (crossing,) = found.crossings
    assert found.exact
    assert found.winner is None
    totals, slopes = [], []
    for machine in machines:
        ledger = cost(attention, machine).steady.ledger

        def at(value: float, machine: Machine = machine, ledger: Ledger = ledger) -> float:
            one = with_quantity(machine, key)
            return Ledger(Prices(with_quantity(one, key, value)), ledger.entries).total.nominal

        totals.append(at(crossing.value))
        slopes.append((at(2 * crossing.value) - at(crossing.value)) / crossing.value)
    assert math.isclose(*totals, rel_tol=1e-9)
    cheaper_below = 0 if slopes[0] > slopes[1] else 1
    assert (crossing.below, crossing.above) == (SOURCES[cheaper_below], SOURCES[1 - cheaper_below])
    assert crossing.band is not None
    assert crossing.band[0] < crossing.value < crossing.band[1]
    assert crossing.share is not None
    assert 0.5 < crossing.share <= 1


def test_a_range_without_a_crossing_names_the_winner(
    attention: QuantGraph, machines: tuple[Machine, Machine]
) -> None:
    key = "arrays.dot.energy.lane_op_fj"
    (crossing,) = breakeven(attention, "m", machines, SOURCES, key).crossings
    below = breakeven(attention, "m", machines, SOURCES, key, (0, crossing.value * 0.99))
    above = breakeven(attention, "m", machines, SOURCES, key, (crossing.value * 1.01, None))
    assert (below.crossings, below.winner) == ((), crossing.below)
    assert (above.crossings, above.winner) == ((), crossing.above)
    by_time = breakeven(attention, "m", machines, SOURCES, key, by="cycles")
    cycles = [cost(attention, m).steady.cycles for m in machines]
    assert by_time.winner == SOURCES[cycles.index(min(cycles))]


def test_whole_numbers_are_bisected_to_the_first_value_of_the_other_winner() -> None:
    asked: list[int] = []

    def totals(values: list[int]) -> list[Any]:
        asked.extend(values)
        return [(float((v >= 37) != (v >= 500)), 0.5) if v > 2 else "too small" for v in values]

    crossings, winner, notes = bisect(totals, (1, 4096), ("A", "B"))
    assert [(c.value, c.below, c.above) for c in crossings] == [(37, "A", "B"), (500, "B", "A")]
    assert crossings[0].totals == (1.0, 0.5)
    assert winner is None
    assert notes[0] == "1: too small"
    assert len(asked) < 40
    crossings, winner, _ = bisect(totals, (3, 30), ("A", "B"))
    assert (crossings, winner) == ((), "A")
    with pytest.raises(ConfigError, match="no value from 1 to 2 can run: 1: too small"):
        bisect(totals, (1, 2), ("A", "B"))


def test_a_machine_s_whole_number_is_set_on_the_machines_that_have_it(
    graph: QuantGraph, machines: tuple[Machine, Machine]
) -> None:
    """A deeper pipeline delays both; where their times cross, if they do, is where `cost` says so."""
    found = breakeven(
        graph, "m", machines, ("int8_edge", "ternary_edge"), "arrays.main.pipeline_depth_cycles", (0, 400), "cycles"
    )  # fmt: skip
    assert not found.exact

    def seconds(value: int) -> list[float]:
        sets = [f"arrays.main.pipeline_depth_cycles={value}"]
        return [cost(graph, load_machine(s, sets)).latency_s["steady"] for s in SOURCES]

    for c in found.crossings:
        value = int(c.value)
        assert list(c.totals) == seconds(value)
        before, at = seconds(value - 1), seconds(value)
        assert (before[0] < before[1]) != (at[0] < at[1])
    if not found.crossings:
        ends = [seconds(0), seconds(400)]
        assert found.winner == SOURCES[0 if ends[0][0] < ends[0][1] else 1]
        assert (ends[0][0] < ends[0][1]) == (ends[1][0] < ends[1][1])


@pytest.mark.parametrize(
    ("over", "limits", "says"),
    [
        ("dram.energy_pj_per_bits", (None, None), "did you mean 'dram.energy_pj_per_bit'"),
        ("sequence_lenght", (None, None), "did you mean 'sequence_length'"),
        ("memories.weight_sram.area_um2", (None, None), "must be a number of a machine"),
        ("dram.energy_pj_per_bit", (5, 5), "the range must go up from at least 0, not 5 to 5"),
        ("dma.channels", (1, 2.5), "must be whole, so must its range, not 1 to 2.5"),
    ],
)
def test_bad_questions_are_refused(
    graph: QuantGraph, machines: tuple[Machine, Machine], over: str, limits: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        breakeven(graph, "m", machines, SOURCES, over, limits)


def test_every_number_of_a_file_is_a_key_that_set_understands(
    machines: tuple[Machine, Machine],
) -> None:
    table = numbers(machines[1])
    assert {"clock_hz", "arrays.main.rows", "dram.energy_pj_per_bit"} < table.keys()
    assert not any("area_um2" in key or key.startswith("validation") for key in table)
    whole = [f"{k}={n}" for k, n in table.items() if isinstance(n, int)]
    sizes = ("arrays.", "memories.")
    same = load_machine("ternary_edge", [x for x in whole if not x.startswith(sizes)])
    assert same.sha256 == machines[1].sha256


def test_all_movers_begin_with_those_of_the_ratio(
    graph: QuantGraph, machines: tuple[Machine, Machine]
) -> None:
    found = sensitivity(graph, "m", machines, SOURCES)
    a, b = (cost(graph, m).steady.ledger for m in machines)
    known = ratio(b, a)
    assert found.nominal == known.band.nominal
    by_name = {bar.name: bar for bar in found.unknowns}
    assert len(by_name) > len(known.movers)
    for mover in known.movers:
        assert (by_name[mover.name].at_low, by_name[mover.name].at_high) == (
            mover.at_low,
            mover.at_high,
        )
    widths = [bar.width for bar in found.unknowns]
    assert widths == sorted(widths, reverse=True)
    assert found.keys == ()


def test_keys_are_changed_one_by_one(maker: Any) -> None:
    """Two keys of each kind by hand; a width without a law for its energies is listed as not possible."""
    from hwsim.graph.dtype import int_

    maker.input("x", int_(8), 4, 16)
    maker.node("y", "linear", ("x",), int_(32), (4, 8), {"weight": (int_(8), (8, 16))})
    graph = maker.build(("x",), ("y",), 4)
    toy = load_machine("toy")
    found = sensitivity(graph, "m", (toy,), ("toy",), "x2")
    bars = {bar.name: bar for bar in found.keys}
    half, double = (cost(graph, load_machine("toy", [f"clock_hz={v}"])).energy_pj.nominal
                    for v in (toy.spec.clock_hz // 2, toy.spec.clock_hz * 2))  # fmt: skip
    assert (bars["clock_hz"].at_low, bars["clock_hz"].at_high) == (half, double)
    key = "dram.energy_pj_per_bit"
    priced = [cost(graph, with_quantity(toy, key, f)).energy_pj.nominal for f in (0.5, 2.0)]
    assert [bars[key].at_low, bars[key].at_high] == pytest.approx(priced, rel=1e-12)
    refused = [bar for bar in found.keys if bar.why]
    assert refused
    assert all(bar.at_low is None or bar.at_high is None for bar in refused)


@pytest.mark.parametrize("names", [("int8_edge", "xnor_edge"), ("xnor_edge", "bitserial_edge")])
def test_equal_area_is_as_near_as_a_row_or_a_column_allows(names: tuple[str, str]) -> None:
    a, b = load_machine(names[0]), load_machine(names[1])
    wanted = require_area(a)
    made = equal_area(b, wanted)
    scaled = load_machine(names[1], made.overrides)
    assert require_area(scaled) == pytest.approx(made.reached_um2, rel=1e-12)
    spec, was = scaled.arrays["main"].spec, b.arrays["main"].spec
    assert spec.lanes == was.lanes
    cell = (b.areas_um2["array:main"] or 0.0) / (was.rows * was.cols)
    assert abs(made.reached_um2 - wanted) <= 0.5 * cell * max(spec.rows, spec.cols)
    assert abs(made.reached_um2 - wanted) <= abs(require_area(b) - wanted)
    kept = was.weight_port_bits_per_cycle / was.cols
    assert spec.weight_port_bits_per_cycle / spec.cols == pytest.approx(kept, rel=0.01)


def test_a_machine_without_areas_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match="machine toy must state area_um2 of every part; array:main, memory:buffer",
    ):
        equal_area(load_machine("toy"), 1e6)
    with pytest.raises(ConfigError, match="which leaves no cell"):
        equal_area(load_machine("ternary_edge"), 1000.0)
