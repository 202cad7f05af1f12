"""Exact integer matrix products on packed and plain codes: out[m, n] = sum_k a[m, k] * w[n, k].

Both operands hold the reduction axis last, so rows are contiguous. The result is int32 and equals the
mathematical sum whenever the static bound of the operands fits 32 bits, which the graph guarantees;
for narrower accumulators see `hwsim.kernels.chunked_gemm`. Formulas: docs/arithmetic.md, section 2.

Every kernel is single threaded and releases the GIL. K = 0, M = 0 and N = 0 are legal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.kernels.popcount import popcount_u64

Codes = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""

# Rows of `a` that share one pass over the weights: 8 rows of 3072 bytes stay in a 32 KiB level-1 cache.
ROW_BLOCK = 8


@njit(cache=True, nogil=True, error_model="numpy")
def _transposed(w: Words) -> Words:
    """[N, W] -> [W, N]: the popcount loops run over n, where rows of few words vectorise badly."""
    n_rows, n_words = w.shape
    out = np.empty((n_words, n_rows), np.uint64)
    for n in range(n_rows):
        for i in range(n_words):
            out[i, n] = w[n, i]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _count_differences(row: Words, w: Words, counts: Int64s) -> None:
    """counts[n] = sum_i popcount(row[i] XOR w[i, n]); four words a pass to spare loads and stores."""
    n_words, n_rows = w.shape
    for n in range(n_rows):
        counts[n] = 0
    i = 0
    while i + 4 <= n_words:
        a0, a1, a2, a3 = row[i], row[i + 1], row[i + 2], row[i + 3]
        for n in range(n_rows):
            counts[n] += (popcount_u64(a0 ^ w[i, n]) + popcount_u64(a1 ^ w[i + 1, n])) + (
                popcount_u64(a2 ^ w[i + 2, n]) + popcount_u64(a3 ^ w[i + 3, n])
            )
        i += 4
    while i < n_words:
        a0 = row[i]
        for n in range(n_rows):
            counts[n] += popcount_u64(a0 ^ w[i, n])
        i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _count_matches(row: Words, w: Words, counts: Int64s) -> None:
    """counts[n] = sum_i popcount(row[i] AND w[i, n]); four words a pass, as above."""
    n_words, n_rows = w.shape
    for n in range(n_rows):
        counts[n] = 0
    i = 0
    while i + 4 <= n_words:
        a0, a1, a2, a3 = row[i], row[i + 1], row[i + 2], row[i + 3]
        for n in range(n_rows):
            counts[n] += (popcount_u64(a0 & w[i, n]) + popcount_u64(a1 & w[i + 1, n])) + (
                popcount_u64(a2 & w[i + 2, n]) + popcount_u64(a3 & w[i + 3, n])
            )
        i += 4
    while i < n_words:
        a0 = row[i]
        for n in range(n_rows):
            counts[n] += popcount_u64(a0 & w[i, n])
        i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def xnor_popcount_gemm_u64(a: Words, w: Words, k: Integer, out: Int32s) -> None:
    """BIPOLAR x BIPOLAR: out = K - 2*popcount(a XOR w).

    a u64 [M, W], w u64 [N, W], W = ceil(K/64); k is the true K: the pad bits are equal in both
    operands (0), so they count as no difference. out int32 [M, N].
    """
    columns = _transposed(w)
    counts = np.empty(w.shape[0], np.int64)
    for m in range(a.shape[0]):
        _count_differences(a[m], columns, counts)
        for n in range(w.shape[0]):
            out[m, n] = np.int32(k - 2 * counts[n])


@njit(cache=True, nogil=True, error_model="numpy")
def and_popcount_gemm_u64(a: Words, w: Words, out: Int32s) -> None:
    """UNIPOLAR x BIPOLAR: out = 2*popcount(a AND w) - popcount(a).

    a u64 [M, W] of UNIPOLAR codes, w u64 [N, W] of BIPOLAR codes; pad bits are 0. out int32 [M, N].
    """
    columns = _transposed(w)
    counts = np.empty(w.shape[0], np.int64)
    for m in range(a.shape[0]):
        ones = np.int64(0)
        for i in range(a.shape[1]):
            ones += popcount_u64(a[m, i])
        _count_matches(a[m], columns, counts)
        for n in range(w.shape[0]):
            out[m, n] = np.int32(2 * counts[n] - ones)


@njit(cache=True, nogil=True, error_model="numpy")
def bit_serial_gemm_u64(
    a_planes: Words, w_planes: Words, a_signed: bool, w_signed: bool, out: Int32s
) -> None:
    """Any integers as bit-planes: out = sum_ij +-2^(i+j) * popcount(a_i AND w_j).

    a_planes u64 [a_bits, M, W], w_planes u64 [w_bits, N, W], least significant plane first; the top
    plane of a signed operand counts negative (two's complement). out int32 [M, N].
    """
    a_bits, n_rows, _ = a_planes.shape
    w_bits, n_columns, n_words = w_planes.shape
    columns = np.empty((w_bits, n_words, n_columns), np.uint64)
    for j in range(w_bits):
        columns[j] = _transposed(w_planes[j])
    counts = np.empty(n_columns, np.int64)
    sums = np.empty(n_columns, np.int64)
    for m in range(n_rows):
        for n in range(n_columns):
            sums[n] = 0
        for j in range(w_bits):
            for i in range(a_bits):
                _count_matches(a_planes[i, m], columns[j], counts)
                weight = np.int64(1) << np.int64(i + j)
                if (a_signed and i == a_bits - 1) != (w_signed and j == w_bits - 1):
                    weight = -weight
                for n in range(n_columns):
                    sums[n] += weight * counts[n]
        for n in range(n_columns):
            out[m, n] = np.int32(sums[n])


@njit(cache=True, nogil=True, error_model="numpy")
def int_gemm_i32(a: Codes, w: Codes, out: Int32s) -> None:
    """Plain integers: a int8, uint8 or int32 [M, K], w int8 [N, K] (or uint8, int32), out int32 [M, N]."""
    n_rows, depth = a.shape
    for first in range(0, n_rows, ROW_BLOCK):
        last = min(first + ROW_BLOCK, n_rows)
        for n in range(w.shape[0]):
            for m in range(first, last):
                acc = np.int32(0)
                # The casts keep every step at 32 bits: numba would widen int32 * int32 to int64.
                for k in range(depth):
                    acc = np.int32(acc + np.int32(a[m, k]) * np.int32(w[n, k]))
                out[m, n] = acc


@njit(cache=True, nogil=True, error_model="numpy")
def ternary_gemm_i32(a: Codes, w_plus: Words, w_minus: Words, out: Int32s) -> None:
    """Any codes x TERNARY: out = (sum of a where w is +1) - (sum of a where w is -1).

    a int8, uint8 or int32 [M, K]; w_plus, w_minus u64 [N, ceil(K/64)]; out int32 [M, N]. A BIPOLAR
    weight is the case minus = NOT plus (pad bits 0). Planes are opened once a call, then multiplied.
    """
    weights = np.empty((w_plus.shape[0], a.shape[1]), np.int8)
    for n in range(w_plus.shape[0]):
        for i in range(w_plus.shape[1]):
            plus = w_plus[n, i]
            minus = w_minus[n, i]
            chunk = weights[n, i * 64 : i * 64 + 64]
            for bit in range(chunk.shape[0]):
                up = np.int64((plus >> np.uint64(bit)) & np.uint64(1))
                down = np.int64((minus >> np.uint64(bit)) & np.uint64(1))
                chunk[bit] = np.int8(up - down)
    int_gemm_i32(a, weights, out)
