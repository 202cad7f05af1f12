"""The fastest sub-block of every tiling, compiled: where a port is too narrow for a whole beat.

Of all sub-blocks that cut every kind of tile in equally many beats the smallest occupies the ports least, so
no other of them is faster: only the smallest are tried, which are a few roots of the array's size.
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
def _fastest(  # type: ignore[no-untyped-def]  # noqa: PLR0915  one loop: splitting it hides the sums
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
    interval, a_port, w_port, a_bits, w_bits, passes = rates
    batch = flow[0]
    kept = 0
    best = np.int64(1) << 62
    compute = np.zeros((2, 2, 2), np.int64)
    nothing = np.empty((6, 0, 4), np.int64)  # no times are recorded
    # No block is larger than the tile, the first tiling's or a later one's.
    room_r, room_c, room_l = sizes[:, 0, 0].max(), sizes[:, 1, 0].max(), sizes[:, 2, 0].max()
    rs, cs, ls = np.empty(room_r, np.int64), np.empty(room_c, np.int64), np.empty(room_l, np.int64)
    r_beats, c_beats, l_beats = np.empty_like(rs), np.empty_like(cs), np.empty_like(ls)
    for t in range(order.shape[0]):
        if bound[t] > cutoff:
            return t, kept, best
        size = sizes[t]
        times = np.empty((3, 2), np.int64)
        for d in range(3):
            times[d, 1] = rest[t, d]
            times[d, 0] = tiles[t, d] - rest[t, d]
        n_r = _smallest(least[0], full[0], size[0], rs)
        n_c = _smallest(least[1], full[1], size[1], cs)
        n_l = _smallest(least[2], full[2], size[2], ls)
        _beats(size[0], times[0], rs[:n_r], r_beats)
        _beats(size[1], times[1], cs[:n_c], c_beats)
        _beats(size[2], times[2], ls[:n_l], l_beats)
        # All bits of A pass their port once for each block of columns, those of W for each block of rows.
        m_all, n_all = (size[0] * times[0]).sum(), (size[1] * times[1]).sum()
        k_all = (size[2] * times[2]).sum()
        a_held = _ceil(m_all * k_all * a_bits, a_port)
        w_held = _ceil(n_all * k_all * w_bits, w_port)
        for x in range(n_r):
            for y in range(n_c):
                ports_held = max(a_held * c_beats[y], w_held * r_beats[x])
                for z in range(n_l):
                    held = max(interval * r_beats[x] * c_beats[y] * l_beats[z], ports_held)
                    if batch * passes * held + ends[t] > cutoff:
                        continue  # most end here, without a look at each kind of tile
                    r, c, l = rs[x], cs[y], ls[z]  # noqa: E741
                    busy = np.int64(0)
                    for i in range(2):
                        for j in range(2):
                            for k in range(2):
                                m, n, deep = size[0, i], size[1, j], size[2, k]
                                if m == 0 or n == 0 or deep == 0:
                                    compute[i, j, k] = 0
                                    continue
                                lanes = min(l, deep)
                                held = max(
                                    interval,
                                    _ceil(min(r, m) * lanes * a_bits, a_port),
                                    _ceil(min(c, n) * lanes * w_bits, w_port),
                                )
                                beats = _ceil(m, r) * _ceil(n, c) * _ceil(deep, l)
                                compute[i, j, k] = beats * passes * held
                                busy += compute[i, j, k] * times[0, i] * times[1, j] * times[2, k]
                    lower = batch * busy + ends[t]
                    if lower > cutoff:
                        continue
                    load, fresh, work, after, store, opens, emits, _ = lay_out(
                        flow, order[t], tiles[t], rest[t], compute, a[t], w[t], out[t], post[t]
                    )
                    cycles = recurrence(
                        load, fresh, work, after, store, opens, emits, halves, owned, depth,
                        channels, overhead, places[t, 0], places[t, 1], handoff, wires, ports,
                        store_on_bus, direct, nothing,
                    )  # fmt: skip
                    if cycles > cutoff:
                        continue
                    if cycles < best:
                        best, kept = cycles, 0
                        cutoff = float(cycles)
                    if kept < room.shape[0]:
                        room[kept, 0] = t
                        room[kept, 1], room[kept, 2], room[kept, 3] = r, c, l
                        kept += 1
    return order.shape[0], kept, best
