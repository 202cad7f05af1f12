"""One mapped matrix product: its steps for the event schedule, its buffers, and what it moves.

`acc[b, m, n] = sum_k a[b, m, k] * w[b, n, k]`, cut in tiles tm x tn x tk. The outer order says which
operand stays while the others change:

    activation   for m: for k: for n   A stays
    weight       for n: for k: for m   W stays
    output       for m: for n: for k   the accumulators of one tile stay

Where K is split, partial sums wait in the output memory at the width of the accumulators, those of a whole
band of tiles while A or W stays; they never leave the chip. Every element is summed in ascending K on any mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.engine.energy import Count
from hwsim.engine.timing import UNLIMITED, Link, Stage, Steps
from hwsim.graph.dtype import DataType
from hwsim.mapping.block import Block, part_of
from hwsim.mapping.layout import ORDERS, Flow, Layout, Order
from hwsim.mapping.site import DRAM, Bits, Direction, Moved, Site
from hwsim.mapping.tile import code_bits, parts, row_bits

Place = Literal["chip", "fill", "stream"]
"""`chip`: in its role memory before the operator starts. `fill`: comes from DRAM once, into a place of its own.
`stream`: comes from behind tile by tile through a buffer, again whenever it is needed again."""


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """Everything that a mapping of one product depends on besides the machine: the key of the memo.

    `epilogue` names the vector operators that run on each output tile before it is stored, `out` is the
    number type after them, and `out_row` the codes of a stored row of the result. `w_memory` is the memory that W is read from where it is on chip.
    `constant_bits` are loaded from each level before the first tile. `whole_lanes`: an accumulator may
    overflow, so that K must be summed in whole beats of the array's lanes. `a_from`, `w_from` and `out_to`
    are the levels that streams come from and go to.
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
    constant_bits: Bits
    constant_fetch_bits: int
    whole_lanes: bool = False
    a_from: str = DRAM
    w_from: str = DRAM
    out_to: str = DRAM


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
    """Steps, stage and transfers of one candidate; `moved` are those of A, W and the output alone."""

    steps: Steps
    stage: Stage
    transfers: tuple[Count, ...]
    moved: tuple[Moved, ...]


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
    result_bits = t.tm * row_bits(p.out, t.tn) if p.out_streams else 0
    sums_bits = t.tm * t.tn * array.spec.accumulator_bits
    if p.epilogue:
        hold(sums_bits)
        if p.out_streams:
            take(site.output, result_bits, p.batch * m_tiles * n_tiles)
    elif k_tiles > 1:  # a result is written where its partial sums were, or where it stays
        hold(max(sums_bits, result_bits))
    elif p.out_streams:
        hold(result_bits)
    return taken


def _accumulator_places(p: GemmProblem, t: Tiling, site: Site) -> int:
    """Count the places for accumulators of one tile each: a band, and another one if double."""
    tiles = p.batch * ceil_div(p.m, t.tm) * ceil_div(p.n, t.tn)
    return min(site.halves(site.output) * t.band(p), tiles)


def flow(p: GemmProblem, site: Site) -> Flow:
    """Return what moves between the role memories and those behind them."""
    constant = tuple(site.constant_cycles(p.constant_bits))
    streams, fills = p.w_place == "stream", p.w_place == "fill"
    return Flow(p.batch, p.a_place == "stream", streams, fills, p.out_streams, constant)


