"""The student's custom operators: PyTorch implementations of `hwsim.graph.ops.STUDENT_OPS`.

Each one stays a single node under `torch.export`. Gradients are derived by hand (docs/methods.md,
section 2): a contraction hands the gradient with respect to the *value* `scale * codes` to the codes
and none to the scales; a quantiser takes it so, passes it straight through inside its range, and
derives the gradient of `alpha` and `shift` from it.

Codes are multiplied first and scaled after: integer sums are exact in float32 up to 2^24, sums of
dequantised products are not, and at 1 bit that turns signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hwsim.graph.dtype import DataType, parse
from hwsim.graph.ops import STUDENT_NAMESPACE, STUDENT_OPS

# A scale must be positive even where all weights of a row are zero (a padding row of an embedding).
SMALLEST_SCALE = 2.0**-24

_Context = Any  # torch gives the autograd context no public type


def _custom_op(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Define one operator of the student. Under autocast it still computes in float32: codes must not
    depend on it."""

    def define(function: Callable[..., Any]) -> Any:
        op = torch.library.custom_op(
            f"{STUDENT_NAMESPACE}::{name}",
            function,
            mutates_args=(),
            schema=STUDENT_OPS[name],
        )
        for device in ("cpu", "cuda"):
            op.register_autocast(device, torch.float32)
        return op

    return define


def _round_(u: Tensor, rounding: str) -> Tensor:
    """Round u in place: `half_up` is floor(u + 1/2), `half_even` is what `torch.round` does."""
    if rounding == "half_up":
        return u.add_(0.5).floor_()
    if rounding == "half_even":
        return u.round_()
    raise ValueError(f"rounding must be half_up or half_even, not {rounding!r}")


def sign_codes(x: Tensor) -> Tensor:
    """Sign with sign(0) = +1, also for -0.0: a third level has no bit."""
    return (x >= 0).to(x.dtype).mul_(2.0).sub_(1.0)


def mask_like(valid: Tensor, x: Tensor) -> Tensor:
    """Bring `valid` to x's rank.

    Args:
        valid: bool [B, T] (True at real positions), or a mask of x's rank that broadcasts to x.
        x: [B, T, C], or [B, H, T, D] (heads before positions).

    Raises:
        ValueError: x has no position axis.
    """
    if valid.dim() == x.dim() and valid.dim() != 2:
        return valid
    if x.dim() == 3:
        return valid[:, :, None]
    if x.dim() == 4:
        return valid[:, None, :, None]
    raise ValueError(f"a validity mask needs [B, T, C] or [B, H, T, D], not shape {tuple(x.shape)}")


# ---------------------------------------------------------------------------------------------
# quantize_weight


@_custom_op("quantize_weight")
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
        codes = _round_(clipped / safe, "half_up").clamp_(-dtype.qmax, dtype.qmax)
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


def _weight_context(ctx: _Context, inputs: tuple[Any, ...], output: Any) -> None:
    w, *_, clip = inputs
    ctx.clips = clip > 0
    ctx.save_for_backward(*((w.abs() < clip,) if ctx.clips else ()))


def _weight_backward(ctx: _Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors or (None,)
    return (g if inside is None else g * inside), None, None, None, None, None


quantize_weight.register_autograd(_weight_backward, setup_context=_weight_context)

# ---------------------------------------------------------------------------------------------
# quantize_static


@_custom_op("quantize_static")
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
    return _round_(shifted / alpha, rounding).clamp_(dtype.qmin, dtype.qmax)


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


def _static_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
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


def _static_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
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


@_custom_op("quantize_dynamic")
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
    return _round_(clipped / scale, rounding).clamp_(dtype.qmin, dtype.qmax), scale


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


def _dynamic_context(ctx: _Context, inputs: tuple[Any, ...], output: Any) -> None:
    x, _, fmt, _, clip, *_ = inputs
    masks = []
    if clip > 0:
        masks.append(x.abs() < clip)
    if not parse(fmt).is_signed:
        masks.append(x >= 0)
    ctx.save_for_backward(*masks)


def _dynamic_backward(ctx: _Context, g: Tensor, _g_scale: Tensor | None) -> tuple[Any, ...]:
    for mask in ctx.saved_tensors:
        g = g * mask
    return g, None, None, None, None, None, None


quantize_dynamic.register_autograd(_dynamic_backward, setup_context=_dynamic_context)

# ---------------------------------------------------------------------------------------------
# linear


@_custom_op("linear")
def linear(a: Tensor, a_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    """y[..., n] = (sum_k a[..., k] * w[n, k]) * (a_scale * w_scale[n]) + bias[n]."""
    y = torch.nn.functional.linear(a, w) * (a_scale * w_scale)
    return y if bias is None else y + bias


@linear.register_fake
def _(a: Tensor, a_scale: Tensor, w: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty((*a.shape[:-1], w.shape[0]))


def _linear_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, a_scale, w, w_scale, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(a, a_scale, w, w_scale)


def _linear_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    a, a_scale, w, w_scale = ctx.saved_tensors
    g_a = (g * w_scale) @ w if ctx.needs_input_grad[0] else None
    g_w = None
    if ctx.needs_input_grad[2]:
        scaled = (g * a_scale).reshape(-1, g.shape[-1])
        g_w = scaled.t() @ a.reshape(-1, a.shape[-1])
    g_bias = None
    if ctx.has_bias and ctx.needs_input_grad[4]:
        g_bias = g.reshape(-1, g.shape[-1]).sum(0)
    return g_a, None, g_w, None, g_bias


linear.register_autograd(_linear_backward, setup_context=_linear_context)

# ---------------------------------------------------------------------------------------------
# matmul


@_custom_op("matmul")
def matmul(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, transpose_b: bool, factor: float
) -> Tensor:
    """y = (a @ b, or a @ b^T) * (a_scale * b_scale * factor); b_scale is one number."""
    return (a @ (b.transpose(-1, -2) if transpose_b else b)) * (a_scale * b_scale * factor)


@matmul.register_fake
def _(
    a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, transpose_b: bool, factor: float
) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-2] if transpose_b else b.shape[-1]))


