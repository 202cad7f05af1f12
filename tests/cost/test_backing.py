"""Memories behind the role memories: what they hold, what moves, how long it takes, and that nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.config.load import load_machine
from hwsim.engine.cost import CostReport, ScenarioCost, cost
from hwsim.engine.timing import Stage, Steps, simulate
from hwsim.errors import ConfigError
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.mapper import Mapper
from hwsim.mapping.site import Site

Block = Callable[..., QuantGraph]
SHARED = Path(__file__).parent / "shared_buffer.yaml"


def sized(buffer: int, weights: int, shared: int | None, *more: str) -> list[str]:
    """Overrides that set capacities in bytes."""
    sizes = {"buffer": buffer, "weights": weights} | ({} if shared is None else {"shared": shared})
    return [
        *(f"memories.{m}.capacity_bytes={n}" for m, n in sizes.items()),
        *(f"memories.{m}.fixed=true" for m in sizes),
        *more,
    ]


def moved(scenario: ScenarioCost) -> Counter[tuple[str, str]]:
    """Sum all counts by component and action."""
    tally: Counter[tuple[str, str]] = Counter()
    for operator in scenario.operators:
        for c in operator.counts:
            tally[c.component, c.action] += c.count
    return tally


def test_an_operand_from_behind_by_hand() -> None:
    # One tile of 4 x 8 codes each: A of 4 rows of 64 bits from DRAM, 2 + 10 + 4 = 16 cycles. W comes from the
    # memory behind, 2 accesses of 128 bits at 64 bits a cycle, 3 + 4 = 7 cycles; the one channel serves it after A:
    # 16 + 2 + 7 = 25. A beat, 3 cycles of depth, and 4 x 4 x 32 bits = 512 out in 10 + 8, with 2 of set-up: 49.
    from hwsim.engine.energy import Prices
    from hwsim.graph.dtype import parse
    from hwsim.mapping.gemm import GemmProblem, Tiling

    machine = load_machine(SHARED)
    int8 = parse("INT8")
    p = GemmProblem(
        array="main", batch=1, m=4, n=4, k=8, a=int8, w=int8, out=parse("INT32"), out_row=4,
        a_place="stream", w_place="stream", w_memory="weights", out_streams=True, epilogue=(),
        constant_bits=(), constant_fetch_bits=0, w_from="shared",
    )  # fmt: skip
    mapper = Mapper(Site(machine), Prices(machine))
    found = mapper.gemm_at(p, Tiling(4, 4, 8, "activation", (4, 4, 8)))
    assert found.timeline.cycles == 16 + 9 + 1 + 3 + 20
    assert found.timeline.links_busy == (14 + 18, 7)
    tally = Counter({(c.component, c.action, c.operand): c.count for c in found.counts})
    assert tally["memory:shared", "read", "weight"] == 2
    assert tally["memory:weights", "write", "weight"] == 4
    assert tally["dma", "bit", "weight"] == 256
    assert tally["dram", "load_bit", "weight"] == 0
    # The other way: the result goes behind in 4 x 4 x 32 / 32 = 16 accesses, 3 + 16 cycles.
    back = mapper.gemm_at(
        replace(p, w_from="dram", out_to="shared"), Tiling(4, 4, 8, "activation", (4, 4, 8))
    )
    assert back.timeline.cycles == 16 + 16 + 1 + 3 + 2 + 19
    # With a second channel the two loads go side by side: each link has its own bus.
    two = load_machine(SHARED, ["dma.channels=2"])
    found = Mapper(Site(two), Prices(two)).gemm_at(p, Tiling(4, 4, 8, "activation", (4, 4, 8)))
    assert found.timeline.cycles == 16 + 1 + 3 + 20


@pytest.mark.parametrize(("key", "slower", "faster"), [("ports", 1, 2), ("banks", 1, 2)])
def test_ports_and_banks_take_time(key: str, slower: int, faster: int, block: Block) -> None:
    graph = block("INT8", "INT8")
    wide = [
        "dma.channels=4", "dma.width_bits_per_cycle=512", "memories.shared.read_width_bits=16",
        "memories.shared.write_width_bits=16", "memories.shared.latency_cycles=0",
    ]  # fmt: skip
    cycles = [
        cost(graph, load_machine(SHARED, [*sized(256, 512, 65536), *wide, f"memories.shared.{key}={n}"]))
        .steady.cycles
        for n in (slower, faster)
    ]  # fmt: skip
    assert cycles[0] > cycles[1]


def test_ports_serve_transfers_side_by_side() -> None:
    # Two operands of one tile from one memory, 5 cycles each: one after the other, or at once.
    ones = np.ones(1, dtype=np.bool_)
    column = np.ones(1, dtype=np.int64)
    steps = Steps(
        np.array([[5], [5], [0]]), np.array([[True], [True], [False]]), column, 0 * column,
        0 * column, ones, ones,
    )  # fmt: skip

    def end(ports: int, channels: int) -> int:
        stage = Stage(
            0, channels, 0, (2, 2, 1), (True, True, False), 2, 2, wires=(1, 1, 0, 0), ports=(1, ports)
        )  # fmt: skip
        return simulate(steps, stage).cycles

    assert (end(1, 2), end(2, 2), end(2, 1)) == (11, 6, 11)


@pytest.mark.parametrize("a", ["INT8", "BIPOLAR"])
@pytest.mark.parametrize("sizes", [(512, 1024, 2048), (1024, 512, 8192), (700, 3000, 600)])
def test_what_a_memory_takes_came_from_the_one_behind(
    a: str, sizes: tuple[int, int, int], block: Block
) -> None:
    graph = block(a, "INT8" if a == "INT8" else "BIPOLAR")
    base = "toy" if a == "INT8" else None
    array = [] if base else ["arrays.main.kind=xnor_popcount"]
    formats = [] if base else ["arrays.main.formats=[{activation: BIPOLAR, weight: BIPOLAR}]"]
    if not base:
        pytest.skip("toy multiplies INT8")
    report = cost(graph, load_machine(SHARED, sized(*sizes, *array, *formats)))
    for scenario in (report.cold, report.steady):
        tally = moved(scenario)
        read = 128 * tally["memory:shared", "read"]
        written = 32 * tally["memory:shared", "write"]
        dram = tally["dram", "load_bit"] + tally["dram", "store_bit"]
        arrived = 8 * sum(
            scenario.placement.plan.program.stores[n].bytes for n in scenario.placement.plan.backed
        )
        if scenario is report.steady:
            arrived = 0
        # Everything that the DMA moved has two ends; what came into the memory behind from DRAM has both here.
        assert tally["dma", "bit"] == dram + read + written - arrived
