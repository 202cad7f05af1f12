"""What must hold of every cost, whatever the graph and the machine: drawn at random."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import RESOURCES, SHAPES, SIZES, Shape, machine

from hwsim.arch.machine import Machine
from hwsim.engine.cost import CostReport, cost
from hwsim.errors import CapacityError
from hwsim.graph.ir import QuantGraph

SOME = settings(derandomize=True, deadline=None, max_examples=12)


def cost_if_it_fits(graph: QuantGraph, on: Machine) -> CostReport | None:
    try:
        return cost(graph, on)
    except CapacityError:
        return None


@SOME
@given(shape=SHAPES, sizes=SIZES)
def test_breakdowns_add_up_and_traffic_is_compulsory(shape: Shape, sizes: dict[str, int]) -> None:
    graph = shape.build()
    report = cost_if_it_fits(graph, machine(sizes))
    assume(report is not None)
    assert report is not None
    for scenario in (report.cold, report.steady):
        ledger = scenario.ledger
        for bands in (
            ledger.by_operator(),
            ledger.by_component(),
            ledger.by_operand(),
            ledger.by_action(),
            {o.node: o.energy_pj for o in scenario.operators},
        ):
            total = math.fsum(band.nominal for band in bands.values())
            assert total == pytest.approx(ledger.total.nominal, rel=1e-12)
        assert sum(o.cycles for o in scenario.operators) == scenario.cycles
        assert all(0 <= o.compute_cycles <= o.cycles for o in scenario.operators)
        assert scenario.placement.bound <= scenario.placement.worth[0] * (1 + 1e-12)
        traffic = scenario.traffic_bytes()
        assert traffic["dram_load"] >= shape.rows * shape.cols
        assert traffic["dram_store"] >= math.prod(graph.tensors[graph.outputs[0]].shape)  # type: ignore[arg-type]
    assert report.cold.traffic_bytes()["dram_load"] >= report.memory["weight_bytes"]  # type: ignore[operator]
    # A cold start can only wait longer: it has everything to do that a steady inference has.
    assert report.cold.cycles >= report.steady.cycles


@pytest.mark.parametrize("key", RESOURCES)
@settings(derandomize=True, deadline=None, max_examples=5)
@given(shape=SHAPES, sizes=SIZES, data=st.data())
def test_more_of_anything_is_never_slower(
    key: str, shape: Shape, sizes: dict[str, int], data: st.DataObject
) -> None:
    graph = shape.build()
    more = sizes | {key: data.draw(st.integers(sizes[key], 2 * RESOURCES[key][1]), "more")}
    before, after = (cost_if_it_fits(graph, machine(s)) for s in (sizes, more))
    assume(before is not None)
    assert before is not None
    assert after is not None, "what fitted fits in more"
    for scenario in ("cold", "steady"):
        gap = (
            getattr(before, scenario).placement.gap_frac
            + getattr(after, scenario).placement.gap_frac
        )
        assume(gap == 0)
        assert after.latency_cycles[scenario] <= before.latency_cycles[scenario]


@SOME
@given(shape=SHAPES, sizes=SIZES)
def test_names_change_nothing(shape: Shape, sizes: dict[str, int]) -> None:
    on = machine(sizes)
    names: dict[str, str] = {}

    def other(name: str) -> str:
        return names.setdefault(name, f"{1000 - len(names)}z")  # the order of names is turned, too

    first, second = (cost_if_it_fits(shape.build(r), on) for r in (str, other))
    assert (first is None) == (second is None)
    assume(first is not None)
    assert first is not None
    assert second is not None
    assert second.latency_cycles == first.latency_cycles
    assert second.energy_pj.nominal == pytest.approx(first.energy_pj.nominal, rel=1e-12)
    assert second.memory["peak_activation_bytes"] == first.memory["peak_activation_bytes"]
