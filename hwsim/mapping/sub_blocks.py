"""The fastest sub-block of every tiling, compiled: where a port is too narrow for a whole beat.

Of the sub-blocks that are worth trying (hwsim.mapping.block_cycles) one that the block of the least cycles beats in some
kind of tile and equals in all others cannot be the fastest either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from hwsim.engine.timing import ENDLESS, Stage, recurrence
from hwsim.mapping.block import Blocks
from hwsim.mapping.block_cycles import (
    array_cycles,
    axis_of,
    fill_least_work,
    port_rates,
    ports_held,
)
from hwsim.mapping.cuts import Ints
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
            port_rates(blocks),
            *stage.units(),
            *stage.ways(),
            np.ascontiguousarray(ends, dtype=np.int64),
            float(cutoff),
            room,
        )
        if kept <= len(room):
            return Fastest(int(cycles), room[:kept, 0], room[:kept, 1:])
        room, cutoff = np.empty((kept, 4), dtype=np.int64), float(cycles)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _first_in_time(interval, held_by_ports, beats, l_beats, limit):  # type: ignore[no-untyped-def]
    """Return the first of the blocks along K whose beats, and whose operands through their ports, take `limit` cycles at most."""
    if held_by_ports > limit:
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
    rs, r_beats = axis_of(least[0], full[0], size[0], times[0])
    cs, c_beats = axis_of(least[1], full[1], size[1], times[1])
    ls, l_beats = axis_of(least[2], full[2], size[2], times[2])
    # All bits of A pass their port once for each block of columns, those of W for each block of rows.
    a_held, w_held = ports_held(size, times, rates)
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
                taken = array_cycles(size, times, rs[x], cs[y], ls[z], rates, work[found])
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
    least_work = np.empty((2, 2, 2), np.int64)
    for t in range(order.shape[0]):
        for d in range(3):
            times[d, 1] = rest[t, d]
            times[d, 0] = tiles[t, d] - rest[t, d]
        # Shorter steps never make a schedule longer: where the least of each kind take too long, all blocks do.
        fill_least_work(sizes[t], full, rates, least_work)
        load, fresh, busy, after, store, opens, emits, _ = lay_out(
            flow, order[t], tiles[t], rest[t], least_work, a[t], w[t], out[t], post[t]
        )
        length = recurrence(
            load, fresh, busy, after, store, opens, emits, halves, owned, depth, channels,
            overhead, places[t, 0], places[t, 1], handoff, wires, ports, store_on_bus, direct,
            np.int64(min(cutoff, ENDLESS)), nothing,
        )  # fmt: skip
        if length > cutoff:
            continue
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
