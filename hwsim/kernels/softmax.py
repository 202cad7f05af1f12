"""Integer softmax over rows of attention scores, with structural masks.

Formulas: docs/arithmetic.md, section 7. Two ways to the exponential e of delta = max - score: `direct`
(a table of every delta) and `exp2` (a power of two with 12 fraction bits, the product of entries of two
tables of 64). Two outputs: Q0.16 probabilities, or one bit by comparison with the sum (no division).

Common arguments: x int32 [B, H, T, S] scores; lengths int64 [B], read only if `masked`: key s of sample
b counts only if s < lengths[b]; `causal`: key s counts for query t only if s <= t. The keys that count
are hence always the first ones of a row. A row without any gives zeros. table [1, n] or [H, n].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from hwsim.kernels.requant import half_i64

Scores = npt.NDArray[Any]
Int64s = npt.NDArray[np.int64]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""


@njit(cache=True, nogil=True, error_model="numpy")
def _visible_keys(
    keys: Integer, length: Integer, masked: bool, query: Integer, causal: bool
) -> Integer:
    """Return how many leading keys of a row count."""
    count = np.int64(keys)
    if masked:
        count = max(np.int64(0), min(count, np.int64(length)))
    if causal:
        count = min(count, np.int64(query) + np.int64(1))
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _direct_exponentials(
    scores: Scores, count: Integer, table: Scores, shift: Integer, e: Int64s
) -> Integer:
    """e[j] = table[delta_j >> shift] of the first `count` scores; returns their sum Z.

    The address saturates: only accumulators that wrapped or clamped can spread wider than the table.
    """
    top = np.int64(scores[0])
    for j in range(count):
        top = max(top, np.int64(scores[j]))
    last = np.int64(table.shape[0] - 1)
    total = np.int64(0)
    for j in range(count):
        e[j] = table[min((top - np.int64(scores[j])) >> np.int64(shift), last)]
        total += e[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _exp2_exponentials(
    scores: Scores, count: Integer, table: Scores, m: Integer, s: Integer, e: Int64s
) -> Integer:
    """e[j] = rshr(table[t >> 6 & 63] * table[64 + (t & 63)], 20 + (t >> 12)), t = requant(delta_j) in Q5.12;
    returns their sum Z."""
    top = np.int64(scores[0])
    for j in range(count):
        top = max(top, np.int64(scores[j]))
    shift = np.int64(s)
    half = half_i64(shift)
    total = np.int64(0)
    for j in range(count):
        delta = top - np.int64(scores[j])
        t = min((delta * np.int64(m) + half) >> shift, np.int64(131071))
        halvings = t >> np.int64(12)
        if halvings > 21:  # entries have 21 bits: beyond that even the rounded value is 0
            e[j] = 0
        else:
            coarse = np.int64(table[(t >> np.int64(6)) & np.int64(63)])
            fine = np.int64(table[np.int64(64) + (t & np.int64(63))])
            down = np.int64(20) + halvings
            e[j] = (coarse * fine + (np.int64(1) << (down - np.int64(1)))) >> down
        total += e[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _write_probabilities(e: Int64s, count: Integer, total: Integer, out: Scores) -> None:
    """out[j] = rshr(e_j * floor(2^56 / Z), 40), and 0 behind the keys that count."""
    reciprocal = np.int64(0)
    if total > 0:  # Z = 0 only where no key counts, or every exponential is 0: all results are 0
        reciprocal = (np.int64(1) << np.int64(56)) // np.int64(total)
    half = np.int64(1) << np.int64(39)
    for j in range(count):
        out[j] = (e[j] * reciprocal + half) >> np.int64(40)
    for j in range(count, out.shape[0]):
        out[j] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _write_bits(e: Int64s, count: Integer, total: Integer, level: Integer, out: Scores) -> None:
    """out[j] = 1 iff (e_j << 24) >= level * Z, and 0 behind the keys that count and where Z = 0."""
    bar = np.int64(level) * np.int64(total)
    for j in range(count):
        out[j] = np.int64(total > 0 and (e[j] << np.int64(24)) >= bar)
    for j in range(count, out.shape[0]):
        out[j] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def mask_rows(codes: Scores, lengths: Int64s, masked: bool, causal: bool, fill: Integer) -> None:
    """Write `fill` over the codes [B, H, T, S] of keys that do not count."""
    batch, heads, queries, keys = codes.shape
    for b in range(batch):
        length = lengths[b] if masked else np.int64(keys)
        for h in range(heads):
            for t in range(queries):
                count = _visible_keys(keys, length, masked, t, causal)
                for j in range(count, keys):
                    codes[b, h, t, j] = fill


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_direct_rows(
    x: Scores,
    lengths: Int64s,
    masked: bool,
    causal: bool,
    table: Scores,
    shift: Integer,
    out: Scores,
) -> None:
    """Probabilities Q0.16 (0..65536), e from table[delta >> shift]; out int32 [B, H, T, S]."""
    batch, heads, queries, keys = x.shape
    e = np.empty(keys, np.int64)
    for b in range(batch):
        length = lengths[b] if masked else np.int64(keys)
        for h in range(heads):
            entries = table[h if table.shape[0] > 1 else 0]
            for t in range(queries):
                count = _visible_keys(keys, length, masked, t, causal)
                total = np.int64(0)
                if count > 0:
                    total = _direct_exponentials(x[b, h, t], count, entries, shift, e)
                _write_probabilities(e, count, total, out[b, h, t])


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_exp2_rows(
    x: Scores,
    lengths: Int64s,
    masked: bool,
    causal: bool,
    table: Scores,
    m: Int64s,
    s: Int64s,
    out: Scores,
) -> None:
    """Probabilities Q0.16 (0..65536), e by powers of two; m, s int64 [1] or [H]; out int32 [B, H, T, S]."""
    batch, heads, queries, keys = x.shape
    e = np.empty(keys, np.int64)
    for b in range(batch):
        length = lengths[b] if masked else np.int64(keys)
        for h in range(heads):
            entries = table[h if table.shape[0] > 1 else 0]
            factor = m[h if m.shape[0] > 1 else 0]
            shift = s[h if s.shape[0] > 1 else 0]
            for t in range(queries):
                count = _visible_keys(keys, length, masked, t, causal)
                total = np.int64(0)
                if count > 0:
                    total = _exp2_exponentials(x[b, h, t], count, entries, factor, shift, e)
                _write_probabilities(e, count, total, out[b, h, t])


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_binary_direct_rows(
    x: Scores,
    lengths: Int64s,
    masked: bool,
    causal: bool,
    table: Scores,
    shift: Integer,
    level: Integer,
    out: Scores,
) -> None:
    """UNIPOLAR probabilities, e from table[delta >> shift]; level = ceil(alpha/2 * 2^24); out int8."""
    batch, heads, queries, keys = x.shape
    e = np.empty(keys, np.int64)
    for b in range(batch):
        length = lengths[b] if masked else np.int64(keys)
        for h in range(heads):
            entries = table[h if table.shape[0] > 1 else 0]
            for t in range(queries):
                count = _visible_keys(keys, length, masked, t, causal)
                total = np.int64(0)
                if count > 0:
                    total = _direct_exponentials(x[b, h, t], count, entries, shift, e)
                _write_bits(e, count, total, level, out[b, h, t])


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_binary_exp2_rows(
    x: Scores,
    lengths: Int64s,
    masked: bool,
    causal: bool,
    table: Scores,
    m: Int64s,
    s: Int64s,
    level: Integer,
    out: Scores,
) -> None:
    """UNIPOLAR probabilities, e by powers of two; level = ceil(alpha/2 * 2^24); out int8 [B, H, T, S]."""
    batch, heads, queries, keys = x.shape
    e = np.empty(keys, np.int64)
    for b in range(batch):
        length = lengths[b] if masked else np.int64(keys)
        for h in range(heads):
            entries = table[h if table.shape[0] > 1 else 0]
            factor = m[h if m.shape[0] > 1 else 0]
            shift = s[h if s.shape[0] > 1 else 0]
            for t in range(queries):
                count = _visible_keys(keys, length, masked, t, causal)
                total = np.int64(0)
                if count > 0:
                    total = _exp2_exponentials(x[b, h, t], count, entries, factor, shift, e)
                _write_bits(e, count, total, level, out[b, h, t])
