"""Quantisers: codes of weights and activations, and values put on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.graph.dtype import DataType, parse
from qat.ops import cpu
from qat.ops.define import SMALLEST_SCALE, Context, custom_op, mask_like, round_, sign_codes

# ---------------------------------------------------------------------------------------------
# quantize_weight

WEIGHT_METHODS = ("twn", "bwn", "bwn_centred", "bwn_row_centred", "absmax")


@custom_op("quantize_weight")
def quantize_weight(
    w: Tensor, fmt: str, method: str, granularity: str, param: float, clip: float
) -> tuple[Tensor, Tensor]:
    """Derive codes [N, K] and scale ([1] or [N]) from latent float weights. Means are taken in float64."""
    dtype, by_row = parse(fmt), granularity == "row"
    if method != "absmax" and method in WEIGHT_METHODS and cpu.takes(w):
        codes, scale = cpu.weight_codes(w, method, by_row, param, clip)
        return codes, scale.clamp_min(SMALLEST_SCALE)
    clipped = w.clamp(-clip, clip) if clip > 0 else w
    magnitude = clipped.abs()

    def total(t: Tensor) -> Tensor:
        wide = t.double()
        return wide.sum(dim=1) if by_row else wide.sum().reshape(1)

    def mean(t: Tensor) -> Tensor:
        return (total(t) / (w.shape[1] if by_row else w.numel())).to(w.dtype)

    if method == "twn":
        kept = magnitude > param * _rows(mean(magnitude))
        scale = (total(magnitude * kept) / total(kept).clamp_min(1.0)).to(w.dtype)
        codes = sign_codes(clipped).mul_(kept)
    elif method in ("bwn", "bwn_centred"):
        scale = mean(magnitude)
        centre = clipped.double().mean().to(w.dtype) if method == "bwn_centred" else 0.0
        codes = sign_codes(clipped - centre)
    elif method == "bwn_row_centred":
        centred = clipped - clipped.double().mean(dim=1, keepdim=True).to(w.dtype)
        scale = mean(centred.abs())
        codes = sign_codes(centred)
    elif method == "absmax":
        largest = magnitude.amax(dim=1) if by_row else magnitude.amax().reshape(1)
        scale = largest / dtype.qmax
        safe = _rows(scale.clamp_min(SMALLEST_SCALE))
        codes = round_(clipped / safe, "half_up").clamp_(-dtype.qmax, dtype.qmax)
    else:
        raise ValueError(
            f"weight method must be one of {', '.join(WEIGHT_METHODS)}, not {method!r}"
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


def _masks(x: Tensor, signed: bool, clip: float) -> tuple[Tensor, ...]:
    """Where a straight-through gradient passes: strictly inside the clip (0: none), not negative if unsigned.

    Nothing where that is known to be everywhere.
    """
    if clip <= 0 and signed:
        return ()
    if cpu.takes(x):
        limit = float(np.nextafter(np.float32(clip), np.float32(0))) if clip > 0 else np.inf
        low = -limit if signed else 0.0
        return () if cpu.all_within(x, low, limit) else (cpu.within(x, None, low, limit),)
    inside = x.abs() < clip if clip > 0 else torch.ones_like(x, dtype=torch.bool)
    return (inside if signed else inside & (x >= 0),)


def _kept(g: Tensor, inside: Tensor | None = None) -> Tensor:
    """g where it passes, 0 elsewhere; all of it where no mask was saved."""
    if inside is None:
        return g
    return cpu.keep(g, inside) if cpu.takes(g) else torch.where(inside, g, 0.0)


def _weight_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
    w, *_, clip = inputs
    ctx.save_for_backward(*_masks(w, True, clip))


def _weight_backward(ctx: Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    return (_kept(g, *ctx.saved_tensors), *[None] * 5)


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
    if cpu.takes(x):
        if dtype.kind == "bipolar":
            return cpu.signs(x, shift)
        return cpu.rounded(x, shift, alpha, (dtype.qmin, dtype.qmax), 0.0, rounding)
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
    ctx.dtype, ctx.count = parse(fmt), count
    if ctx.dtype.kind == "bipolar":
        # One bool an element; the codes are the output, which the contraction keeps anyway.
        if cpu.takes(x):
            inside = cpu.within(x, shift, -alpha.item(), alpha.item())
        else:
            inside = (x if shift is None else x + shift).abs() <= alpha
        ctx.save_for_backward(inside, None, None, output, valid)
    else:
        ctx.save_for_backward(x, alpha, shift, output, valid)


def _static_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    _, wants_alpha, wants_shift, *_ = ctx.needs_input_grad
    saved = ctx.saved_tensors  # may be asked for only once where activations are recomputed
    g_x, total, g_shift = _static_gradient(ctx.dtype, saved, g, wants_shift)
    g_alpha = None
    if wants_alpha:
        kappa = _kappa(g, saved[-1], ctx.dtype.qmax, ctx.count)
        g_alpha = (total.to(g.dtype) * kappa).reshape(1)
    return g_x, g_alpha, g_shift if wants_shift else None, None, None, None, None


def _static_gradient(
    dtype: DataType, saved: tuple[Any, ...], g: Tensor, wants_shift: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x, sum of alpha's terms over the valid elements, gradient of the shift."""
    x, alpha, shift, codes, valid = saved  # of one bit: x is where the gradient passes
    if dtype.kind == "bipolar":
        if cpu.takes(g):
            return cpu.sign_gradient(g, x, codes, valid, wants_shift)
        inside, slope = x, codes
    else:
        if cpu.takes(g):
            limits = dtype.qmin, dtype.qmax
            return cpu.step_gradient(g, x, shift, codes, alpha, limits, valid, wants_shift)
        u = (x if shift is None else x + shift) / alpha
        inside = (u >= dtype.qmin) & (u <= dtype.qmax)
        slope = codes - u * inside  # round(u) - u inside, the nearest limit outside
    g_x = torch.where(inside, g, 0.0)
    terms = g * slope
    if valid is not None:
        terms = terms * mask_like(valid, terms)
    return g_x, terms.double().sum(), g_x.reshape(-1, g_x.shape[-1]).double().sum(0).to(g.dtype)


