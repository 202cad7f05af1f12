"""One mapped matrix product: its steps for the event schedule, its buffers, and what it moves.

`acc[b, m, n] = sum_k a[b, m, k] * w[b, n, k]`, cut in tiles tm x tn x tk. The outer order says which
operand stays while the others change:

    activation   for m: for k: for n   A stays
    weight       for n: for k: for m   W stays
    output       for m: for n: for k   the accumulators of one tile stay

Where K is split while A or W stays, the accumulators of a whole band of tiles wait on chip; partial sums
never leave the chip. Every element is summed in ascending K on any mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.engine.energy import Count
from hwsim.engine.timing import UNLIMITED, Link, Stage, Steps
from hwsim.graph.dtype import DataType
from hwsim.mapping.block import Block, part_of
from hwsim.mapping.site import Site
from hwsim.mapping.tile import code_bits, parts, row_bits

Order = Literal["activation", "weight", "output"]
AXES: dict[Order, tuple[int, int, int]] = {
    "activation": (0, 2, 1),
    "weight": (1, 2, 0),
    "output": (0, 1, 2),
}
"""The loops of an order, outermost first: 0 m, 1 n, 2 k."""
Place = Literal["chip", "fill", "stream"]
"""`chip`: on chip before the operator starts. `fill`: comes from DRAM once, into a place of its own.
`stream`: comes from DRAM tile by tile through a buffer, again whenever it is needed again."""


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """Everything that a mapping of one product depends on besides the machine: the key of the memo.

    `epilogue` names the vector operators that run on each output tile before it is stored, `out` is the
    number type after them, and `out_row` the codes of a stored row of the result. `w_memory` is the memory that W is read from where it is on chip.
    `constant_bits` are loaded from DRAM before the first tile. `whole_lanes`: an accumulator may
    overflow, so that K must be summed in whole beats of the array's lanes.
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
    whole_lanes: bool = False


@dataclass(frozen=True, slots=True)
class Tiling:
    """A point of the mapping space: tile, the operand that stays, and the block of one beat."""

    tm: int
    tn: int
    tk: int
    order: Order
    block: Block

    def tiles(self, p: GemmProblem) -> int:
        """Count the compute steps."""
        return p.batch * ceil_div(p.m, self.tm) * ceil_div(p.n, self.tn) * ceil_div(p.k, self.tk)

    def band(self, p: GemmProblem) -> int:
        """Count the output tiles whose accumulators wait at once: 1 unless K is split under A or W."""
        if self.tk >= p.k or self.order == "output":
            return 1
        return ceil_div(p.n, self.tn) if self.order == "activation" else ceil_div(p.m, self.tm)


def orders(m_tiles: int, n_tiles: int, k_tiles: int) -> tuple[Order, ...]:
    """Return the outer orders that differ from each other for so many tiles along M, N and K."""
    if k_tiles == 1:
        return ("activation", "weight") if m_tiles > 1 and n_tiles > 1 else ("activation",)
    # With one tile along N, A stays just as the accumulators do; with one along M, so does W.
    stays: tuple[Order, ...] = ("output",)
    if n_tiles > 1:
        stays += ("activation",)
    return (*stays, "weight") if m_tiles > 1 else stays


@dataclass(frozen=True, slots=True)
class MappedGemm:
    """Steps and stage of one candidate, and the bus bits of its transfers: [A, W, constants, output; steps]."""

    steps: Steps
    stage: Stage
    moved_bits: npt.NDArray[np.int64]


def buffer_bytes(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> dict[str, int]:
    """Return the bytes that the buffers of a candidate take, by memory: both halves of double ones."""
    m_tiles, n_tiles = ceil_div(p.m, t.tm), ceil_div(p.n, t.tn)
    k_tiles = ceil_div(p.k, t.tk)
    taken: dict[str, int] = {}

    def take(memory: str, tile_bits: int, tiles: int) -> None:
        # An operand that is one single tile needs no second half.
        halves = min(site.halves(memory), tiles)
        taken[memory] = taken.get(memory, 0) + halves * ceil_div(tile_bits, 8)

    def hold(tile_bits: int) -> None:
        taken[site.output] = taken.get(site.output, 0) + places * ceil_div(tile_bits, 8)

    if p.a_place == "stream":
        bits = t.tm * row_bits(p.a, t.tk)
        take(site.activation, bits, p.batch * m_tiles * k_tiles)
    if p.w_place == "stream":
        bits = t.tn * row_bits(p.w, t.tk)
        take(site.weight, bits, p.batch * n_tiles * k_tiles)
    places = _accumulator_places(p, t, site)
    if p.epilogue:
        hold(t.tm * t.tn * array.spec.accumulator_bits)
        if p.out_streams:
            take(site.output, t.tm * row_bits(p.out, t.tn), p.batch * m_tiles * n_tiles)
    elif p.out_streams:
        hold(t.tm * row_bits(p.out, t.tn))
    return taken


def _accumulator_places(p: GemmProblem, t: Tiling, site: Site) -> int:
    """Count the places for accumulators of one tile each: a band, and another one if double."""
    tiles = p.batch * ceil_div(p.m, t.tm) * ceil_div(p.n, t.tn)
    return min(site.halves(site.output) * t.band(p), tiles)


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
    flat = grid.transpose(0, *(1 + axis for axis in AXES[t.order])).reshape(3, -1)
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

    part = part_of(array, t.block)
    compute = np.array(
        [[[part.cycles(m, n, k, p.a, p.w) for k in k_sizes] for n in n_sizes] for m in m_sizes],
        dtype=np.int64,
    )[km, kn, kk]
    opens, emits = ki == 0, ki == k_tiles - 1

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
        table = [[post_cycles(p, m, n, site) for n in n_sizes] for m in m_sizes]
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
        opens=np.tile(opens, b),
        emits=np.tile(emits, b),
    )
    places = _accumulator_places(p, t, site)
    output_halves = places if not p.epilogue else site.halves(site.output)
    stage = Stage(
        depth=array.spec.pipeline_depth_cycles,
        channels=site.channels,
        overhead=link.overhead_cycles,
        halves=(site.halves(site.activation), site.halves(site.weight), 1),
        owned=(True, p.w_place == "stream", False),
        accumulator_halves=places,
        output_halves=output_halves if p.out_streams else UNLIMITED,
        handoff_cycles=(
            site.handoff(site.activation),
            site.handoff(site.weight),
            site.handoff(site.weight),
            site.handoff(site.output),
        ),
        direct=not p.epilogue,
    )
    return MappedGemm(steps, stage, bits)


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
    table = [[moved_bits(r, c, whole, dtype, link) for c in cols] for r in rows]
    return np.array(table, dtype=np.int64)


def moved_bits(rows: int, cols: int, whole: int, dtype: DataType, link: Link) -> int:
    if cols == whole:
        return link.moved_bits(1, rows * row_bits(dtype, cols))
    return link.moved_bits(rows, code_bits(dtype, cols))


def _bus_cycles(bits: npt.NDArray[np.int64], link: Link) -> npt.NDArray[np.int64]:
    """Apply `Link.bus_cycles` to every entry."""
    rate = link.bits_per_cycle
    held = link.latency_cycles - (-bits * rate.denominator // rate.numerator)
    return np.where(bits > 0, held, 0)


def post_cycles(p: GemmProblem, rows: int, cols: int, site: Site) -> int:
    return sum(site.vector.cycles(op, rows, rows * cols) for op in p.epilogue)


def transfer_counts(bits: npt.NDArray[np.int64], site: Site) -> tuple[Count, ...]:
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
