"""The compiled loops over all tilings of a product: bounds and buffers, from the columns of `Tables`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def busiest(links, ports, wires, a, w, out):  # type: ignore[no-untyped-def]
    """Return how long the busiest link works at least, each port taking one transfer at a time.

    `links` are the cycles of the constants of each, to which come those of A, W and the output.
    """
    most = 0.0
    for link in range(links.shape[0]):
        held = float(links[link])
        if wires[0] == link:
            held += a
        if wires[1] == link:
            held += w
        if wires[2] == link:
            held += out
        most = max(most, held / ports[link])
    return most


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def narrowed(index, bound, cutoff):  # type: ignore[no-untyped-def]
    """Keep those below the median of the bounds, or those of the least where that is the median.

    Returns how many are kept, which bound is now the largest of interest, and what all others reach.
    """
    middle = np.median(bound)
    if middle > bound.min():
        left_out, cutoff = middle, np.nextafter(middle, -np.inf)
    elif middle < cutoff:  # more than half of them have the least bound: below it may be nothing
        left_out, cutoff = np.nextafter(middle, np.inf), middle
    else:
        return bound.shape[0], cutoff, cutoff
    kept = 0
    for x in range(bound.shape[0]):
        if bound[x] <= cutoff:
            bound[kept] = bound[x]
            index[kept] = index[x]
            kept += 1
    return kept, cutoff, left_out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def scan_bounds(  # type: ignore[no-untyped-def]  # noqa: PLR0915  one loop: splitting it hides the sums
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
    split_bytes,
    result_bytes,
    m_tiles,
    n_tiles,
    k_tiles,
    m_beats,
    n_beats,
    k_beats,
    m_end,
    n_end,
    k_end,
    m_last,
    n_last,
    k_last,
    unit,
    own,
    own_end,
    constants,
    a_codes,
    w_once,
    m_blocks,
    k_blocks,
    nk,
    wires,
    ports,
    constant_cycles,
    w_weight,
    pj_weight,
    cutoff,
    step_limit,
    only_least,
    index,
    bound,
):
    """Fill `index` and `bound` with the tilings of a bound of at most `cutoff`, or with the least bound alone.

    Where there is no room for one more, `narrowed` leaves out those above the median of the ones found so far, and the scan goes on.

    Returns how many there are, and the least bound of those left out or beyond `step_limit`.
    """
    batch, fill, a_streams, w_streams, out_streams, constant = shape[:6]
    channels, overhead = shape[6], shape[7]
    a_halves, w_halves, out_halves = shape[8], shape[9], shape[10]
    a_memory, w_memory, out_memory = shape[11], shape[12], shape[13]
    constants_held = constant_cycles.sum()
    # One channel takes one transfer after the other, whatever their links.
    in_turn = channels == 1
    fixed, step_pj, row_pj, constant_pj, update_pj = constants[:5]
    sums_pj, a_code_pj, w_code_pj, time_pj, idle_pj, units = constants[5:]
    # An array that is used whole has a table of its own; for any other it is one zero.
    s = 1 if own.size > 1 else 0
    w_batch = 1 if fill else batch
    lost = left_out = np.inf
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
    beat, a_port, w_port, share, all_shares = unit
    least_k, least_beats = k_beats.min() * beat, k_blocks.min()
    for i in range(n_m):
        mt = m_tiles[i]
        for j in range(n_n):
            nt = n_tiles[j]
            out_tiles = batch * mt * nt
            out_places = min(out_halves, out_tiles)
            if out_places * (wait_bytes[i, j] + result_bytes[i, j]) > free[out_memory]:
                continue
            # What every cut of K and every order costs at least; where that is too much, go on.
            least_out = batch * out_cycles[i, j]
            moved = busiest(
                constant_cycles, ports, wires, batch * least_a[i], w_batch * least_w[j], least_out
            )
            ported = max(a_port * n_beats[j], w_port * m_beats[i], all_shares)
            work = batch * max(m_beats[i] * n_beats[j] * least_k, ported)
            cycles = max(work + tail[i, j], moved)
            value = w_weight * cycles
            if pj_weight > 0:
                pj = fixed + out_tiles / batch * constant_pj + nt * row_pj
                pj += batch * (least_a_pj[i] + out_pj[i, j]) + w_batch * least_w_pj[j]
                pj += update_pj * least_beats + time_pj * cycles
                pj += a_code_pj * least_codes[j]
                value += pj_weight * pj
            if value > cutoff:
                continue
            for k in range(n_k):
                kt = k_tiles[k]
                tiles = out_tiles * kt
                wait = split_bytes[i, j] if kt > 1 else wait_bytes[i, j]
                used[:] = 0
                used[out_memory] += out_places * (wait + result_bytes[i, j])
                used[a_memory] += min(a_halves, batch * mt * kt) * a_bytes[i, k]
                used[w_memory] += min(w_halves, batch * nt * kt) * w_bytes[j, k]
                if used[0] > free[0] or used[1] > free[1] or used[2] > free[2]:
                    continue
                work = batch * max(m_beats[i] * n_beats[j] * k_beats[k] * beat, ported)
                work += batch * own[i * s, j * s, k * s]
                if in_turn:
                    head = first_overhead + a_first[i, k] + w_first[j, k] + constants_held
                else:
                    head = first_overhead + busiest(
                        constant_cycles, ports, wires, a_first[i, k], w_first[j, k], 0
                    )
                end = m_last[i] * n_last[j] * k_last[k] * share
                end = max(end, m_end[i] * n_end[j] * k_end[k] * beat) + tail[i, j]
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
                        more = min(out_halves * band, out_tiles) - out_places
                        taken += more * wait
                        if used[out_memory] + more * wait > free[out_memory]:
                            continue
                    a_again = 1 if order == 0 else nt
                    w_again = 1 if fill or order == 1 or (nt == 1 and kt == 1) else mt
                    a_held = batch * a_again * a_cycles[i, k]
                    w_held = w_batch * w_again * w_cycles[j, k]
                    total = constants_held + a_held + w_held + least_out
                    loads = batch * a_again * mt * a_streams * kt
                    loads += w_batch * w_again * nt * w_streams * kt
                    set_up = (loads + constant + out_tiles * out_streams) * overhead
                    in_channels = (total + set_up) / channels
                    if w_weight * (in_channels - 1e-6) > cutoff:
                        continue
                    load = busiest(constant_cycles, ports, wires, a_held, w_held, 0)
                    moved = busiest(constant_cycles, ports, wires, a_held, w_held, least_out)
                    cycles = max(busy, some_overhead + load + end, moved, in_channels)
                    cycles = np.ceil(cycles - 1e-6)
                    value = w_weight * cycles
                    if pj_weight > 0 and value <= cutoff:
                        pj = fixed + tiles * step_pj + nt * row_pj + mt * nt * constant_pj
                        pj += batch * (a_again * a_pj[i, k] + out_pj[i, j])
                        pj += w_batch * w_again * w_pj[j, k]
                        pj += k_blocks[k] * update_pj + (kt - 1) * sums_pj
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
                    while found == bound.shape[0] and value <= cutoff:
                        before = cutoff
                        found, cutoff, left_out = narrowed(index, bound, cutoff)
                        if cutoff == before:  # all are worth the same
                            return found, left_out
                        if lost > cutoff:
                            lost = np.inf
                    if value > cutoff:
                        continue
                    bound[found] = value
                    index[found, 0] = i
                    index[found, 1] = j
                    index[found, 2] = k
                    index[found, 3] = order
                    index[found, 4] = taken
                    found += 1
    return found, min(lost, left_out)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def least_lacking(  # type: ignore[no-untyped-def]
    free,
    shape,
    a_bytes,
    w_bytes,
    wait_bytes,
    split_bytes,
    result_bytes,
    m_tiles,
    n_tiles,
    k_tiles,
    index,
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
                used[shape[11]] += min(shape[8], batch * m_tiles[i] * k_tiles[k]) * a_bytes[i, k]
                used[shape[12]] += min(shape[9], batch * n_tiles[j] * k_tiles[k]) * w_bytes[j, k]
                wait = split_bytes[i, j] if k_tiles[k] > 1 else wait_bytes[i, j]
                used[shape[13]] += min(shape[10], out_tiles) * (wait + result_bytes[i, j])
                lacking = np.int64(0)
                for x in range(3):
                    lacking += max(0, used[x] - free[x])
                if lacking < least:
                    least = lacking
                    index[0], index[1], index[2] = i, j, k
                    index[3] = 2 if k_tiles[k] > 1 else 0
    return least
