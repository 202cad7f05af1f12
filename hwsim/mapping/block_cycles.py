"""The cycles of sub-blocks on the tiles of a product, compiled: which are worth trying, and what none of them beats.

Of all sub-blocks that cut every kind of tile in equally many beats the smallest occupies the ports least, so
no other of them is faster: only the smallest are tried, which are a few roots of the array's size.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hwsim.engine.timing import ENDLESS
from hwsim.mapping.block import Blocks
from hwsim.mapping.cuts import Cut, Floats, Ints


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
        port_rates(blocks),
        batch,
        np.ascontiguousarray(ends, dtype=np.int64),
        float(cutoff),
        found,
    )
    return found


def port_rates(blocks: Blocks) -> Ints:
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
def axis_of(low, high, size, times):  # type: ignore[no-untyped-def]
    """Return the blocks of a dimension that are worth trying, rising, and the beats of each: never rising."""
    blocks = np.empty(max(size[0], 1), np.int64)  # no block is larger than the tile
    blocks = blocks[: _smallest(low, high, size, blocks)]
    beats = np.empty_like(blocks)
    _beats(size, times, blocks, beats)
    return blocks, beats


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def ports_held(size, times, rates):  # type: ignore[no-untyped-def]
    """Return how long a port takes for all bits of A, and the other for those of W."""
    m_all, n_all = (size[0] * times[0]).sum(), (size[1] * times[1]).sum()
    k_all = (size[2] * times[2]).sum()
    # These may be large.
    return -(-m_all * k_all * rates[3] // rates[1]), -(-n_all * k_all * rates[4] // rates[2])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def array_cycles(size, times, r, c, l, rates, work):  # type: ignore[no-untyped-def]  # noqa: E741
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
    """Return the blocks of every tile size of a dimension, the beats of each, and how many there are: `axis_of` in tables."""
    blocks = np.zeros((sizes.shape[0], high), np.int64)
    beats = np.zeros((sizes.shape[0], high), np.int64)
    count = np.zeros(sizes.shape[0], np.int64)
    for i in range(sizes.shape[0]):
        some, of_each = axis_of(low, high, sizes[i], times[i])
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
        a_held, w_held = ports_held(size, times, rates)
        best = above
        # The fewest beats first: where they take too long all others do. A block as fast as the bound ends the search.
        for x in range(m_count[i] - 1, -1, -1):
            r, r_beats = m_blocks[i, x], m_beats[i, x]
            if best <= found[t] or batch * passes * w_held * r_beats + ends[t] >= best:
                break
            for y in range(n_count[j] - 1, -1, -1):
                c, beats = n_blocks[j, y], r_beats * n_beats[j, y]
                held_by_ports = max(a_held * n_beats[j, y], w_held * r_beats)
                if best <= found[t] or batch * passes * held_by_ports + ends[t] >= best:
                    break
                for z in range(k_count[deep] - 1, -1, -1):
                    held = max(interval * beats * k_beats[deep, z], held_by_ports)
                    if best <= found[t] or batch * passes * held + ends[t] >= best:
                        break
                    busy = array_cycles(size, times, r, c, k_blocks[deep, z], rates, work)
                    best = min(best, batch * busy + ends[t])
        found[t] = max(found[t], best)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def fill_least_work(size, full, rates, work):  # type: ignore[no-untyped-def]
    """Fill `work` [2, 2, 2] with what no block beats by kind of tile: the beats of the whole array, and the ports' bits."""
    interval, a_port, w_port, a_bits, w_bits, passes = rates
    for i in range(2):
        for j in range(2):
            for k in range(2):
                m, n, deep = size[0, i], size[1, j], size[2, k]
                rows, cols, lanes = _ceil(m, full[0]), _ceil(n, full[1]), _ceil(deep, full[2])
                a_held = _ceil(m * deep * a_bits, a_port) * cols
                w_held = _ceil(n * deep * w_bits, w_port) * rows
                work[i, j, k] = passes * max(interval * rows * cols * lanes, a_held, w_held)
