"""Whole inferences: one checked by hand, conservation on every machine, and what must be refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.config.load import load_machine
from hwsim.engine.cost import CostReport, cost
from hwsim.engine.energy import Prices
from hwsim.errors import GraphError
from hwsim.graph.dtype import int_, parse
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.site import Site

if TYPE_CHECKING:
    from graph_maker import GraphMaker

Block = Callable[..., QuantGraph]

FORMATS = {
    "xnor_edge": ("BIPOLAR", "BIPOLAR"),
    "ternary_edge": ("INT8", "TERNARY"),
    "bitserial_edge": ("INT8", "TERNARY"),
    "int8_edge": ("INT8", "INT8"),
    "toy": ("INT8", "INT8"),
}


@pytest.fixture(scope="module")
def reports(block: Block) -> dict[str, CostReport]:
    return {name: cost(block(*pair), load_machine(name)) for name, pair in FORMATS.items()}


def one_linear(maker: GraphMaker, m: int = 6, n: int = 5, k: int = 20) -> QuantGraph:
    int8 = parse("INT8")
    maker.input("x", int8, m, k)
    maker.node("y", "linear", ("x",), int_(32), (m, n), {"weight": (int8, (n, k))})
    return maker.build(("x",), ("y",), 0)


def test_one_product_by_hand(maker: GraphMaker) -> None:
    report = cost(one_linear(maker), load_machine("toy"))
    # steady: set-up 2, latency 10, six rows of 160 bits padded to 192 = 18 words: x is there at 30;
    # 12 beats: 42; pipeline: 45; set-up 2, latency 10, six rows of 5 x 32 bits padded to 192 = 18: 75.
    # cold: the weights follow x on the one channel: 30 + 2 + 10 + 15 words = 57; then as before.
    assert report.latency_cycles == {"cold": 57 + 12 + 3 + 30, "steady": 75}
    assert report.latency_s["steady"] == pytest.approx(750e-9)
    (row,) = report.steady.operators
    assert (row.compute_cycles, row.stall_cycles, row.binding) == (12, 63, "dram")
    assert row.utilisation_frac == pytest.approx(600 / (75 * 128))
    wanted_pj = {
        # 600 MACs of 100 fJ, 6*5*3 updates of 10 fJ, operands (960 + 800) bits fetched twice at 1 fJ,
        # and 75 - 12 cycles of waiting at 1 pJ
        "array:main": 60 + 0.9 + 3.52 + 63,
        # x: 18 writes of 2 pJ; 15 reads a column block, two of these; results: 8+2+4+1 writes of 2 pJ,
        # 18 reads on the way out; leakage 0.1 mW for 750 ns
        "memory:buffer": 36 + 30 + 30 + 18 + 75,
        # (4+4+2 + 1+1+1) reads a row block, two of these; leakage
        "memory:weights": 26 + 75,
        "vector": 75.0,  # it waits all the time
        "dram": 2 * 18 * 64 * 10.0,
        "dma": 0.0,
        "control": 3.0,  # a load, a compute step, a store
    }
    got = {name: band.nominal for name, band in report.steady.ledger.by_component().items()}
    assert got == pytest.approx(wanted_pj)
    assert report.energy_pj.nominal == pytest.approx(23535.42)
    assert report.energy_pj.low == pytest.approx(report.energy_pj.high)  # no bounds are stated
    assert report.steady.ledger.share_assumed_frac() == pytest.approx(1.0)
    assert report.steady.traffic_bytes() == {
        "buffer_read": (30 + 18) * 8,
        "buffer_write": (18 + 15) * 8,
        "dram_load": 144,
        "dram_store": 144,
        "weights_read": 26 * 8,
    }
    assert report.memory["weight_bytes"] == 5 * 24
    assert report.memory["peak_activation_bytes"] == 2 * 144 + 2 * 144  # in DRAM, and their tiles


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_lost_between_totals_and_breakdowns(
    name: str, reports: dict[str, CostReport]
) -> None:
    report = reports[name]
    for scenario in (report.cold, report.steady):
        assert scenario.cycles == sum(o.cycles for o in scenario.operators)
        ledger = scenario.ledger
        groups = (
            ledger.by_operator(),
            ledger.by_component(),
            ledger.by_operand(),
            ledger.by_action(),
        )
        for bands in groups:
            total = math.fsum(b.nominal for b in bands.values())
            assert total == pytest.approx(ledger.total.nominal, rel=1e-12)
        assert ledger.total.low <= ledger.total.nominal <= ledger.total.high
        rows = math.fsum(o.energy_pj.nominal for o in scenario.operators)
        assert rows == pytest.approx(ledger.total.nominal, rel=1e-12)
    assert report.cold.cycles > report.steady.cycles
    assert report.cold.ledger.total.nominal > report.energy_pj.nominal


@pytest.mark.parametrize("name", FORMATS)
def test_every_operator_costs_except_views(name: str, reports: dict[str, CostReport]) -> None:
    for o in reports[name].steady.operators:
        if o.unit == "view":
            assert (o.cycles, o.energy_pj.nominal, o.counts) == (0, 0.0, ())
        else:
            assert o.cycles >= o.compute_cycles > 0
            assert o.energy_pj.nominal > 0
            assert 0 < o.utilisation_frac <= 1


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "toy"])  # all constants fit these
def test_traffic_is_at_least_compulsory(name: str, reports: dict[str, CostReport]) -> None:
    report = reports[name]
    assert report.memory["streamed"] == []
    ids, logits = 12 * 16 // 8, 4 * 32 // 8
    steady = report.steady.traffic_bytes()
    assert steady["dram_load"] >= ids
    assert steady["dram_store"] >= logits
    cold = report.cold.traffic_bytes()
    assert cold["dram_load"] >= ids + report.memory["weight_bytes"]  # type: ignore[operator]
    assert cold["dram_store"] == steady["dram_store"]


def test_products_go_to_the_array_that_has_their_formats(reports: dict[str, CostReport]) -> None:
    arrays = reports["ternary_edge"].arrays
    assert arrays["main"]["operators"] == 4  # q, k, v, o
    assert arrays["dot"]["operators"] == 3  # Q K^T, P V, classifier
    shares = [a["cycles_frac"] for a in arrays.values()]
    assert 0 < sum(shares) < 1


def test_report_is_plain_data_and_names_what_is_left_out(reports: dict[str, CostReport]) -> None:
    data = json.loads(json.dumps(reports["xnor_edge"].to_json()))
    assert data["energy_pj"].keys() == {"low", "nominal", "high"}
    assert data["latency_cycles"]["steady"] == reports["xnor_edge"].steady.cycles
    assert any("toggling" in text for text in data["not_modelled"])
    assert any("DRAM refresh" in text for text in data["not_modelled"])


def test_result_does_not_depend_on_the_order_of_dictionaries(block: Block) -> None:
    graph = block("INT8", "INT8")
    turned = replace(
        graph,
        tensors=dict(reversed(graph.tensors.items())),
        constants=dict(reversed(graph.constants.items())),
        nodes=tuple(replace(n, constants=dict(reversed(n.constants.items()))) for n in graph.nodes),
    )
    machine = load_machine("toy")
    assert cost(graph, machine).to_json() == cost(turned, machine).to_json()


@settings(derandomize=True, deadline=None, max_examples=12)
@given(st.integers(10**6, 10**10), st.integers(0, 10**9))
def test_more_bandwidth_is_never_slower(bandwidth: int, more: int) -> None:
    from graph_maker import GraphMaker

    graph = one_linear(GraphMaker(), 13, 17, 40)

    def cycles(value: int) -> dict[str, int]:
        overrides = [f"dram.bandwidth_bytes_per_s={value}", "dma.width_bits_per_cycle=4096"]
        return cost(graph, load_machine("toy", overrides)).latency_cycles

    slow, fast = cycles(bandwidth), cycles(bandwidth + more)
    assert fast["cold"] <= slow["cold"]
    assert fast["steady"] <= slow["steady"]


def small(buffer: int, weights: int) -> list[str]:
    return [
        f"memories.buffer.capacity_bytes={buffer}",
        "memories.buffer.fixed=true",
        f"memories.weights.capacity_bytes={weights}",
        "memories.weights.fixed=true",
    ]


def test_what_does_not_fit_is_spilled_and_streamed_and_reported(block: Block) -> None:
    graph = block("INT8", "INT8")
    roomy = cost(graph, load_machine("toy"))
    tight = cost(graph, load_machine("toy", small(2048, 2048)))
    assert roomy.memory["spills"] == {}
    assert tight.memory["spills"]
    assert tight.memory["streamed"]
    assert tight.memory["resident_bytes"] <= 2048 * 3 // 4  # type: ignore[operator]
    assert tight.memory["peak_activation_on_chip_bytes"] <= 2048  # type: ignore[operator]
    assert tight.steady.cycles > roomy.steady.cycles
    assert tight.steady.traffic_bytes()["dram_load"] > roomy.steady.traffic_bytes()["dram_load"]


def test_what_a_spill_costs_is_what_the_operators_move_for_it(block: Block) -> None:
    graph, machine = block("INT8", "INT8"), load_machine("toy", small(1300, 2048))
    report = cost(graph, machine)
    spills: dict[str, Any] = report.memory["spills"]  # type: ignore[assignment]
    assert len(spills) > 1
    plan = report.steady.placement.plan
    roots = plan.program.roots
    stored = {o.node: o for o in report.steady.operators}
    prices = Prices(machine)
    for group in plan.program.groups:  # whoever writes a spill writes nothing else
        name = group.output
        if name not in spills:
            continue
        moved = [
            c for c in stored[group.head.name].counts if c.operand == "output"
            and (c.component, c.action) in (("dram", "store_bit"), ("dma", "bit"), ("memory:buffer", "read"))
        ]  # fmt: skip
        bits = sum(c.count for c in moved if c.component == "dram")
        assert spills[name]["written_bytes"] == bits / 8 >= spills[name]["bytes"]
        assert spills[name]["read_bytes"] > 0  # less than all of it where a slice is read
        assert spills[name]["energy_pj"]["nominal"] > prices.nominal_pj(moved)
    # All loads of activations but those of the graph's own input, whose ids are read once, are of spills.
    loads = sum(
        c.count for o in report.steady.operators for c in o.counts
        if (c.component, c.action) == ("dram", "load_bit") and c.operand in ("activation", "weight")
        and any(roots[t] in spills for t in graph.by_name[o.node].inputs)
        and (c.operand == "activation" or "weight" not in graph.by_name[o.node].constants)
    )  # fmt: skip
    assert sum(spill["read_bytes"] for spill in spills.values()) == loads / 8
    link = Site(machine).link
    for spill in spills.values():
        data = link.bus_cycles(8 * (spill["written_bytes"] + spill["read_bytes"]))
        assert data <= spill["cycles"] <= report.steady.cycles


def test_attention_that_does_not_fit_runs_head_by_head(block: Block) -> None:
    graph = block("INT8", "INT8", heads=8, length=24)  # scores: 8 x 24 x 24 x 4 bytes = 18 KiB

    def lane_ops(report: CostReport) -> int:
        return sum(
            c.count
            for o in report.steady.operators
            for c in o.counts
            if c.action.startswith("lane_op")
        )

    by_head = cost(graph, load_machine("toy"))
    whole = cost(graph, load_machine("toy", small(65536, 8192)))
    blocks = {o.node: o.blocks for o in by_head.steady.operators}
    assert [blocks[n] for n in ("qk", "u", "p", "pv", "o")] == [8, 8, 8, 8, 1]
    assert all(o.blocks == 1 for o in whole.steady.operators)
    assert not {"qk", "u", "p"} & set(by_head.memory["spills"])  # type: ignore[call-overload]
    assert lane_ops(by_head) == lane_ops(whole)
    assert by_head.memory["peak_activation_bytes"] < whole.memory["peak_activation_bytes"]  # type: ignore[operator]


def test_formats_that_no_array_multiplies_are_refused(maker: GraphMaker) -> None:
    maker.input("x", int_(16), 4, 8)
    maker.node("y", "linear", ("x",), int_(32), (4, 4), {"weight": (parse("INT8"), (4, 8))})
    with pytest.raises(GraphError, match="linear of INT16 x INT8: y"):
        cost(maker.build(("x",), ("y",), 0), load_machine("toy"))


def test_patches_class_token_and_positions_pass_row_by_row(maker: GraphMaker) -> None:
    uint8, int8, stream = parse("UINT8"), parse("INT8"), int_(16)
    maker.input("pixels", uint8, 1, 8, 8)
    maker.node("cols", "im2col", ("pixels",), uint8, (16, 4), kernel=(2, 2), stride=(2, 2))
    maker.node("proj", "linear", ("cols",), int_(32), (16, 8), {"weight": (int8, (8, 4))})
    bias = {"M": (parse("UINT31"), (1,)), "S": (parse("UINT6"), (1,)), "B": (int_(64), (16, 8))}
    maker.node("embedded", "requant", ("proj",), stream, (16, 8), bias)
    maker.node("tokens", "concat", ("embedded",), stream, (17, 8), {"rows": (stream, (1, 8))})
    graph = maker.build(("pixels",), ("tokens",), 0)
    report = cost(graph, load_machine("toy"))
    rows = {o.node: o for o in report.steady.operators}
    # 4 bands of 2 pixel rows of 64 bits come from DRAM; 16 patches of 4 codes in rows of 64 bits stay.
    assert rows["cols"].traffic_bytes["dram_load"] == 4 * 2 * 8
    assert rows["cols"].traffic_bytes["buffer_write"] == 4 * 2 * 8 + 16 * 8
    # The bias has a row a patch, so it is read like an input: not fused, 16 rows of 8 x 64 bits.
    assert rows["proj"].fused == ()
    assert rows["embedded"].traffic_bytes["weights_read"] == 16 * 64 + 2 * 8
    assert rows["tokens"].traffic_bytes["dram_store"] == 17 * 16
    # A cold start loads weights, bias, M, S and the class token once.
    assert report.memory["weight_bytes"] == 8 * 8 + 16 * 64 + 8 + 8 + 16
    cold = report.cold.traffic_bytes()["dram_load"]
    assert cold == 64 + report.memory["weight_bytes"]  # type: ignore[operator]


def test_sequence_length_scales_the_work_and_is_checked(block: Block) -> None:
    graph, machine = block("INT8", "INT8"), load_machine("toy")
    assert cost(graph, machine).sequence_length == 12
    assert cost(graph, machine, 5).steady.cycles < cost(graph, machine).steady.cycles
    with pytest.raises(GraphError, match="must be 1 to 12, not 13"):
        cost(graph, machine, 13)
