"""Switching of an operand register while its array works through a compute step, bit by bit.

The register has a position for every row and lane, and a position as many bits as the widest operand needs. A
beat whose block differs from that of the beat before loads the positions that it uses; all others hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Patterns = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""

SUMS = ("loaded_bits", "loaded_ones", "toggles", "loaded_codes", "loaded_clear", "beats")
"""what the entries of `sums` count; codes count once a plane, `loaded_clear` are those whose bits are all 0"""


@njit(cache=True, nogil=True, error_model="numpy")
def operand_switching(
    patterns: Patterns,
    is_weight: bool,
    block: tuple[int, int],
    other_blocks: Integer,
    pass_bits: Integer,
    planes: tuple[int, int],
    occupied: npt.NDArray[np.bool_],
    interval: Integer,
    now: Integer,
    held: Patterns,
    since: Int64s,
    high: Int64s,
    toggles: Int64s,
    sums: Int64s,
) -> Integer:
    """Run one operand through the beats of a compute step, and return the cycle at which it ends.

    Beats run over blocks of m, n, k, then weight planes, then activation planes, the last innermost.

    Args:
        patterns: bits of the operand's codes in the step, [M or N, K].
        is_weight: which operand it is.
        block: rows of the register and lanes that a full block uses.
        other_blocks: blocks that the other operand's rows are cut in.
        pass_bits: bits of a code that enter in one pass.
        planes: activation planes, weight planes.
        occupied: [n blocks, k blocks]; a block that is False takes no beat.
        interval: cycles of a beat.
        now: cycle at which the step starts.
        held: what the register holds, [rows, lanes]; changed.
        since: cycle from which each position has held it, [rows, lanes]; changed.
        high: cycles for which each bit was 1, [rows, lanes, bits]; added to, where a position is loaded.
        toggles: flips of each bit, [rows, lanes, bits]; added to.
        sums: [6], see `SUMS`; added to.
    """
    rows, depth = patterns.shape
    own_blocks = (rows + block[0] - 1) // block[0]
    k_blocks = (depth + block[1] - 1) // block[1]
    m_blocks, n_blocks = (other_blocks, own_blocks) if is_weight else (own_blocks, other_blocks)
    mask = (np.uint32(1) << np.uint32(pass_bits)) - np.uint32(1)
    held_row = held_k = held_plane = -1
    for i in range(m_blocks):
        for j in range(n_blocks):
            own = j if is_weight else i
            row0 = own * block[0]
            row_count = min(block[0], rows - row0)
            for x in range(k_blocks):
                if not occupied[j, x]:
                    continue
                k0 = x * block[1]
                lane_count = min(block[1], depth - k0)
                for turn in range(planes[0] * planes[1]):
                    plane = turn // planes[0] if is_weight else turn % planes[0]
                    sums[5] += 1
                    if own != held_row or x != held_k or plane != held_plane:
                        held_row, held_k, held_plane = own, x, plane
                        shift = np.uint32(plane * pass_bits)
                        for r in range(row_count):
                            for l in range(lane_count):  # noqa: E741
                                whole = patterns[row0 + r, k0 + l]
                                new = (whole >> shift) & mask
                                old = held[r, l]
                                span = now - since[r, l]
                                for b in range(pass_bits):
                                    was = (old >> np.uint32(b)) & np.uint32(1)
                                    bit = (new >> np.uint32(b)) & np.uint32(1)
                                    toggles[r, l, b] += was != bit
                                    sums[1] += bit
                                    sums[2] += was != bit
                                for b in range(high.shape[2]):
                                    if (old >> np.uint32(b)) & np.uint32(1):
                                        high[r, l, b] += span
                                held[r, l] = (old & ~mask) | new
                                since[r, l] = now
                                sums[0] += pass_bits
                                sums[3] += 1
                                sums[4] += whole == 0
                    now += interval
    return now
