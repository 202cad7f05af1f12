"""Row operators of the vector unit: saturating add, layer norm, table, embedding.

Softmax lives in `hwsim.kernels.softmax`; its kernels are re-exported here. Formulas:
docs/arithmetic.md, sections 5, 6, 8 and 9. Everything is int64 inside; the graph's static bounds say
that no intermediate leaves it. `>>` is floor division, also of negative numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.kernels.requant import half_i64
from hwsim.kernels.softmax import (
    softmax_binary_direct_rows,
    softmax_binary_exp2_rows,
    softmax_direct_rows,
    softmax_exp2_rows,
)

__all__ = [
    "add_rows_i64",
    "embedding_rows",
    "layer_norm_rows_i64",
    "softmax_binary_direct_rows",
    "softmax_binary_exp2_rows",
    "softmax_direct_rows",
    "softmax_exp2_rows",
    "table_lookup",
]

Rows = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""


@njit(cache=True, nogil=True, error_model="numpy")
def rshr_i64(x: Integer, s: Integer) -> Integer:
    """Shift right, round half towards plus infinity: (x + 2^(s-1)) >> s; x itself for s = 0."""
    return (np.int64(x) + half_i64(s)) >> np.int64(s)


@njit(cache=True, nogil=True, error_model="numpy")
def add_rows_i64(
    a: Rows,
    b: Rows,
    m0: Integer,
    s0: Integer,
    m1: Integer,
    s1: Integer,
    qmin: Integer,
    qmax: Integer,
    out: Rows,
) -> None:
    """out = clamp(rshr(a*M0, S0) + rshr(b*M1, S1), qmin, qmax), no clamp between.

    a int [R, C]; b int [rows, C], whose row r mod rows meets row r of a (a constant addend repeats
    over the batch). A factor of exactly 1 is M = 1, S = 0. out [R, C] of a type that holds qmin..qmax.
    """
    low = np.int64(qmin)
    high = np.int64(qmax)
    for r in range(a.shape[0]):
        other = r % b.shape[0]
        for c in range(a.shape[1]):
            total = rshr_i64(np.int64(a[r, c]) * m0, s0) + rshr_i64(np.int64(b[other, c]) * m1, s1)
            out[r, c] = min(max(total, low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def bit_length_i64(value: Integer) -> Integer:
    """Number of bits of value >= 0, as an integer operation: a float logarithm rounds up below 2^n."""
    bits = 0
    while value > 0:
        value >>= 1
        bits += 1
    return bits


@njit(cache=True, nogil=True, error_model="numpy")
def isqrt_i64(value: Integer) -> Integer:
    """floor(sqrt(value)) for 0 <= value < 2^62: a float estimate, off by at most 1, then corrected."""
    root = np.int64(math.sqrt(value))
    if root * root > value:
        root -= np.int64(1)
    elif (root + np.int64(1)) * (root + np.int64(1)) <= value:
        root += np.int64(1)
    return root


@njit(cache=True, nogil=True, error_model="numpy")
def layer_norm_rows_i64(
    x: Rows,
    g: Int64s,
    b: Int64s,
    e: Integer,
    f: Integer,
    q: Integer,
    zp: Integer,
    qmin: Integer,
    qmax: Integer,
    out: Rows,
) -> None:
    """Integer layer norm of every row (section 6).

    x int [R, N] codes; g, b int64 [N] (G_i, B_i); e (E) is the epsilon in units of V; f (F) the fraction
    bits of the normalised value; q (Q) the output shift; out [R, N] of a type that holds qmin..qmax.
    """
    n_rows, size = x.shape
    n = np.int64(size)
    low = np.int64(qmin)
    high = np.int64(qmax)
    zero = np.int64(zp)
    shift = np.int64(q)
    half = (np.int64(1) << shift) >> np.int64(1)
    for row in range(n_rows):
        total = np.int64(0)
        squares = np.int64(0)
        for i in range(size):
            code = np.int64(x[row, i])
            total += code
            squares += code * code
        variance = max(np.int64(1), n * squares - total * total + np.int64(e))
        # The variance is normalised to 61 or 62 bits, so that the root has 31 and the reciprocal
        # keeps full precision whatever the spread of the row.
        k = (np.int64(62) - np.int64(bit_length_i64(variance))) >> np.int64(1)
        root = isqrt_i64(variance << (np.int64(2) * k))
        reciprocal = ((np.int64(1) << np.int64(61)) + (root >> np.int64(1))) // root
        h = np.int64(61) - k - np.int64(f)
        h_half = (np.int64(1) << h) >> np.int64(1)
        for i in range(size):
            deviation = n * np.int64(x[row, i]) - total
            normal = (deviation * reciprocal + h_half) >> h
            code = ((normal * g[i] + b[i] + half) >> shift) + zero
            out[row, i] = min(max(code, low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def table_lookup(x: Rows, qmin: Integer, table: Rows, out: Rows) -> None:
    """out[i] = table[x[i] - qmin]; x int [n], table int [size], out int [n].

    Raises:
        IndexError: a code has no entry.
    """
    for i in range(x.shape[0]):
        entry = np.int64(x[i]) - np.int64(qmin)
        if entry < 0 or entry >= table.shape[0]:
            raise IndexError("table_lookup: a code lies outside the table")
        out[i] = table[entry]


@njit(cache=True, nogil=True, error_model="numpy")
def embedding_rows(ids: Rows, weight: Rows, m: Int64s, s: Integer, out: Rows) -> None:
    """out[r, c] = rshr(weight[ids[r], c] * M[ids[r]], S).

    ids int [R]; weight int [V, C] codes; m int64 [V] (a row factor each); out int32 [R, C].

    Raises:
        IndexError: an id is not in 0..V-1.
    """
    for r in range(ids.shape[0]):
        token = np.int64(ids[r])
        if token < 0 or token >= weight.shape[0]:
            raise IndexError("embedding_rows: a token id lies outside the table")
        factor = m[token]
        for c in range(weight.shape[1]):
            out[r, c] = rshr_i64(np.int64(weight[token, c]) * factor, s)
