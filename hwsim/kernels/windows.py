"""Windows over images [B, H, W, C]: their codes as rows of a product, and their maxima.

Formulas: docs/arithmetic.md, section 13. Every kernel is single threaded and releases the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from numba import njit

Codes = npt.NDArray[Any]
Integer = Any
"""an integer scalar: Python's outside compiled code, int64 inside"""


@njit(cache=True, nogil=True, error_model="numpy")
def window_rows(
    x: Codes,
    kh: Integer,
    kw: Integer,
    sh: Integer,
    sw: Integer,
    ph: Integer,
    pw: Integer,
    outside: Integer,
    out: Codes,
) -> None:
    """Fill out[b, i, j] with the window at output position (i, j), in (kh, kw, channel) order.

    x int [B, H, W, C]; kernel kh x kw, stride sh x sw, padding ph x pw; positions outside the image get the
    code `outside`. out of x's type [B, H', W', kh*kw*C].
    """
    _, height, width, channels = x.shape
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                row = out[b, i, j]
                k = 0
                for u in range(kh):
                    top = i * sh - ph + u
                    for v in range(kw):
                        left = j * sw - pw + v
                        if 0 <= top < height and 0 <= left < width:
                            for c in range(channels):
                                row[k + c] = x[b, top, left, c]
                        else:
                            for c in range(channels):
                                row[k + c] = outside
                        k += channels


@njit(cache=True, nogil=True, error_model="numpy")
def max_pool_rows(x: Codes, kh: Integer, kw: Integer, sh: Integer, sw: Integer, out: Codes) -> None:
    """out[b, i, j, c] = the largest x[b, i*sh + u, j*sw + v, c], u < kh, v < kw.

    x int [B, H, W, C], out of x's type [B, H', W', C]; no padding.
    """
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                for c in range(out.shape[3]):
                    best = x[b, i * sh, j * sw, c]
                    for u in range(kh):
                        for v in range(kw):
                            code = x[b, i * sh + u, j * sw + v, c]
                            best = max(best, code)
                    out[b, i, j, c] = best
