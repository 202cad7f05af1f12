"""The mapper of one operator: the best point of its whole space, by bounds that leave out nothing better.

The space (docs/machine.md, section 2): tile sizes that cut a dimension in equal parts, the outer order,
and the sub-block of the array that a beat uses. Where each operand lives is decided for the whole graph
(hwsim.mapping.placement), which asks here for the price of every choice; equal problems are searched once.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass, replace

from hwsim.arch.component import ceil_div
from hwsim.engine.energy import Count, Prices
from hwsim.engine.timing import Timeline, simulate
from hwsim.errors import CapacityError
from hwsim.mapping.block import Blocks
from hwsim.mapping.gemm import GemmProblem, Tiling, buffer_bytes, build
from hwsim.mapping.gemm_counts import work_counts
from hwsim.mapping.objective import Objective, WaitingPower, Worth
from hwsim.mapping.rowwise import RowProblem, build_rows, least_cycles, row_buffer_bytes
from hwsim.mapping.scan import Found, Scan
from hwsim.mapping.site import Bits, Direction, Site
from hwsim.mapping.tables import Tables
from hwsim.mapping.tile import code_bits, tile_sizes
from hwsim.mapping.trial import ROUNDING, Tied, Trial, above

STEP_LIMIT = 1 << 14
"""Candidates with more tiles than this are tried only if no coarser one is legal."""
Buffers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Mapping:
    """The chosen candidate of one operator.

    `tile` is (tm, tn, tk) for a product, (rows or other units,) for a vector operator; `order` is the operand that
    stays; `block` the rows, columns and lanes of a beat. `candidates` counts the tilings that bounds did not exclude.
    `runs` are the mappings that make up one that runs several times over, each with how many times; empty
    where it is this one, once. `worth` is what the search minimised and
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
    worth: Worth
    bound: float
    runs: tuple[tuple[Mapping, int], ...] = ()

    def then(self, other: Mapping, times: int) -> Mapping:
        """Return this mapping followed by another one, `times` over, without overlap."""
        return replace(
            self,
            tiles=self.tiles + times * other.tiles,
            timeline=self.timeline.then(other.timeline, times),
            counts=(*self.counts, *(c.times(times) for c in other.counts)),
            buffer_bytes=_larger(self.buffer_bytes, other.buffer_bytes),
            worth=(
                self.worth[0] + times * other.worth[0],
                self.worth[1] + times * other.worth[1],
            ),
            bound=self.bound + times * other.bound,
            runs=((self, 1), (other, times)),
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


@dataclass(frozen=True, slots=True)
class Laid:
    """A candidate without its price: its schedule, its counts and the bytes of its buffers by memory."""

    timeline: Timeline
    counts: tuple[Count, ...]
    taken: Buffers


class Mapper:
    """Searches mappings for one machine and remembers them."""

    def __init__(self, site: Site, prices: Prices, objective: Objective = Objective()) -> None:
        self._site = site
        self._prices = prices
        self._objective = objective
        self._power = WaitingPower.of(site.machine, prices)
        self._scans: dict[GemmProblem, Scan] = {}
        self._known: dict[GemmProblem | RowProblem, list[tuple[Buffers, Mapping | None]]] = {}
        self._rooflines: dict[GemmProblem | RowProblem, float] = {}
        self._answers: dict[
            tuple[GemmProblem | RowProblem, tuple[tuple[str, int], ...], int], Mapping | None
        ] = {}
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
        key = (p, tuple(free.items()), blocks)
        if key not in self._answers:
            self._answers[key] = self._answer(p, free, blocks)
        return self._answers[key]

    def _answer(
        self, p: GemmProblem | RowProblem, free: Map[str, int], blocks: int
    ) -> Mapping | None:
        if p not in self._known:
            # The best with all memories free mostly fits what is left of them, too.
            self._known[p] = [(self._all_free, self._search(p, self._all_free))]
        known, found = self._recall(p, free)
        if not known:
            found = self._search(p, free)
            self._known[p].append((dict(free), found))
        if found is None or blocks == 1:
            return found
        others = self.best(replace(p, constant_bits=tuple(0 for _ in p.constant_bits)), free)
        return None if others is None else found.then(others, blocks - 1)

    def arrival(self, bits: Bits) -> Mapping:
        """Return what it takes to fill memories behind others from DRAM: one transfer each, one by one.

        Args:
            bits: what each level takes; nothing for DRAM itself.
        """
        link, site = self._site.link, self._site
        moved = [link.moved_bits(1, b) for b in bits]
        filled = [(level, m) for level, m in zip(site.levels, moved, strict=True) if m]
        counts = [
            count
            for level, m in filled
            for count in site.transfer("constant", level, "load", [(m, 1)])
        ]
        bus = sum(link.bus_cycles(m) for m in moved)
        cycles = bus + len(filled) * link.overhead_cycles
        timeline = Timeline(cycles, 0, 0, (bus, *(0 for _ in site.levels[1:])))
        return self._mapping((), "rows", (), 0, Laid(timeline, tuple(counts), {}))

    def least(self, p: GemmProblem | RowProblem, blocks: int = 1) -> float:
        """Return what no mapping of an operator can beat, run `blocks` times over as `best` does.

        It is the roofline: the busier of its unit and of the links that bring everything that it streams once.
        """
        if blocks > 1:
            bare = replace(p, constant_bits=tuple(0 for _ in p.constant_bits))
            return self.least(p) + (blocks - 1) * self.least(bare)
        if p not in self._rooflines:
            self._rooflines[p] = self._roofline(p)
        return self._rooflines[p]

    def _roofline(self, p: GemmProblem | RowProblem) -> float:
        site = self._site
        held = [float(x) for x in self._site.constant_cycles(p.constant_bits)]
        streams: list[tuple[str, str, Direction, int]] = []  # level, memory, which way, bits
        if isinstance(p, RowProblem):
            rows, elements = p.units * p.rows_per_unit, p.units * p.elements_per_unit
            cycles = float(site.vector.cycles(p.op, rows, elements))
            loaded = (s for s in p.sources if s.streams)
            streams += [(s.level, s.memory, "load", p.units * s.bits_per_unit) for s in loaded]
            out_bits = p.units * p.out_bits_per_unit
        else:
            array = Blocks(site.machine.arrays[p.array], p.a, p.w, p.whole_lanes)
            cycles = float(p.batch * array.least_cycles(p.m, p.n, p.k))
            if p.a_place == "stream":
                bits = code_bits(p.a, p.batch * p.m * p.k)
                streams.append((p.a_from, site.activation, "load", bits))
            if p.w_place != "chip":
                times = p.batch if p.w_place == "stream" else 1
                bits = code_bits(p.w, times * p.n * p.k)
                streams.append((p.w_from, site.weight, "load", bits))
            out_bits = code_bits(p.out, p.batch * p.m * p.n)
        if p.out_streams:
            streams.append((p.out_to, site.output, "store", out_bits))
        for level, memory, direction, bits in streams:
            link = site.link_to(level, memory, direction)
            held[site.wire(level)] += float(bits / link.bits_per_cycle)
        cycles = max(cycles, *(h // n for h, n in zip(held, site.ports, strict=True)))
        w_cycles, w_pj = self._objective.weights
        return cycles * (w_cycles + w_pj * self._power.leakage_pj) * (1 - w_pj * ROUNDING)

    def capacity_error(
        self, p: GemmProblem | RowProblem, free: Map[str, int], name: str
    ) -> CapacityError:
        """Say what an operator lacks that `best` found no room for."""
        if isinstance(p, RowProblem):
            taken = row_buffer_bytes(p, tile_sizes(p.units, 1)[-1], self._site)
        else:
            _, smallest = self._scan(p).lacking(free)
            array = self._site.machine.arrays[p.array]
            taken = buffer_bytes(p, smallest, array, self._site)
        lacking = "; ".join(
            f"memory {memory} needs {taken[memory]} bytes for its buffers and has"
            f" {free.get(memory, 0)} free, {short} too few"
            for memory, short in sorted(missing(taken, free).items())
        )
        return CapacityError(f"{name}: not even the smallest tile fits: {lacking}")

    def gemm_at(self, p: GemmProblem, t: Tiling) -> Mapping:
        """Return what a given candidate costs, whether or not its buffers fit."""
        return self._mapping((t.tm, t.tn, t.tk), t.order, t.block, t.tiles(p), self.lay(p, t))

    def rows_at(self, p: RowProblem, size: int) -> Mapping:
        """Return what a vector operator costs in tiles of a given size, whether or not they fit."""
        tiles = ceil_div(p.units, size)
        return self._mapping((size,), "rows", (), tiles, self.lay_rows(p, size))

    def lay(self, p: GemmProblem, t: Tiling) -> Laid:
        """Return what a candidate does and how long it takes; no unit energy has a part in it."""
        array = self._site.machine.arrays[p.array]
        mapped = build(p, t, array, self._site)
        timeline = simulate(mapped.steps, mapped.stage)
        counts = (
            *mapped.transfers,
            *work_counts(p, t, array, self._site),
        )
        return Laid(timeline, counts, buffer_bytes(p, t, array, self._site))

    def lay_rows(self, p: RowProblem, size: int) -> Laid:
        """Return the same of a vector operator in tiles of a given size."""
        mapped = build_rows(p, size, self._site)
        timeline = simulate(mapped.steps, mapped.stage)
        return Laid(timeline, mapped.counts, row_buffer_bytes(p, size, self._site))

    def fastest(self, p: GemmProblem, free: Map[str, int]) -> Tied | None:
        """Return the fastest candidates of a product, or None where nothing fits; no unit energy has a part in them."""
        around = self._around(p, free)
        return None if around is None else self._trial(p).fastest(*around)

    def _mapping(
        self, tile: tuple[int, ...], order: str, block: tuple[int, ...], tiles: int, laid: Laid
    ) -> Mapping:
        timeline = laid.timeline
        pj = self._prices.nominal_pj(laid.counts) + self._power.pj(
            timeline.cycles, timeline.array_busy + timeline.vector_busy
        )
        worth = self._objective.worth(timeline.cycles, pj)
        held = tuple(sorted(laid.taken.items()))
        return Mapping(tile, order, block, tiles, 1, timeline, laid.counts, held, worth, worth[0])

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
            tables = Tables(p, blocks, self._site, self._prices, self._power)
            self._scans[p] = Scan(tables, self._objective.weights)
        return self._scans[p]

    def _search_gemm(self, p: GemmProblem, free: Map[str, int]) -> Mapping | None:
        if self._objective.weights[1] == 0:
            tied = self.fastest(p, free)
            if tied is None:
                return None
            single = len(tied.bytes) == 1
            t = tied.tiling(0) if single else self._trial(p).cheapest(tied)
            lost, candidates = tied.lost, tied.candidates
        else:
            around = self._around(p, free)
            if around is None:
                return None
            t, lost = self._trial(p).best(*around)
            candidates = len(around[0].bound)
        best = self.gemm_at(p, t)
        return replace(best, candidates=candidates, bound=min(best.worth[0], lost))

    def _trial(self, p: GemmProblem) -> Trial:
        return Trial(self._scan(p), self._prices, self._power, self._objective)

    def _around(self, p: GemmProblem, free: Map[str, int]) -> tuple[Found, float] | None:
        """Return the tilings that may be the best, and a worth that one reaches; None where nothing fits."""
        scan, limit = self._scan(p), STEP_LIMIT
        start = scan.least(free, limit)
        if not len(start.bound) and scan.lacking(free)[0]:
            return None
        while not len(
            start.bound
        ):  # the coarsest tilings that fit have more steps than we would like
            limit *= 2
            start = scan.least(free, limit)
        reached = above(self._trial(p).reach(start))
        # Where there are too many to keep all, the one that reaches it is kept.
        return scan.within(free, reached, limit).after(start), reached

    def _search_rows(self, p: RowProblem, free: Map[str, int]) -> Mapping | None:
        sizes = tile_sizes(p.units, 1)
        legal = [s for s in sizes if not missing(row_buffer_bytes(p, s, self._site), free)]
        if not legal:
            return None
        few = [s for s in legal if ceil_div(p.units, s) <= STEP_LIMIT] or legal[:1]
        bounds = {s: self._objective.weights[0] * least_cycles(p, s, self._site) for s in few}
        best: Mapping | None = None
        for size in sorted(few, key=lambda s: bounds[s]):
            if best is not None and bounds[size] > best.worth[0]:
                break
            found = self.rows_at(p, size)
            if best is None or _key(found) < _key(best):
                best = found
        return None if best is None else replace(best, candidates=len(few))


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
