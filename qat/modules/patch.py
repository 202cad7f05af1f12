"""The swapped patch projection of image models: a convolution without padding, quantised."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from hwsim.errors import GraphError
from qat import ops
from qat.quantizers.activation import ActivationQuantizer
from qat.quantizers.weight import AnyWeightQuantizer


class QuantPatches(nn.Conv2d):
    """A convolution without padding as one linear layer over patches, input and weight quantised.

    The latent float weight [N, C, kh, kw] stays the parameter `weight`.
    """

    weight_quantizer: AnyWeightQuantizer
    input_quantizer: ActivationQuantizer

    @classmethod
    def from_float(
        cls, module: nn.Conv2d, weight: AnyWeightQuantizer, input: ActivationQuantizer
    ) -> Self:
        """Take over the parameters of a float convolution.

        Raises:
            GraphError: it has padding, a dilation or groups.
        """
        if module.padding != (0, 0) or module.dilation != (1, 1) or module.groups != 1:
            raise GraphError("a patch projection must have no padding, dilation 1 and one group")
        with torch.device("meta"):
            new = cls(*_sizes(module), bias=False)
        new.weight, new.bias = module.weight, module.bias
        new.weight_quantizer, new.input_quantizer = weight, input
        new.training = module.training
        return new

    def to_float(self) -> nn.Conv2d:
        """The float convolution with the latent weight."""
        with torch.device("meta"):
            plain = nn.Conv2d(*_sizes(self), bias=False)
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, rows, columns]."""
        codes, scale = self.input_quantizer(input, None)
        rows = ops.patches(codes, list(self.kernel_size), list(self.stride))
        w_codes, w_scale = self.weight_quantizer(self.weight.flatten(1))
        product = ops.linear(rows, scale, w_codes, w_scale, self.bias)
        height = (input.shape[2] - self.kernel_size[0]) // self.stride[0] + 1
        return product.transpose(1, 2).unflatten(2, (height, -1))


def _sizes(module: nn.Conv2d) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    """Channels in and out, kernel and stride."""
    (rows, columns), (down, right) = module.kernel_size, module.stride
    return module.in_channels, module.out_channels, (rows, columns), (down, right)
