"""Lower bounds of all tilings of a product at once, and the lengths of those worth laying out.

The number of tilings goes into the millions. One compiled loop over the tables of a product gives, for
every tiling, its buffers exactly and a bound that no schedule and no sub-block can beat, in the units of
the objective: w_cycles * cycles + w_pj * energy. Whole rows of tilings that cannot matter are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass

import numpy as np
from numba import njit

from hwsim.mapping.block import Block, Grid
from hwsim.mapping.gemm import Tiling
from hwsim.mapping.layout import ORDERS, Layout
from hwsim.mapping.tables import Floats, Ints, Tables

MOST_KEPT = 1 << 15
"""Tilings that are kept of one scan. Where more are within the cutoff, those of the least bounds are."""


@dataclass(frozen=True, slots=True)
class Found:
    """Tilings, the least bound first.

    Attributes:
        index: [c, 4] indices of tm, tn, tk and the order's number.
        bytes: [c] bytes of all buffers together.
        bound: [c] what each is worth at least.
        lost: the least bound of those left out; inf if none.
    """

    index: Ints
    bytes: Ints
    bound: Floats
    lost: float


class Scan:
    """The tilings of one product on one machine, for one objective.

    Args:
        tables: what they cost.
        weights: of a cycle and of a picojoule.
    """

    def __init__(self, tables: Tables, weights: tuple[float, float]) -> None:
        self.tables = tables
        self._weights = weights

    def least(self, free: Map[str, int], step_limit: int) -> Found:
        """Return the legal tiling of at most `step_limit` compute steps with the least bound, or none."""
        return self._run(free, np.inf, step_limit, only_least=True)

    def within(self, free: Map[str, int], cutoff: float, step_limit: int) -> Found:
        """Return all legal tilings with a bound of at most `cutoff`.

        Args:
            free: bytes that buffers may take in each memory.
            cutoff: the largest bound of interest.
            step_limit: tilings of more compute steps are left out.
        """
        found = self._run(free, cutoff, step_limit, only_least=False)
        order = np.argsort(found.bound, kind="stable")
        return Found(found.index[order], found.bytes[order], found.bound[order], found.lost)

    def _run(
        self, free: Map[str, int], cutoff: float, step_limit: int, *, only_least: bool
    ) -> Found:
        room = 1 if only_least else MOST_KEPT
        left_out = np.inf
        while True:
            index = np.empty((room, 5), dtype=np.int64)
            bound = np.empty(room, dtype=np.float64)
            found, lost = _scan(
                self._free(free),
                *self.tables.columns,
                *map(float, self._weights),
                float(cutoff),
                step_limit,
                only_least,
                index,
                bound,
            )
            if found <= room:
                index, bound = index[:found], bound[:found]
                return Found(index[:, :4], index[:, 4], bound, min(lost, left_out))
            # Too many: go on with those below the median of the ones that were kept.
            left_out = cutoff = float(np.median(bound))
            if (bound == cutoff).all():
                return Found(index[:, :4], index[:, 4], bound, cutoff)
            cutoff = float(np.nextafter(cutoff, -np.inf))

    def lacking(self, free: Map[str, int]) -> tuple[int, Tiling]:
        """Return by how many bytes the smallest buffers are too large (0: they fit), and their tiling."""
        index = np.zeros(4, dtype=np.int64)
        lacking = _least_lacking(self._free(free), *self.tables.columns[:1], *self._sizes(), index)
        return int(lacking), self.tiling(index)

    def _free(self, free: Map[str, int]) -> Ints:
        return np.array([free.get(m, 0) for m in self.tables.memories()], dtype=np.int64)

    def _sizes(self) -> tuple[Ints, ...]:
        """Return the columns of buffer bytes and of numbers of tiles."""
        return self.tables.columns[11:18]

    def tiling(self, index: Ints) -> Tiling:
        """Return the tiling of a row of indices, with the whole array as its block."""
        i, j, k, order = (int(x) for x in index)
        t = self.tables
        sizes = int(t.m.size[i]), int(t.n.size[j]), int(t.k.size[k])
        return Tiling(*sizes, ORDERS[order], t.blocks.full)

    def tiles(self, index: Ints) -> tuple[Grid, Grid, Grid]:
        """Return tm, tn and tk of rows of indices: [c] each."""
        t = self.tables
        return t.m.size[index[:, 0]], t.n.size[index[:, 1]], t.k.size[index[:, 2]]

    def layout(self, index: Ints, block: tuple[Grid, Grid, Grid]) -> Layout:
        """Return what the tiles of candidates cost.

        Args:
            index: [c, 4] tilings.
            block: rows, columns and lanes of a beat: [c] each, or one for all.
        """
        t, site = self.tables, self.tables.site
        i, j, k, order = index.T
        cuts = ((t.m, i), (t.n, j), (t.k, k))
        tiles = np.stack([cut.tiles[x] for cut, x in cuts], axis=1)
        rest = np.stack([cut.rest[x] > 0 for cut, x in cuts], axis=1).astype(np.int64)
        kinds = [np.stack([cut.size[x], cut.rest[x]], axis=1) for cut, x in cuts]
        m, n, deep = kinds[0][:, :, None, None], kinds[1][:, None, :, None], kinds[2][:, None, None]
        r, c, l = (np.broadcast_to(x, len(index))[:, None, None, None] for x in block)  # noqa: E741
        split = tiles[:, 2] > 1
        band = np.where(
            split & (order == 0), tiles[:, 1], np.where(split & (order == 1), tiles[:, 0], 1)
        )
        halves = site.halves(site.output)
        places = np.minimum(halves * band, t.p.batch * tiles[:, 0] * tiles[:, 1])
        results = np.full_like(places, halves) if t.p.epilogue else places
        return Layout(
            order=order,
            tiles=tiles,
            rest=rest,
            places=np.stack([places, results * t.p.out_streams], axis=1),
            compute=t.blocks.cycles(m, n, deep, (r, c, l)),
            a=np.moveaxis(t.a.kinds[:, :, i, k], 2, 0),
            w=np.moveaxis(t.w.kinds[:, :, j, k], 2, 0),
            out=np.moveaxis(t.out.kinds[:, :, i, j], 2, 0),
            post=np.moveaxis(t.post_kinds[:, :, i, j], 2, 0),
        )

    def transfer_pj(self, index: Ints) -> Floats:
        """Return the energy of the transfers of tilings [c, 4]: [c] pJ."""
        t, p = self.tables, self.tables.p
        i, j, k, order = index.T
        m_tiles, n_tiles, k_tiles = t.m.tiles[i], t.n.tiles[j], t.k.tiles[k]
        a_again = np.where(order == 0, 1, n_tiles)
        w_once = (order == 1) | ((n_tiles == 1) & (k_tiles == 1))
        w_again = np.where(w_once | (p.w_place == "fill"), 1, m_tiles)
        w_times = w_again * (1 if p.w_place == "fill" else p.batch)
        moved = p.batch * (a_again * t.a.pj[i, k] + t.out.pj[i, j]) + w_times * t.w.pj[j, k]
        return np.asarray(moved + t.constant_pj())


def full_block(block: Block) -> tuple[Grid, Grid, Grid]:
    """Return a block as arrays of one entry."""
    return np.array(block[0]), np.array(block[1]), np.array(block[2])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _scan(  # type: ignore[no-untyped-def]  # noqa: PLR0915  one loop: splitting it hides the sums
    free,
    shape,
    a_cycles,
    a_pj,
    a_first,
    w_cycles,
    w_pj,
    w_first,
    out_cycles,
    out_pj,
    tail,
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
    own,
    own_end,
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

    Returns how many there are, and the least bound beyond `step_limit`.
    """
    batch, fill, a_streams, w_streams, out_streams, constant = shape[:6]
    channels, overhead, constant_cycles = shape[6], shape[7], shape[8]
    a_halves, w_halves, out_halves = shape[9], shape[10], shape[11]
    a_memory, w_memory, out_memory = shape[12], shape[13], shape[14]
    fixed, step_pj, row_pj, constant_pj, update_pj = constants[:5]
    write_pj, read_pj, a_code_pj, w_code_pj, time_pj = constants[5:10]
    idle_pj, units = constants[10], constants[11]
    # An array that is used whole has a table of its own; for any other it is one zero.
    s = 1 if own.size > 1 else 0
    w_batch = 1 if fill else batch
    lost = np.inf
    found = 0
    used = np.zeros(3, np.int64)
    first_overhead = overhead * min(1, a_streams + w_streams + constant)
    if channels == 1:
        first_overhead = overhead * (a_streams + w_streams + constant)
    some_overhead = min(first_overhead, overhead)
    n_m, n_n, n_k = m_tiles.shape[0], n_tiles.shape[0], k_tiles.shape[0]
    least_a = np.empty(n_m)
    least_a_pj = np.empty(n_m)
    for i in range(n_m):
        least_a[i], least_a_pj[i] = a_cycles[i].min(), a_pj[i].min()
    least_w = np.empty(n_n)
    least_w_pj = np.empty(n_n)
    least_codes = np.empty(n_n)
    for j in range(n_n):
        least_w[j], least_w_pj[j] = w_cycles[j].min(), w_pj[j].min()
        least_codes[j] = a_codes[j].min()
    least_k, least_beats = k_work.min() * unit[0], k_blocks.min()
    for i in range(n_m):
        mt = m_tiles[i]
        for j in range(n_n):
            nt = n_tiles[j]
            out_tiles = batch * mt * nt
            out_used = min(out_halves, out_tiles) * (wait_bytes[i, j] + result_bytes[i, j])
            if out_used > free[out_memory]:
                continue
            # What every cut of K and every order costs at least; where that is too much, go on.
            moved = batch * (out_cycles[i, j] + least_a[i]) + constant_cycles
            moved += w_batch * least_w[j]
            work = batch * m_work[i] * n_work[j] * least_k
            cycles = max(work + tail[i, j], moved)
            value = w_weight * cycles
            if pj_weight > 0:
                pj = fixed + out_tiles / batch * constant_pj + nt * row_pj
                pj += batch * (least_a_pj[i] + out_pj[i, j]) + w_batch * least_w_pj[j]
                pj += update_pj * least_beats + write_pj + time_pj * cycles
                pj += a_code_pj * least_codes[j]
                value += pj_weight * pj
            if value > cutoff:
                continue
            for k in range(n_k):
                kt = k_tiles[k]
                tiles = out_tiles * kt
                used[:] = 0
                used[out_memory] += out_used
                used[a_memory] += min(a_halves, batch * mt * kt) * a_bytes[i, k]
                used[w_memory] += min(w_halves, batch * nt * kt) * w_bytes[j, k]
                if used[0] > free[0] or used[1] > free[1] or used[2] > free[2]:
                    continue
                work = batch * m_work[i] * n_work[j] * k_work[k] * unit[0]
                work += batch * own[i * s, j * s, k * s]
                head = first_overhead + a_first[i, k] + w_first[j, k] + constant_cycles
                end = m_end[i] * n_end[j] * k_end[k] * unit[0] + tail[i, j]
                end += own_end[i * s, j * s, k * s]
                busy = head + work + tail[i, j]
                if w_weight * busy > cutoff:
                    continue
                for order in range(3):
                    if kt == 1:
                        if order == 2 or (order == 1 and (mt == 1 or nt == 1)):
                            continue
                    elif (order == 0 and nt == 1) or (order == 1 and mt == 1):
                        continue
                    taken = used[0] + used[1] + used[2]
                    if kt > 1 and order < 2:
                        band = nt if order == 0 else mt
                        more = min(out_halves * band, out_tiles) - min(out_halves, out_tiles)
                        taken += more * wait_bytes[i, j]
                        if used[out_memory] + more * wait_bytes[i, j] > free[out_memory]:
                            continue
                    a_again = 1 if order == 0 else nt
                    w_again = 1 if fill or order == 1 or (nt == 1 and kt == 1) else mt
                    load = batch * (a_again * a_cycles[i, k]) + constant_cycles
                    load += w_batch * w_again * w_cycles[j, k]
                    moved = load + batch * out_cycles[i, j]
                    loads = batch * a_again * mt * a_streams * kt
                    loads += w_batch * w_again * nt * w_streams * kt
                    set_up = (loads + constant + out_tiles * out_streams) * overhead
                    cycles = max(
                        busy, some_overhead + load + end, float(moved), (moved + set_up) / channels
                    )
                    cycles = np.ceil(cycles - 1e-6)
                    value = w_weight * cycles
                    if pj_weight > 0 and value <= cutoff:
                        pj = fixed + tiles * step_pj + nt * row_pj + mt * nt * constant_pj
                        pj += batch * (a_again * a_pj[i, k] + out_pj[i, j])
                        pj += w_batch * w_again * w_pj[j, k]
                        pj += k_blocks[k] * update_pj + kt * write_pj + (kt - 1) * read_pj
                        pj += a_code_pj * a_codes[j, k]
                        pj += w_code_pj * w_once[j, k] * mt
                        pj += w_code_pj * (nk[0] - w_once[j, k]) * m_blocks[i]
                        pj += time_pj * cycles + idle_pj * (head + tail[i, j])
                        if units > 1:
                            pj += idle_pj * max(0.0, cycles - batch * post[i, j])
                        value += pj_weight * pj
                    if value > cutoff:
                        continue
                    if tiles > step_limit:
                        lost = min(lost, value)
                        continue
                    if only_least:
                        if found == 1 and value >= bound[0]:
                            continue
                        cutoff = value
                        found = 0
                    if found < bound.shape[0]:
                        bound[found] = value
                        index[found, 0] = i
                        index[found, 1] = j
                        index[found, 2] = k
                        index[found, 3] = order
                        index[found, 4] = taken
                    found += 1
    return found, lost


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _least_lacking(  # type: ignore[no-untyped-def]
    free, shape, a_bytes, w_bytes, wait_bytes, result_bytes, m_tiles, n_tiles, k_tiles, index
):
    """Return the bytes that the smallest buffers lack, and fill `index` with their tiling.

    The order does not matter: one in which no band of accumulators waits needs the least.
    """
    batch = shape[0]
    least = np.int64(1) << 62
    used = np.zeros(3, np.int64)
    for i in range(m_tiles.shape[0]):
        for j in range(n_tiles.shape[0]):
            for k in range(k_tiles.shape[0]):
                out_tiles = batch * m_tiles[i] * n_tiles[j]
                used[:] = 0
                used[shape[12]] += min(shape[9], batch * m_tiles[i] * k_tiles[k]) * a_bytes[i, k]
                used[shape[13]] += min(shape[10], batch * n_tiles[j] * k_tiles[k]) * w_bytes[j, k]
                used[shape[14]] += min(shape[11], out_tiles) * wait_bytes[i, j]
                used[shape[14]] += min(shape[11], out_tiles) * result_bytes[i, j]
                lacking = np.int64(0)
                for x in range(3):
                    lacking += max(0, used[x] - free[x])
                if lacking < least:
                    least = lacking
                    index[0], index[1], index[2] = i, j, k
                    index[3] = 2 if k_tiles[k] > 1 else 0
    return least
