"""One mapped matrix product: its steps for the event schedule, its buffers, and what it moves and does.

`acc[b, m, n] = sum_k a[b, m, k] * w[b, n, k]`, cut in tiles tm x tn x tk. The outer order says which
operand stays while the others change:

    activation   for m: for n          A stays, K is whole
    weight       for n: for m          W stays, K is whole
    output       for m: for n: for k   accumulators stay while K goes by in ascending parts

K is split only while the accumulators stay, so every element is summed in ascending K on any mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.arch.work import Work
from hwsim.engine.energy import Count, array_counts
from hwsim.engine.timing import Link, Stage, Steps
from hwsim.graph.dtype import DataType
from hwsim.mapping.site import Site
from hwsim.mapping.tile import code_bits, parts, row_bits

Order = Literal["activation", "weight", "output"]
Place = Literal["chip", "fill", "stream"]
"""`chip`: on chip before the operator starts. `fill`: comes from DRAM once, into a place of its own.
`stream`: comes from DRAM tile by tile through a buffer, again whenever it is needed again."""


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """Everything that a mapping of one product depends on besides the machine: the key of the memo.

    `epilogue` names the vector operators that run on each output tile before it is stored, `out` is the
    number type after them, and `out_row` the codes of a stored row of the result. `w_memory` is the memory that W is read from where it is on chip.
    `constant_bits` are loaded from DRAM before the first tile. `free_bytes` is what buffers may take in
    each memory.
    """

    array: str
    batch: int
    m: int
    n: int
    k: int
    a: DataType
    w: DataType
    out: DataType
    out_row: int
    a_place: Place
    w_place: Place
    w_memory: str
    out_streams: bool
    epilogue: tuple[str, ...]
    constant_bits: int
    constant_fetch_bits: int
    free_bytes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tiling:
    """A point of the mapping space."""

    tm: int
    tn: int
    tk: int
    order: Order


@dataclass(frozen=True, slots=True)
class MappedGemm:
    """Steps, stage and transfers of one candidate."""

    steps: Steps
    stage: Stage
    transfers: tuple[Count, ...]


def buffer_bytes(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> dict[str, int]:
    """Return the bytes that the buffers of a candidate take, by memory: both halves of double ones."""
    m_tiles, n_tiles = ceil_div(p.m, t.tm), ceil_div(p.n, t.tn)
    k_tiles = ceil_div(p.k, t.tk)
    taken: dict[str, int] = {}

    def take(memory: str, tile_bits: int, tiles: int) -> None:
        # An operand that is one single tile needs no second half.
        halves = min(site.halves(memory), tiles)
        taken[memory] = taken.get(memory, 0) + halves * ceil_div(tile_bits, 8)

    if p.a_place == "stream":
        bits = t.tm * row_bits(p.a, t.tk)
        take(site.activation, bits, p.batch * m_tiles * k_tiles)
    if p.w_place == "stream":
        bits = t.tn * row_bits(p.w, t.tk)
        take(site.weight, bits, p.batch * n_tiles * k_tiles)
    if p.epilogue:
        bits = t.tm * t.tn * array.spec.accumulator_bits
        take(site.output, bits, p.batch * m_tiles * n_tiles)
    if p.out_streams:
        bits = t.tm * row_bits(p.out, t.tn)
        take(site.output, bits, p.batch * m_tiles * n_tiles)
    return taken


def lower_bound(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> int:
    """Return cycles that no schedule of a candidate can beat, without laying its tiles out.

    The bus serves one transfer at a time; and the array cannot start before the first tiles are there,
    nor the operator end before the last result has left.
    """
    link = site.link
    m_parts, n_parts, k_parts = parts(p.m, t.tm), parts(p.n, t.tn), parts(p.k, t.tk)
    m_tiles, n_tiles = ceil_div(p.m, t.tm), ceil_div(p.n, t.tn)
    split = t.tk < p.k

    def bus(rows: int, cols: int, whole: int, dtype: DataType) -> int:
        return link.bus_cycles(_moved(rows, cols, whole, dtype, link))

    work = sum(
        m_times * n_times * k_times * array.cycles(tm, tn, tk, p.a, p.w)
        for tm, m_times in m_parts
        for tn, n_times in n_parts
        for tk, k_times in k_parts
    )
    held = first = 0
    if p.a_place == "stream":
        again = n_tiles if split or t.order == "weight" else 1
        held += again * sum(m * k * bus(tm, tk, p.k, p.a) for tm, m in m_parts for tk, k in k_parts)
        first += bus(t.tm, t.tk, p.k, p.a)
    if p.w_place != "chip":
        stays = p.w_place == "fill" or t.order == "weight" or (n_tiles == 1 and not split)
        held += (1 if stays else m_tiles) * sum(
            n * k * bus(tn, tk, p.k, p.w) for tn, n in n_parts for tk, k in k_parts
        )
        first += bus(t.tn, t.tk, p.k, p.w)
    tm, tn = m_parts[-1][0], n_parts[-1][0]
    last = array.spec.pipeline_depth_cycles + _post_cycles(p, tm, tn, site)
    if p.out_streams:
        held += sum(m * n * bus(r, c, p.out_row, p.out) for r, m in m_parts for c, n in n_parts)
        last += link.overhead_cycles + bus(tm, tn, p.out_row, p.out)
    if p.constant_bits:
        first += link.bus_cycles(link.moved_bits(1, p.constant_bits))
    return max(p.batch * held, first + p.batch * work + last)


def _kinds(total: int, tile: int) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Return the distinct tile sizes of a dimension and, for each tile, which of them it has."""
    sizes = [size for size, _ in parts(total, tile)]
    index = np.zeros(ceil_div(total, tile), dtype=np.int64)
    if len(sizes) == 2:
        index[-1] = 1
    return sizes, index


