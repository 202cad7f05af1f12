"""Lower bounds of all tilings of a product at once, and the lengths of those worth laying out.

The number of tilings goes into the millions. One compiled loop over the tables of a product gives, for
every tiling, its buffers exactly and a bound that no schedule and no sub-block can beat, in the units of
the objective: w_cycles * cycles + w_pj * energy. Whole rows of tilings that cannot matter are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass

import numpy as np

from hwsim.mapping.block import Grid
from hwsim.mapping.bounds import least_lacking, scan_bounds
from hwsim.mapping.cuts import Floats, Ints
from hwsim.mapping.gemm import Tiling
from hwsim.mapping.layout import ORDERS, Layout
from hwsim.mapping.tables import BUFFERS, Tables

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

    def after(self, first: Found) -> Found:
        """Return these after another one, of the least bound of all, if it is not among them."""
        if (self.index == first.index).all(axis=1).any():
            return self
        index = np.concatenate([first.index, self.index])
        held = np.concatenate([first.bytes, self.bytes])
        return Found(index, held, np.concatenate([first.bound, self.bound]), self.lost)


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
        index = np.empty((room, 5), dtype=np.int64)
        bound = np.empty(room, dtype=np.float64)
        found, lost = scan_bounds(  # type: ignore[call-arg]
            self._free(free),
            *self.tables.columns,
            *map(float, self._weights),
            float(cutoff),
            step_limit,
            only_least,
            index,
            bound,
        )
        return Found(index[:found, :4], index[:found, 4], bound[:found], lost)

    def lacking(self, free: Map[str, int]) -> tuple[int, Tiling]:
        """Return by how many bytes the smallest buffers are too large (0: they fit), and their tiling."""
        index = np.zeros(4, dtype=np.int64)
        columns = self.tables.columns
        lacking = least_lacking(  # type: ignore[call-arg]
            self._free(free), columns[0], *columns[BUFFERS], index
        )
        return int(lacking), self.tiling(index)

    def _free(self, free: Map[str, int]) -> Ints:
        return np.array([free.get(m, 0) for m in self.tables.memories()], dtype=np.int64)

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

    def kinds(self, index: Ints) -> Ints:
        """Return the sizes of full tiles, and of the last, smaller ones (0: none): [c, 3, 2]."""
        cuts = zip((self.tables.m, self.tables.n, self.tables.k), index.T, strict=False)
        return np.stack([np.stack([cut.size[x], cut.rest[x]], axis=1) for cut, x in cuts], axis=1)

    def ends(self, index: Ints) -> Ints:
        """Return the cycles before the first beat and after the last one, at least: [c]."""
        t = self.tables
        i, j, k, _ = index.T
        a, w = t.a.first[i, k], t.w.first[j, k]
        site, level = t.site, t.p.a_from
        in_turn = site.channels == 1 or (level == t.p.w_from and site.ports[site.wire(level)] == 1)
        return np.asarray((a + w if in_turn else np.maximum(a, w)) + t.tail[i, j])

    def layout(self, index: Ints, block: tuple[Grid, Grid, Grid]) -> Layout:
        """Return what the tiles of candidates cost.

        Args:
            index: [c, 4] tilings.
            block: rows, columns and lanes of a beat: [c] each, or one for all.
        """
        t, site = self.tables, self.tables.site
        i, j, k, order = index.T
        kinds = self.kinds(index)
        tiles = np.stack([t.m.tiles[i], t.n.tiles[j], t.k.tiles[k]], axis=1)
        rest = (kinds[:, :, 1] > 0).astype(np.int64)
        m, n, deep = kinds[:, 0, :, None, None], kinds[:, 1, None, :, None], kinds[:, 2, None, None]
        r, c, l = (np.broadcast_to(x, len(index))[:, None, None, None] for x in block)  # noqa: E741
        split = tiles[:, 2] > 1
        band = np.where(
            split & (order == 0), tiles[:, 1], np.where(split & (order == 1), tiles[:, 0], 1)
        )
        halves = site.halves(site.output)
        places = np.minimum(halves * band, t.p.batch * tiles[:, 0] * tiles[:, 1])
        results = np.full_like(places, halves) if t.p.epilogue else places
        # Otherwise each result is written where it stays.
        waits = split | bool(t.p.epilogue or t.p.out_streams)
        return Layout(
            order=order,
            tiles=tiles,
            rest=rest,
            places=np.stack([places * waits, results * t.p.out_streams], axis=1),
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
