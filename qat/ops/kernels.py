"""Fused passes over float32 arrays for the operators on a CPU: each reads its operands once and writes its result once.

A quantiser is a few instructions an element, so what it costs is memory traffic: PyTorch makes one pass an
instruction, and turns a mask of bools into floats before it multiplies by it. The arithmetic is float32 in the order
of the PyTorch code (no contraction, no reassociation), so elements are equal bit for bit; sums are float64.

Rows are C-contiguous [R, C]. `mask` says which elements count: [0, 0] all of them, [R, 1] by row, [R, C] each. A
kernel works on the rows from `begin` to `end`, so that threads can share an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int32]
Number = Any
"""a scalar: Python's or numpy's outside compiled code, float32 or int64 inside"""

MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITE = np.int32(0x7F800000)
LANES = 16
ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def largest_bits(x: Words, mask: Bytes, signed: bool, begin: Number, end: Number) -> Number:
    """Largest |x| of the rows (x itself but at least 0, unless `signed`), as the bits of a float32. A NaN wins.

    x are the bits of floats: of two that are not negative the larger one has the larger bits, and integers have a
    maximum that vectorises.
    """
    largest = np.int32(0)
    for r in range(begin, end):
        if mask.shape[1] == 1 and mask[r, 0] == 0:
            continue
        for c in range(x.shape[1]):
            bits = x[r, c]
            magnitude = bits & MAGNITUDE
            value = magnitude if signed or magnitude > INFINITE else bits
            if mask.shape[1] > 1:
                value = value * np.int32(mask[r, c])
            largest = max(largest, value)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def round_rows(
    x: Floats,
    shift: Floats,
    scale: Number,
    low: Number,
    high: Number,
    clip: Number,
    even: bool,
    out: Floats,
    begin: Number,
    end: Number,
) -> None:
    """out = clamp(round((clamp(x, -clip, clip) + shift) / scale), low, high), rounding half up, or half to even.

    shift [C], or [0] for none; all scalars float32. A NaN stays one, as all comparisons with it are false.
    """
    shifted = shift.shape[0] > 0
    for r in range(begin, end):
        for c in range(x.shape[1]):
            v = x[r, c]
            v = -clip if v < -clip else v
            v = clip if v > clip else v
            if shifted:
                v = v + shift[c]
            u = v / scale
            code = np.rint(u) if even else np.floor(u + HALF)
            code = low if code < low else code
            out[r, c] = high if code > high else code


@njit(cache=True, nogil=True, error_model="numpy")
def sign_rows(x: Floats, shift: Floats, out: Floats, begin: Number, end: Number) -> None:
    """out = 1 where x + shift >= 0, else -1."""
    shifted = shift.shape[0] > 0
    for r in range(begin, end):
        for c in range(x.shape[1]):
            v = x[r, c] + shift[c] if shifted else x[r, c]
            out[r, c] = ONE if v >= ZERO else -ONE


@njit(cache=True, nogil=True, error_model="numpy")
def within_rows(
    x: Floats, shift: Floats, low: Number, high: Number, out: Bytes, begin: Number, end: Number
) -> None:
    """out = 1 where low <= x + shift <= high, else 0."""
    shifted = shift.shape[0] > 0
    for r in range(begin, end):
        for c in range(x.shape[1]):
            v = x[r, c] + shift[c] if shifted else x[r, c]
            out[r, c] = np.uint8(v >= low) & np.uint8(v <= high)


@njit(cache=True, nogil=True, error_model="numpy")
def all_within(x: Floats, low: Number, high: Number, begin: Number, end: Number) -> bool:
    """Whether low <= x <= high holds for all of the rows; false for a NaN. Ends at the first row where it does not."""
    for r in range(begin, end):
        outside = np.int32(0)
        for c in range(x.shape[1]):
            outside |= np.int32(not (x[r, c] >= low)) | np.int32(not (x[r, c] <= high))
        if outside:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def keep_rows(g: Floats, inside: Bytes, out: Floats, begin: Number, end: Number) -> None:
    """out = g where inside, else 0."""
    for r in range(begin, end):
        for c in range(g.shape[1]):
            out[r, c] = g[r, c] if inside[r, c] else ZERO


@njit(cache=True, nogil=True, error_model="numpy")
def sign_gradient(
    g: Floats,
    inside: Bytes,
    codes: Floats,
    mask: Bytes,
    g_x: Floats,
    columns: Doubles,
    shift_columns: Doubles,
    begin: Number,
    end: Number,
) -> None:
    """g_x = g where inside, else 0; the sums over rows of g * codes (where the mask has it) and of g_x.

    Sums are added to `columns` [C] and `shift_columns` ([C], or [0] where nobody wants them), float64.
    """
    wants_shift = shift_columns.shape[0] > 0
    for r in range(begin, end):
        counts = mask.shape[1] != 1 or mask[r, 0] != 0
        for c in range(g.shape[1]):
            passed = g[r, c] if inside[r, c] else ZERO
            g_x[r, c] = passed
            if wants_shift:
                shift_columns[c] += passed
        if counts:
            for c in range(g.shape[1]):
                term = g[r, c] * codes[r, c]
                if mask.shape[1] > 1:
                    term = term if mask[r, c] else ZERO
                columns[c] += term


@njit(cache=True, nogil=True, error_model="numpy")
def step_gradient(
    g: Floats,
    x: Floats,
    shift: Floats,
    codes: Floats,
    alpha: Number,
    low: Number,
    high: Number,
    mask: Bytes,
    g_x: Floats,
    columns: Doubles,
    shift_columns: Doubles,
    begin: Number,
    end: Number,
) -> None:
    """`sign_gradient` for codes of several levels: its terms are g * (codes - u inside the limits), where
    u = (x + shift) / alpha."""
    shifted, wants_shift = shift.shape[0] > 0, shift_columns.shape[0] > 0
    for r in range(begin, end):
        counts = mask.shape[1] != 1 or mask[r, 0] != 0
        for c in range(g.shape[1]):
            v = x[r, c] + shift[c] if shifted else x[r, c]
            u = v / alpha
            inside = (u >= low) & (u <= high)
            passed = g[r, c] if inside else ZERO
            g_x[r, c] = passed
            if wants_shift:
                shift_columns[c] += passed
            if counts:
                term = g[r, c] * (codes[r, c] - u if inside else codes[r, c])
                if mask.shape[1] > 1:
                    term = term if mask[r, c] else ZERO
                columns[c] += term


@njit(cache=True, nogil=True, error_model="numpy")
def magnitude_sums(
    x: Floats,
    clip: Number,
    centre: Floats,
    above: Floats,
    sums: Doubles,
    counts: Doubles,
    begin: Number,
    end: Number,
) -> None:
    """Sum and number (float64, [R]) of the magnitudes |clamp(x, -clip, clip) - centre| of a row that are > above.

    centre and above float32 [R].
    """
    lanes, kept = np.zeros(LANES, np.float64), np.zeros(LANES, np.float64)
    columns = x.shape[1]
    for r in range(begin, end):
        lanes[:] = 0.0
        kept[:] = 0.0
        # A sum may not be reassociated: these are LANES sums, so that they run side by side.
        for first in range(0, columns, LANES):
            for i in range(min(LANES, columns - first)):
                v = x[r, first + i]
                v = -clip if v < -clip else v
                v = clip if v > clip else v
                m = abs(v - centre[r])
                lanes[i] += m if m > above[r] else ZERO
                kept[i] += 1.0 if m > above[r] else 0.0
        sums[r] = lanes.sum()
        counts[r] = kept.sum()


@njit(cache=True, nogil=True, error_model="numpy")
def value_sums(x: Floats, clip: Number, sums: Doubles, begin: Number, end: Number) -> None:
    """Sum (float64, [R]) of the clamp(x, -clip, clip) of a row."""
    lanes = np.zeros(LANES, np.float64)
    columns = x.shape[1]
    for r in range(begin, end):
        lanes[:] = 0.0
        for first in range(0, columns, LANES):
            for i in range(min(LANES, columns - first)):
                v = x[r, first + i]
                v = -clip if v < -clip else v
                lanes[i] += clip if v > clip else v
        sums[r] = lanes.sum()


@njit(cache=True, nogil=True, error_model="numpy")
def binary_rows(x: Floats, centre: Floats, out: Floats, begin: Number, end: Number) -> None:
    """out = 1 where x >= centre, else -1; centre [R]."""
    for r in range(begin, end):
        for c in range(x.shape[1]):
            out[r, c] = ONE if x[r, c] >= centre[r] else -ONE


@njit(cache=True, nogil=True, error_model="numpy")
def ternary_rows(
    x: Floats, clip: Number, above: Floats, out: Floats, begin: Number, end: Number
) -> None:
    """out = sign(x) where min(|x|, clip) > above, else 0; above [R], not negative."""
    for r in range(begin, end):
        for c in range(x.shape[1]):
            v = x[r, c]
            m = abs(v)
            m = clip if m > clip else m
            kept = ONE if m > above[r] else ZERO
            out[r, c] = kept if v >= ZERO else -kept


@njit(cache=True, nogil=True, error_model="numpy")
def square_sums(
    x: Floats, y: Floats, mask: Bytes, columns: Doubles, begin: Number, end: Number
) -> None:
    """Add the sums over rows of (x - y)^2, where the mask has it, to `columns` [C], float64."""
    for r in range(begin, end):
        if mask.shape[1] == 1 and mask[r, 0] == 0:
            continue
        for c in range(x.shape[1]):
            d = x[r, c] - y[r, c]
            if mask.shape[1] > 1:
                d = d if mask[r, c] else ZERO
            columns[c] += d * d


@njit(cache=True, nogil=True, error_model="numpy")
def difference_rows(
    x: Floats, y: Floats, mask: Bytes, factor: Number, out: Floats, begin: Number, end: Number
) -> None:
    """out = (x - y) * factor where the mask has it, else 0."""
    for r in range(begin, end):
        counts = mask.shape[1] != 1 or mask[r, 0] != 0
        for c in range(x.shape[1]):
            d = (x[r, c] - y[r, c]) * factor if counts else ZERO
            if mask.shape[1] > 1:
                d = d if mask[r, c] else ZERO
            out[r, c] = d
