"""Quantisers: codes of weights and activations, and values put on a grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hwsim.graph.dtype import DataType, parse
from qat.ops.define import SMALLEST_SCALE, Context, custom_op, mask_like, round_, sign_codes

# ---------------------------------------------------------------------------------------------
# quantize_weight


@custom_op("quantize_weight")
def quantize_weight(
    w: Tensor, fmt: str, method: str, granularity: str, param: float, clip: float
) -> tuple[Tensor, Tensor]:
    """Derive codes [N, K] and scale ([1] or [N]) from latent float weights."""
    dtype = parse(fmt)
    clipped = w.clamp(-clip, clip) if clip > 0 else w
    magnitude = clipped.abs()

    def mean(t: Tensor) -> Tensor:
        return t.mean(dim=1) if granularity == "row" else t.mean().reshape(1)

    if method == "twn":
        kept = magnitude > param * _rows(mean(magnitude))
        count = mean(kept.to(w.dtype))
        scale = mean(magnitude * kept) / count.clamp_min(1.0 / w.numel())
        codes = sign_codes(clipped).mul_(kept)
    elif method in ("bwn", "bwn_centred"):
        scale = mean(magnitude)
        codes = sign_codes(clipped - clipped.mean() if method == "bwn_centred" else clipped)
    elif method == "bwn_row_centred":
        centred = clipped - clipped.mean(dim=1, keepdim=True)
        scale = mean(centred.abs())
        codes = sign_codes(centred)
    elif method == "absmax":
        largest = magnitude.amax(dim=1) if granularity == "row" else magnitude.amax().reshape(1)
        scale = largest / dtype.qmax
        safe = _rows(scale.clamp_min(SMALLEST_SCALE))
        codes = round_(clipped / safe, "half_up").clamp_(-dtype.qmax, dtype.qmax)
    else:
        raise ValueError(
            f"weight method must be twn, bwn, bwn_centred, bwn_row_centred or absmax, not {method!r}"
        )
    return codes, scale.clamp_min(SMALLEST_SCALE)


def _rows(scale: Tensor) -> Tensor:
    """[1] or [N] -> a column that divides [N, K]."""
    return scale[:, None]


@quantize_weight.register_fake
def _(
    w: Tensor, fmt: str, method: str, granularity: str, param: float, clip: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(w), w.new_empty(w.shape[0] if granularity == "row" else 1)


def _weight_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
    w, *_, clip = inputs
    ctx.clips = clip > 0
    ctx.save_for_backward(*((w.abs() < clip,) if ctx.clips else ()))


def _weight_backward(ctx: Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors or (None,)
    return (g if inside is None else g * inside), None, None, None, None, None


quantize_weight.register_autograd(_weight_backward, setup_context=_weight_context)


# ---------------------------------------------------------------------------------------------
# quantize_static


@custom_op("quantize_static")
def quantize_static(
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    valid: Tensor | None,
    fmt: str,
    rounding: str,
    count: float,
) -> Tensor:
    """Codes of x at the step alpha; see `STUDENT_OPS`."""
    dtype = parse(fmt)
    shifted = x if shift is None else x + shift
    if dtype.kind == "bipolar":
        return sign_codes(shifted)
    return round_(shifted / alpha, rounding).clamp_(dtype.qmin, dtype.qmax)


@quantize_static.register_fake
def _(
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    valid: Tensor | None,
    fmt: str,
    rounding: str,
    count: float,
) -> Tensor:
    return torch.empty_like(x)


def _static_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, alpha, shift, valid, fmt, _, count = inputs
    ctx.dtype, ctx.count, ctx.shift_shape = (
        parse(fmt),
        count,
        None if shift is None else shift.shape,
    )
    if ctx.dtype.kind == "bipolar":
        # One bool an element; the codes are the output, which the contraction keeps anyway.
        shifted = x if shift is None else x + shift
        ctx.save_for_backward(shifted.abs() <= alpha, output, valid)
    else:
        ctx.save_for_backward(x, alpha, shift, output, valid)


def _static_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    dtype: DataType = ctx.dtype
    if dtype.kind == "bipolar":
        inside, slope, valid = ctx.saved_tensors
    else:
        x, alpha, shift, codes, valid = ctx.saved_tensors
        u = (x if shift is None else x + shift) / alpha
        inside = (u >= dtype.qmin) & (u <= dtype.qmax)
        slope = codes - u * inside  # round(u) - u inside, the nearest limit outside
    g_x = g * inside
    g_alpha = None
    if ctx.needs_input_grad[1]:
        terms = g * slope
        if valid is not None:
            terms = terms * mask_like(valid, terms)
        g_alpha = (terms.sum() * _kappa(g, valid, dtype.qmax, ctx.count)).reshape(1)
    g_shift = None
    if ctx.shift_shape is not None and ctx.needs_input_grad[2]:
        g_shift = g_x.reshape(-1, g_x.shape[-1]).sum(0).reshape(ctx.shift_shape)
    return g_x, g_alpha, g_shift, None, None, None, None


def _kappa(g: Tensor, valid: Tensor | None, q_max: int, count: float) -> Tensor:
    """1 / sqrt(count * Qp). A count of 0 stands for the valid elements of this very tensor.

    Stays on the device: reading the number of valid positions on the host would stall every step.
    """
    if count > 0:
        elements = g.new_full((), count)
    elif valid is None:
        elements = g.new_tensor(float(g.numel()))
    else:
        elements = mask_like(valid, g).expand_as(g).sum().to(g.dtype).clamp_min(1.0)
    return torch.rsqrt(elements * q_max)


quantize_static.register_autograd(_static_backward, setup_context=_static_context)


# ---------------------------------------------------------------------------------------------
# quantize_dynamic


@custom_op("quantize_dynamic")
def quantize_dynamic(
    x: Tensor,
    valid: Tensor | None,
    fmt: str,
    granularity: str,
    clip: float,
    rounding: str,
    amax: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes of x and the scale amax / qmax that its own (valid, clipped) values, or `amax` [1], give."""
    dtype = parse(fmt)
    clipped = x.clamp(-clip, clip) if clip > 0 else x
    if granularity == "token":
        low, high = torch.aminmax(clipped, dim=-1, keepdim=True)
        largest = torch.maximum(high, -low) if dtype.is_signed else high
    else:
        largest = largest_magnitude(x, valid, fmt, clip) if amax is None else amax
    scale = (largest / dtype.qmax).clamp_min(SMALLEST_SCALE)
    return round_(clipped / scale, rounding).clamp_(dtype.qmin, dtype.qmax), scale


