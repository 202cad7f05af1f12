"""The mapper of one operator: the best point of its whole space, by bounds that leave out nothing better.

The space (docs/machine.md, section 2): tile sizes that cut a dimension in equal parts, the outer order,
and the sub-block of the array that a beat uses. Where each operand lives is decided for the whole graph
(hwsim.mapping.placement), which asks here for the price of every choice; equal problems are searched once.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass, replace

import numpy as np

from hwsim.arch.component import ceil_div
from hwsim.engine.energy import Count, Prices
from hwsim.engine.timing import Timeline, simulate
from hwsim.errors import CapacityError
from hwsim.mapping.block import Block, Blocks
from hwsim.mapping.gemm import GemmProblem, Tiling, buffer_bytes, build, transfer_counts
from hwsim.mapping.gemm_counts import block_work_pj, work_counts
from hwsim.mapping.objective import Objective, WaitingPower, Worth
from hwsim.mapping.rowwise import RowProblem, build_rows, row_buffer_bytes
from hwsim.mapping.scan import NO_LIMIT, Scan
from hwsim.mapping.site import Site
from hwsim.mapping.tile import parts, tile_sizes

STEP_LIMIT = 1 << 14
"""Candidates with more tiles than this are tried only if no coarser one is legal."""
ROUNDING = 1e-9
"""Relative room for rounding wherever a bound decides that a candidate need not be looked at."""

Buffers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Mapping:
    """The chosen candidate of one operator.

    `tile` is (tm, tn, tk) for a product, (rows or other units,) for a vector operator; `order` is the operand that
    stays; `block` the rows, columns and lanes of a beat. `candidates` counts the tilings that bounds did not exclude.
    `pj` is the energy with leakage and idle clock; `worth` is what the search minimised and
    `bound` what no candidate of the space can beat: smaller than `worth` only where tilings of too many tiles were left out.
    """

    tile: tuple[int, ...]
    order: str
    block: tuple[int, ...]
    tiles: int
    candidates: int
    timeline: Timeline
    counts: tuple[Count, ...]
    buffer_bytes: tuple[tuple[str, int], ...]
    pj: float
    worth: Worth
    bound: float

    def then(self, other: Mapping, times: int) -> Mapping:
        """Return this mapping followed by another one, `times` over, without overlap."""
        a, b = self.timeline, other.timeline
        return replace(
            self,
            tiles=self.tiles + times * other.tiles,
            timeline=Timeline(
                a.cycles + times * b.cycles,
                a.array_busy + times * b.array_busy,
                a.vector_busy + times * b.vector_busy,
                a.bus_busy + times * b.bus_busy,
            ),
            counts=(*self.counts, *(replace(c, count=times * c.count) for c in other.counts)),
            buffer_bytes=_larger(self.buffer_bytes, other.buffer_bytes),
            pj=self.pj + times * other.pj,
            worth=(
                self.worth[0] + times * other.worth[0],
                self.worth[1] + times * other.worth[1],
            ),
            bound=self.bound + times * other.bound,
        )

    def to_json(self) -> dict[str, object]:
        """Return the mapping as it is reported."""
        return {
            "tile": list(self.tile),
            "order": self.order,
            "block": list(self.block),
            "tiles": self.tiles,
            "candidates": self.candidates,
            "buffer_bytes": dict(self.buffer_bytes),
        }


class Mapper:
    """Searches mappings for one machine and remembers them."""

    def __init__(self, site: Site, prices: Prices, objective: Objective = Objective()) -> None:
        self._site = site
        self._prices = prices
        self._objective = objective
        self._power = WaitingPower.of(site.machine, prices)
        self._scans: dict[GemmProblem, Scan] = {}
        self._known: dict[GemmProblem | RowProblem, list[tuple[Buffers, Mapping | None]]] = {}
        self._all_free = {m: site.capacity_bytes(m) for m in site.machine.memories}

    @property
    def problems(self) -> int:
        """How many different problems were searched."""
        return len(self._known)

    def best(
        self, p: GemmProblem | RowProblem, free: Map[str, int], blocks: int = 1
    ) -> Mapping | None:
        """Map an operator, run `blocks` times over; constants come from DRAM before the first only.

        Args:
            p: the operator.
            free: bytes that its buffers may take in each memory.
            blocks: how many times over.

        Returns:
            The best candidate, or None where not even the smallest tiles fit.
        """
        if p not in self._known:
            # The best with all memories free mostly fits what is left of them, too.
            self._known[p] = [(self._all_free, self._search(p, self._all_free))]
        known, found = self._recall(p, free)
        if not known:
            found = self._search(p, free)
            self._known[p].append((dict(free), found))
        if found is None or blocks == 1:
            return found
        others = self.best(replace(p, constant_bits=0), free)
        return None if others is None else found.then(others, blocks - 1)

    def capacity_error(
        self, p: GemmProblem | RowProblem, free: Map[str, int], name: str
    ) -> CapacityError:
        """Say what an operator lacks that `best` found no room for."""
        if isinstance(p, RowProblem):
            taken = row_buffer_bytes(p, tile_sizes(p.units, 1)[-1], self._site)
        else:
            array = self._site.machine.arrays[p.array]
            scan = self._scan(p)
            room = scan.lacking_bytes(free)
            roomy = {m: size + room for m, size in free.items()}
            index, _, _ = scan.within(roomy, (0.0, 0.0), np.inf, NO_LIMIT)
            tilings = (scan.tiling(i) for i in index)
            taken = min(
                (buffer_bytes(p, t, array, self._site) for t in tilings),
                key=lambda need: sum(missing(need, free).values()),
            )
        lacking = "; ".join(
            f"memory {memory} needs {taken[memory]} bytes for its buffers and has"
            f" {free.get(memory, 0)} free, {short} too few"
            for memory, short in sorted(missing(taken, free).items())
        )
        return CapacityError(f"{name}: not even the smallest tile fits: {lacking}")

    def gemm_at(self, p: GemmProblem, t: Tiling) -> Mapping:
        """Return what a given candidate costs, whether or not its buffers fit."""
        array = self._site.machine.arrays[p.array]
        mapped = build(p, t, array, self._site)
        timeline = simulate(mapped.steps, mapped.stage)
        counts = (
            *transfer_counts(mapped.moved_bits, self._site),
            *work_counts(p, t, array, self._site),
        )
        taken = buffer_bytes(p, t, array, self._site)
        return self._mapping(
            (t.tm, t.tn, t.tk), t.order, t.block, t.tiles(p), timeline, counts, taken
        )

    def rows_at(self, p: RowProblem, size: int) -> Mapping:
        """Return what a vector operator costs in tiles of a given size, whether or not they fit."""
        mapped = build_rows(p, size, self._site)
        timeline = simulate(mapped.steps, mapped.stage)
        taken = row_buffer_bytes(p, size, self._site)
        tiles = ceil_div(p.units, size)
        return self._mapping((size,), "rows", (), tiles, timeline, mapped.counts, taken)

    def _mapping(
        self,
        tile: tuple[int, ...],
        order: str,
        block: tuple[int, ...],
        tiles: int,
        timeline: Timeline,
        counts: tuple[Count, ...],
        taken: Buffers,
    ) -> Mapping:
        pj = self._prices.nominal_pj(counts) + self._power.pj(timeline)
        worth = self._objective.worth(timeline.cycles, pj)
        held = tuple(sorted(taken.items()))
        return Mapping(tile, order, block, tiles, 1, timeline, counts, held, pj, worth, worth[0])

    def _recall(
        self, p: GemmProblem | RowProblem, free: Map[str, int]
    ) -> tuple[bool, Mapping | None]:
        """Return whether an earlier search of the same problem answers this one, and its answer.

        The best of more room is the best of less, if it fits there; and nothing fits in less room than
        that in which nothing fitted.
        """
        for room, found in self._known[p]:
            if any(room.get(m, 0) < size for m, size in free.items()):
                continue
            if found is None or not missing(dict(found.buffer_bytes), free):
                return True, found
        return False, None

    def _search(self, p: GemmProblem | RowProblem, free: Map[str, int]) -> Mapping | None:
        if isinstance(p, GemmProblem):
            return self._search_gemm(p, free)
        return self._search_rows(p, free)

    def _scan(self, p: GemmProblem) -> Scan:
        if p not in self._scans:
            blocks = Blocks(self._site.machine.arrays[p.array], p.a, p.w, p.whole_lanes)
            self._scans[p] = Scan(p, blocks, self._site, self._prices, self._power)
        return self._scans[p]

    def _search_gemm(self, p: GemmProblem, free: Map[str, int]) -> Mapping | None:
        scan, weights, limit = self._scan(p), self._objective.weights, STEP_LIMIT
        start = scan.least(free, weights, limit)
        if start is None and scan.lacking_bytes(free):
            return None
        while start is None:  # the coarsest tilings that fit have more steps than we would like
            limit *= 2
            start = scan.least(free, weights, limit)
        best = min(self._candidates(p, start[0], scan.blocks, None), key=_key)
        index, bound, lost = scan.within(free, weights, _above(best.worth[0]), limit)
        for at, (first, second) in zip(index, bound, strict=True):
            if first > _above(best.worth[0]):
                break
            if first >= best.worth[0] and second > _above(best.worth[1]):
                continue  # at best equal in what counts, and worse in what decides between equals
            for found in self._candidates(p, scan.tiling(at), scan.blocks, best):
                if _key(found) < _key(best):
                    best = found
        return replace(best, candidates=len(index), bound=min(best.worth[0], lost))

    def _candidates(
        self, p: GemmProblem, t: Tiling, blocks: Blocks, best: Mapping | None
    ) -> Iterator[Mapping]:
        """Yield a tiling with every sub-block that could be better than the best so far."""
        array = self._site.machine.arrays[p.array]
        if self._whole_is_best(blocks):
            if best is not None:
                mapped = build(p, t, array, self._site)
                if simulate(mapped.steps, mapped.stage).cycles > best.timeline.cycles:
                    return
            yield self.gemm_at(p, t)
            return
        for block in self._useful_blocks(p, t, blocks):
            yield self.gemm_at(p, replace(t, block=block))

    def _whole_is_best(self, blocks: Blocks) -> bool:
        """Tell whether no sub-block can be better in what is minimised, whatever the tiling."""
        return self._objective.weights[1] == 0.0 and blocks.full_is_fastest()

    def _useful_blocks(self, p: GemmProblem, t: Tiling, blocks: Blocks) -> list[Block]:
        """Return the sub-blocks of a tiling that no other beats both in every step's cycles and in energy."""
        if blocks.least == blocks.full:
            return [blocks.full]
        array = self._site.machine.arrays[p.array]
        r, c, l = axes = blocks.axes(t.tm, t.tn, t.tk)  # noqa: E741
        shape = np.broadcast_shapes(r.shape, c.shape, l.shape)
        energy = block_work_pj(p, t, array, self._site, self._prices, axes).ravel()
        kinds = []  # [kinds of tile, blocks]
        for tm, m_times in parts(p.m, t.tm):
            for tn, n_times in parts(p.n, t.tn):
                for tk, k_times in parts(p.k, t.tk):
                    steps = p.batch * m_times * n_times * k_times
                    kinds.append(np.broadcast_to(blocks.cycles(tm, tn, tk, *axes), shape).ravel())
                    # While the array works it pays no idle clock.
                    energy = energy - self._power.idle_pj * steps * kinds[-1]
        cycles = np.stack(kinds)
        size = np.broadcast_to(r * c * l, shape).ravel()
        useful: list[int] = []
        left = np.lexsort((-size, cycles.sum(axis=0), energy))
        while len(left):
            first, left = int(left[0]), left[1:]
            useful.append(first)
            left = left[(cycles[:, left] < cycles[:, [first]]).any(axis=0)]
        grid = [np.broadcast_to(axis, shape).ravel() for axis in axes]
        return [(int(grid[0][u]), int(grid[1][u]), int(grid[2][u])) for u in useful]

    def _search_rows(self, p: RowProblem, free: Map[str, int]) -> Mapping | None:
        sizes = tile_sizes(p.units, 1)
        legal = [s for s in sizes if not missing(row_buffer_bytes(p, s, self._site), free)]
        if not legal:
            return None
        few = [s for s in legal if ceil_div(p.units, s) <= STEP_LIMIT] or legal[:1]
        best = min((self.rows_at(p, size) for size in few), key=_key)
        return replace(best, candidates=len(few))


def missing(taken: Map[str, int], free: Map[str, int]) -> Buffers:
    """Return the bytes lacking by memory."""
    lacking = {memory: size - free.get(memory, 0) for memory, size in taken.items()}
    return {memory: size for memory, size in lacking.items() if size > 0}


def _key(m: Mapping) -> tuple[float, float, int]:
    return (*m.worth, sum(size for _, size in m.buffer_bytes))


def _larger(
    a: tuple[tuple[str, int], ...], b: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """Return the larger of two needs in each memory."""
    first, second = dict(a), dict(b)
    names = sorted(first.keys() | second.keys())
    return tuple((m, max(first.get(m, 0), second.get(m, 0))) for m in names)


def _above(value: float) -> float:
    """Return a value with room for rounding."""
    return value + abs(value) * ROUNDING
