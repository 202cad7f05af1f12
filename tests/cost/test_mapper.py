"""The search finds the best of its space, remembers equal problems, and its order of preference holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.config.load import load_machine
from hwsim.engine.energy import Prices
from hwsim.engine.timing import simulate
from hwsim.errors import CapacityError
from hwsim.graph.dtype import parse
from hwsim.mapping.gemm import GemmProblem, buffer_bytes, build, work_counts
from hwsim.mapping.mapper import Mapper, tilings
from hwsim.mapping.rowwise import RowProblem, RowSource
from hwsim.mapping.site import Site

PROBLEM = GemmProblem(
    array="main",
    batch=1,
    m=23,
    n=30,
    k=50,
    a=parse("INT8"),
    w=parse("INT8"),
    out=parse("INT8"),
    out_row=30,
    a_place="stream",
    w_place="stream",
    w_memory="weights",
    out_streams=True,
    epilogue=("requant",),
    constant_bits=200,
    constant_fetch_bits=200,
    free_bytes=(("buffer", 2000), ("weights", 1000)),
)

ROWS = RowProblem(
    op="softmax",
    units=37,
    rows_per_unit=1,
    elements_per_unit=20,
    sources=(RowSource("activation", "buffer", 640, streams=True, passes=3),),
    out_bits_per_unit=384,
    out_streams=True,
    constant_bits=0,
    constant_fetch_bits=64,
    free_bytes=(("buffer", 1000), ("weights", 1000)),
)


@pytest.fixture
def mapper() -> Mapper:
    machine = load_machine("toy")
    return Mapper(Site(machine), Prices(machine))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free_bytes": (("buffer", 700), ("weights", 300))},
        {"a_place": "chip", "epilogue": (), "out": parse("INT32")},
        {"w_place": "fill", "out_streams": False},
        {"batch": 3, "m": 9, "n": 9},
    ],
)
def test_the_choice_is_the_best_of_all_legal_candidates(
    changes: dict[str, object], mapper: Mapper
) -> None:
    p = replace(PROBLEM, **changes)  # type: ignore[arg-type]
    machine = load_machine("toy")
    site, prices, array = Site(machine), Prices(machine), machine.arrays["main"]
    keys = []
    for t in tilings(p, array):
        taken = buffer_bytes(p, t, array, site)
        if any(size > dict(p.free_bytes)[memory] for memory, size in taken.items()):
            continue
        mapped = build(p, t, array, site)
        counts = (*mapped.transfers, *work_counts(p, t, array, site))
        cycles = simulate(mapped.steps, mapped.stage).cycles
        keys.append((cycles, prices.nominal_pj(counts), sum(taken.values())))
    got = mapper.gemm(p, "y")
    taken_bytes = sum(size for _, size in got.buffer_bytes)
    assert len(keys) == got.candidates > 1
    assert (got.timeline.cycles, prices.nominal_pj(got.counts), taken_bytes) == min(keys)


def test_more_room_is_never_slower(mapper: Mapper) -> None:
    cycles = [
        mapper.gemm(
            replace(PROBLEM, free_bytes=(("buffer", size), ("weights", size))), "y"
        ).timeline.cycles
        for size in (500, 1000, 2000, 4000)
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[-1]


def test_equal_problems_are_searched_once(mapper: Mapper) -> None:
    first = mapper.gemm(PROBLEM, "a")
    assert mapper.gemm(replace(PROBLEM), "b") is first
    assert mapper.problems == 1


def test_blocks_run_one_after_another_and_load_constants_once(mapper: Mapper) -> None:
    one, bare = mapper.gemm(PROBLEM, "y"), mapper.gemm(replace(PROBLEM, constant_bits=0), "y")
    four = mapper.gemm(PROBLEM, "y", blocks=4)
    assert four.timeline.cycles == one.timeline.cycles + 3 * bare.timeline.cycles
    loaded = sum(c.count for c in four.counts if c.operand == "constant" and c.component == "dram")
    assert loaded == 256  # 200 bits in bursts of 64


def test_rows_are_never_cut(mapper: Mapper) -> None:
    mapping = mapper.rows(ROWS, "u")
    assert mapping.tiles == -(-37 // mapping.tile[0])
    assert dict(mapping.buffer_bytes)["buffer"] <= 1000
    with pytest.raises(
        CapacityError,
        match=r"u: .*memory buffer needs 256 bytes for its buffers and has 255 free, 1 too",
    ):
        mapper.rows(replace(ROWS, free_bytes=(("buffer", 255), ("weights", 1000))), "u")