def largest_magnitude(x: Tensor, valid: Tensor | None, fmt: str, clip: float) -> Tensor:
    """What sets a dynamic range per tensor: the largest real value (of either sign if the format has one), [1]."""
    clipped = x.clamp(-clip, clip) if clip > 0 else x
    real = clipped if valid is None else clipped * mask_like(valid, clipped)
    low, high = (limit.reshape(1) for limit in torch.aminmax(real))
    return torch.maximum(high, -low) if parse(fmt).is_signed else high


@quantize_dynamic.register_fake
def _(
    x: Tensor,
    valid: Tensor | None,
    fmt: str,
    granularity: str,
    clip: float,
    rounding: str,
    amax: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:-1], 1) if granularity == "token" else (1,)
    return torch.empty_like(x), x.new_empty(shape)


def _dynamic_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
    x, _, fmt, _, clip, *_ = inputs
    masks = []
    if clip > 0:
        masks.append(x.abs() < clip)
    if not parse(fmt).is_signed:
        masks.append(x >= 0)
    ctx.save_for_backward(*masks)


def _dynamic_backward(ctx: Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    for mask in ctx.saved_tensors:
        g = g * mask
    return g, None, None, None, None, None, None


quantize_dynamic.register_autograd(_dynamic_backward, setup_context=_dynamic_context)


# ---------------------------------------------------------------------------------------------
# grids


@custom_op("snap")
def snap(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    """Nearest value scale * code of the format; the scale is a power of two, hence exact in float32."""
    dtype = parse(fmt)
    codes = round_(x / scale, "half_up").clamp_(dtype.qmin, dtype.qmax)
    return codes.mul_(scale)


@snap.register_fake
def _(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    return torch.empty_like(x)


def _snap_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, fmt = inputs
    dtype = parse(fmt)
    ctx.save_for_backward((x >= dtype.qmin * scale) & (x <= dtype.qmax * scale))


def _snap_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors
    return g * inside, None, None


snap.register_autograd(_snap_backward, setup_context=_snap_context)
