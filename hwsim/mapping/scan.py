"""Lower bounds of all tilings of a product at once.

The number of tilings goes into the millions, the number worth laying out is small. Everything that a
tiling costs is a sum of terms in one or two of its three sizes, except for the schedule; so tables and one
compiled loop give, for every tiling, its buffers exactly and a bound that no schedule and no sub-block
can beat. Bounds are in the units of the objective: w_cycles * cycles + w_pj * energy.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.arch.component import ceil_div
from hwsim.engine.energy import Prices
from hwsim.graph.dtype import DataType
from hwsim.mapping.block import Blocks
from hwsim.mapping.gemm import GemmProblem, Order, Tiling
from hwsim.mapping.objective import WaitingPower
from hwsim.mapping.site import Site
from hwsim.mapping.tile import tile_sizes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NO_LIMIT = 1 << 62
"""More compute steps than any tiling has."""

ORDERS: tuple[Order, ...] = ("activation", "weight", "output")
"""The number that the compiled loop knows an order by."""


@dataclass(frozen=True, slots=True)
class Cut:
    """All tile sizes of one dimension: [n] each. `rest` is the size of a last, smaller tile, or 0."""

    total: int
    size: Ints
    full: Ints
    rest: Ints

    @classmethod
    def of(cls, total: int, block: int, least: int) -> Cut:
        """List the sizes of a dimension for sub-blocks from `least` to `block`."""
        size = np.array(tile_sizes(total, block, least), dtype=np.int64)
        return cls(total, size, total // size, total % size)

    @property
    def tiles(self) -> Ints:
        """How many tiles: [n]."""
        return self.full + (self.rest > 0)

    @property
    def last(self) -> Ints:
        """Size of the last tile: [n]."""
        return np.where(self.rest > 0, self.rest, self.size)

    def blocks(self, block: int) -> Ints:
        """How many blocks all tiles have together: [n]."""
        return self.full * _up(self.size, block) + _up(self.rest, block)

    def parts(self) -> tuple[tuple[Ints, Ints], ...]:
        """(size, how many) of the full tiles and of the last, smaller one."""
        return (self.size, self.full), (self.rest, (self.rest > 0).astype(np.int64))


def _up(a: Ints, b: int) -> Ints:
    return np.asarray(-(-a // b))


@dataclass(frozen=True, slots=True)
class Transfers:
    """Moving all tiles of an operand between DRAM and a memory once: tables [rows, columns]."""

    cycles: Ints
    """bus cycles of all tiles"""
    pj: Floats
    """energy of all tiles"""
    first: Ints
    """bus cycles of a full tile"""
    last: Ints
    """bus cycles of the last tile"""

    @classmethod
    def none(cls, rows: Cut, cols: Cut) -> Transfers:
        """Return the tables of an operand that stays on chip."""
        zero = np.zeros((len(rows.size), len(cols.size)), dtype=np.int64)
        return cls(zero, zero.astype(np.float64), zero, zero)


class Scan:
    """The tilings of one product on one machine."""

    def __init__(
        self,
        p: GemmProblem,
        blocks: Blocks,
        site: Site,
        prices: Prices,
        power: WaitingPower,
    ) -> None:
        self._p, self._site, self._prices = p, site, prices
        self.blocks = blocks
        least, full = blocks.least, blocks.full
        self.m = Cut.of(p.m, full[0], least[0])
        self.n = Cut.of(p.n, full[1], least[1])
        self.k = Cut.of(p.k, full[2], least[2])
        self._power = power
        tables = (*self._traffic(), *self._bytes(), *self._work(), *self._energy())
        # One memory layout throughout, so that the loop is compiled once.
        self._tables = tuple(np.ascontiguousarray(table) for table in tables)

    def least(
        self, free: Map[str, int], weights: tuple[float, float], step_limit: int
    ) -> tuple[Tiling, float] | None:
        """Return a legal tiling of at most `step_limit` compute steps with the least bound, and that."""
        index, bound, _, _ = self._run(free, weights, np.inf, step_limit, only_least=True)
        return (self.tiling(index[0]), float(bound[0, 0])) if len(bound) else None

    def within(
        self, free: Map[str, int], weights: tuple[float, float], cutoff: float, step_limit: int
    ) -> tuple[Ints, Floats, float]:
        """Return all legal tilings with a bound of at most `cutoff`, the least bound first.

        Args:
            free: bytes that buffers may take in each memory.
            weights: of a cycle and of a picojoule.
            cutoff: the largest bound of interest.
            step_limit: tilings of more compute steps are left out.

        Returns:
            [n, 4] rows for `tiling`; [n, 2] bounds of both parts of a `Worth`; the least bound of those left out (inf if none).
        """
        index, bound, lost, _ = self._run(free, weights, cutoff, step_limit, only_least=False)
        order = np.lexsort((bound[:, 1], bound[:, 0]))
        return index[order], bound[order], lost

    def lacking_bytes(self, free: Map[str, int]) -> int:
        """Return by how many bytes the smallest buffers are too large: 0 if some tiling is legal."""
        _, _, _, lacking = self._run(free, (0.0, 0.0), np.inf, 0, only_least=True)
        return lacking

    def _run(
        self,
        free: Map[str, int],
        weights: tuple[float, float],
        cutoff: float,
        step_limit: int,
        *,
        only_least: bool,
    ) -> tuple[Ints, Floats, float, int]:
        room = 1 if only_least else 1 << 12
        while True:
            index = np.empty((room, 4), dtype=np.int64)
            bound = np.empty((room, 2), dtype=np.float64)
            found, lost, lacking = _scan(  # type: ignore[call-arg]
                self._shape(),
                np.array([free.get(m, 0) for m in self._memories()], dtype=np.int64),
                *self._tables,
                float(weights[0]),
                float(weights[1]),
                float(cutoff),
                step_limit,
                only_least,
                index,
                bound,
            )
            if found <= room:
                return index[:found], bound[:found], float(lost), int(lacking)
            room = found

    def tiling(self, index: Ints) -> Tiling:
        """Return the tiling of a row of indices, with the whole array as its block."""
        i, j, k, order = (int(x) for x in index)
        return Tiling(
            int(self.m.size[i]),
            int(self.n.size[j]),
            int(self.k.size[k]),
            ORDERS[order],
            self.blocks.full,
        )

    def _memories(self) -> tuple[str, str, str]:
        site = self._site
        return site.activation, site.weight, site.output

    def _shape(self) -> Ints:
        """Return what the loop needs besides tables."""
        p, site = self._p, self._site
        first = {m: i for i, m in reversed(list(enumerate(self._memories())))}
        return np.array(
            [
                p.batch,
                p.w_place == "fill",
                p.a_place == "stream",
                p.w_place != "chip",
                p.out_streams,
                bool(p.constant_bits),
                site.channels,
                site.link.overhead_cycles,
                site.link.bus_cycles(site.link.moved_bits(1, p.constant_bits)),
                *(site.halves(m) for m in self._memories()),
                *(first[m] for m in self._memories()),
            ],
            dtype=np.int64,
        )

    def _moved(self, rows: Ints, cols: Ints, whole: int, dtype: DataType) -> Ints:
        """Return the bus bits of tiles rows [r, 1] x cols [1, c], as `gemm.moved_bits` does for one."""
        burst = self._site.link.burst_bits
        packed = _up(cols * dtype.bits, 64) * 64
        one_run = _up(rows * packed, burst) * burst
        return np.where(cols == whole, one_run, rows * _up(cols * dtype.bits, burst) * burst)

    def _transfers(
        self, rows: Cut, cols: Cut, whole: int, dtype: DataType, memory: str, load: bool
    ) -> Transfers:
        link, spec = self._site.link, self._site.machine.memories[memory].spec
        rate = link.bits_per_cycle
        width = spec.write_width_bits if load else spec.read_width_bits
        price = self._prices.price
        bit_pj = price("dram", "load_bit").pj + price("dma", "bit").pj
        access_pj = price(f"memory:{memory}", "write" if load else "read").pj

        def bus(moved: Ints) -> Ints:
            held = link.latency_cycles + -(-moved * rate.denominator // rate.numerator)
            return np.where(moved > 0, held, 0)

        shape = (len(rows.size), len(cols.size))
        cycles, pj = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        for r, r_times in rows.parts():
            for c, c_times in cols.parts():
                moved = self._moved(r[:, None], c[None, :], whole, dtype)
                times = r_times[:, None] * c_times[None, :]
                cycles += times * bus(moved)
                pj += times * (moved * bit_pj + _up(moved, width) * access_pj + self._step_pj())
        first = bus(self._moved(rows.size[:, None], cols.size[None, :], whole, dtype))
        last = bus(self._moved(rows.last[:, None], cols.last[None, :], whole, dtype))
        return Transfers(cycles, pj, first, last)

    def _step_pj(self) -> float:
        return self._prices.price("control", "step").pj if self._site.has_control else 0.0

    def _traffic(self) -> tuple[Ints | Floats, ...]:
        """Tables of A [m, k], W [n, k] and output [m, n]: bus cycles, energy, first or last tile."""
        p, site = self._p, self._site
        a, w, out = (
            Transfers.none(self.m, self.k),
            Transfers.none(self.n, self.k),
            Transfers.none(self.m, self.n),
        )
        if p.a_place == "stream":
            a = self._transfers(self.m, self.k, p.k, p.a, site.activation, load=True)
        if p.w_place != "chip":
            w = self._transfers(self.n, self.k, p.k, p.w, site.weight, load=True)
        if p.out_streams:
            out = self._transfers(self.m, self.n, p.out_row, p.out, site.output, load=False)
        post, last = np.zeros_like(out.cycles), np.zeros_like(out.cycles)
        for r, r_times in self.m.parts():
            for c, c_times in self.n.parts():
                post += r_times[:, None] * c_times[None, :] * self._post(r, c)
        last += self._post(self.m.last, self.n.last)
        last += self.blocks.array.spec.pipeline_depth_cycles + out.last
        if p.out_streams:
            last += site.link.overhead_cycles
        return a.cycles, a.pj, a.first, w.cycles, w.pj, w.first, out.cycles, out.pj, last, post

    def _post(self, rows: Ints, cols: Ints) -> Ints:
        """Return the vector unit's cycles on output tiles rows [m] x cols [n], as `gemm.post_cycles` does."""
        cycles: Any = (
            self._site.vector.cycles if self._p.epilogue else None
        )  # whole numbers or arrays
        total = np.zeros((len(rows), len(cols)), dtype=np.int64)
        for op in self._p.epilogue:
            total += cycles(op, rows[:, None], rows[:, None] * cols[None, :])
        return total

    def _bytes(self) -> tuple[Ints, ...]:
        """Bytes of one half: A [m, k], W [n, k], accumulators that wait and results [m, n]."""
        p = self._p

        def half(rows: Cut, cols: Cut, dtype: DataType) -> Ints:
            bits = _up(cols.size * dtype.bits, 64)[None, :] * 64 * rows.size[:, None]
            return _up(bits, 8)

        nothing = np.zeros((len(self.m.size), len(self.n.size)), dtype=np.int64)
        a = half(self.m, self.k, p.a) * (p.a_place == "stream")
        w = half(self.n, self.k, p.w) * (p.w_place == "stream")
        result = half(self.m, self.n, p.out) * p.out_streams
        if not p.epilogue:
            return a, w, result, nothing
        bits = self.m.size[:, None] * self.n.size[None, :]
        return a, w, _up(bits * self.blocks.array.spec.accumulator_bits, 8), result

    def _work(self) -> tuple[Floats | Ints, ...]:
        """Numbers of tiles, and the least cycles of all compute steps as a product of three tables."""
        rows, cols, lanes = self.blocks.full
        cuts = (self.m, self.n, self.k)
        array, p = self.blocks.array, self._p
        if self.blocks.full_is_fastest() and self.blocks.least != self.blocks.full:
            unit = float(array.passes(p.a, p.w) * array.spec.initiation_interval_cycles)
            all_tiles = [c.blocks(b) for c, b in zip(cuts, (rows, cols, lanes), strict=True)]
            last = [_up(c.last, b) for c, b in zip(cuts, (rows, cols, lanes), strict=True)]
        else:
            unit = self.blocks.cycles_per_product()
            all_tiles = [np.full_like(c.size, c.total) for c in cuts]
            last = [c.last for c in cuts]
        tiles = [c.tiles for c in cuts]
        return *tiles, *(t.astype(np.float64) for t in (*all_tiles, *last)), np.array([unit])

    def _energy(self) -> tuple[Floats, ...]:
        """Energy of the work, accesses counted as if no bit of any were unused.

        Returns constants [9] and the fetches of operand blocks: codes of A a row [n, k], codes of W that
        are fetched once a tile of M [n, k], row blocks [m], beats along K [k].
        """
        p, site, array = self._p, self._site, self.blocks.array
        rows, cols, lanes = self.blocks.full
        price = self._prices.price
        name = f"array:{array.name}"
        passes = array.passes(p.a, p.w)
        a_bits, w_bits = array.operand_bits(p.a, p.w)
        a_planes = ceil_div(p.a.bits, a_bits)
        w_planes = ceil_div(passes, a_planes)
        elements = p.batch * p.m * p.n
        result = site.output if p.out_streams else site.activation
        held = site.output if p.epilogue else result
        bits = array.spec.accumulator_bits if p.epilogue else p.out.bits

        def bit_pj(memory: str, action: str) -> float:
            spec = site.machine.memories[memory].spec
            width = spec.read_width_bits if action == "read" else spec.write_width_bits
            return price(f"memory:{memory}", action).pj / width

        fixed = elements * p.k * passes * price(name, f"lane_op:{p.a}x{p.w}").pj
        row_pj = constant_pj = 0.0
        if p.epilogue:
            fixed += elements * (bits * bit_pj(held, "read") + p.out.bits * bit_pj(result, "write"))
            fixed += elements * sum(price("vector", f"element:{op}").pj for op in p.epilogue)
            row_pj = p.batch * p.m * sum(price("vector", f"row:{op}").pj for op in p.epilogue)
            fetches = site.reads(site.weight, p.constant_fetch_bits)
            constant_pj = p.batch * fetches * price(f"memory:{site.weight}", "read").pj
        register_pj = price(name, "operand_register_bit").pj
        w_memory = p.w_memory if p.w_place == "chip" else site.weight
        a_code_pj = a_bits * (register_pj + bit_pj(site.activation, "read"))
        w_code_pj = w_bits * w_planes * (register_pj + bit_pj(w_memory, "read"))
        constants = np.array(
            [
                fixed,
                self._step_pj(),
                row_pj,
                constant_pj,
                elements * passes * price(name, "accumulator_update").pj,
                elements * bits * bit_pj(held, "write"),
                elements * bits * bit_pj(held, "read"),
                p.batch * p.m * a_code_pj * (passes if a_planes > 1 else 1),
                p.batch * w_code_pj,
                self._power.leakage_pj + self._power.idle_pj * max(0, self._power.units - 2),
                self._power.idle_pj,
                self._power.units,
            ]
        )
        a_codes = np.zeros((len(self.n.size), len(self.k.size)))
        w_once = np.zeros_like(a_codes)
        for k, k_times in self.k.parts():
            one_beat = _up(k, lanes) == 1
            for n, n_times in self.n.parts():
                n_blocks = _up(n, cols)
                again = np.where((a_planes == 1) & one_beat[None, :], 1, n_blocks[:, None])
                a_codes += n_times[:, None] * (k * k_times)[None, :] * again
                once = (w_planes == 1) & one_beat[None, :] & (n_blocks[:, None] == 1)
                w_once += once * (n * n_times)[:, None] * (k * k_times)[None, :]
        return (
            constants,
            a_codes,
            w_once,
            self.m.blocks(rows).astype(np.float64),
            self.k.blocks(lanes).astype(np.float64),
            np.array([float(p.n * p.k)]),
        )


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _scan(  # type: ignore[no-untyped-def]  # noqa: PLR0915  one loop: splitting it hides the sums
    shape,
    free,
    a_cycles,
    a_pj,
    a_first,
    w_cycles,
    w_pj,
    w_first,
    out_cycles,
    out_pj,
    last,
    post,
    a_bytes,
    w_bytes,
    wait_bytes,
    result_bytes,
    m_tiles,
    n_tiles,
    k_tiles,
    m_work,
    n_work,
    k_work,
    m_end,
    n_end,
    k_end,
    unit,
    constants,
    a_codes,
    w_once,
    m_blocks,
    k_blocks,
    nk,
    w_weight,
    pj_weight,
    cutoff,
    step_limit,
    only_least,
    index,
    bound,
):
    """Fill `index` and `bound` as far as there is room, or with the least bound alone.

    Returns how many there are, the least bound beyond `step_limit`, and the fewest bytes lacking.
    """
    batch, fill, a_streams, w_streams, out_streams, constant = shape[:6]
    channels, overhead, constant_cycles = shape[6], shape[7], shape[8]
    a_halves, w_halves, out_halves = shape[9], shape[10], shape[11]
    a_memory, w_memory, out_memory = shape[12], shape[13], shape[14]
    fixed, step_pj, row_pj, constant_pj, update_pj = constants[:5]
    write_pj, read_pj, a_code_pj, w_code_pj, time_pj = constants[5:10]
    idle_pj, units = constants[10], constants[11]
    lacking = np.int64(1) << 62
    lost = np.inf
    found = 0
    used = np.zeros(3, np.int64)
    first_overhead = overhead * min(1, a_streams + w_streams + constant)
    if channels == 1:
        first_overhead = overhead * (a_streams + w_streams + constant)
    some_overhead = min(first_overhead, overhead)
    for i in range(m_tiles.shape[0]):
        mt = m_tiles[i]
        for j in range(n_tiles.shape[0]):
            nt = n_tiles[j]
            out_tiles = batch * mt * nt
            # What every cut of K and every order costs at least; where that is too much, go on.
            moved = batch * out_cycles[i, j] + constant_cycles
            moved += batch * a_cycles[i].min() + (1 if fill else batch) * w_cycles[j].min()
            cycles = max(batch * m_work[i] * n_work[j] * k_work.min() * unit[0], float(moved))
            value = w_weight * cycles
            if pj_weight > 0:
                pj = fixed + out_tiles / batch * constant_pj + nt * row_pj
                pj += batch * (a_pj[i].min() + w_pj[j].min() + out_pj[i, j])
                pj += update_pj * k_blocks.min() + write_pj + time_pj * cycles
                pj += a_code_pj * a_codes[j].min()
                value += pj_weight * pj
            if value > cutoff:
                continue
            for k in range(k_tiles.shape[0]):
                kt = k_tiles[k]
                tiles = out_tiles * kt
                for order in range(3):
                    if kt == 1:
                        if order == 2 or (order == 1 and (mt == 1 or nt == 1)):
                            continue
                    elif (order == 0 and nt == 1) or (order == 1 and mt == 1):
                        continue
                    band = np.int64(1)
                    if kt > 1 and order < 2:
                        band = nt if order == 0 else mt
                    used[:] = 0
                    used[a_memory] += min(a_halves, batch * mt * kt) * a_bytes[i, k]
                    used[w_memory] += min(w_halves, batch * nt * kt) * w_bytes[j, k]
                    used[out_memory] += min(out_halves * band, out_tiles) * wait_bytes[i, j]
                    used[out_memory] += min(out_halves, out_tiles) * result_bytes[i, j]
                    short = np.int64(0)
                    for x in range(3):
                        short += max(0, used[x] - free[x])
                    lacking = min(lacking, short)
                    if short > 0:
                        continue
                    a_again = 1 if order == 0 else nt
                    w_again = 1 if fill or order == 1 or (nt == 1 and kt == 1) else mt
                    load = batch * (a_again * a_cycles[i, k]) + constant_cycles
                    load += (1 if fill else batch) * w_again * w_cycles[j, k]
                    loads = batch * (a_again * mt * a_streams + w_again * nt * w_streams) * kt
                    work = batch * m_work[i] * n_work[j] * k_work[k] * unit[0]
                    head = first_overhead + a_first[i, k] + w_first[j, k] + constant_cycles
                    tail = m_end[i] * n_end[j] * k_end[k] * unit[0] + last[i, j]
                    moved = load + batch * out_cycles[i, j]
                    set_up = (loads + constant + out_tiles * out_streams) * overhead
                    cycles = max(
                        head + work + last[i, j],
                        some_overhead + load + tail,
                        float(moved),
                        (moved + set_up) / channels,
                    )
                    cycles = np.ceil(cycles - 1e-6)
                    if w_weight * cycles > cutoff:
                        continue
                    pj = fixed + tiles * step_pj + nt * row_pj + mt * nt * constant_pj
                    pj += batch * (a_again * a_pj[i, k] + w_again * w_pj[j, k] + out_pj[i, j])
                    pj += k_blocks[k] * update_pj + kt * write_pj + (kt - 1) * read_pj
                    pj += a_code_pj * a_codes[j, k]
                    pj += w_code_pj * w_once[j, k] * mt
                    pj += w_code_pj * (nk[0] - w_once[j, k]) * m_blocks[i]
                    pj += time_pj * cycles + idle_pj * (head + last[i, j])
                    if units > 1:
                        pj += idle_pj * max(0.0, cycles - batch * post[i, j])
                    value = w_weight * cycles + pj_weight * pj
                    if value > cutoff:
                        continue
                    if tiles > step_limit:
                        lost = min(lost, value)
                        continue
                    if only_least:
                        if found == 1 and value >= bound[0, 0]:
                            continue
                        cutoff = value
                        found = 0
                    if found < bound.shape[0]:
                        bound[found, 0] = value
                        bound[found, 1] = pj if pj_weight == 0 else cycles
                        index[found, 0] = i
                        index[found, 1] = j
                        index[found, 2] = k
                        index[found, 3] = order
                    found += 1
    return found, lost, lacking
