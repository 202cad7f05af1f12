"""SmoothQuant (Xiao et al., ICML 2023): channel scales in closed form, from the ranges of activations and weights.

    s_j = max|X_j|^lambda / max|W_j|^(1 - lambda),    the layer norm's scale is a_j = 1 / s_j

j runs over the channels between a layer norm and the linear layers that read it; lambda is the migration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qat.modules.linear import QuantLinear
from qat.modules.norm import ChannelScale, ScaledLayerNorm
from qat.student import restore

FLOOR = 1e-5
"""Of both ranges and of s: a channel that is zero throughout calibration gets no infinite scale."""


def smoothing_scale(activation_amax: Tensor, weight_amax: Tensor, migration: float) -> Tensor:
    """Return a = 1 / s [C] from the largest magnitudes [C] of activations and weights.

    Args:
        activation_amax: over the real positions of the calibration batches, before any scale.
        weight_amax: over all output channels of all linear layers behind.
        migration: lambda; 0 looks at the weights alone, 1 at the activations alone.
    """
    x, w = activation_amax.clamp_min(FLOOR), weight_amax.clamp_min(FLOOR)
    return 1 / (x**migration / w ** (1 - migration)).clamp_min(FLOOR)


@torch.no_grad()
def smooth(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Set every channel scale of a prepared model that asks for it from the float model's activations."""
    norms = {
        name: module.channel_scale
        for name, module in model.named_modules()
        if isinstance(module, ScaledLayerNorm)
        and module.channel_scale is not None
        and module.channel_scale.smoothing is not None
    }
    if not norms:
        return
    assert isinstance(model, PreTrainedModel)
    ranges = _activation_ranges(model, list(norms), batches)
    for name, scale in norms.items():
        assert scale.smoothing is not None
        scale.set(smoothing_scale(ranges[name], _weight_range(model, scale), scale.smoothing))


def _activation_ranges(
    model: PreTrainedModel, names: list[str], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Largest magnitude [C] of each module's output in the float model, padded positions left out."""
    plain = restore(model).eval()
    valid: Tensor | None = None
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            magnitude = output.abs() if valid is None else output.abs() * valid[:, :, None]
            largest = magnitude.flatten(0, -2).amax(0)
            found[name] = torch.maximum(found.get(name, largest), largest)

        return hook

    for name in names:
        plain.get_submodule(name).register_forward_hook(watch(name))
    for batch in batches:
        valid = batch.get("attention_mask")
        plain(**{key: tensor for key, tensor in batch.items() if key != "labels"})
    return found


def _weight_range(model: PreTrainedModel, scale: ChannelScale) -> Tensor:
    """Largest magnitude [C] of the latent weights that read a scale, over their output channels."""
    readers = [
        module.weight.abs().amax(0)
        for module in model.modules()
        if isinstance(module, QuantLinear)
        and module.input_scale is not None
        and module.input_scale.scale is scale
    ]
    return torch.stack(readers).amax(0)
