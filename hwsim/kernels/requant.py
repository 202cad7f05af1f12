"""Output stages: requantisation by integer multiplier and shift, and multi-level thresholds.

Formulas: docs/arithmetic.md, sections 3 and 4. Rows are [R, C]; a parameter of length 1 holds for
every channel, a parameter of length C holds one value a channel. Everything is int64 inside: the
graph's static bounds say that no intermediate leaves it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Rows = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""


@njit(cache=True, nogil=True, error_model="numpy")
def half_i64(s: Integer) -> Integer:
    """2^(s-1), and 0 for s = 0; unsigned inside, so that it holds for a damaged s of 63, too."""
    return np.int64((np.uint64(1) << np.uint64(s)) >> np.uint64(1))


@njit(cache=True, nogil=True, error_model="numpy")
def _per_channel(values: Int64s, channels: Integer) -> Int64s:
    """Spread a parameter of length 1 over the channels, so that inner loops read contiguously."""
    spread = np.empty(channels, np.int64)
    for c in range(channels):
        spread[c] = values[c if values.shape[0] > 1 else 0]
    return spread


@njit(cache=True, nogil=True, error_model="numpy")
def requant_rows_i64(
    x: Rows, m: Int64s, s: Int64s, b: Int64s, zp: Integer, qmin: Integer, qmax: Integer, out: Rows
) -> None:
    """out = clamp(((x*M + B + 2^(S-1)) >> S) + zp, qmin, qmax).

    x int32 or int64 [R, C]; m, s, b int64 [1] or [C], 1 <= S <= 62 (S = 0 rounds nothing); out [R, C]
    of any integer type that holds qmin..qmax. `>>` is floor division, also of negative numbers.
    """
    rows, channels = x.shape
    multiplier = _per_channel(m, channels)
    shift = _per_channel(s, channels)
    offset = _per_channel(b, channels)
    for c in range(channels):
        # 2^(S-1), and 0 where S = 0: the rounding constant joins the bias once, not per element.
        offset[c] += half_i64(shift[c])
    low = np.int64(qmin)
    high = np.int64(qmax)
    zero = np.int64(zp)
    for r in range(rows):
        for c in range(channels):
            code = ((np.int64(x[r, c]) * multiplier[c] + offset[c]) >> shift[c]) + zero
            out[r, c] = min(max(code, low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_rows_i64(
    x: Rows, thresholds: Int64s, direction: Rows, qmin: Integer, step: Integer, out: Rows
) -> None:
    """out = qmin + step * #{i : T_i <= x}; where direction is negative, #{i : x <= T_i}.

    x int32 or int64 [R, C]; thresholds int64 [1, n] or [C, n]; direction int8 or int64 [1] or [C],
    each +1 or -1; out [R, C] of any integer type that holds the codes.
    """
    rows, channels = x.shape
    levels = thresholds.shape[1]
    # The complement ~v = -1 - v reverses the order of all int64 values and never overflows, so
    # x <= T becomes ~T <= ~x and one comparison serves both directions.
    flip = np.empty(channels, np.int64)
    bounds = np.empty((levels, channels), np.int64)
    for c in range(channels):
        flip[c] = -1 if direction[c if direction.shape[0] > 1 else 0] < 0 else 0
        row = c if thresholds.shape[0] > 1 else 0
        for i in range(levels):
            bounds[i, c] = thresholds[row, i] ^ flip[c]
    reached = np.empty(channels, np.int64)
    base = np.int64(qmin)
    stride = np.int64(step)
    for r in range(rows):
        for c in range(channels):
            reached[c] = 0
        for i in range(levels):
            for c in range(channels):
                reached[c] += np.int64(bounds[i, c] <= (np.int64(x[r, c]) ^ flip[c]))
        for c in range(channels):
            out[r, c] = base + stride * reached[c]
