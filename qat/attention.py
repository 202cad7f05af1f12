"""One attention function for every model family, with the quantisers of Q, K, P and V.

Registered with transformers under the name `bitwright`. The quantisers are a sub-module of the attention
module (`module.operands`), which is the function's first argument. A teacher runs the same function with
no quantisers: otherwise there would be no scores before the softmax to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from qat import ops
from qat.quantizers.activation import ActivationQuantizer
from qat.step import StepState

IMPLEMENTATION = "bitwright"


class AttentionOperands(nn.Module):
    """Quantisers of the four operands of one attention block; None leaves an operand in float32."""

    def __init__(self, layer: int, step: StepState, bool_map: bool = False) -> None:
        super().__init__()
        self.layer, self.step, self.bool_map = layer, step, bool_map
        self.query: ActivationQuantizer | None = None
        self.key: ActivationQuantizer | None = None
        self.value: ActivationQuantizer | None = None
        self.probabilities: ActivationQuantizer | None = None
        self.one: Tensor
        self.register_buffer("one", torch.ones(1), persistent=False)

    def quantized(
        self, quantizer: ActivationQuantizer | None, x: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Codes and scale of an operand; x itself at scale 1 where it stays in float32."""
        return (x, self.one) if quantizer is None else quantizer(x, valid)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Quantised scaled dot-product attention.

    Args:
        module: the attention module, prepared: it holds `operands`.
        query, key, value: [B, H, T, D] (key and value [B, H, S, D]).
        attention_mask: bool [B, S], True at real positions, or None.
        scaling: factor of the scores, 1/sqrt(D) by default.
        dropout: share of probabilities dropped (before they are quantised).

    Returns:
        The context [B, T, H, D] and the probabilities [B, H, T, S] (bits, where the map is one).

    Raises:
        ValueError: the mask is not [B, S].
    """
    check_mask(attention_mask)
    operands: AttentionOperands = module.operands  # type: ignore[assignment]
    step, layer = operands.step, operands.layer
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling

    q, q_scale = operands.quantized(operands.query, query, step.valid)
    k, k_scale = operands.quantized(operands.key, key, step.valid)
    scores = ops.matmul(q, q_scale, k, k_scale, True, factor)
    if operands.bool_map:
        probabilities = ops.bool_map(scores, attention_mask, causal)
    else:
        probabilities = ops.softmax(scores, attention_mask, causal)

    used = probabilities
    if step.injected == "map":
        assert step.teacher is not None
        used = step.teacher.maps[layer]
    if dropout > 0.0:
        used = nn.functional.dropout(used, dropout, module.training)
    p, p_scale = operands.quantized(
        operands.probabilities, used, _taking_part(module, scores, step)
    )
    v, v_scale = operands.quantized(operands.value, value, step.valid)
    context = ops.matmul(p, p_scale, v, v_scale, False, 1.0)

    if step.recording is not None:
        step.recording.queries.append(query)
        step.recording.keys.append(key)
        step.recording.values.append(value)
        step.recording.scores.append(scores)
        step.recording.maps.append(probabilities)
        step.recording.contexts.append(context)
    if step.injected == "context":
        assert step.teacher is not None
        context = step.teacher.contexts[layer]
    return context.transpose(1, 2).contiguous(), probabilities


def check_mask(mask: Tensor | None) -> None:
    """Refuse masks that are more than which positions are real.

    Raises:
        ValueError: the mask is not [B, S].
    """
    if mask is not None and mask.dim() != 2:
        raise ValueError(
            "the attention mask must be [batch, positions]: causal masks and padding are structural,"
            f" other masks cannot run on an integer machine; got shape {tuple(mask.shape)}"
        )


def _taking_part(module: nn.Module, scores: Tensor, step: StepState) -> Tensor | None:
    """Which probabilities count for the gradient of P's alpha: padded keys must not, or the step size
    would depend on how far a batch is padded. Values do not depend on it, so inference takes the rows only."""
    if step.valid is None or not module.training:
        return step.valid
    return step.valid[:, None, :, None] & step.valid[:, None, None, :]


def _mask(
    *,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Tensor | None:
    """Keep the mask as it came, [B, S]: it is a structure here, never a float tensor that is added.

    Raises:
        ValueError: the model asks for more than causality and padding (windows, packed sequences).
    """
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        raise ValueError(
            "attention must be causal or bidirectional over one sequence a row; sliding windows and"
            " packed sequences cannot run on an integer machine"
        )
    return attention_mask


def register() -> None:
    """Make `attn_implementation="bitwright"` known to transformers. May be called repeatedly."""
    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