def _order(
    t: Tiling, m_tiles: int, n_tiles: int, k_tiles: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the tile indices (m, n, k) of one batch item in program order, each [tiles]."""
    grid = np.indices((m_tiles, n_tiles, k_tiles))  # [3, m, n, k]
    if t.order == "weight":
        grid = grid.transpose(0, 2, 3, 1)  # n outermost, m innermost; K is whole
    flat = grid.reshape(3, -1)
    return flat[0], flat[1], flat[2]


def build(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> MappedGemm:
    """Lay out all tiles of a candidate in program order.

    Args:
        p: the product.
        t: the candidate.
        array: the array that runs it.
        site: memories by role and the vector unit.
    """
    link = site.link
    m_sizes, m_kind = _kinds(p.m, t.tm)
    n_sizes, n_kind = _kinds(p.n, t.tn)
    k_sizes, k_kind = _kinds(p.k, t.tk)
    k_tiles = len(k_kind)
    mi, ni, ki = _order(t, len(m_kind), len(n_kind), k_tiles)
    km, kn, kk = m_kind[mi], n_kind[ni], k_kind[ki]
    tiles = len(mi)

    compute = np.array(
        [[[array.cycles(m, n, k, p.a, p.w) for k in k_sizes] for n in n_sizes] for m in m_sizes],
        dtype=np.int64,
    )[km, kn, kk]
    emits = ki == k_tiles - 1

    fresh = np.zeros((3, tiles), dtype=np.bool_)
    bits = np.zeros((4, tiles), dtype=np.int64)  # bus bits of A, W, constants, output
    if p.a_place == "stream":
        fresh[0] = _changes(mi, ki)
        bits[0] = fresh[0] * _tile_bits(m_sizes, k_sizes, p.k, p.a, link)[km, kk]
    if p.w_place != "chip":
        fresh[1] = _changes(ni, ki)
        first_touch = fresh[1] if p.w_place == "stream" else fresh[1] & (mi == 0)
        bits[1] = first_touch * _tile_bits(n_sizes, k_sizes, p.k, p.w, link)[kn, kk]
    if p.out_streams:
        bits[3] = emits * _tile_bits(m_sizes, n_sizes, p.out_row, p.out, link)[km, kn]
    post = np.zeros(tiles, dtype=np.int64)
    if p.epilogue:
        table = [[_post_cycles(p, m, n, site) for n in n_sizes] for m in m_sizes]
        post = emits * np.array(table, dtype=np.int64)[km, kn]

    b = p.batch
    fresh, bits = np.tile(fresh, b), np.tile(bits, b)
    if p.constant_bits:
        fresh[2, 0] = True
        bits[2, 0] = link.moved_bits(1, p.constant_bits)
    cycles = _bus_cycles(bits, link)
    steps = Steps(
        load=cycles[:3],
        fresh=fresh,
        compute=np.tile(compute, b),
        post=np.tile(post, b),
        store=cycles[3],
        emits=np.tile(emits, b),
    )
    stage = Stage(
        depth=array.spec.pipeline_depth_cycles,
        channels=site.channels,
        overhead=link.overhead_cycles,
        halves=(site.halves(site.activation), site.halves(site.weight), 1),
        owned=(True, p.w_place == "stream", False),
        accumulator_halves=site.halves(site.output),
        output_halves=site.halves(site.output) if p.out_streams else 0,
        handoff_cycles=(
            site.handoff(site.activation),
            site.handoff(site.weight),
            site.handoff(site.weight),
            site.handoff(site.output),
        ),
        direct=not p.epilogue,
    )
    return MappedGemm(steps, stage, _transfer_counts(bits, site))


def _changes(*index: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell for each tile whether one of its indices differs from the tile before it."""
    changed = np.ones(len(index[0]), dtype=np.bool_)
    changed[1:] = np.any([i[1:] != i[:-1] for i in index], axis=0)
    return changed


def _tile_bits(
    rows: list[int], cols: list[int], whole: int, dtype: DataType, link: Link
) -> npt.NDArray[np.int64]:
    """Return the bus bits of tiles [rows, cols] of a tensor whose stored rows have `whole` codes.

    A tile that holds whole rows is one contiguous run; any other is a run a row.
    """
    table = [[_moved(r, c, whole, dtype, link) for c in cols] for r in rows]
    return np.array(table, dtype=np.int64)


def _moved(rows: int, cols: int, whole: int, dtype: DataType, link: Link) -> int:
    if cols == whole:
        return link.moved_bits(1, rows * row_bits(dtype, cols))
    return link.moved_bits(rows, code_bits(dtype, cols))


def _bus_cycles(bits: npt.NDArray[np.int64], link: Link) -> npt.NDArray[np.int64]:
    """Apply `Link.bus_cycles` to every entry; there are few distinct values."""
    values, inverse = np.unique(bits, return_inverse=True)
    cycles = np.array([link.bus_cycles(int(v)) for v in values], dtype=np.int64)
    return cycles[inverse].reshape(bits.shape)


def _post_cycles(p: GemmProblem, rows: int, cols: int, site: Site) -> int:
    return sum(site.vector.cycles(op, rows, rows * cols) for op in p.epilogue)


def _transfer_counts(bits: npt.NDArray[np.int64], site: Site) -> tuple[Count, ...]:
    """Count DRAM, DMA and on-chip accesses of the transfers, bits [4, steps]."""
    counts: list[Count] = []
    ends = (
        ("activation", site.activation, "load"),
        ("weight", site.weight, "load"),
        ("constant", site.weight, "load"),
        ("output", site.output, "store"),
    )
    for row, (operand, memory, direction) in zip(bits, ends, strict=True):
        values, times = np.unique(row[row > 0], return_counts=True)
        moved = [(int(v), int(n)) for v, n in zip(values, times, strict=True)]
        counts += site.transfer(operand, memory, direction, moved)
    return tuple(counts)


def work_counts(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> tuple[Count, ...]:
    """Count what the array, the memories around it and the fused vector operators do.

    Sums over at most two sizes of tile in each dimension: exact, and independent of the number of tiles.
    """
    steps = [
        (p.batch * m_times * n_times * k_times, array.work(tm, tn, tk, p.a, p.w))
        for tm, m_times in parts(p.m, t.tm)
        for tn, n_times in parts(p.n, t.tn)
        for tk, k_times in parts(p.k, t.tk)
    ]
    return step_counts(p, t, array, site, steps)


def step_counts(
    p: GemmProblem,
    t: Tiling,
    array: ArrayComponent,
    site: Site,
    steps: Sequence[tuple[int, Work]],
) -> tuple[Count, ...]:
    """Count as `work_counts` does, of given compute steps: (how many, what one of them does)."""
    counts = array_counts(array, p.a, p.w, steps)
    w_memory = p.w_memory if p.w_place == "chip" else site.weight
    for operand, memory in (("activation", site.activation), ("weight", w_memory)):
        reads = sum(
            times * again * site.reads(memory, bits)
            for times, work in steps
            for bits, again in (work.activation if operand == "activation" else work.weight).reads
        )
        counts.append(Count(f"memory:{memory}", "read", operand, reads))
    counts += site.control(sum(times for times, _ in steps))
    return (*counts, *_result_counts(p, t, array, site))


def _result_counts(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> list[Count]:
    """Count the traffic of accumulators and results, and the fused vector operators.

    With an epilogue, accumulators pass through the output memory and the vector unit writes the result;
    without, the array writes the result itself. A result that stays on chip is written where it stays.
    """
    block_rows, block_cols, _ = array.block(p.a, p.w)
    result = site.output if p.out_streams else site.activation
    held = site.output if p.epilogue else result
    element_bits = array.spec.accumulator_bits if p.epilogue else p.out.bits
    k_tiles = ceil_div(p.k, t.tk)
    writes = reads = result_writes = constant_reads = rows = 0
    for tm, m_times in parts(p.m, t.tm):
        for tn, n_times in parts(p.n, t.tn):
            times = p.batch * m_times * n_times
            rows += times * tm
            for r, r_times in parts(tm, block_rows):
                for c, c_times in parts(tn, block_cols):
                    blocks = times * r_times * c_times
                    bits = r * c * element_bits
                    writes += k_tiles * blocks * site.writes(held, bits)
                    reads += (k_tiles - 1) * blocks * site.reads(held, bits)
            if p.epilogue:
                reads += times * site.reads(held, tm * tn * element_bits)
                result_writes += times * site.writes(result, tm * code_bits(p.out, tn))
                constant_reads += times * site.reads(site.weight, p.constant_fetch_bits)
    elements = p.batch * p.m * p.n
    counts = [
        Count(f"memory:{held}", "write", "accumulator" if p.epilogue else "output", writes),
        Count(f"memory:{held}", "read", "accumulator", reads),
        Count(f"memory:{result}", "write", "output", result_writes),
        Count(f"memory:{site.weight}", "read", "constant", constant_reads),
    ]
    for op in p.epilogue:
        counts.append(Count("vector", f"element:{op}", "output", elements))
        counts.append(Count("vector", f"row:{op}", "output", rows))
    return [c for c in counts if c.count]