def stage(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> Stage:
    """Return how the buffers and links around the array behave."""
    places = _accumulator_places(p, t, site)
    output_halves = site.halves(site.output) if p.epilogue else places
    waits = p.epilogue or p.out_streams or t.tk < p.k
    return Stage(
        depth=array.spec.pipeline_depth_cycles,
        channels=site.channels,
        overhead=site.link.overhead_cycles,
        halves=(site.halves(site.activation), site.halves(site.weight), *(1 for _ in site.levels)),
        owned=(True, p.w_place == "stream", *(False for _ in site.levels)),
        accumulator_halves=places if waits else UNLIMITED,
        output_halves=output_halves if p.out_streams else UNLIMITED,
        handoff_cycles=(
            site.handoff(site.activation),
            site.handoff(site.weight),
            *(site.handoff(site.weight) for _ in site.levels),
            site.handoff(site.output),
        ),
        direct=not p.epilogue and p.out_streams,
        wires=site.wires(p.a_from, p.w_from, p.out_to),
        ports=site.ports,
    )


def build(p: GemmProblem, t: Tiling, array: ArrayComponent, site: Site) -> MappedGemm:
    """Lay out all tiles of a candidate in program order, and count its transfers.

    Args:
        p: the product.
        t: the candidate.
        array: the array that runs it.
        site: memories by role and the vector unit.
    """
    part = part_of(array, t.block)
    a_link = site.link_to(p.a_from, site.activation, "load")
    w_link = site.link_to(p.w_from, site.weight, "load")
    out_link = site.link_to(p.out_to, site.output, "store")
    ms, ns, ks = (
        [size for size, _ in parts(total, tile)]
        for total, tile in ((p.m, t.tm), (p.n, t.tn), (p.k, t.tk))
    )
    a = [[moved_bits(m, k, p.k, p.a, a_link) for k in ks] for m in ms]
    w = [[moved_bits(n, k, p.k, p.w, w_link) for k in ks] for n in ns]
    out = [[moved_bits(m, n, p.out_row, p.out, out_link) for n in ns] for m in ms]
    compute = [[[part.cycles(m, n, k, p.a, p.w) for k in ks] for n in ns] for m in ms]
    post = [[post_cycles(p, m, n, site) for n in ns] for m in ms]
    how = stage(p, t, array, site)
    layout = Layout(
        order=np.array([ORDERS.index(t.order)]),
        tiles=np.array([[ceil_div(p.m, t.tm), ceil_div(p.n, t.tn), ceil_div(p.k, t.tk)]]),
        rest=np.array([[len(ms) - 1, len(ns) - 1, len(ks) - 1]]),
        places=np.array([[how.accumulator_halves, how.output_halves]]),
        compute=_by_kind(compute),
        a=_by_kind([[a_link.bus_cycles(bits) for bits in row] for row in a]),
        w=_by_kind([[w_link.bus_cycles(bits) for bits in row] for row in w]),
        out=_by_kind([[out_link.bus_cycles(bits) for bits in row] for row in out]),
        post=_by_kind(post),
    )
    steps, times = layout.steps(flow(p, site))
    transfers: list[Count] = []
    moved: list[Moved] = []
    ends: tuple[tuple[str, str, Direction, str, Any, Any], ...] = (
        ("activation", site.activation, "load", p.a_from, a, times[0]),
        ("weight", site.weight, "load", p.w_from, w, times[1]),
        ("output", site.output, "store", p.out_to, out, times[2]),
    )
    for operand, memory, direction, level, bits, often in ends:
        kinds = ((i, j) for i in range(len(bits)) for j in range(len(bits[0])) if often[i, j])
        moved.append([(bits[i][j], int(often[i, j])) for i, j in kinds])
        transfers += site.transfer(operand, memory, direction, moved[-1], level)
    transfers += site.constant_transfers(p.constant_bits)
    return MappedGemm(steps, how, tuple(transfers), tuple(moved))


def _by_kind(table: list[Any]) -> npt.NDArray[np.int64]:
    """Return a table of the kinds that there are as one of a single candidate and all kinds."""
    given = np.array(table, dtype=np.int64)
    full = np.zeros((1, *(2 for _ in given.shape)), dtype=np.int64)
    full[0][tuple(slice(n) for n in given.shape)] = given
    return full


def moved_bits(rows: int, cols: int, whole: int, dtype: DataType, link: Link) -> int:
    """Return the bus bits of a tile of a tensor whose stored rows have `whole` codes.

    A tile that holds whole rows is one contiguous run; any other is a run a row.
    """
    if cols == whole:
        return link.moved_bits(1, rows * row_bits(dtype, cols))
    return link.moved_bits(rows, code_bits(dtype, cols))


def post_cycles(p: GemmProblem, rows: int, cols: int, site: Site) -> int:
    """Return the vector unit's cycles on one output tile."""
    return sum(site.vector.cycles(op, rows, rows * cols) for op in p.epilogue)
