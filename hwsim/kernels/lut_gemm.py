"""Matrix product by table: the sums that a group of activations can make are built once, then looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Codes = npt.NDArray[Any]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""


@njit(cache=True, nogil=True, error_model="numpy")
def lut_gemm_i32(
    a: Codes,
    index: Codes,
    digits: Int64s,
    group: Integer,
    plane_weights: Int64s,
    out: Int32s,
) -> None:
    """out[m, n] = sum over planes p and groups g of plane_weights[p] * table[m, g][index[p, n, g]].

    table[m, g][e] = sum_i digits[e_i] * a[m, g * group + i], where e_i is digit i of e to the base
    len(digits), the first one lowest; activations behind the last one are 0.

    a int [M, K]; index uint16 [planes, N, ceil(K / group)]; digits int64 [base]; plane_weights int64
    [planes]; out int32 [M, N].
    """
    n_rows, depth = a.shape
    planes, n_columns, groups = index.shape
    base = digits.shape[0]
    table = np.zeros((groups, base**group), np.int64)
    for m in range(n_rows):
        for g in range(groups):
            size = 1
            table[g, 0] = 0
            for i in range(group):
                k = g * group + i
                x = np.int64(a[m, k]) if k < depth else np.int64(0)
                # Downwards: digit 0 writes over the entries that the others start from.
                for d in range(base - 1, -1, -1):
                    for e in range(size):
                        table[g, d * size + e] = table[g, e] + digits[d] * x
                size *= base
        for n in range(n_columns):
            total = np.int64(0)
            for p in range(planes):
                part = np.int64(0)
                for g in range(groups):
                    part += table[g, index[p, n, g]]
                total += plane_weights[p] * part
            out[m, n] = np.int32(total)


def table_indices(digit: Codes, base: int, group: int) -> npt.NDArray[np.uint16]:
    """Return which entry each group of weights looks up: uint16 [N, ceil(K / group)].

    Args:
        digit: digits 0 .. base - 1 of the weights, int [N, K].
        base: how many digits there are; base ** group must be at most 65536.
        group: weights an index; the last group is filled up with digit 0.
    """
    n, k = digit.shape
    groups = -(-k // group)
    full = np.zeros((n, groups * group), np.int64)
    full[:, :k] = digit
    powers = base ** np.arange(group, dtype=np.int64)
    return (full.reshape(n, groups, group) * powers).sum(axis=2).astype(np.uint16)
