"""The fused passes of `qat.ops.kernels` on tensors: layout, masks and threads.

The operators ask `takes` and fall through to their PyTorch code where it says no; both give the same elements.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from qat.ops import kernels
from qat.ops.define import is_half_even, mask_like

PARTS = 16
"""Rows are shared out in this many parts, whatever the threads: sums do not depend on their number."""
SMALL = 1 << 15
"""elements; fewer are one part"""

f32 = np.float32
Array = np.ndarray[Any, Any]


def takes(x: Tensor) -> bool:
    """Whether these passes can work on a tensor: real memory of a CPU that holds float32.

    Not so while a graph is traced or a dispatch mode watches: what they see is the PyTorch code.
    """
    return (
        type(x) in (Tensor, Parameter)
        and not is_in_torch_dispatch_mode()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
    )


class Rows:
    """How tensors of one shape are laid out as rows [R, C], in the order of x's memory where that has no gaps.

    Args:
        x: any shape.
        valid: None, bool [B, T], or a mask of x's rank that broadcasts to x.
        channels: whether columns must be the last axis alone (for a shift [C]).
    """

    def __init__(self, x: Tensor, valid: Tensor | None = None, channels: bool = False) -> None:
        strides = x.stride()
        axes = sorted(range(x.dim()), key=lambda axis: -strides[axis])
        if not x.permute(axes).is_contiguous() or (channels and axes[-1] != x.dim() - 1):
            axes = list(range(x.dim()))
        self.axes, self.shape = axes, x.shape
        stored = [x.shape[axis] for axis in axes]
        split = max(0, min(1, len(stored) - 1), len(stored) - (1 if channels else 2))
        self.mask: Array = np.zeros((0, 0), np.uint8)
        if valid is not None:
            mask = mask_like(valid, x).permute(axes)
            inner = len(stored)
            while inner > 0 and mask.shape[inner - 1] == 1:
                inner -= 1
            by_row = inner < len(stored)
            split = max(inner, split) if by_row else len(stored) - 1
            lead = stored[:split] if by_row else stored
            if by_row:
                mask = mask.reshape(mask.shape[:split])  # the others are 1
            columns = 1 if by_row else stored[-1]
            self.mask = mask.expand(lead).reshape(-1, columns).view(torch.uint8).numpy()
        self.columns = math.prod(stored[split:])
        self.rows = x.numel() // self.columns
        parts = 1 if x.numel() < SMALL else min(PARTS, self.rows)
        self.bounds = [self.rows * i // parts for i in range(parts + 1)]

    def of(self, x: Tensor) -> Array:
        """A tensor of this shape as an array [R, C]: its own memory where it is laid out so, a copy elsewhere."""
        return x.detach().permute(self.axes).reshape(self.rows, self.columns).numpy()

    def new(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Array]:
        """An empty tensor of this shape, and its memory as an array [R, C]."""
        memory = torch.empty([self.shape[axis] for axis in self.axes], dtype=dtype)
        back = sorted(range(len(self.axes)), key=lambda i: self.axes[i])
        array = memory.view(self.rows, self.columns)
        return memory.permute(back), (
            array.view(torch.uint8) if dtype == torch.bool else array
        ).numpy()

    def each(self, run: Callable[[int, int, int], Any]) -> list[Any]:
        """Call run(part, begin, end) for all parts of the rows, on PyTorch's number of threads."""
        ranges = [(i, *self.bounds[i : i + 2]) for i in range(len(self.bounds) - 1)]
        threads = torch.get_num_threads()
        if threads == 1 or len(ranges) == 1:
            return [run(*part) for part in ranges]
        return list(_pool(threads).map(lambda part: run(*part), ranges))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bitwright")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork inherits no threads


def _shift(shift: Tensor | None) -> Array:
    return np.zeros(0, f32) if shift is None else shift.detach().contiguous().numpy()


def largest(x: Tensor, valid: Tensor | None, signed: bool) -> Tensor:
    """Largest magnitude (or value, at least 0, where not signed) of the valid elements, [1]."""
    layout = Rows(x, valid)
    bits = layout.of(x).view(np.int32)
    found = layout.each(
        lambda _, begin, end: kernels.largest_bits(bits, layout.mask, signed, begin, end)
    )
    return torch.from_numpy(np.array([max(found)], np.int32).view(f32))


def rounded(
    x: Tensor,
    shift: Tensor | None,
    scale: Tensor,
    limits: tuple[float, float],
    clip: float,
    rounding: str,
) -> Tensor:
    """clamp(round((clamp(x, +-clip) + shift) / scale), *limits) in x's own layout; a clip of 0 is none."""
    layout = Rows(x, channels=shift is not None)
    source, offset = layout.of(x), _shift(shift)
    out, memory = layout.new()
    bounds = f32(limits[0]), f32(limits[1]), f32(clip if clip > 0 else np.inf)
    step, even = f32(scale.item()), is_half_even(rounding)
    layout.each(
        lambda _, begin, end: kernels.round_rows(
            source, offset, step, *bounds, even, memory, begin, end
        )
    )
    return out


def signs(x: Tensor, shift: Tensor | None) -> Tensor:
    """1 where x + shift >= 0, else -1."""
    layout = Rows(x, channels=shift is not None)
    source, offset = layout.of(x), _shift(shift)
    out, memory = layout.new()
    layout.each(lambda _, begin, end: kernels.sign_rows(source, offset, memory, begin, end))
    return out


def all_within(x: Tensor, low: float, high: float) -> bool:
    """Whether low <= x <= high everywhere, the limits rounded to float32."""
    layout = Rows(x)
    source = layout.of(x)
    return all(
        layout.each(
            lambda _, begin, end: kernels.all_within(source, f32(low), f32(high), begin, end)
        )
    )


