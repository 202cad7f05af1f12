"""One mapped vector operator: its rows cut in tiles, each loaded, worked on and stored.

A row is never cut: softmax and layer norm need whole rows, and the rest gains nothing by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.arch.component import ceil_div
from hwsim.engine.energy import Count
from hwsim.engine.timing import Stage, Steps
from hwsim.mapping.site import DRAM, Bits, Moved, Site
from hwsim.mapping.tile import parts


@dataclass(frozen=True, slots=True)
class RowSource:
    """An input of a vector operator.

    `bits_per_unit` are read for every unit. `streams`: from `level` through a buffer in `memory`; otherwise
    it is in `memory` already. `gathered`: every unit is a contiguous run of its own (a row of an
    embedding table). `passes`: how often the operator reads it.
    """

    operand: str
    memory: str
    bits_per_unit: int
    streams: bool
    gathered: bool = False
    passes: int = 1
    level: str = DRAM


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Everything that a mapping of one vector operator depends on besides the machine.

    A tile is a whole number of units; a unit is one row, or all rows that the operator mixes.
    `constant_bits` come from each level before the first tile; `constant_fetch_bits` are read from the weight
    memory for every tile. `out_to` is the level that a result streams to.
    """

    op: str
    units: int
    rows_per_unit: int
    elements_per_unit: int
    sources: tuple[RowSource, ...]
    out_bits_per_unit: int
    out_streams: bool
    constant_bits: Bits
    constant_fetch_bits: int
    out_to: str = DRAM


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Steps, stage and counts of one candidate; `moved` are the transfers of each source and of the result."""

    steps: Steps
    stage: Stage
    counts: tuple[Count, ...]
    moved: tuple[Moved, ...]


def row_buffer_bytes(p: RowProblem, size: int, site: Site) -> dict[str, int]:
    """Return the bytes that the buffers take with `size` units a tile, by memory."""
    tiles = ceil_div(p.units, size)
    taken: dict[str, int] = {}
    streams = [(s.memory, s.bits_per_unit) for s in p.sources if s.streams]
    if p.out_streams:
        streams.append((site.output, p.out_bits_per_unit))
    for memory, bits in streams:
        halves = min(site.halves(memory), tiles)
        taken[memory] = taken.get(memory, 0) + halves * ceil_div(size * bits, 8)
    return taken


def build_rows(p: RowProblem, size: int, site: Site) -> MappedRows:
    """Lay out all tiles of `size` units in program order.

    Raises:
        ValueError: more than two inputs are loaded: the operators of the graph have at most two.
    """
    streaming = [(at, s) for at, s in enumerate(p.sources) if s.streams]
    if len(streaming) > 2:
        raise ValueError(f"{p.op}: at most two inputs can be loaded, not {len(streaming)}")
    kinds = parts(p.units, size)
    times = [n for _, n in kinds]
    tiles = sum(times)
    load = np.zeros((2 + len(site.levels), tiles), dtype=np.int64)
    fresh = np.zeros((2 + len(site.levels), tiles), dtype=np.bool_)
    counts: list[Count] = []
    transfers: list[Moved] = [[] for _ in (*p.sources, "output")]
    for x, (at, source) in enumerate(streaming):
        link = site.link_to(source.level, source.memory, "load")
        moved = [source_bits(source, units, site) for units, _ in kinds]
        load[x] = np.repeat([link.bus_cycles(bits) for bits in moved], times)
        fresh[x] = True
        transfers[at] = list(zip(moved, times, strict=True))
        counts += site.transfer(source.operand, source.memory, "load", transfers[at], source.level)
    load[2:, 0] = site.constant_cycles(p.constant_bits)
    fresh[2:, 0] = load[2:, 0] > 0
    counts += site.constant_transfers(p.constant_bits)
    store = np.zeros(tiles, dtype=np.int64)
    if p.out_streams:
        link = site.link_to(p.out_to, site.output, "store")
        moved = [link.moved_bits(1, units * p.out_bits_per_unit) for units, _ in kinds]
        store[:] = np.repeat([link.bus_cycles(bits) for bits in moved], times)
        transfers[-1] = list(zip(moved, times, strict=True))
        counts += site.transfer("output", site.output, "store", transfers[-1], p.out_to)
    work = [
        site.vector.cycles(p.op, units * p.rows_per_unit, units * p.elements_per_unit)
        for units, _ in kinds
    ]
    steps = Steps(
        load=load,
        fresh=fresh,
        compute=np.repeat(np.array(work, dtype=np.int64), times),
        post=np.zeros(tiles, dtype=np.int64),
        store=store,
        opens=np.ones(tiles, dtype=np.bool_),
        emits=np.ones(tiles, dtype=np.bool_),
    )
    idle = 2 - len(streaming)
    memories = [s.memory for _, s in streaming] + [site.activation] * idle
    levels = [s.level for _, s in streaming] + [DRAM] * idle
    stage = Stage(
        depth=0,
        channels=site.channels,
        overhead=site.link.overhead_cycles,
        halves=(site.halves(memories[0]), site.halves(memories[1]), *(1 for _ in site.levels)),
        owned=(True, True, *(False for _ in site.levels)),
        accumulator_halves=0,
        output_halves=site.halves(site.output) if p.out_streams else 0,
        handoff_cycles=(
            site.handoff(memories[0]),
            site.handoff(memories[1]),
            *(site.handoff(site.weight) for _ in site.levels),
            site.handoff(site.output),
        ),
        direct=True,
        wires=site.wires(levels[0], levels[1], p.out_to),
        ports=site.ports,
    )
    work_counts = _row_work(p, kinds, site)
    return MappedRows(steps, stage, (*counts, *work_counts), tuple(transfers))


def least_cycles(p: RowProblem, size: int, site: Site) -> float:
    """Return a lower bound of the cycles with `size` units a tile: that of the busiest resource."""
    work = steps = 0
    held = [0] * len(site.levels)
    for units, times in parts(p.units, size):
        moved = [
            (s.level, site.link_to(s.level, s.memory, "load"), source_bits(s, units, site))
            for s in p.sources
            if s.streams
        ]
        if p.out_streams:
            link = site.link_to(p.out_to, site.output, "store")
            bits = link.moved_bits(1, units * p.out_bits_per_unit)
            moved.append((p.out_to, link, bits))
        steps += times * len(moved)
        for level, link, bits in moved:
            held[site.wire(level)] += times * link.bus_cycles(bits)
        rows, elements = units * p.rows_per_unit, units * p.elements_per_unit
        work += times * site.vector.cycles(p.op, rows, elements)
    channels = (sum(held) + steps * site.link.overhead_cycles) / site.channels
    return max(work, channels, *(h / n for h, n in zip(held, site.ports, strict=True)))


def source_bits(source: RowSource, units: int, site: Site) -> int:
    """Return the bus bits of loading so many units of an input."""
    link = site.link_to(source.level, source.memory, "load")
    if source.gathered:
        return link.moved_bits(units, source.bits_per_unit)
    return link.moved_bits(1, units * source.bits_per_unit)


def _row_work(p: RowProblem, kinds: tuple[tuple[int, int], ...], site: Site) -> list[Count]:
    """Count what the vector unit and the on-chip memories do, streamed buffers included."""
    counts = [
        Count("vector", f"element:{p.op}", "output", p.units * p.elements_per_unit),
        Count("vector", f"row:{p.op}", "output", p.units * p.rows_per_unit),
    ]
    for s in p.sources:
        reads = sum(n * site.reads(s.memory, units * s.bits_per_unit) for units, n in kinds)
        counts.append(Count(f"memory:{s.memory}", "read", s.operand, reads * s.passes))
    result = site.output if p.out_streams else site.activation
    writes = sum(n * site.writes(result, units * p.out_bits_per_unit) for units, n in kinds)
    counts.append(Count(f"memory:{result}", "write", "output", writes))
    tiles = sum(n for _, n in kinds)
    fetches = tiles * site.reads(site.weight, p.constant_fetch_bits)
    counts.append(Count(f"memory:{site.weight}", "read", "constant", fetches))
    return [*(c for c in counts if c.count), *site.control(tiles)]
