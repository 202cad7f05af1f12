"""The fastest sub-block of every tiling, compiled: where a port is too narrow for a whole beat.

Of all sub-blocks that cut every kind of tile in equally many beats the smallest occupies the ports least, so
no other of them is faster: only the smallest are tried, which are a few roots of the array's size. Of those one that
the block of the least cycles beats in some kind of tile and equals in all others cannot be faster either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from hwsim.engine.timing import ENDLESS, Stage, recurrence
from hwsim.mapping.block import Blocks
from hwsim.mapping.cuts import Cut, Floats, Ints
from hwsim.mapping.layout import Flow, Layout, lay_out

TIES = 1 << 12
"""Equally fast candidates for which there is room at first."""


@dataclass(frozen=True, slots=True)
class Fastest:
    """The candidates of least length.

    Attributes:
        cycles: the least length.
        rows: [c] which tilings, rising.
        blocks: [c, 3] rows, columns and lanes of a beat.
    """

    cycles: int
    rows: Ints
    blocks: Ints


def fastest(
    layout: Layout,
    sizes: Ints,
    blocks: Blocks,
    flow: Flow,
    stage: Stage,
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
        ends: [c] cycles before its first beat and after its last one, at least.
        cutoff: nothing longer is of interest.
    """
    tables = layout.tables()
    room = np.empty((TIES, 4), dtype=np.int64)
    while True:
        kept, cycles = _fastest(  # type: ignore[call-arg]
            flow.numbers(),
            *tables[:3],
            *tables[4:],
            np.ascontiguousarray(layout.places),
            np.ascontiguousarray(sizes, dtype=np.int64),
            np.array(blocks.least, dtype=np.int64),
            np.array(blocks.full, dtype=np.int64),
            _rates(blocks),
            *stage.units(),
            *stage.ways(),
            np.ascontiguousarray(ends, dtype=np.int64),
            float(cutoff),
            room,
        )
        if kept <= len(room):
            return Fastest(int(cycles), room[:kept, 0], room[:kept, 1:])
        room, cutoff = np.empty((kept, 4), dtype=np.int64), float(cycles)


def least_ends(
    cuts: tuple[Cut, Cut, Cut],
    index: Ints,
    bound: Floats,
    blocks: Blocks,
    batch: int,
    ends: Ints,
    cutoff: float,
) -> Floats:
    """Return what tilings take at least, with the sub-block of the fewest array cycles: [c] cycles.

    It is exact in the array's work and knows of no schedule. Where it is above `cutoff`, it is only known to be.

    Args:
        cuts: the tile sizes of M, N and K.
        index: [c, 4] tilings, of which the first three numbers are those of their sizes.
        bound: [c] what they are known to take at least: never less is returned.
        blocks, ends, cutoff: as in `fastest`.
        batch: how many products.
    """
    found = np.array(bound, dtype=np.float64)
    axes = []
    for cut, low, high in zip(cuts, blocks.least, blocks.full, strict=True):
        size = np.stack([cut.size, cut.rest], axis=1)
        times = np.stack([cut.full, (cut.rest > 0).astype(np.int64)], axis=1)
        axes.append((size, times, *_axes(low, high, size, times)))  # type: ignore[call-arg]
    _least_ends(  # type: ignore[call-arg]
        *axes,
        np.ascontiguousarray(index),
        _rates(blocks),
        batch,
        np.ascontiguousarray(ends, dtype=np.int64),
        float(cutoff),
        found,
    )
    return found


