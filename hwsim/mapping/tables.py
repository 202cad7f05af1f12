"""What all tilings of a product cost, as sums of terms in one or two of their three sizes.

Tables are indexed by tile size along M, N and K. A tiling's transfers, buffers and vector work are read
from them exactly; its array work is bounded from below over all sub-blocks.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from hwsim.engine.energy import Prices
from hwsim.graph.dtype import DataType
from hwsim.mapping.block import Blocks, is_divisible
from hwsim.mapping.cuts import Cut, Floats, Ints, Transfers, blocks_in
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.objective import WaitingPower
from hwsim.mapping.site import DRAM, Direction, Site

BUFFERS = slice(11, 19)
"""where the columns of buffer bytes and of numbers of tiles are"""


class Tables:
    """The tables of one product on one machine.

    Attributes:
        m, n, k: tile sizes.
        a, w, out: transfers of A [m, k], W [n, k] and the output [m, n].
        post: vector unit's cycles of all tiles [m, n]; `post_kinds` by kind [2, 2, m, n].
        tail: cycles from the array's last beat to the end of the store that follows it, at least: [m, n].
    """

    def __init__(
        self, p: GemmProblem, blocks: Blocks, site: Site, prices: Prices, power: WaitingPower
    ) -> None:
        self.p, self.blocks, self.site, self.prices = p, blocks, site, prices
        self._power = power
        self.m, self.n, self.k = (
            Cut.of(total, blocks.sizes(axis, total)) for axis, total in enumerate((p.m, p.n, p.k))
        )
        self.a = Transfers.none(self.m, self.k)
        self.w = Transfers.none(self.n, self.k)
        self.out = Transfers.none(self.m, self.n)
        self.post = np.zeros_like(self.out.cycles)
        self.post_kinds = np.zeros_like(self.out.kinds)
        self._place_traffic()

    @cached_property
    def columns(self) -> tuple[Any, ...]:
        """What the compiled loop reads, in one memory layout throughout, so that it is compiled once."""
        columns = (
            self._shape(),
            *(x for t in (self.a, self.w) for x in (t.cycles, t.pj, t.first)),
            self.out.cycles,
            self.out.pj,
            self.tail,
            self.post,
            *self._bytes(),
            *self._work(),
            *self._energy(self._power),
            *self._links(),
        )
        return tuple(np.ascontiguousarray(column) for column in columns)

    def memories(self) -> tuple[str, str, str]:
        """Return the memories of A, W and output."""
        site = self.site
        return site.activation, site.weight, site.output

    def constant_pj(self) -> float:
        """Return the energy of loading the constants."""
        return self.prices.nominal_pj(self.site.constant_transfers(self.p.constant_bits))

    def _links(self) -> tuple[Ints, Ints, Ints]:
        """Return the links of A, W and output, each link's ports, and how long constants hold it."""
        p, site = self.p, self.site
        wires = [site.wire(level) for level in (p.a_from, p.w_from, p.out_to)]
        columns = (wires, site.ports, site.constant_cycles(p.constant_bits))
        wired, ports, constants = (np.array(column, dtype=np.int64) for column in columns)
        return wired, ports, constants

    def _shape(self) -> Ints:
        """Return what the loop needs besides tables."""
        p, site = self.p, self.site
        first = {m: i for i, m in reversed(list(enumerate(self.memories())))}
        return np.array(
            [
                p.batch,
                p.w_place == "fill",
                p.a_place == "stream",
                p.w_place != "chip",
                p.out_streams,
                sum(bits > 0 for bits in p.constant_bits),
                site.channels,
                site.link.overhead_cycles,
                *(site.halves(m) for m in self.memories()),
                *(first[m] for m in self.memories()),
            ],
            dtype=np.int64,
        )

    @staticmethod
    def _moved(rows: Ints, cols: Ints, whole: int, dtype: DataType, burst: int) -> Ints:
        """Return the bus bits of tiles rows [r, 1] x cols [1, c], as `gemm.moved_bits` does for one."""
        packed = blocks_in(cols * dtype.bits, 64) * 64
        one_run = blocks_in(rows * packed, burst) * burst
        return np.where(cols == whole, one_run, rows * blocks_in(cols * dtype.bits, burst) * burst)

    def _transfers(
        self,
        rows: Cut,
        cols: Cut,
        whole: int,
        dtype: DataType,
        memory: str,
        direction: Direction,
        level: str,
    ) -> Transfers:
        link = self.site.link_to(level, memory, direction)
        rate, burst = link.bits_per_cycle, link.burst_bits
        near, far = ("write", "read") if direction == "load" else ("read", "write")
        width, access_pj = self._access(memory, near)
        bit_pj = self.prices.price("dma", "bit").pj
        if level == DRAM:
            bit_pj += self.prices.price("dram", f"{direction}_bit").pj
        else:
            bit_pj += self._access(level, far)[1] / burst  # runs are whole accesses

        def bus(moved: Ints) -> Ints:
            held = link.latency_cycles + -(-moved * rate.denominator // rate.numerator)
            return np.where(moved > 0, held, 0)

        shape = (len(rows.size), len(cols.size))
        cycles, pj = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        kinds = np.zeros((2, 2, *shape), dtype=np.int64)
        for x, (r, r_times) in enumerate(rows.parts()):
            for y, (c, c_times) in enumerate(cols.parts()):
                moved = self._moved(r[:, None], c[None, :], whole, dtype, burst)
                times = r_times[:, None] * c_times[None, :]
                kinds[x, y] = bus(moved)
                cycles += times * kinds[x, y]
                pj += times * (
                    moved * bit_pj + blocks_in(moved, width) * access_pj + self._step_pj()
                )
        first = bus(self._moved(rows.size[:, None], cols.size[None, :], whole, dtype, burst))
        last = bus(self._moved(rows.last[:, None], cols.last[None, :], whole, dtype, burst))
        return Transfers(cycles, pj, first, last, kinds)

    def _access(self, memory: str, action: str) -> tuple[int, float]:
        """Return the bits and the energy of one access."""
        spec = self.site.machine.memories[memory].spec
        width = spec.read_width_bits if action == "read" else spec.write_width_bits
        return width, self.prices.price(f"memory:{memory}", action).pj

    def _step_pj(self) -> float:
        return self.prices.price("control", "step").pj if self.site.has_control else 0.0

    def _place_traffic(self) -> None:
        """Fill the tables of A [m, k], W [n, k] and the output [m, n]."""
        p, site = self.p, self.site
        if p.a_place == "stream":
            self.a = self._transfers(self.m, self.k, p.k, p.a, site.activation, "load", p.a_from)
        if p.w_place != "chip":
            self.w = self._transfers(self.n, self.k, p.k, p.w, site.weight, "load", p.w_from)
        if p.out_streams:
            self.out = self._transfers(
                self.m, self.n, p.out_row, p.out, site.output, "store", p.out_to
            )
        for x, (r, r_times) in enumerate(self.m.parts()):
            for y, (c, c_times) in enumerate(self.n.parts()):
                self.post_kinds[x, y] = self._post(r, c)
                self.post += r_times[:, None] * c_times[None, :] * self.post_kinds[x, y]
        self.tail = self._post(self.m.last, self.n.last) + self.out.last
        self.tail += self.blocks.array.spec.pipeline_depth_cycles
        if p.out_streams:
            self.tail += site.link.overhead_cycles

    def _post(self, rows: Ints, cols: Ints) -> Ints:
        """Return the vector unit's cycles on output tiles rows [m] x cols [n], as `gemm.post_cycles` does."""
        cycles: Any = (
            self.site.vector.cycles if self.p.epilogue else None
        )  # whole numbers or arrays
        total = np.zeros((len(rows), len(cols)), dtype=np.int64)
        for op in self.p.epilogue:
            total += cycles(op, rows[:, None], rows[:, None] * cols[None, :])
        return total

    def _bytes(self) -> tuple[Ints, ...]:
        """Bytes of one half: A [m, k], W [n, k]; what waits, where K is whole and where it is split, and results [m, n]."""
        p = self.p

        def half(rows: Cut, cols: Cut, dtype: DataType) -> Ints:
            bits = blocks_in(cols.size * dtype.bits, 64)[None, :] * 64 * rows.size[:, None]
            return blocks_in(bits, 8)

        nothing = np.zeros((len(self.m.size), len(self.n.size)), dtype=np.int64)
        a = half(self.m, self.k, p.a) * (p.a_place == "stream")
        w = half(self.n, self.k, p.w) * (p.w_place == "stream")
        result = half(self.m, self.n, p.out) * p.out_streams
        bits = self.m.size[:, None] * self.n.size[None, :]
        sums = blocks_in(bits * self.blocks.array.spec.accumulator_bits, 8)
        if not p.epilogue:
            return a, w, result, np.maximum(sums, result), nothing
        return a, w, sums, sums, result

    def _work(self) -> tuple[Floats | Ints, ...]:
        """Return numbers of tiles, and the least cycles of all compute steps and of the last one.

        Whatever the sub-block, an array has at least the beats of the whole one, each of its own interval; all bits of
        A pass their port once for each block of columns, those of W once for each block of rows; and a product of
        two codes takes its least share of a beat. Where the array is used whole, its cycles are what it says
        itself, [m, n, k].

        Returns:
            tiles [m], [n], [k]; beats of all tiles [m], [n], [k]; beats of the last tile [m], [n], [k]; its size [m],
            [n], [k]; cycles of a beat, of A's bits for one block of columns, of W's for one of rows, of a product
            of two codes, and of all of them; the array's own cycles of all tiles and of the last [m, n, k].
        """
        cuts = (self.m, self.n, self.k)
        array, p, blocks = self.blocks.array, self.p, self.blocks
        own = last_own = np.zeros((1, 1, 1), dtype=np.int64)
        units = [0.0] * 5
        if not is_divisible(array):
            own, last_own = self._own_cycles()
        else:
            spec, passes = array.spec, array.passes(p.a, p.w)
            a_bits, w_bits = array.operand_bits(p.a, p.w)
            a_held = p.m * p.k * a_bits / spec.activation_port_bits_per_cycle
            w_held = p.n * p.k * w_bits / spec.weight_port_bits_per_cycle
            # Where the whole array is the fastest, its beats say it all.
            share = 0.0 if blocks.full_is_fastest() else blocks.cycles_per_product() * (1 - 1e-9)
            beat = float(passes * spec.initiation_interval_cycles)
            units = [beat, passes * a_held, passes * w_held, share, share * p.m * p.n * p.k]
        beats = [c.blocks(b) for c, b in zip(cuts, blocks.full, strict=True)]
        last = [blocks_in(c.last, b) for c, b in zip(cuts, blocks.full, strict=True)]
        columns = (*(c.tiles for c in cuts), *beats, *last, *(c.last for c in cuts))
        scaled = (column.astype(np.float64) for column in columns[3:])
        return *columns[:3], *scaled, np.array(units), own, last_own

    def _own_cycles(self) -> tuple[Ints, Ints]:
        """Return the cycles of all compute steps of an array used whole, and of the last: [m, n, k]."""
        cuts = (self.m, self.n, self.k)
        whole = self.blocks.whole
        total = np.zeros([len(c.size) for c in cuts], dtype=np.int64)
        for kinds in product(*(c.parts() for c in cuts)):
            (m, n, k), (m_times, n_times, k_times) = (np.ix_(*x) for x in zip(*kinds, strict=True))
            total += m_times * n_times * k_times * self.blocks.cycles(m, n, k, whole)
        m, n, k = np.ix_(*(c.last for c in cuts))
        return total, self.blocks.cycles(m, n, k, whole)

    def _energy(self, power: WaitingPower) -> tuple[Floats, ...]:
        """Return the energy of the work, accesses counted as if no bit of any were unused.

        An array that is used whole may count as it likes: what it does itself is left out of the bound.

        Returns:
            constants [11] and the fetches of operand blocks: codes of A a row [n, k], codes of W that
            are fetched once a tile of M [n, k], row blocks [m], beats along K [k], weights [1].
        """
        p, site, array = self.p, self.site, self.blocks.array
        known = float(is_divisible(array))
        rows, cols, lanes = self.blocks.full
        price = self.prices.price
        name = f"array:{array.name}"
        passes = array.passes(p.a, p.w)
        a_bits, w_bits = array.operand_bits(p.a, p.w)
        a_planes, w_planes = array.planes(p.a, p.w)
        elements = p.batch * p.m * p.n
        result = site.output if p.out_streams else site.activation

        def bit_pj(memory: str, action: str) -> float:
            width, pj = self._access(memory, action)
            return pj / width

        sums_pj = bit_pj(site.output, "write") + bit_pj(site.output, "read")
        sums_pj *= elements * array.spec.accumulator_bits
        fixed = known * elements * p.k * passes * price(name, f"lane_op:{p.a}x{p.w}").pj
        fixed += elements * p.out.bits * bit_pj(result, "write")
        row_pj = constant_pj = 0.0
        if p.epilogue:
            fixed += sums_pj
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
                known * elements * passes * price(name, "accumulator_update").pj,
                sums_pj,
                known * p.batch * p.m * a_code_pj * (passes if a_planes > 1 else 1),
                known * p.batch * w_code_pj,
                power.leakage_pj + power.idle_pj * max(0, power.units - 2),
                power.idle_pj,
                power.units,
            ]
        )
        a_codes = np.zeros((len(self.n.size), len(self.k.size)))
        w_once = np.zeros_like(a_codes)
        for k, k_times in self.k.parts():
            one_beat = blocks_in(k, lanes) == 1
            for n, n_times in self.n.parts():
                n_blocks = blocks_in(n, cols)
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
