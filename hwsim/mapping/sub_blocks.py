"""The fastest sub-block of every tiling, compiled: where a port is too narrow for a whole beat.

Of all sub-blocks that cut every kind of tile in equally many beats the smallest occupies the ports least, so
no other of them is faster: only the smallest are tried, which are a few roots of the array's size. Of those one that
the block of the least cycles beats in some kind of tile and equals in all others cannot be faster either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from hwsim.engine.timing import Stage, recurrence
from hwsim.mapping.block import Blocks
from hwsim.mapping.cuts import Floats, Ints
from hwsim.mapping.layout import Flow, Layout, lay_out

MOST_TIES = 1 << 12
"""Equally fast candidates that are kept, to take the one of least energy."""


@dataclass(frozen=True, slots=True)
class Fastest:
    """The candidates of least length.

    Attributes:
        tried: tilings looked at, the first ones.
        cycles: the least length.
        rows: [c] which tilings.
        blocks: [c, 3] rows, columns and lanes of a beat.
    """

    tried: int
    cycles: int
    rows: Ints
    blocks: Ints


def fastest(
    layout: Layout,
    sizes: Ints,
    blocks: Blocks,
    flow: Flow,
    stage: Stage,
    bound: Floats,
    ends: Ints,
    cutoff: float,
) -> Fastest:
    """Return the fastest of some tilings, each with its fastest sub-blocks.

    Args:
        layout: the tilings.
        sizes: [c, 3, 2] size of the full tiles and of the last, smaller one (0: none) along M, N, K.
        blocks: of an array that works as all arrays do.
        flow: what is moved.
        stage: buffers and links; the places are each tiling's own.
        bound: [c] cycles that each takes at least, never falling.
        ends: [c] cycles before its first beat and after its last one, at least.
        cutoff: nothing longer is of interest.
    """
    spec, array = blocks.array.spec, blocks.array
    a_bits, w_bits = array.operand_bits(blocks.a, blocks.w)
    rates = np.array(
        [
            spec.initiation_interval_cycles,
            spec.activation_port_bits_per_cycle,
            spec.weight_port_bits_per_cycle,
            a_bits,
            w_bits,
            array.passes(blocks.a, blocks.w),
        ],
        dtype=np.int64,
    )
    tables = layout.tables()
    room = np.empty((MOST_TIES, 4), dtype=np.int64)
    tried, kept, cycles = _fastest(  # type: ignore[call-arg]
        flow.numbers(),
        *tables[:3],
        *tables[4:],
        np.ascontiguousarray(layout.places),
        np.ascontiguousarray(sizes, dtype=np.int64),
        np.array(blocks.least, dtype=np.int64),
        np.array(blocks.full, dtype=np.int64),
        rates,
        *stage.units(),
        *stage.ways(),
        np.ascontiguousarray(bound, dtype=np.float64),
        np.ascontiguousarray(ends, dtype=np.int64),
        float(cutoff),
        room,
    )
    return Fastest(int(tried), int(cycles), room[:kept, 0], room[:kept, 1:])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _ceil(a, b):  # type: ignore[no-untyped-def]
    return -(-a // b)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _smallest(low, high, size, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the smallest block of each pair of beat counts, and return how many there are.

    A block that is larger than the tile is as large as the tile; one that may not be divided stays whole.
    """
    if low == high:
        out[0] = high
        return 1
    found = 0
    for b in range(low, min(high, size[0]) + 1):
        if found > 0:
            before = out[found - 1]
            same = _ceil(size[0], before) == _ceil(size[0], b)
            if same and _ceil(size[1], before) == _ceil(size[1], b):
                continue
        out[found] = b
        found += 1
    return found


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _beats(size, times, blocks, out):  # type: ignore[no-untyped-def]
    """Fill `out` with how many blocks cut all tiles of a dimension together."""
    for i in range(blocks.shape[0]):
        out[i] = _ceil(size[0], blocks[i]) * times[0] + _ceil(size[1], blocks[i]) * times[1]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _works(size, times, least, full, rates, batch, end, cutoff):  # type: ignore[no-untyped-def]
    """Return the blocks [b, 3] of a tiling that may end in time, and their cycles [b, 2, 2, 2] by kind of tile.

    Left out are those that the block of the least cycles beats in some kind of tile and equals in all others.
    """
    interval, a_port, w_port, a_bits, w_bits, passes = rates
    # No block is larger than the tile.
    rs, cs, ls = (
        np.empty(size[0, 0], np.int64),
        np.empty(size[1, 0], np.int64),
        np.empty(size[2, 0], np.int64),
    )
    rs = rs[: _smallest(least[0], full[0], size[0], rs)]
    cs = cs[: _smallest(least[1], full[1], size[1], cs)]
    ls = ls[: _smallest(least[2], full[2], size[2], ls)]
    r_beats, c_beats, l_beats = np.empty_like(rs), np.empty_like(cs), np.empty_like(ls)
    _beats(size[0], times[0], rs, r_beats)
    _beats(size[1], times[1], cs, c_beats)
    _beats(size[2], times[2], ls, l_beats)
    # All bits of A pass their port once for each block of columns, those of W for each block of rows.
    m_all, n_all = (size[0] * times[0]).sum(), (size[1] * times[1]).sum()
    k_all = (size[2] * times[2]).sum()
    a_held = _ceil(m_all * k_all * a_bits, a_port)
    w_held = _ceil(n_all * k_all * w_bits, w_port)
    blocks = np.empty((rs.size * cs.size * ls.size, 3), np.int64)
    work = np.zeros((rs.size * cs.size * ls.size, 2, 2, 2), np.int64)
    found, best, best_busy = 0, 0, np.int64(1) << 62
    for x in range(rs.size):
        for y in range(cs.size):
            ports_held = max(a_held * c_beats[y], w_held * r_beats[x])
            for z in range(ls.size):
                held = max(interval * r_beats[x] * c_beats[y] * l_beats[z], ports_held)
                if batch * passes * held + end > cutoff:
                    continue  # most end here, without a look at each kind of tile
                r, c, l = rs[x], cs[y], ls[z]  # noqa: E741
                busy = np.int64(0)
                for i in range(2):
                    for j in range(2):
                        for k in range(2):
                            m, n, deep = size[0, i], size[1, j], size[2, k]
                            if m == 0 or n == 0 or deep == 0:
                                work[found, i, j, k] = 0
                                continue
                            lanes = min(l, deep)
                            held = max(
                                interval,
                                _ceil(min(r, m) * lanes * a_bits, a_port),
                                _ceil(min(c, n) * lanes * w_bits, w_port),
                            )
                            beats = _ceil(m, r) * _ceil(n, c) * _ceil(deep, l)
                            work[found, i, j, k] = beats * passes * held
                            busy += work[found, i, j, k] * times[0, i] * times[1, j] * times[2, k]
                if batch * busy + end > cutoff:
                    continue
                if busy < best_busy:
                    best, best_busy = found, busy
                blocks[found, 0], blocks[found, 1], blocks[found, 2] = r, c, l
                found += 1
    kept = 0
    least_work = work[best].copy() if found > 0 else work[:1].sum(axis=0)
    for x in range(found):
        beaten = (work[x] >= least_work).all() and (work[x] > least_work).any()
        if not beaten:
            blocks[kept] = blocks[x]
            work[kept] = work[x]
            kept += 1
    return blocks[:kept], work[:kept]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _fastest(  # type: ignore[no-untyped-def]
    flow,
    order,
    tiles,
    rest,
    a,
    w,
    out,
    post,
    places,
    sizes,
    least,
    full,
    rates,
    halves,
    owned,
    depth,
    channels,
    overhead,
    handoff,
    wires,
    ports,
    store_on_bus,
    direct,
    bound,
    ends,
    cutoff,
    room,
):
    """Fill `room` with (tiling, r, c, l) of the fastest; return (tilings tried, how many, cycles)."""
    kept = 0
    best = np.int64(1) << 62
    nothing = np.empty((6, 0, 4), np.int64)  # no times are recorded
    times = np.empty((3, 2), np.int64)
    for t in range(order.shape[0]):
        if bound[t] > cutoff:
            return t, kept, best
        for d in range(3):
            times[d, 1] = rest[t, d]
            times[d, 0] = tiles[t, d] - rest[t, d]
        blocks, work = _works(sizes[t], times, least, full, rates, flow[0], ends[t], cutoff)
        lengths = np.empty(blocks.shape[0], np.int64)
        for x in range(blocks.shape[0]):
            known = -1
            for y in range(x):  # equal work takes equally long
                if (work[y] == work[x]).all():
                    known = y
                    break
            if known >= 0:
                lengths[x] = lengths[known]
            else:
                load, fresh, busy, after, store, opens, emits, _ = lay_out(
                    flow, order[t], tiles[t], rest[t], work[x], a[t], w[t], out[t], post[t]
                )
                lengths[x] = recurrence(
                    load, fresh, busy, after, store, opens, emits, halves, owned, depth,
                    channels, overhead, places[t, 0], places[t, 1], handoff, wires, ports,
                    store_on_bus, direct, nothing,
                )  # fmt: skip
            if lengths[x] > cutoff:
                continue
            if lengths[x] < best:
                best, kept = lengths[x], 0
                cutoff = float(best)
            if kept < room.shape[0]:
                room[kept, 0] = t
                room[kept, 1], room[kept, 2], room[kept, 3] = blocks[x]
                kept += 1
    return order.shape[0], kept, best
