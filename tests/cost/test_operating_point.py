"""Voltage and clock: what scales with them, what follows the clock, and what does not."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from hwsim.arch.machine import Machine
from hwsim.arch.operating_point import at_operating_point
from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import Prices
from hwsim.graph.dtype import int_, parse

if TYPE_CHECKING:
    from graph_maker import GraphMaker


def test_the_two_points_of_yodann(maker: GraphMaker) -> None:
    a, w = parse("INT12"), parse("BIPOLAR")
    nominal = load_machine("yodann")
    array = nominal.arrays[next(iter(nominal.arrays))].spec
    a = parse(array.formats[0].activation)
    maker.input("x", a, 7, 49)
    maker.node("y", "linear", ("x",), int_(32), (7, 32), {"weight": (w, (32, 49))})
    graph = maker.build(("x",), ("y",), 0)
    low = Machine(at_operating_point(nominal.spec, "low"))
    points = (nominal, low)
    assert [m.spec.technology.voltage_v for m in points] == [1.2, 0.6]
    assert [m.spec.clock_hz for m in points] == [480_000_000, 17_500_000]
    # The DRAM's bytes a second stay: more bits in each of the slower cycles, exactly.
    bytes_per_s = nominal.spec.dram.bandwidth_bytes_per_s
    assert [m.dram.bits_per_cycle for m in points] == [
        Fraction(8 * bytes_per_s, m.spec.clock_hz) for m in points
    ]
    high_report, low_report = (cost(graph, m) for m in points)
    assert high_report.latency_cycles["steady"] > low_report.latency_cycles["steady"]
    assert high_report.latency_s["steady"] < low_report.latency_s["steady"]

    prices = [Prices(m) for m in points]
    tallies: list[Counter[tuple[str, str]]] = []
    for report in (high_report, low_report):
        tally: Counter[tuple[str, str]] = Counter()
        for _, c in report.steady.ledger.entries:
            tally[c.component, c.action] += c.count
        tallies.append(tally)
    for key in tallies[0].keys() & tallies[1].keys():
        ratio = (
            prices[1].price(*key).pj / prices[0].price(*key).pj if prices[0].price(*key).pj else 0
        )
        if key[0] == "dram":
            assert ratio == 1
        elif key[1] == "leakage_cycle":  # a quarter of the power for so much longer a cycle
            assert ratio in (0, pytest.approx(0.25 * 480 / 17.5))
        else:
            assert ratio in (0, pytest.approx(0.25))


def test_a_latency_in_core_cycles_stays_and_one_in_nanoseconds_follows_the_clock() -> None:
    point = "operating_points=[{name: slow, voltage_v: 0.5, clock_hz: 25000000, dynamic_scale: 0.5, leakage_scale: 0.5}]"
    for preset, cycles in (((), (10, 10)), (("dram.preset=hbm2",), (10, 3))):
        machine = load_machine("toy", [point, *preset])
        slow = Machine(at_operating_point(machine.spec, "slow"))
        assert (machine.dram.latency_cycles, slow.dram.latency_cycles) == cycles
