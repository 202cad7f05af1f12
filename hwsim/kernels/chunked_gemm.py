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

RULE_ERROR = 0
"""stop at the first update out of range"""
RULE_WRAP = 1
"""keep the low A bits, two's complement"""
RULE_CLAMP = 2
"""saturate at the ends of the range"""


@njit(cache=True, nogil=True, error_model="numpy")
def _fitted(value: int, low: int, high: int, rule: int) -> int:
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
    lanes: int,
    acc_bits: int,
    rule: int,
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
                part = np.int64(0)
                for k in range(start, min(start + lanes, depth)):
                    part += np.int64(a[m, k]) * np.int64(w[n, k])
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
    a_bits: int,
    w_bits: int,
    a_signed: bool,
    w_signed: bool,
    lanes: int,
    acc_bits: int,
    rule: int,
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
                stop = min(start + lanes, depth)
                for j in range(w_bits):
                    for i in range(a_bits):
                        count = np.int64(0)
                        for k in range(start, stop):
                            a_bit = np.int64(a[m, k]) >> np.int64(i)
                            w_bit = np.int64(w[n, k]) >> np.int64(j)
                            count += a_bit & w_bit & np.int64(1)
                        part = count << np.int64(i + j)
                        if (a_signed and i == a_bits - 1) != (w_signed and j == w_bits - 1):
                            part = -part
                        acc += part
                        if rule == RULE_ERROR and not low <= acc <= high:
                            fault[0], fault[1], fault[2], fault[3] = 1, m, n, acc
                            return
                        acc = _fitted(acc, low, high, rule)
            out[m, n] = acc