def _matmul_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, a_scale, b, b_scale, ctx.transpose_b, ctx.factor = inputs
    ctx.save_for_backward(a, a_scale, b, b_scale)


def _matmul_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    a, a_scale, b, b_scale = ctx.saved_tensors
    g_a = g_b = None
    if ctx.needs_input_grad[0]:
        g_a = (g @ (b if ctx.transpose_b else b.transpose(-1, -2))) * (b_scale * ctx.factor)
    if ctx.needs_input_grad[2]:
        scaled = g * (a_scale * ctx.factor)
        g_b = scaled.transpose(-1, -2) @ a if ctx.transpose_b else a.transpose(-1, -2) @ scaled
    return g_a, None, g_b, None, None, None


matmul.register_autograd(_matmul_backward, setup_context=_matmul_context)

# ---------------------------------------------------------------------------------------------
# grids


@_custom_op("snap")
def snap(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    """Nearest value scale * code of the format; the scale is a power of two, hence exact in float32."""
    dtype = parse(fmt)
    codes = _round_(x / scale, "half_up").clamp_(dtype.qmin, dtype.qmax)
    return codes.mul_(scale)


@snap.register_fake
def _(x: Tensor, scale: Tensor, fmt: str) -> Tensor:
    return torch.empty_like(x)


def _snap_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, fmt = inputs
    dtype = parse(fmt)
    ctx.save_for_backward((x >= dtype.qmin * scale) & (x <= dtype.qmax * scale))


def _snap_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors
    return g * inside, None, None


snap.register_autograd(_snap_backward, setup_context=_snap_context)

# ---------------------------------------------------------------------------------------------
# patches


@_custom_op("patches")
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


def _patches_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.kernel, ctx.stride = inputs
    ctx.size = x.shape[2:]


def _patches_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    g_x = torch.nn.functional.fold(
        g.transpose(1, 2), ctx.size, tuple(ctx.kernel), stride=tuple(ctx.stride)
    )
    return g_x, None, None


patches.register_autograd(_patches_backward, setup_context=_patches_context)

# ---------------------------------------------------------------------------------------------
# embedding


@_custom_op("embedding")
def embedding(ids: Tensor, w: Tensor, w_scale: Tensor) -> Tensor:
    """y = w[ids] * w_scale, with the row's own scale where w_scale is [V]."""
    rows = torch.nn.functional.embedding(ids, w)
    return rows * (w_scale if w_scale.numel() == 1 else w_scale[ids].unsqueeze(-1))


@embedding.register_fake
def _(ids: Tensor, w: Tensor, w_scale: Tensor) -> Tensor:
    return w.new_empty((*ids.shape, w.shape[1]))


def _embedding_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ids, w, _ = inputs
    ctx.rows = w.shape[0]
    ctx.save_for_backward(ids)


def _embedding_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    (ids,) = ctx.saved_tensors
    g_w = g.new_zeros(ctx.rows, g.shape[-1])
    g_w.index_add_(0, ids.reshape(-1), g.reshape(-1, g.shape[-1]))
    return None, g_w, None


embedding.register_autograd(_embedding_backward, setup_context=_embedding_context)

# ---------------------------------------------------------------------------------------------
# softmax


@_custom_op("softmax")
def softmax(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """Softmax over the last axis of [B, H, T, S]; masked entries and rows without any other are 0."""
    keep = unmasked(scores, valid, causal)
    if keep is None:
        return torch.softmax(scores, dim=-1)
    p = torch.softmax(scores.masked_fill(~keep, torch.finfo(scores.dtype).min), dim=-1)
    return p * keep  # a row that is masked throughout came out uniform


def unmasked(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor | None:
    """Entries of [B, H, T, S] that take part, as a mask that broadcasts to them; None if all do."""
    keep = None if valid is None else valid[:, None, None, :]
    if causal:
        rows, columns = scores.shape[-2:]
        # The last query sees every key: with more keys than queries the earlier ones are in a cache.
        below = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(
            columns - rows
        )
        keep = below if keep is None else keep & below
    return keep


@softmax.register_fake
def _(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    return torch.empty_like(scores)


def _softmax_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _softmax_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    (p,) = ctx.saved_tensors
    weighted = g * p
    return weighted - p * weighted.sum(-1, keepdim=True), None, None


softmax.register_autograd(_softmax_backward, setup_context=_softmax_context)

# ---------------------------------------------------------------------------------------------
# bool_map


@_custom_op("bool_map")
def bool_map(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """1 where a score of [B, H, T, S] is above 0 and not masked, else 0."""
    keep = unmasked(scores, valid, causal)
    bits = scores > 0
    return (bits if keep is None else bits & keep).to(scores.dtype)


@bool_map.register_fake
def _(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    return torch.empty_like(scores)


def _bool_map_context(ctx: _Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, valid, causal = inputs
    keep = unmasked(scores, valid, causal)
    inside = scores.abs() <= 1
    ctx.save_for_backward(inside if keep is None else inside & keep)


def _bool_map_backward(ctx: _Context, g: Tensor) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors
    return g * inside, None, None


bool_map.register_autograd(_bool_map_backward, setup_context=_bool_map_context)
