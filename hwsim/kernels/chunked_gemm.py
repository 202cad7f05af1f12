"""Matrix products with the numeric profile of a machine, for accumulators that may leave their range.

The slow twins of `hwsim.kernels.gemm`: K is cut in chunks of the array's `lanes`, ascending; the sum of
one chunk is exact, then the accumulator of A bits takes it in one update (docs/arithmetic.md, section
2). Where the static bound fits A bits these give the same numbers as the fast kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Codes = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""

RULE_ERROR = 0
"""stop at the first update out of range"""
RULE_WRAP = 1
"""keep the low A bits, two's complement"""
RULE_CLAMP = 2
"""saturate at the ends of the range"""


@njit(cache=True, nogil=True, error_model="numpy")
def _fitted(value: Integer, low: Integer, high: Integer, rule: Integer) -> Integer:
    """Apply the overflow rule to one update; high - low + 1 is a power of two."""
    if low <= value <= high:
        return value
    if rule == RULE_WRAP:
        return ((value - low) & (high - low)) + low
    return high if value > high else low


@njit(cache=True, nogil=True, error_model="numpy")
def chunked_gemm_i64(
    a: Codes,
    w: Codes,
    lanes: Integer,
    acc_bits: Integer,
    rule: Integer,
    out: Int64s,
    fault: Int64s,
) -> None:
    """out[m, n] = the accumulator after all chunks of `lanes` products each.

    a int [M, K], w int [N, K]; 1 <= acc_bits <= 62; rule is RULE_ERROR, RULE_WRAP or RULE_CLAMP; out
    int64 [M, N]. fault int64 [4] becomes (0, 0, 0, 0), or with RULE_ERROR (1, m, n, value): the first
    element in row-major order that leaves the range, and the value its register would have to hold;
    the run stops there and the rest of `out` is not written.
    """
    n_rows, depth = a.shape
    high = (np.int64(1) << np.int64(acc_bits - 1)) - np.int64(1)
    low = -high - np.int64(1)
    fault[:] = 0
    for m in range(n_rows):
        for n in range(w.shape[0]):
            acc = np.int64(0)
            for start in range(0, depth, lanes):
                # Slices, so that the inner loop counts from 0 and vectorises.
                a_chunk = a[m, start : start + lanes]
                w_chunk = w[n, start : start + lanes]
                part = np.int64(0)
                for k in range(a_chunk.shape[0]):
                    part += np.int64(a_chunk[k]) * np.int64(w_chunk[k])
                acc += part
                if rule == RULE_ERROR and not low <= acc <= high:
                    fault[0], fault[1], fault[2], fault[3] = 1, m, n, acc
                    return
                acc = _fitted(acc, low, high, rule)
            out[m, n] = acc


@njit(cache=True, nogil=True, error_model="numpy")
def chunked_bit_serial_gemm_i64(
    a: Codes,
    w: Codes,
    a_bits: Integer,
    w_bits: Integer,
    a_signed: bool,
    w_signed: bool,
    lanes: Integer,
    acc_bits: Integer,
    rule: Integer,
    out: Int64s,
    fault: Int64s,
) -> None:
    """The same for an array that works plane by plane: chunks outer, weight planes, activation planes.

    Each (chunk, weight plane j, activation plane i) adds +-2^(i+j) * popcount in one update. a int
    [M, K], w int [N, K] are codes, not planes: code bit i is plane i, and the top plane of a signed
    operand counts negative. Other arguments, `out` and `fault` as in `chunked_gemm_i64`.
    """
    n_rows, depth = a.shape
    high = (np.int64(1) << np.int64(acc_bits - 1)) - np.int64(1)
    low = -high - np.int64(1)
    fault[:] = 0
    for m in range(n_rows):
        for n in range(w.shape[0]):
            acc = np.int64(0)
            for start in range(0, depth, lanes):
                a_chunk = a[m, start : start + lanes]
                w_chunk = w[n, start : start + lanes]
                for j in range(w_bits):
                    for i in range(a_bits):
                        # At most `lanes` ones: 32 bits hold the count, and vectorise twice as wide.
                        count = np.int32(0)
                        for k in range(a_chunk.shape[0]):
                            a_bit = np.int32(np.int32(a_chunk[k]) >> np.int32(i))
                            w_bit = np.int32(np.int32(w_chunk[k]) >> np.int32(j))
                            count = np.int32(count + (a_bit & w_bit & np.int32(1)))
                        part = np.int64(count) << np.int64(i + j)
                        if (a_signed and i == a_bits - 1) != (w_signed and j == w_bits - 1):
                            part = -part
                        acc += part
                        if rule == RULE_ERROR and not low <= acc <= high:
                            fault[0], fault[1], fault[2], fault[3] = 1, m, n, acc
                            return
                        acc = _fitted(acc, low, high, rule)
            out[m, n] = acc
