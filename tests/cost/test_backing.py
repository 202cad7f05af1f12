"""Memories behind the role memories: what they hold, what moves, how long it takes, and that nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.config.load import load_machine
from hwsim.engine.cost import ScenarioCost, cost
from hwsim.engine.energy import Prices
from hwsim.engine.timing import Stage, Steps, simulate
from hwsim.errors import CapacityError, ConfigError
from hwsim.graph.dtype import parse
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.gemm import GemmProblem, Tiling
from hwsim.mapping.mapper import Mapper
from hwsim.mapping.site import Site

Block = Callable[..., QuantGraph]
FAR = (
    "memories.far={capacity_bytes: 8192, read_width_bits: 64, write_width_bits: 64, buffering: single,"
    " latency_cycles: 6, read_pj: {value: 9.0, kind: assumed, source: s}, write_pj: {value: 9.0,"
    " kind: assumed, source: s}, leakage_mw: {value: 0.1, kind: assumed, source: s}}"
)
SHARED = Path(__file__).parent / "shared_buffer.yaml"

ONE_TILE = GemmProblem(
    array="main", batch=1, m=4, n=4, k=8, a=parse("INT8"), w=parse("INT8"), out=parse("INT32"),
    out_row=4, a_place="stream", w_place="stream", w_memory="weights", out_streams=True, epilogue=(),
    constant_bits=(), constant_fetch_bits=0, w_from="shared",
)  # fmt: skip
WHOLE = Tiling(4, 4, 8, "activation", (4, 4, 8))


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
    machine = load_machine(SHARED)
    p = ONE_TILE
    mapper = Mapper(Site(machine), Prices(machine))
    found = mapper.gemm_at(p, WHOLE)
    assert found.timeline.cycles == 16 + 9 + 1 + 3 + 20
    assert found.timeline.links_busy == (14 + 18, 7)
    tally = Counter({(c.component, c.action, c.operand): c.count for c in found.counts})
    assert tally["memory:shared", "read", "weight"] == 2
    assert tally["memory:weights", "write", "weight"] == 4
    assert tally["dma", "bit", "weight"] == 256
    assert tally["dram", "load_bit", "weight"] == 0
    # The other way: the result goes behind in 4 x 4 x 32 / 32 = 16 accesses, 3 + 16 cycles.
    back = mapper.gemm_at(replace(p, w_from="dram", out_to="shared"), WHOLE)
    assert back.timeline.cycles == 16 + 16 + 1 + 3 + 2 + 19
    # With a second channel the two loads go side by side: each link has its own bus.
    two = load_machine(SHARED, ["dma.channels=2"])
    found = Mapper(Site(two), Prices(two)).gemm_at(p, WHOLE)
    assert found.timeline.cycles == 16 + 1 + 3 + 20


@pytest.mark.parametrize(
    ("more", "cycles"),
    # A and W each 2 accesses of 128 bits, 64 bits a cycle: 2 + 7, then 7 more with the other set-up hidden.
    [((), 2 + 7 + 7), (("shared.ports=2",), 2 + 7), (("buffer.banks=2", "weights.banks=2"), 2 + 5 + 5)],
)  # fmt: skip
def test_ports_and_banks_take_time(more: tuple[str, ...], cycles: int) -> None:
    wide = ["dma.channels=2", "dma.width_bits_per_cycle=512"]
    fixed = ["memories.buffer.fixed=true", "memories.weights.fixed=true"]
    machine = load_machine(SHARED, [*wide, *fixed, *(f"memories.{x}" for x in more)])
    p = replace(ONE_TILE, a_from="shared", out_streams=False)
    mapper = Mapper(Site(machine), Prices(machine))
    assert mapper.gemm_at(p, WHOLE).timeline.cycles == cycles + 1 + 3


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


@settings(derandomize=True, deadline=None, max_examples=3)
@given(
    sizes=st.tuples(st.integers(300, 900), st.integers(600, 2048), st.integers(64, 4096)),
    shape=st.tuples(st.just(16), st.integers(1, 2), st.integers(2, 6)),
    channels=st.integers(1, 2),
)
def test_what_a_memory_takes_came_from_the_one_behind(
    sizes: tuple[int, int, int], shape: tuple[int, int, int], channels: int, block: Block
) -> None:
    width, heads, length = shape
    graph = block("INT8", "INT8", width=width, heads=heads, length=length)
    try:
        report = cost(graph, load_machine(SHARED, sized(*sizes, f"dma.channels={channels}")))
    except CapacityError:
        return
    for scenario in (report.cold, report.steady):
        plan = scenario.placement.plan
        tally = moved(scenario)
        read = 128 * tally["memory:shared", "read"]
        written = 32 * tally["memory:shared", "write"]
        dram = tally["dram", "load_bit"] + tally["dram", "store_bit"]
        arrived = 8 * plan.backed_bytes("shared") if scenario is report.cold else 0
        # Everything that the DMA moved came from one end; what the memory took from DRAM has both ends here.
        assert tally["dma", "bit"] == dram + read + written - arrived
        homes = set(plan.homes.values())
        assert (written > arrived) == ("shared" in homes)
        for i in range(len(plan.program.groups)):
            held = plan.live_bytes(i, "shared") + plan.backed_bytes("shared")
            assert held <= sizes[2]
        by_operand = report.memory["traffic_by_operand_bits"]
        if scenario is report.steady:
            assert sum(by_operand.get("shared_read", {}).values()) == read  # type: ignore[attr-defined]


def test_a_memory_behind_never_slows_an_inference_down(block: Block) -> None:
    graph = block("INT8", "INT8", width=16, length=5)
    without = cost(graph, load_machine("toy", sized(512, 640, None))).latency_cycles["steady"]
    cycles = [without]
    for size in (16, 4096):  # the first holds nothing
        report = cost(graph, load_machine(SHARED, sized(512, 640, size)))
        cycles.append(report.latency_cycles["steady"])
    assert cycles[0] == cycles[1] > cycles[2]


def test_two_memories_one_behind_the_other(block: Block) -> None:
    machine = load_machine(SHARED, sized(512, 640, 16, FAR, "memories.shared.backing=far"))
    site = Site(machine)
    assert site.activation_homes == ("buffer", "shared", "far", "dram")
    assert site.constant_homes == ("weights", "shared", "far", "dram")
    report = cost(block("INT8", "INT8", width=16, length=5), machine)
    behind = report.memory["behind"]
    assert list(behind) == ["shared", "far"]  # type: ignore[call-overload]
    assert behind["far"]["constants"] or behind["far"]["activations"]  # type: ignore[index]
    assert not behind["shared"]["constants"]  # type: ignore[index]


def test_constants_behind_arrive_once_on_a_cold_start(block: Block) -> None:
    report = cost(
        block("INT8", "INT8", width=16, length=5), load_machine(SHARED, sized(8192, 512, 65536))
    )
    plan = report.steady.placement.plan
    assert plan.backed
    assert set(plan.program.stores) == plan.resident | set(plan.backed)
    arrived = [c for o in report.cold.operators for c in o.counts if c.component == "memory:shared"]
    written = sum(c.count for c in arrived if c.action == "write" and c.operand == "constant")
    assert written * 32 == 8 * plan.backed_bytes("shared")
    ids_and_logits = {"dram_load", "dram_store"}
    weights = plan.program.stores["q.weight"].bytes
    traffic = report.steady.traffic_bytes()
    assert sum(traffic[x] for x in ids_and_logits) < weights  # nothing else is off chip any more


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("memories.buffer.backing=shred", "memories.buffer.backing: must name a memory of this machine without a role .shared., not 'shred'; did you mean 'shared'"),
        ("memories.buffer.backing=weights", "memories.buffer.backing: must name a memory .* not 'weights'"),
        ("memories.shared.backing=shared", "memories.shared.backing: must lead to DRAM, not in a circle: shared -> shared"),
        ("memories.shared.buffering=double", "memories.shared.buffering: must be single"),
        ("memories.shared.handoff_cycles=1", "memories.shared.handoff_cycles: must be 0 in a memory behind others, not 1"),
        ("memories.buffer.latency_cycles=2", "memories.buffer.latency_cycles: must be 0 in a memory that is behind no other, not 2"),
        (FAR.replace("far", "dram"), "memories.dram: must have another name"),
    ],
)  # fmt: skip
def test_what_cannot_stand_behind_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_machine(SHARED, [override])


def test_activations_and_results_have_the_same_memory_behind() -> None:
    apart = ["roles.output=weights", "memories.weights.backing=null"]
    assert load_machine(SHARED, apart[:1]).spec.roles.output == "weights"
    with pytest.raises(
        ConfigError, match=r"weights\.backing: must be shared, as that of buffer, not absent"
    ):
        load_machine(SHARED, apart)


def test_keys_that_a_machine_does_not_use_are_no_part_of_its_identity() -> None:
    machine = load_machine("toy")
    data = machine.spec.model_dump(mode="json", by_alias=True, exclude={"validation"})
    del (
        data["output_stage"],
        data["dram"]["latency_ns"],
        data["arrays"]["main"]["energy"]["activity"],
    )
    for memory in data["memories"].values():
        del memory["backing"], memory["latency_cycles"]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    assert machine.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert load_machine(SHARED).sha256 != machine.sha256
