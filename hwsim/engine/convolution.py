"""A convolution on an array: its windows become the rows of products, padding is taken out exactly.

docs/arithmetic.md, section 13. Nothing of `hwsim.reference` is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import DataType
from hwsim.graph.windows import Region, Windows
from hwsim.kernels.windows import max_pool_rows, window_rows

Array = npt.NDArray[Any]
Product = Callable[[Array, Array], Array]
"""codes [M, K] and [N, K] -> accumulators int32 [M, N], as the array computes them"""


def convolve(
    x: Array, weight: Array, windows: Windows, a: DataType,
    padding_positions: Literal["computed", "skipped"], product: Product,
) -> Array:  # fmt: skip
    """Return the accumulators [B, H', W', N] of a convolution.

    Args:
        x: codes [B, H, W, C].
        weight: codes [N, kh*kw*C] in (kh, kw, channel) order.
        windows: the windows over the image.
        a: type of `x`.
        padding_positions: `computed`: one product of whole windows, with the code 0 outside; BIPOLAR has
            none and holds -1, the stored bit 0, whose share is a constant of each border position and
            column and is added back to what the accumulator held. `skipped`: a product for
            each region of output positions, of the positions inside the image alone.
        product: the array.
    """
    channels, columns = x.shape[3], weight.shape[0]
    outside = -1 if a.kind == "bipolar" else 0
    rows = np.empty((x.shape[0], *windows.positions, weight.shape[1]), x.dtype)
    window_rows(
        np.ascontiguousarray(x), *windows.kernel, *windows.stride, *windows.padding, outside, rows
    )
    acc = np.zeros((*rows.shape[:3], columns), np.int32)
    if padding_positions == "computed":
        acc[...] = product(rows.reshape(-1, rows.shape[3]), weight).reshape(acc.shape)
        if outside and any(windows.padding):
            acc -= outside * border_sums(weight, windows, channels)
        return acc
    for region in windows.regions():
        here = np.ix_(list(range(len(x))), list(region.rows), list(region.cols))
        taps = _taps(region, windows.kernel, channels)
        codes = rows[here][..., taps]
        part = product(
            np.ascontiguousarray(codes.reshape(-1, len(taps))),
            np.ascontiguousarray(weight[:, taps]),
        )
        acc[here] = part.reshape(*codes.shape[:3], columns)
    return acc


def border_sums(weight: Array, windows: Windows, channels: int) -> Array:
    """Return the sum of each column's weights that lie outside the image: int32 [H', W', N]."""
    whole = weight.sum(axis=1, dtype=np.int32)
    sums = np.empty((*windows.positions, weight.shape[0]), np.int32)
    sums[...] = whole
    for region in windows.regions():
        inside = weight[:, _taps(region, windows.kernel, channels)].sum(axis=1, dtype=np.int32)
        sums[np.ix_(list(region.rows), list(region.cols))] = whole - inside
    return sums


def max_pool(x: Array, windows: Windows) -> Array:
    """Return the largest code of each window in each channel: [B, H', W', C]."""
    out = np.empty((x.shape[0], *windows.positions, x.shape[3]), x.dtype)
    max_pool_rows(np.ascontiguousarray(x), *windows.kernel, *windows.stride, out)
    return out


def _taps(region: Region, kernel: tuple[int, int], channels: int) -> npt.NDArray[np.int64]:
    """Return the places along K that a region's windows have inside the image, ascending."""
    places = np.arange(kernel[0] * kernel[1] * channels).reshape(*kernel, channels)
    inside = places[np.ix_(list(region.kernel_rows), list(region.kernel_cols))]
    return inside.reshape(-1)