def _rates(blocks: Blocks) -> Ints:
    """Return what the compiled loops read of the array and its formats."""
    spec, array = blocks.array.spec, blocks.array
    a_bits, w_bits = array.operand_bits(blocks.a, blocks.w)
    rates = (
        spec.initiation_interval_cycles,
        spec.activation_port_bits_per_cycle,
        spec.weight_port_bits_per_cycle,
        a_bits,
        w_bits,
        array.passes(blocks.a, blocks.w),
    )
    return np.array(rates, dtype=np.int64)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _ceil(a, b):  # type: ignore[no-untyped-def]
    """Divide whole numbers, rounding up: exact where both are below 2**52, and in a fraction of the time of whole division."""
    return np.int64(np.ceil(a / b))


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
def _axis(low, high, size, times):  # type: ignore[no-untyped-def]
    """Return the blocks of a dimension that are worth trying, rising, and the beats of each: never rising."""
    blocks = np.empty(max(size[0], 1), np.int64)  # no block is larger than the tile
    blocks = blocks[: _smallest(low, high, size, blocks)]
    beats = np.empty_like(blocks)
    _beats(size, times, blocks, beats)
    return blocks, beats


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _held(size, times, rates):  # type: ignore[no-untyped-def]
    """Return how long a port takes for all bits of A, and the other for those of W."""
    m_all, n_all = (size[0] * times[0]).sum(), (size[1] * times[1]).sum()
    k_all = (size[2] * times[2]).sum()
    # These may be large.
    return -(-m_all * k_all * rates[3] // rates[1]), -(-n_all * k_all * rates[4] // rates[2])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _first_in_time(interval, ports_held, beats, l_beats, limit):  # type: ignore[no-untyped-def]
    """Return the first of the blocks along K whose beats, and whose operands through their ports, take `limit` cycles at most."""
    if ports_held > limit:
        return l_beats.size
    low, high = 0, l_beats.size
    while low < high:
        middle = (low + high) // 2
        if interval * beats * l_beats[middle] > limit:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _array_cycles(size, times, r, c, l, rates, work):  # type: ignore[no-untyped-def]  # noqa: E741
    """Fill `work` [2, 2, 2] with the cycles of a block by kind of tile; return those of all tiles of one product."""
    interval, a_port, w_port, a_bits, w_bits, passes = rates
    busy = np.int64(0)
    for i in range(2):
        for j in range(2):
            for k in range(2):
                m, n, deep = size[0, i], size[1, j], size[2, k]
                if m == 0 or n == 0 or deep == 0:
                    work[i, j, k] = 0
                    continue
                lanes = min(l, deep)
                held = max(
                    interval,
                    _ceil(min(r, m) * lanes * a_bits, a_port),
                    _ceil(min(c, n) * lanes * w_bits, w_port),
                )
                beats = _ceil(m, r) * _ceil(n, c) * _ceil(deep, l)
                work[i, j, k] = beats * passes * held
                busy += work[i, j, k] * times[0, i] * times[1, j] * times[2, k]
    return busy


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _axes(low, high, sizes, times):  # type: ignore[no-untyped-def]
    """Return the blocks of every tile size of a dimension, the beats of each, and how many there are: `_axis` in tables."""
    blocks = np.zeros((sizes.shape[0], high), np.int64)
    beats = np.zeros((sizes.shape[0], high), np.int64)
    count = np.zeros(sizes.shape[0], np.int64)
    for i in range(sizes.shape[0]):
        some, of_each = _axis(low, high, sizes[i], times[i])
        count[i] = some.size
        blocks[i, : some.size] = some
        beats[i, : some.size] = of_each
    return blocks, beats, count


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _least_ends(m, n, k, index, rates, batch, ends, cutoff, found):  # type: ignore[no-untyped-def]
    """Raise the bounds in `found` as `least_ends` says; m, n and k are the sizes, numbers of tiles and `_axes` of each dimension."""
    m_size, m_times, m_blocks, m_beats, m_count = m
    n_size, n_times, n_blocks, n_beats, n_count = n
    k_size, k_times, k_blocks, k_beats, k_count = k
    work = np.empty((2, 2, 2), np.int64)
    size = np.empty((3, 2), np.int64)
    times = np.empty((3, 2), np.int64)
    interval, passes = rates[0], rates[5]
    above = np.int64(min(cutoff, ENDLESS)) + 1
    for t in range(index.shape[0]):
        i, j, deep = index[t, 0], index[t, 1], index[t, 2]
        size[0], size[1], size[2] = m_size[i], n_size[j], k_size[deep]
        times[0], times[1], times[2] = m_times[i], n_times[j], k_times[deep]
        a_held, w_held = _held(size, times, rates)
        best = above
        # The fewest beats first: where they take too long all others do. A block as fast as the bound ends the search.
        for x in range(m_count[i] - 1, -1, -1):
            r, r_beats = m_blocks[i, x], m_beats[i, x]
            if best <= found[t] or batch * passes * w_held * r_beats + ends[t] >= best:
                break
            for y in range(n_count[j] - 1, -1, -1):
                c, beats = n_blocks[j, y], r_beats * n_beats[j, y]
                ports_held = max(a_held * n_beats[j, y], w_held * r_beats)
                if best <= found[t] or batch * passes * ports_held + ends[t] >= best:
                    break
                for z in range(k_count[deep] - 1, -1, -1):
                    held = max(interval * beats * k_beats[deep, z], ports_held)
                    if best <= found[t] or batch * passes * held + ends[t] >= best:
                        break
                    busy = _array_cycles(size, times, r, c, k_blocks[deep, z], rates, work)
                    best = min(best, batch * busy + ends[t])
        found[t] = max(found[t], best)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _beaten(work, by):  # type: ignore[no-untyped-def]
    """Tell whether one block takes at least as long as another in every kind of tile, and longer in some."""
    longer = False
    for i in range(2):
        for j in range(2):
            for k in range(2):
                if work[i, j, k] < by[i, j, k]:
                    return False
                longer = longer or work[i, j, k] > by[i, j, k]
    return longer


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _equal(work, other):  # type: ignore[no-untyped-def]
    """Tell whether two blocks take equally long in every kind of tile."""
    for i in range(2):
        for j in range(2):
            for k in range(2):
                if work[i, j, k] != other[i, j, k]:
                    return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _works(size, times, least, full, rates, batch, end, cutoff):  # type: ignore[no-untyped-def]
    """Return the blocks [b, 3] of a tiling that may end in time, their cycles [b, 2, 2, 2] by kind of tile, and those of all [b].

    Left out are those that the block of the least cycles beats in some kind of tile and equals in all others.
    """
    rs, r_beats = _axis(least[0], full[0], size[0], times[0])
    cs, c_beats = _axis(least[1], full[1], size[1], times[1])
    ls, l_beats = _axis(least[2], full[2], size[2], times[2])
    # All bits of A pass their port once for each block of columns, those of W for each block of rows.
    a_held, w_held = _held(size, times, rates)
    limit = (np.int64(min(cutoff, ENDLESS)) - end) // (batch * rates[5])
    starts = np.empty((rs.size, cs.size), np.int64)
    room = 0
    for x in range(rs.size):
        for y in range(cs.size):
            held = max(a_held * c_beats[y], w_held * r_beats[x])
            starts[x, y] = _first_in_time(rates[0], held, r_beats[x] * c_beats[y], l_beats, limit)
            room += ls.size - starts[x, y]
    blocks = np.empty((room, 3), np.int64)
    work = np.empty((max(room, 1), 2, 2, 2), np.int64)
    busy = np.empty(room, np.int64)
    found, best, best_busy = 0, 0, np.int64(1) << 62
    for x in range(rs.size):
        for y in range(cs.size):
            for z in range(starts[x, y], ls.size):
                taken = _array_cycles(size, times, rs[x], cs[y], ls[z], rates, work[found])
                if batch * taken + end > cutoff:
                    continue
                if taken < best_busy:
                    best, best_busy = found, taken
                busy[found] = taken
                blocks[found, 0], blocks[found, 1], blocks[found, 2] = rs[x], cs[y], ls[z]
                found += 1
    kept = 0
    least_work = work[best].copy()
    for x in range(found):
        if not _beaten(work[x], least_work):
            blocks[kept] = blocks[x]
            work[kept] = work[x]
            busy[kept] = busy[x]
            kept += 1
    return blocks[:kept], work[:kept], busy[:kept]


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
    ends,
    cutoff,
    room,
):
    """Fill `room` with (tiling, r, c, l) of the fastest as far as it goes; return how many there are, and their cycles."""
    kept = 0
    best = np.int64(1) << 62
    nothing = np.empty((6, 0, 4), np.int64)  # no times are recorded
    times = np.empty((3, 2), np.int64)
    for t in range(order.shape[0]):
        for d in range(3):
            times[d, 1] = rest[t, d]
            times[d, 0] = tiles[t, d] - rest[t, d]
        blocks, work, cycles = _works(sizes[t], times, least, full, rates, flow[0], ends[t], cutoff)
        lengths = np.full(blocks.shape[0], -1, np.int64)
        # The fewest array cycles first: what they come to excludes others.
        by_cycles = np.argsort(cycles, kind="mergesort")
        for at in range(by_cycles.shape[0]):
            x = by_cycles[at]
            if flow[0] * cycles[x] + ends[t] > cutoff:
                break
            for before in range(at - 1, -1, -1):  # equal work takes equally long
                y = by_cycles[before]
                if cycles[y] != cycles[x]:
                    break
                if _equal(work[y], work[x]):
                    lengths[x] = lengths[y]
                    break
            if lengths[x] < 0:
                load, fresh, busy, after, store, opens, emits, _ = lay_out(
                    flow, order[t], tiles[t], rest[t], work[x], a[t], w[t], out[t], post[t]
                )
                lengths[x] = recurrence(
                    load, fresh, busy, after, store, opens, emits, halves, owned, depth,
                    channels, overhead, places[t, 0], places[t, 1], handoff, wires, ports,
                    store_on_bus, direct, np.int64(min(cutoff, ENDLESS)), nothing,
                )  # fmt: skip
            if lengths[x] <= cutoff and lengths[x] < best:
                best, kept = lengths[x], 0
                cutoff = float(best)
        for x in range(lengths.shape[0]):
            if lengths[x] != best:
                continue
            if kept < room.shape[0]:
                room[kept, 0] = t
                room[kept, 1], room[kept, 2], room[kept, 3] = blocks[x]
            kept += 1
    return kept, best
