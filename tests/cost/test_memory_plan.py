"""Where everything lives: fusion, views, residency, spills, and that no memory is ever overfull."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.engine.memory_plan import (
    fuse,
    make_program,
    order_attention,
    resident_choices,
    storage_roots,
)
from hwsim.errors import CapacityError
from hwsim.graph.dtype import int_, parse
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.site import Site

if TYPE_CHECKING:
    from graph_maker import GraphMaker

Block = Callable[..., QuantGraph]

ONE_MEMORY = [
    "roles.weight=buffer",
    "memories.buffer.capacity_bytes=16384",
    "memories.buffer.fixed=true",
]
TIGHT = [
    "memories.buffer.capacity_bytes=2048",
    "memories.buffer.fixed=true",
    "memories.weights.capacity_bytes=2048",
    "memories.weights.fixed=true",
]
OUTPUT_APART = ["roles.output=weights"]


@pytest.mark.parametrize("overrides", [[], ONE_MEMORY, TIGHT, OUTPUT_APART])
def test_no_memory_is_ever_overfull(overrides: list[str], block: Block) -> None:
    graph = block("INT8", "INT8")
    machine = load_machine("toy", overrides)
    site = Site(machine)
    report = cost(graph, machine)
    for scenario in (report.cold, report.steady):
        plan = scenario.placement.plan
        rows = [o for o in scenario.operators if o.mapping is not None]
        assert [o.node for o in rows] == [g.head.name for g in plan.program.groups]
        for i, row in enumerate(rows):
            assert row.mapping is not None
            free = plan.free_bytes(i, site)
            assert min(free.values()) >= 0
            for memory, size in row.mapping.buffer_bytes:
                assert size <= free[memory]
            assert plan.program.graph_liveness_bytes >= plan.live_bytes(i, site.activation)


def test_element_wise_operators_run_with_the_product_before_them(block: Block) -> None:
    groups = {g.head.name: [n.name for n in g.nodes[1:]] for g in fuse(block("INT8", "INT8"))}
    assert groups["q"] == ["qa"]
    assert groups["pv"] == ["ctx"]  # a permute and a reshape stand between
    assert groups["qk"] == []  # softmax needs whole rows
    assert groups["pos"] == []  # no product before it
    assert "pvr" not in groups  # views do not run


def test_a_result_with_two_readers_is_not_fused(maker: GraphMaker) -> None:
    int8 = parse("INT8")
    maker.input("x", int8, 4, 8)
    maker.node("y", "linear", ("x",), int_(32), (4, 4), {"weight": (int8, (4, 8))})
    maker.requant("a", "y", int8)
    maker.requant("b", "y", int8)
    assert [len(g.nodes) for g in fuse(maker.build(("x",), ("a", "b"), 0))] == [1, 1, 1]


def test_a_graph_output_is_not_fused_away(maker: GraphMaker) -> None:
    int8 = parse("INT8")
    maker.input("x", int8, 4, 8)
    maker.node("y", "linear", ("x",), int_(32), (4, 4), {"weight": (int8, (4, 8))})
    maker.requant("a", "y", int8)
    assert [len(g.nodes) for g in fuse(maker.build(("x",), ("y", "a"), 0))] == [1, 1]


def test_attention_is_brought_together(block: Block) -> None:
    graph = block("INT8", "INT8")
    groups, chains = order_attention(graph, fuse(graph))
    (chain,) = chains
    assert [groups[i].head.name for i in chain] == ["qk", "u", "p", "pv"]
    assert sorted(g.head.name for g in groups) == sorted(g.head.name for g in fuse(graph))


def test_views_share_the_storage_of_their_input(block: Block) -> None:
    roots = storage_roots(block("INT8", "INT8"))
    assert roots["qp"] == roots["qr"] == "qa"
    assert roots["vt"] == "vt"  # a relayout is a copy


def test_small_constants_stay_before_large_ones_and_tables_come_last(block: Block) -> None:
    graph = block("INT8", "INT8")
    machine = load_machine("toy", TIGHT)
    program = make_program(graph, 12)
    choices = resident_choices(program, Site(machine))
    sizes = {name: store.bytes for name, store in program.stores.items()}
    budgets = (2048, 1536, 1024, 0)
    assert [sum(sizes[n] for n in c) <= b for c, b in zip(choices, budgets, strict=True)] == [
        True
    ] * 4
    assert choices[-1] == frozenset()
    for resident in choices[:-1]:
        assert "emb.weight" not in resident
        assert "x.M" in resident
        left = [sizes[n] for n in set(sizes) - resident - {"emb.weight"}]
        assert max(sizes[n] for n in resident) <= min(left)
    assert cost(graph, machine).steady.placement.plan.resident in choices


def test_embedding_table_needs_only_the_rows_of_its_tokens(block: Block) -> None:
    table = make_program(block("INT8", "INT8"), 12).stores["emb.weight"]
    assert table.constants == ("emb.weight", "emb.M")
    assert table.bytes == 50 * (32 + 8)  # 32 codes and the row's multiplier, each from a word on
    assert table.used_bytes == 12 * (32 + 8)


def test_constants_too_large_for_their_moment_are_refused(maker: GraphMaker) -> None:
    int8 = parse("INT8")
    maker.input("x", int8, 4, 512)
    wide = {"M": (parse("UINT31"), (512,)), "S": (parse("UINT6"), (1,)), "B": (int_(64), (512,))}
    maker.node("y", "requant", ("x",), int8, (4, 512), wide)
    machine = load_machine("toy", TIGHT)
    with pytest.raises(
        CapacityError, match=r"y: its constants need \d+ bytes of memory weights .* too few"
    ):
        cost(maker.build(("x",), ("y",), 0), machine)
