"""The swapped layer norm: a positive scale on every channel of its output, undone in the weights behind it.

Both are functions of the parameters alone: what a forward pass multiplies are `scale * weight`, `scale * bias`
of the layer norm and `weight / scale` of the linear layer, never an activation. So training computes the very
tensors that a folded model holds, and its codes are the folded ones by construction (docs/quadapter.md).
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """One positive scale a channel, learned as its logarithm. Not a quantiser's step: it moves range between
    an activation and the weights behind it.

    Args:
        channels: length C.
        smoothing: migration of SmoothQuant's formula, which sets the first values from real batches
            (`qat.quantizers.lifecycle.initialise`); None starts at 1.
    """

    def __init__(self, channels: int, smoothing: float | None = None) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.initialised: Tensor
        self.register_buffer("initialised", torch.tensor(smoothing is None))

    def forward(self) -> Tensor:
        """Return the scales [C]."""
        return self.log_scale.exp()

    @torch.no_grad()
    def set(self, scale: Tensor) -> None:
        """Start from these positive values [C]."""
        self.log_scale.copy_(scale.log())
        self.initialised.fill_(True)


class InverseScale:
    """Divides the input channels of a weight by a scale.

    A plain class: the scale's parameter belongs to the layer norm alone, and a deep copy of the model keeps
    both together.
    """

    def __init__(self, scale: ChannelScale) -> None:
        self.scale = scale

    def __call__(self, weight: Tensor) -> Tensor:
        """[N, C] -> [N, C]."""
        return weight / self.scale()


class ScaledLayerNorm(nn.LayerNorm):
    """A layer norm whose output carries a scale a channel; latent weight and bias stay as they were.

    Attributes:
        channel_scale: None once it is folded into weight and bias.
    """

    channel_scale: ChannelScale | None

    @classmethod
    def from_float(cls, module: nn.LayerNorm, channel_scale: ChannelScale) -> Self:
        """Take over the parameters of a float layer norm."""
        with torch.device("meta"):
            new = cls(module.normalized_shape, module.eps)
        new.weight, new.bias = module.weight, module.bias
        new.channel_scale = channel_scale
        new.training = module.training
        return new

    def to_float(self) -> nn.LayerNorm:
        """The float layer norm with the latent parameters."""
        with torch.device("meta"):
            plain = nn.LayerNorm(self.normalized_shape, self.eps)
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)

    @property
    def effective(self) -> tuple[Tensor, Tensor]:
        """Weight and bias [C] as they are applied."""
        if self.channel_scale is None:
            return self.weight, self.bias
        scale = self.channel_scale()
        return self.weight * scale, self.bias * scale

    def forward(self, input: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        weight, bias = self.effective
        return nn.functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