def within(x: Tensor, shift: Tensor | None, low: float, high: float) -> Tensor:
    """Bool: low <= x + shift <= high, the limits rounded to float32."""
    layout = Rows(x, channels=shift is not None)
    source, offset = layout.of(x), _shift(shift)
    out, memory = layout.new(torch.bool)
    layout.each(
        lambda _, begin, end: kernels.within_rows(
            source, offset, f32(low), f32(high), memory, begin, end
        )
    )
    return out


def keep(g: Tensor, inside: Tensor) -> Tensor:
    """G where inside, else 0."""
    layout = Rows(inside)
    source, mask = layout.of(g), layout.of(inside).view(np.uint8)
    out, memory = layout.new()
    layout.each(lambda _, begin, end: kernels.keep_rows(source, mask, memory, begin, end))
    return out


def sign_gradient(
    g: Tensor, inside: Tensor, codes: Tensor, valid: Tensor | None, with_shift: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x, sum of g * codes over the valid elements (float64), and the gradient of a shift [C] or [0]."""
    layout = Rows(codes, valid, channels=with_shift)
    operands = layout.of(g), layout.of(inside).view(np.uint8), layout.of(codes), layout.mask
    return _with_sums(
        layout,
        with_shift,
        lambda g_x, sums, shifts, begin, end: kernels.sign_gradient(
            *operands, g_x, sums, shifts, begin, end
        ),
    )


def step_gradient(
    g: Tensor,
    x: Tensor,
    shift: Tensor | None,
    codes: Tensor,
    alpha: Tensor,
    limits: tuple[float, float],
    valid: Tensor | None,
    with_shift: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for codes of several levels, whose terms are g * (codes - u inside the limits)."""
    layout = Rows(codes, valid, channels=shift is not None)
    operands = layout.of(g), layout.of(x), _shift(shift), layout.of(codes)
    bounds = f32(alpha.item()), f32(limits[0]), f32(limits[1])
    return _with_sums(
        layout,
        with_shift,
        lambda g_x, sums, shifts, begin, end: kernels.step_gradient(
            *operands, *bounds, layout.mask, g_x, sums, shifts, begin, end
        ),
    )


def _with_sums(
    layout: Rows, with_shift: bool, kernel: Callable[..., None]
) -> tuple[Tensor, Tensor, Tensor]:
    parts = len(layout.bounds) - 1
    sums = np.zeros((parts, layout.columns))
    shifts = np.zeros((parts, layout.columns if with_shift else 0))
    out, memory = layout.new()
    layout.each(lambda part, begin, end: kernel(memory, sums[part], shifts[part], begin, end))
    return (
        out,
        torch.from_numpy(sums.sum(keepdims=True)[0]),
        torch.from_numpy(shifts.sum(0).astype(f32)),
    )


def square_sum(x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """Sum of (x - y)^2 over the elements of the mask, float64 [1]."""
    layout = Rows(x, mask)
    ours, theirs = layout.of(x), layout.of(y)
    sums = np.zeros((len(layout.bounds) - 1, layout.columns))
    layout.each(
        lambda part, begin, end: kernels.square_sums(
            ours, theirs, layout.mask, sums[part], begin, end
        )
    )
    return torch.from_numpy(sums.sum(keepdims=True)[0])


def difference(x: Tensor, y: Tensor, mask: Tensor | None, factor: float) -> Tensor:
    """(x - y) * factor, 0 outside the mask."""
    layout = Rows(x, mask)
    ours, theirs = layout.of(x), layout.of(y)
    out, memory = layout.new()
    layout.each(
        lambda _, begin, end: kernels.difference_rows(
            ours, theirs, layout.mask, f32(factor), memory, begin, end
        )
    )
    return out


def weight_codes(
    w: Tensor, method: str, by_row: bool, param: float, clip: float
) -> tuple[Tensor, Tensor]:
    """Codes and unclamped scale of `quantize_weight` for every method but absmax."""
    layout = Rows(w, channels=True)
    rows, columns = layout.rows, layout.columns
    source, (out, memory) = layout.of(w), layout.new()
    limit, zeros = f32(clip if clip > 0 else np.inf), np.zeros(rows, f32)

    def mean(totals: Array, counts: Array) -> Array:
        if not by_row:
            totals, counts = totals.sum(keepdims=True), counts.sum(keepdims=True)
        return (totals / np.maximum(counts, 1.0)).astype(f32)

    def per_row(values: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(values, rows))

    def magnitudes(centre: Array, above: Array) -> Array:
        sums, counts = np.zeros(rows), np.zeros(rows)
        layout.each(
            lambda _, begin, end: kernels.magnitude_sums(
                source, limit, centre, above, sums, counts, begin, end
            )
        )
        return mean(sums, counts)

    everything = np.full(rows, f32(-1.0))
    if method == "twn":
        above = per_row(f32(param) * magnitudes(zeros, everything))
        layout.each(
            lambda _, begin, end: kernels.ternary_rows(source, limit, above, memory, begin, end)
        )
        return out, torch.from_numpy(magnitudes(zeros, above))
    centre = zeros
    if method != "bwn":
        sums, counts = np.zeros(rows), np.full(rows, float(columns))
        layout.each(lambda _, begin, end: kernels.value_sums(source, limit, sums, begin, end))
        whole = sums.sum() / counts.sum()
        centre = (sums / columns if method == "bwn_row_centred" else np.full(rows, whole)).astype(
            f32
        )
    layout.each(lambda _, begin, end: kernels.binary_rows(source, centre, memory, begin, end))
    around = centre if method == "bwn_row_centred" else zeros
    return out, torch.from_numpy(magnitudes(around, everything))
