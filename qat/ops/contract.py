"""Contractions of codes, and the movements that feed them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qat.ops.define import Context, custom_op

# ---------------------------------------------------------------------------------------------
# linear


@custom_op("linear")
def linear(a: Tensor, a_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    """y[..., n] = (sum_k a[..., k] * w[n, k]) * (a_scale * w_scale[n]) + bias[n]."""
    y = torch.nn.functional.linear(a, w).mul_(a_scale * w_scale)
    return y if bias is None else y.add_(bias)


@linear.register_fake
def _(a: Tensor, a_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty((*a.shape[:-1], w.shape[0]))


def _linear_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, a_scale, w, w_scale, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(a, a_scale, w, w_scale)


def _linear_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    a, a_scale, w, w_scale = ctx.saved_tensors
    g_a = g_w = g_bias = None
    if ctx.needs_input_grad[0]:
        # one scale for all is applied to the product, in place: that is a pass over fewer elements
        g_a = (g @ w).mul_(w_scale) if w_scale.numel() == 1 else (g * w_scale) @ w
    if ctx.needs_input_grad[2]:
        one = a_scale.numel() == 1
        scaled = (g if one else g * a_scale).reshape(-1, g.shape[-1])
        g_w = scaled.t() @ a.reshape(-1, a.shape[-1])
        g_w = g_w.mul_(a_scale) if one else g_w
    if ctx.has_bias and ctx.needs_input_grad[4]:
        g_bias = g.reshape(-1, g.shape[-1]).sum(0)
    return g_a, None, g_w, None, g_bias


linear.register_autograd(_linear_backward, setup_context=_linear_context)


# ---------------------------------------------------------------------------------------------
# matmul


@custom_op("matmul")
def matmul(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, transpose_b: bool, factor: float
) -> Tensor:
    """y = (a @ b, or a @ b^T) * (a_scale * b_scale * factor); b_scale is one number."""
    return (a @ (b.transpose(-1, -2) if transpose_b else b)).mul_(a_scale * b_scale * factor)


@matmul.register_fake
def _(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, transpose_b: bool, factor: float
) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-2] if transpose_b else b.shape[-1]))


def _matmul_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, a_scale, b, b_scale, ctx.transpose_b, ctx.factor = inputs
    ctx.save_for_backward(a, a_scale, b, b_scale)


def _matmul_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    a, a_scale, b, b_scale = ctx.saved_tensors
    g_a = g_b = None
    if ctx.needs_input_grad[0]:
        g_a = (g @ (b if ctx.transpose_b else b.transpose(-1, -2))).mul_(b_scale * ctx.factor)
    if ctx.needs_input_grad[2]:
        scale = a_scale * ctx.factor
        one = scale.numel() == 1
        scaled = g if one else g * scale
        g_b = scaled.transpose(-1, -2) @ a if ctx.transpose_b else a.transpose(-1, -2) @ scaled
        g_b = g_b.mul_(scale) if one else g_b
    return g_a, None, g_b, None, None, None


matmul.register_autograd(_matmul_backward, setup_context=_matmul_context)


# ---------------------------------------------------------------------------------------------
# patches


@custom_op("patches")
def patches(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
    """Cut [B, C, H, W] into rows of patches [B, P, C*kh*kw]."""
    columns = torch.nn.functional.unfold(x, tuple(kernel), stride=tuple(stride))
    return columns.transpose(1, 2).contiguous()


@patches.register_fake
def _(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
    rows, columns = (
        (size - k) // step + 1 for size, k, step in zip(x.shape[2:], kernel, stride, strict=True)
    )
    return x.new_empty((x.shape[0], rows * columns, x.shape[1] * kernel[0] * kernel[1]))


def _patches_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.kernel, ctx.stride = inputs
    ctx.size = x.shape[2:]


def _patches_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    g_x = torch.nn.functional.fold(
        g.transpose(1, 2), ctx.size, tuple(ctx.kernel), stride=tuple(ctx.stride)
    )
    return g_x, None, None


patches.register_autograd(_patches_backward, setup_context=_patches_context)


# ---------------------------------------------------------------------------------------------
# embedding


@custom_op("embedding")
def embedding(ids: Tensor, w: Tensor, w_scale: Tensor) -> Tensor:
    """y = w[ids] * w_scale, with the row's own scale where w_scale is [V]."""
    rows = torch.nn.functional.embedding(ids, w)
    return rows * (w_scale if w_scale.numel() == 1 else w_scale[ids].unsqueeze(-1))


@embedding.register_fake
def _(ids: Tensor, w: Tensor, w_scale: Tensor) -> Tensor:
    return w.new_empty((*ids.shape, w.shape[1]))


def _embedding_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ids, w, _ = inputs
    ctx.rows = w.shape[0]
    ctx.save_for_backward(ids)


def _embedding_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    (ids,) = ctx.saved_tensors
    g_w = g.new_zeros(ctx.rows, g.shape[-1])
    g_w.index_add_(0, ids.reshape(-1), g.reshape(-1, g.shape[-1]))
    return None, g_w, None


embedding.register_autograd(_embedding_backward, setup_context=_embedding_context)