def _kappa(g: Tensor, valid: Tensor | None, q_max: int, count: float) -> Tensor:
    """1 / sqrt(count * Qp). A count of 0 stands for the valid elements of this very tensor.

    Stays on the device: reading the number of valid positions on the host would stall every step.
    """
    if count > 0:
        elements = g.new_full((), count)
    elif valid is None:
        elements = g.new_tensor(float(g.numel()))
    else:
        mask = mask_like(valid, g)
        elements = (mask.sum() * (g.numel() // mask.numel())).to(g.dtype).clamp_min(1.0)
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
    if granularity == "tensor" and cpu.takes(x):
        largest = largest_magnitude(x, valid, fmt, clip) if amax is None else amax
        scale = (largest / dtype.qmax).clamp_min(SMALLEST_SCALE)
        return cpu.rounded(x, None, scale, (dtype.qmin, dtype.qmax), clip, rounding), scale
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
    if cpu.takes(x):
        found = cpu.largest(x, valid, parse(fmt).is_signed)
        return found.clamp_max_(clip) if clip > 0 else found
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
    ctx.save_for_backward(*_masks(x, parse(fmt).is_signed, clip))


def _dynamic_backward(ctx: Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    return (_kept(g, *ctx.saved_tensors), *[None] * 6)


quantize_dynamic.register_autograd(_dynamic_backward, setup_context=_dynamic_context)


# ---------------------------------------------------------------------------------------------
# grids


@custom_op("snap")
def snap(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    """Nearest value scale * code of the format; the scale is a power of two, hence exact in float32."""
    dtype = parse(fmt)
    if cpu.takes(x):
        codes = cpu.rounded(x, None, scale, (dtype.qmin, dtype.qmax), 0.0, "half_up")
    else:
        codes = round_(x / scale, "half_up").clamp_(dtype.qmin, dtype.qmax)
    return codes.mul_(scale)


@snap.register_fake
def _(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    return torch.empty_like(x)


def _snap_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, fmt = inputs
    dtype = parse(fmt)
    if cpu.takes(x):
        limits = dtype.qmin * scale.item(), dtype.qmax * scale.item()
        # a grid has headroom
        masks = () if cpu.all_within(x, *limits) else (cpu.within(x, None, *limits),)
    else:
        masks = ((x >= dtype.qmin * scale) & (x <= dtype.qmax * scale),)
    ctx.save_for_backward(*masks)


def _snap_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    return _kept(g, *ctx.saved_tensors), None, None


snap.register_autograd(_snap_backward, setup_context=_snap_context)
