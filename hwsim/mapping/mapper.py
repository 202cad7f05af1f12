"""The first mapper: an exhaustive search of a small, written-down space, one operator at a time.

The space (docs/machine.md, section 2): tile sizes that cut a dimension in equal parts, and the outer
order. Where each operand lives is decided before, for the whole graph (hwsim.engine.memory_plan). The
best candidate has the fewest cycles, then the least energy, then the smallest buffers, then the largest
tiles; equal problems are searched once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.engine.energy import Count, Prices
from hwsim.engine.timing import Timeline, simulate
from hwsim.errors import CapacityError
from hwsim.mapping.gemm import (
    GemmProblem,
    Order,
    Tiling,
    buffer_bytes,
    build,
    lower_bound,
    work_counts,
)
from hwsim.mapping.rowwise import RowProblem, build_rows, row_buffer_bytes
from hwsim.mapping.site import Site
from hwsim.mapping.tile import tile_sizes

STEP_LIMIT = 1 << 14
"""Candidates with more tiles than this are tried only if no coarser one is legal."""

Buffers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Mapping:
    """The chosen candidate of one operator.

    `tile` is (tm, tn, tk) for a product, (rows or other units,) for a vector operator; `order` is the operand that
    stays. `candidates` counts the legal points of the space that were compared.
    """

    tile: tuple[int, ...]
    order: str
    tiles: int
    candidates: int
    timeline: Timeline
    counts: tuple[Count, ...]
    buffer_bytes: tuple[tuple[str, int], ...]

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
        )

    def to_json(self) -> dict[str, object]:
        """Return the mapping as it is reported."""
        return {
            "tile": list(self.tile),
            "order": self.order,
            "tiles": self.tiles,
            "candidates": self.candidates,
            "buffer_bytes": dict(self.buffer_bytes),
        }


class Mapper:
    """Searches mappings for one machine and remembers them."""

    def __init__(self, site: Site, prices: Prices) -> None:
        self._site = site
        self._prices = prices
        self._gemms: dict[GemmProblem, Mapping] = {}
        self._rows: dict[RowProblem, Mapping] = {}

    @property
    def problems(self) -> int:
        """How many different problems were searched."""
        return len(self._gemms) + len(self._rows)

    def gemm(self, p: GemmProblem, name: str, blocks: int = 1) -> Mapping:
        """Map a product, run `blocks` times over; constants come from DRAM before the first only.

        Raises:
            CapacityError: not even the smallest tiles fit; names the operator and the bytes missing.
        """
        if p not in self._gemms:
            self._gemms[p] = self._search_gemm(p, name)
        if blocks == 1:
            return self._gemms[p]
        return self._gemms[p].then(self.gemm(replace(p, constant_bits=0), name), blocks - 1)

    def rows(self, p: RowProblem, name: str, blocks: int = 1) -> Mapping:
        """Map a vector operator, run `blocks` times over; constants come before the first only.

        Raises:
            CapacityError: not even the smallest tiles fit; names the operator and the bytes missing.
        """
        if p not in self._rows:
            self._rows[p] = self._search_rows(p, name)
        if blocks == 1:
            return self._rows[p]
        return self._rows[p].then(self.rows(replace(p, constant_bits=0), name), blocks - 1)

    def _search_gemm(self, p: GemmProblem, name: str) -> Mapping:
        array = self._site.machine.arrays[p.array]
        free = dict(p.free_bytes)
        legal: list[tuple[int, int, Tiling, Buffers]] = []
        smallest: Buffers | None = None
        for t in tilings(p, array):
            taken = buffer_bytes(p, t, array, self._site)
            if _missing(taken, free):
                if smallest is None or _excess(taken, free) < _excess(smallest, free):
                    smallest = taken
                continue
            tiles = p.batch * ceil_div(p.m, t.tm) * ceil_div(p.n, t.tn) * ceil_div(p.k, t.tk)
            legal.append((lower_bound(p, t, array, self._site), tiles, t, taken))
        if not legal:
            raise CapacityError(_capacity_text(name, smallest or {}, free))
        legal.sort(key=lambda c: c[:2])  # stable
        tried = [c for c in legal if c[1] <= STEP_LIMIT] or [min(legal, key=lambda c: c[1])]
        best: Mapping | None = None
        best_key: tuple[int, float, int] | None = None
        for bound, tiles, t, taken in tried:
            if best_key is not None and bound > best_key[0]:
                break  # nor can any candidate after it be faster
            mapped = build(p, t, array, self._site)
            timeline = simulate(mapped.steps, mapped.stage)
            if best_key is not None and timeline.cycles > best_key[0]:
                continue
            counts = (*mapped.transfers, *work_counts(p, t, array, self._site))
            key = (timeline.cycles, self._prices.nominal_pj(counts), sum(taken.values()))
            if best_key is None or key < best_key:
                best_key = key
                tile = (t.tm, t.tn, t.tk)
                best = Mapping(
                    tile, t.order, tiles, len(tried), timeline, counts, tuple(sorted(taken.items()))
                )
        if best is None:
            raise AssertionError(f"{name}: the first candidate is never skipped")
        return best

    def _search_rows(self, p: RowProblem, name: str) -> Mapping:
        free = dict(p.free_bytes)
        buffered = p.out_streams or any(s.streams for s in p.sources)
        sizes = tile_sizes(p.units, 1) if buffered else (p.units,)
        taken_by_size = {size: row_buffer_bytes(p, size, self._site) for size in sizes}
        legal = [size for size in sizes if not _missing(taken_by_size[size], free)]
        if not legal:
            raise CapacityError(_capacity_text(name, taken_by_size[sizes[-1]], free))
        best: Mapping | None = None
        best_key: tuple[int, float, int] | None = None
        for size in legal:
            mapped = build_rows(p, size, self._site)
            timeline = simulate(mapped.steps, mapped.stage)
            taken = taken_by_size[size]
            energy = self._prices.nominal_pj(mapped.counts)
            key = (timeline.cycles, energy, sum(taken.values()))
            if best_key is None or key < best_key:
                best_key = key
                tiles = ceil_div(p.units, size)
                best = Mapping(
                    (size,),
                    "rows",
                    tiles,
                    len(legal),
                    timeline,
                    mapped.counts,
                    tuple(sorted(taken.items())),
                )
        if best is None:
            raise AssertionError(f"{name}: the first candidate is never skipped")
        return best


def tilings(p: GemmProblem, array: ArrayComponent) -> Iterator[Tiling]:
    """List the space of a product: each (tm, tn, tk) with each order that makes a difference.

    Nothing is cut where nothing passes through a buffer.
    """
    rows, cols, lanes = array.block(p.a, p.w)
    buffered = p.a_place == "stream" or p.w_place != "chip" or p.out_streams or bool(p.epilogue)
    if not buffered:
        yield Tiling(p.m, p.n, p.k, "activation")
        return
    for tm in tile_sizes(p.m, rows):
        for tn in tile_sizes(p.n, cols):
            for tk in tile_sizes(p.k, lanes):
                for order in _orders(p, tm, tn, tk):
                    yield Tiling(tm, tn, tk, order)


def _orders(p: GemmProblem, tm: int, tn: int, tk: int) -> tuple[Order, ...]:
    if tk < p.k:
        return ("output",)
    # With one tile along m or n both orders are the same sequence.
    return ("activation", "weight") if tm < p.m and tn < p.n else ("activation",)


def _missing(taken: Buffers, free: Buffers) -> Buffers:
    """Return the bytes lacking by memory."""
    lacking = {memory: size - free.get(memory, 0) for memory, size in taken.items()}
    return {memory: size for memory, size in lacking.items() if size > 0}


def _excess(taken: Buffers, free: Buffers) -> int:
    return sum(_missing(taken, free).values())


def _capacity_text(name: str, taken: Buffers, free: Buffers) -> str:
    lacking = "; ".join(
        f"memory {memory} needs {taken[memory]} bytes for its buffers and has"
        f" {free.get(memory, 0)} free, {short} too few"
        for memory, short in sorted(_missing(taken, free).items())
    )
    return f"{name}: not even the smallest tile fits: {lacking}"
