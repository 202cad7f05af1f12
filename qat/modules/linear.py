"""The swapped linear layer: quantised input, quantised weight, and the stop-gradient of interventions."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qat import ops
from qat.modules.norm import InverseScale
from qat.quantizers.activation import ActivationQuantizer
from qat.quantizers.weight import AnyWeightQuantizer
from qat.step import StepState


class QuantLinear(nn.Linear):
    """A linear layer over the last axis, with optional quantisers of input and weight.

    The latent float weight stays a parameter under the usual name, always as [out, in], also where it
    came from a GPT-2 `Conv1D` that holds [in, out].

    Attributes:
        parts: column ranges of the output per role: {"o": (0, N)}, or q, k and v for a fused projection.
        step: the model's `StepState`; roles in `step.detached` get no gradient to their input.
        input_scale: undoes the channel scale of the layer norm in front, None where there is none.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        parts: dict[str, tuple[int, int]],
        step: StepState,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.parts = parts
        self.step = step
        self.weight_quantizer: AnyWeightQuantizer | None = None
        self.input_quantizer: ActivationQuantizer | None = None
        self.input_scale: InverseScale | None = None
        self.from_conv1d = False
        self.one: Tensor
        self.register_buffer("one", torch.ones(1), persistent=False)

    @classmethod
    def from_float(
        cls, module: nn.Linear | Conv1D, parts: tuple[str, ...], step: StepState
    ) -> Self:
        """Take over the parameters of a float layer; its columns are shared evenly by `parts`."""
        is_conv1d = isinstance(module, Conv1D)
        weight = module.weight.detach().t().contiguous() if is_conv1d else module.weight
        out_features, in_features = weight.shape
        width = out_features // len(parts)
        columns = {part: (i * width, (i + 1) * width) for i, part in enumerate(parts)}
        # Made on the meta device: the parameters are replaced at once and need no random values.
        with torch.device("meta"):
            new = cls(in_features, out_features, False, columns, step)
        new.one = torch.ones(1, device=weight.device)
        new.weight = nn.Parameter(weight) if is_conv1d else module.weight
        new.bias = module.bias
        new.from_conv1d = is_conv1d
        new.training = module.training
        return new

    def to_float(self) -> nn.Linear | Conv1D:
        """The float layer of the kind that this one was made from, with the latent weight."""
        if self.from_conv1d:
            conv = Conv1D(self.out_features, self.in_features)
            conv.weight = nn.Parameter(self.weight.detach().t().contiguous())
            conv.bias = self.bias
            return conv.train(self.training)
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, False)
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)

    @property
    def effective_weight(self) -> Tensor:
        """The weight [out, in] that is quantised and multiplied: the latent one, over the input's scales."""
        return self.weight if self.input_scale is None else self.input_scale(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        detached = self.step.detached.intersection(self.parts)
        if not detached:
            return self._apply_columns(input, None)
        if len(detached) == len(self.parts):
            return self._apply_columns(input.detach(), None)
        # A fused projection whose parts differ: GPT-2's c_attn under map intervention.
        return torch.cat(
            [
                self._apply_columns(input.detach() if part in detached else input, columns)
                for part, columns in self.parts.items()
            ],
            dim=-1,
        )

    def _apply_columns(self, x: Tensor, columns: tuple[int, int] | None) -> Tensor:
        latent = self.effective_weight
        if self.weight_quantizer is None and self.input_quantizer is None:
            weight, scale, bias = _take(latent, self.one, self.bias, columns)
            return nn.functional.linear(x, weight, bias)
        codes, x_scale = x, self.one
        if self.input_quantizer is not None:
            # After pooling there are no positions any more, hence nothing padded either.
            codes, x_scale = self.input_quantizer(x, self.step.valid if x.dim() > 2 else None)
        w_codes, w_scale = latent, self.one
        if self.weight_quantizer is not None:
            w_codes, w_scale = self.weight_quantizer(latent)
        weight, scale, bias = _take(w_codes, w_scale, self.bias, columns)
        return ops.linear(codes, x_scale, weight, scale, bias)


def _take(
    weight: Tensor, scale: Tensor, bias: Tensor | None, columns: tuple[int, int] | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    if columns is None:
        return weight, scale, bias
    rows = slice(*columns)
    return (
        weight[rows],
        scale if scale.numel() == 1 else scale[rows],
        (None if bias is None else bias[rows]),
    )
