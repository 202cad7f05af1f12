"""Which of the tilings that bounds could not exclude is the best, with every sub-block that could matter.

Lengths come from the event schedule, energies from the same counts as a report's; both for many candidates
at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hwsim.engine.energy import Prices
from hwsim.engine.timing import Stage
from hwsim.mapping.block import Grid, is_divisible
from hwsim.mapping.block_cycles import least_ends
from hwsim.mapping.cuts import Floats, Ints
from hwsim.mapping.gemm import Tiling, flow, stage
from hwsim.mapping.gemm_counts import work_counts, work_pj
from hwsim.mapping.layout import ORDERS, Flow, Layout
from hwsim.mapping.objective import Objective, WaitingPower
from hwsim.mapping.scan import Found, Scan
from hwsim.mapping.sub_blocks import Fastest, fastest

AT_ONCE = 256
"""Tilings that are laid out together."""
MOST_TRIED = 1 << 15
"""Tilings that are laid out in one search. Where more are left, the gap is reported."""
MOST_DIVIDED = 1 << 8
"""Tilings of which all sub-blocks are tried for energy in one search; likewise."""
FIRST_TRIED = 1 << 4
"""Tilings that are laid out first."""
MOST_RANKED = 1 << 12
"""Tilings that are ranked by the cycles of their best sub-block together; fewer at first."""
MOST_TIES = 1 << 12
"""Equally fast candidates that are kept of neighbouring tilings, to take the one of least energy."""
DIVIDED_AT_ONCE = 1 << 4
"""Tilings whose sub-blocks are priced together."""
ROUNDING = 1e-9
"""Relative room for rounding wherever a bound decides that a candidate need not be looked at."""

Choice = tuple[Tiling, float]
"""the best, and the least bound of the tilings that were left out (inf if none)"""


@dataclass(frozen=True, slots=True)
class Tied:
    """The fastest tilings of a search, all of the same cycles. No unit energy has a part in them.

    Attributes:
        index: [c, 4] as `Found.index`.
        tile: [c, 3] their tm, tn and tk.
        block: [c, 3] rows, columns and lanes of a beat.
        bytes: [c] bytes of all buffers together.
        cycles: of each.
        busy: [c] cycles in which the array and the vector unit work, together; empty where there is one tiling.
        lost: the least bound of the tilings that were left out (inf if none).
        candidates: tilings that bounds did not exclude.
    """

    index: Ints
    tile: Ints
    block: Ints
    bytes: Ints
    cycles: int
    busy: Ints
    lost: float
    candidates: int

    def tiling(self, x: int) -> Tiling:
        """Return one of them."""
        (tm, tn, tk), (r, c, l) = self.tile[x].tolist(), self.block[x].tolist()  # noqa: E741
        return Tiling(tm, tn, tk, ORDERS[self.index[x, 3]], (r, c, l))


@dataclass(frozen=True)
class Trial:
    """Tries the tilings of one scan."""

    scan: Scan
    prices: Prices
    power: WaitingPower
    objective: Objective

    def best(self, found: Found, cutoff: float) -> Choice:
        """Return the best of some tilings, for an objective in which energy counts.

        Args:
            found: the tilings, at least one with a bound of at most `cutoff`.
            cutoff: a worth that is known to be reached.
        """
        return (self._whole if self._whole_is_best else self._divided)(found, cutoff)

    def fastest(self, found: Found, cutoff: float) -> Tied:
        """Return the fastest of some tilings with the fastest of their sub-blocks; arguments as in `best`."""
        if not self._whole_is_best:
            return self._fastest(found, cutoff)
        rows, cycles, _, lost = self._tried_whole(found, cutoff)
        return self._tied(found, rows, int(cycles[0]), self.scan.tables.blocks.whole, lost)

    def cheapest(self, tied: Tied) -> Tiling:
        """Return, of equally fast tilings, the one of least energy; of equal ones the one of smaller buffers."""
        r, c, l = tied.block.T  # noqa: E741
        cycles = np.full(len(tied.bytes), tied.cycles)
        work = self._work_pj(tied.index, (r, c, l))
        pj = work + self.scan.transfer_pj(tied.index) + self.power.pj(cycles, tied.busy)
        return tied.tiling(_first_best(cycles, pj, tied.bytes))

    def _tied(
        self, found: Found, rows: Ints, cycles: int, block: tuple[Grid, Grid, Grid], lost: float
    ) -> Tied:
        """Collect equally fast rows of `found` with their sub-blocks."""
        index, held = found.index[rows], found.bytes[rows]
        blocks = np.stack([np.broadcast_to(x, len(rows)) for x in block], axis=1)
        tile = np.stack(self.scan.tiles(index), axis=1)
        busy = np.empty(0, dtype=np.int64)
        if len(rows) > 1:
            busy = np.asarray(sum(self.scan.layout(index, block).busy(self._flow.batch)))
        return Tied(index, tile, blocks, held, cycles, busy, lost, len(found.bound))

    @property
    def _whole_is_best(self) -> bool:
        """Tell whether no sub-block can be better in what is minimised, whatever the tiling."""
        blocks = self.scan.tables.blocks
        if blocks.least == blocks.full:
            return True
        return self.objective.weights[1] == 0.0 and blocks.full_is_fastest()

    @cached_property
    def _flow(self) -> Flow:
        return flow(self.scan.tables.p, self.scan.tables.site)

    def _stage(self, row: Ints) -> Stage:
        t = self.scan.tables
        return stage(t.p, self.scan.tiling(row), t.blocks.array, t.site)

    def reach(self, found: Found) -> float:
        """Return what the first of some tilings is worth at most: an upper bound for the search."""
        blocks = self.scan.tables.blocks
        index = found.index[:1]
        layout = self.scan.layout(index, blocks.whole)
        cycles = layout.lengths(self._flow, self._stage(index[0]), found.bound[:1], 0.0, np.inf)
        if self.objective.weights[1] == 0:
            return float(cycles[0])
        return float(self._worths(cycles, self._pj(index, cycles, layout))[0][0])

    def _whole(self, found: Found, cutoff: float) -> Choice:
        """Return the best tiling for the whole array."""
        rows, first, second, lost = self._tried_whole(found, cutoff)
        x = _first_best(first, second, found.bytes[rows])
        return self.scan.tiling(found.index[rows[x]]), lost

    def _tried_whole(self, found: Found, cutoff: float) -> tuple[Ints, Floats, Floats, float]:
        """Try tilings with the whole array.

        Returns:
            rows of `found` that may be the best (for cycles alone, the fastest), their worths, and the least bound that was left out.
        """
        w_cycles, w_pj = self.objective.weights
        block = self.scan.tables.blocks.whole
        lost = found.lost
        tried: list[tuple[Ints, Floats, Floats]] = []  # rows of `found`, worths
        for start in range(0, len(found.bound), AT_ONCE):
            bound = found.bound[start : start + AT_ONCE]
            if bound[0] > cutoff:
                break
            if start >= MOST_TRIED:
                lost = min(lost, float(bound[0]))
                break
            index = found.index[start : start + AT_ONCE]
            layout, how = self.scan.layout(index, block), self._stage(index[0])
            # Cycles alone may end the trial early; an energy is known only afterwards.
            weight = w_cycles if w_pj == 0 else 0.0
            cycles = layout.lengths(self._flow, how, bound, weight, cutoff)
            rows = np.arange(len(cycles))
            if w_pj == 0:
                rows = rows[cycles == cycles.min()]
                worth = cycles[rows].astype(np.float64)
                if tried and worth[0] > tried[0][1][0]:
                    continue
                if tried and worth[0] < tried[0][1][0]:
                    tried.clear()
                tried.append((start + rows, worth, worth))
            else:
                layout = layout.first(len(cycles))
                pj = self._pj(index[rows], cycles, layout)
                tried.append((start + rows, *self._worths(cycles, pj)))
            cutoff = min(cutoff, above(float(tried[-1][1].min())))
        rows, first, second = (np.concatenate(column) for column in zip(*tried, strict=True))
        return rows, first, second, lost

    def _pj(self, index: Ints, cycles: Ints, layout: Layout) -> Floats:
        """Return the energy of tilings [c, 4] with the whole array, leakage and idle clock included: [c]."""
        work = self._work_pj(index, self.scan.tables.blocks.whole) + self.scan.transfer_pj(index)
        return np.asarray(work + self.power.pj(cycles, sum(layout.busy(self._flow.batch))))

    def _worths(self, cycles: Ints, pj: Floats) -> tuple[Floats, Floats]:
        """Rank candidates as `Objective.worth` does one."""
        w_cycles, w_pj = self.objective.weights
        if w_pj == 0:
            return cycles.astype(np.float64), pj
        return pj + w_cycles * cycles, cycles.astype(np.float64)

    def _work_pj(self, index: Ints, block: tuple[Grid, Grid, Grid]) -> Floats:
        """Return the energy of the work of tilings [c, 4] with sub-blocks: [c] pJ."""
        t = self.scan.tables
        array = t.blocks.array
        if is_divisible(array):
            return work_pj(t.p, self.scan.tiles(index), block, array, t.site, self.prices)
        counts = (work_counts(t.p, self.scan.tiling(row), array, t.site) for row in index)
        return np.array([self.prices.nominal_pj(c) for c in counts])

    def _fastest(self, found: Found, cutoff: float) -> Tied:
        """Return the fastest tilings, each with the sub-block that `fastest` chose for it."""
        scan, t = self.scan, self.scan.tables
        index, bound, lost = found.index[:MOST_TRIED], found.bound[:MOST_TRIED], found.lost
        kinds, ends = scan.kinds(index), scan.ends(index)
        best: list[tuple[Ints, Fastest]] = []  # rows of `found`, and what was found among them
        # Few at first: what they come to excludes most others.
        start, size = 0, FIRST_TRIED
        while start < len(bound) and bound[start] <= cutoff:
            some = slice(start, start + size)
            start, size = start + size, min(4 * size, MOST_RANKED)
            worked = least_ends(
                (t.m, t.n, t.k), index[some], bound[some], t.blocks, self._flow.batch, ends[some], cutoff
            )  # fmt: skip
            ranked = some.start + np.argsort(worked, kind="stable")
            worked.sort()
            for at in range(0, len(ranked), AT_ONCE):
                rows = np.sort(ranked[at : at + AT_ONCE][worked[at : at + AT_ONCE] <= cutoff])
                if not len(rows):
                    break
                layout, how = scan.layout(index[rows], t.blocks.whole), self._stage(index[rows[0]])
                got = fastest(layout, kinds[rows], t.blocks, self._flow, how, ends[rows], cutoff)
                if len(got.rows):
                    cutoff = float(got.cycles)  # none that is slower is returned
                    best = [b for b in best if b[1].cycles == got.cycles] + [(rows[got.rows], got)]
        if len(found.bound) > MOST_TRIED and found.bound[MOST_TRIED] <= cutoff:
            lost = min(lost, float(found.bound[MOST_TRIED]))
        rows = np.concatenate([r for r, _ in best])
        blocks = np.concatenate([got.blocks for _, got in best])
        order = np.argsort(rows, kind="stable")
        order = order[_few_of_each(rows[order] // AT_ONCE, MOST_TIES)]
        rows, (r, c, l) = rows[order], blocks[order].T  # noqa: E741
        return self._tied(found, rows, int(best[0][1].cycles), (r, c, l), lost)

    def _divided(self, found: Found, cutoff: float) -> Choice:
        """Return the best tiling with the best of its sub-blocks."""
        lost, count = found.lost, int(np.searchsorted(found.bound, cutoff, side="right"))
        if count > MOST_DIVIDED:
            lost, count = min(lost, float(found.bound[MOST_DIVIDED])), MOST_DIVIDED
        tried: list[tuple[Ints, Ints, Floats, Floats]] = []  # rows of `found`, blocks, worths
        for start in range(0, count, DIVIDED_AT_ONCE):
            rows = np.arange(start, min(start + DIVIDED_AT_ONCE, count))
            rows = rows[found.bound[rows] <= cutoff]
            for part in self._promising(found.index, rows, cutoff):
                got = self._try(found.index, *part, cutoff)
                if len(got[0]):
                    tried.append(got)
                    cutoff = min(cutoff, above(float(got[2].min())))
        rows, blocks, first, second = (np.concatenate(x) for x in zip(*tried, strict=True))
        # Of equals the smaller buffers, then the lesser bound, then the larger block.
        order = np.lexsort((-blocks.prod(axis=1), rows, found.bytes[rows]))
        x = order[_first_best(first[order], second[order], np.arange(len(order)))]
        r, c, l = (int(size) for size in blocks[x])  # noqa: E741
        return replace(self.scan.tiling(found.index[rows[x]]), block=(r, c, l)), lost

    def _promising(
        self, index: Ints, rows: Ints, cutoff: float
    ) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
        """Yield the sub-blocks of some tilings that no bound excludes, the least bound first, in parts.

        Each part is rows of `index` [c], blocks [c, 3], their energy but for that of time, and their bounds.
        """
        scan, t = self.scan, self.scan.tables
        axes = [
            t.blocks.axes(*(int(x) for x in tile)) for tile in np.stack(scan.tiles(index[rows]), 1)
        ]
        grids = [np.stack([x.ravel() for x in np.broadcast_arrays(*axis)], axis=1) for axis in axes]
        if not grids:
            return
        rows = np.repeat(rows, [len(grid) for grid in grids])
        blocks = np.concatenate(grids)
        many = index[rows]
        sizes = blocks[:, 0], blocks[:, 1], blocks[:, 2]
        pj = work_pj(t.p, scan.tiles(many), sizes, t.blocks.array, t.site, self.prices)
        pj = pj + scan.transfer_pj(many)
        busy = scan.layout(many, sizes).busy(self._flow.batch)
        least = busy[0] + scan.ends(many)  # cycles
        bound = self._worths(least, pj + self.power.pj(least, sum(busy)))[0]
        order = np.argsort(bound, kind="stable")
        order = order[: np.searchsorted(bound[order], cutoff, side="right")]
        start, size = 0, 1
        while start < len(order):  # few at first: what they come to excludes most others
            x = order[start : start + size]
            yield rows[x], blocks[x], pj[x], bound[x]
            start, size = start + size, AT_ONCE

    def _try(
        self, index: Ints, rows: Ints, blocks: Ints, pj: Floats, bound: Floats, cutoff: float
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Return the rows, blocks and worths of those candidates whose bound is at most `cutoff`."""
        near = bound <= cutoff
        rows, blocks, pj = rows[near], blocks[near], pj[near]
        if not len(rows):
            return rows, blocks, pj, pj
        layout = self.scan.layout(index[rows], (blocks[:, 0], blocks[:, 1], blocks[:, 2]))
        cycles = layout.lengths(
            self._flow, self._stage(index[rows[0]]), np.zeros(len(rows)), 0.0, np.inf
        )
        total = pj + self.power.pj(cycles, sum(layout.busy(self._flow.batch)))
        return rows, blocks, *self._worths(cycles, total)


def above(value: float) -> float:
    """Return a value with room for rounding."""
    return value + abs(value) * ROUNDING


def _few_of_each(groups: Ints, most: int) -> Ints:
    """Return the positions of the first few entries of each group: [c] rising numbers of groups."""
    firsts = np.searchsorted(groups, groups, side="left")
    return np.flatnonzero(np.arange(len(groups)) - firsts < most)


def _first_best(first: Floats, second: Floats, third: Ints) -> int:
    """Return the position of the least (first, second, third), rounding of the first two apart."""
    near = np.flatnonzero(first <= first.min() + abs(first.min()) * ROUNDING)
    near = near[second[near] <= second[near].min() + abs(second[near].min()) * ROUNDING]
    return int(near[np.argmin(third[near])])
