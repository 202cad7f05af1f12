"""Attention maps with structural masks: probabilities, or bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qat.ops.define import Context, custom_op

# ---------------------------------------------------------------------------------------------
# softmax


@custom_op("softmax")
def softmax(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """Softmax over the last axis of [B, H, T, S]; masked entries and rows without any other are 0."""
    keep = unmasked(scores, valid, causal)
    if keep is None:
        return torch.softmax(scores, dim=-1)
    # A sum with the lowest number is that number, and small factors that broadcast cost less than a mask of bools.
    factors = keep.to(scores.dtype)
    lowest = (1.0 - factors) * torch.finfo(scores.dtype).min
    # a row that is masked throughout comes out uniform
    return torch.softmax(scores + lowest, dim=-1).mul_(factors)


def unmasked(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor | None:
    """Entries of [B, H, T, S] that take part, as a mask of four axes that broadcasts to them; None if all do."""
    keep = None if valid is None else valid[:, None, None, :]
    if causal:
        rows, columns = scores.shape[-2:]
        # The last query sees every key: with more keys than queries the earlier ones are in a cache.
        below = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(
            columns - rows
        )
        keep = below[None, None] if keep is None else keep & below
    return keep


@softmax.register_fake
def _(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    return torch.empty_like(scores)


def _softmax_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _softmax_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    (p,) = ctx.saved_tensors
    return torch._softmax_backward_data(g, p, -1, p.dtype), None, None


softmax.register_autograd(_softmax_backward, setup_context=_softmax_context)


# ---------------------------------------------------------------------------------------------
# bool_map


@custom_op("bool_map")
def bool_map(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """1 where a score of [B, H, T, S] is above 0 and not masked, else 0."""
    keep = unmasked(scores, valid, causal)
    bits = scores > 0
    return (bits if keep is None else bits & keep).to(scores.dtype)


@bool_map.register_fake
def _(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    return torch.empty_like(scores)


def _bool_map_context(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, valid, causal = inputs
    keep = unmasked(scores, valid, causal)
    inside = scores.abs() <= 1
    ctx.save_for_backward(inside if keep is None else inside & keep)


def _bool_map_backward(ctx: Context, g: Tensor) -> tuple[Any, ...]:
    (inside,) = ctx.saved_tensors
    return g * inside, None, None


bool_map.register_autograd(_bool_map_backward, setup_context=_bool_map_context)
