"""Signs of trouble in a low-bit training, as numbers for the log.

At one bit a run can look alive by its loss while parts of it are dead: bits that never change, attention
maps that are all ones or all zeros, weights that flip back and forth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.graph.dtype import parse
from qat.attention import AttentionOperands
from qat.modules.embedding import QuantEmbedding
from qat.modules.linear import QuantLinear
from qat.modules.norm import ScaledLayerNorm
from qat.modules.patch import QuantPatches
from qat.ops import SMALLEST_SCALE
from qat.quantizers.activation import LearnedQuantizer, SignQuantizer
from qat.quantizers.lifecycle import learned
from qat.step import StepState


class HealthMonitor:
    """Measures a prepared model from time to time; remembers the signs of its weights in between.

    Args:
        model: from `qat.student.prepare`, its quantisers initialised.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._signs: dict[str, Tensor] = {}

    @torch.no_grad()
    def measure(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Run one batch in eval mode and return shares (0..1) and an entropy (bits).

        Returns:
            `alphas_at_floor`: share of learned steps that sit on their floor.
            `constant_bits`: share of channels of 1-bit activations that have one value in all of the batch.
            `map_entropy_bits`: mean entropy of the bits of 1-bit attention maps between real positions (1 = as
            many ones as zeros).
            `outlier_ratio`: largest over the median channel range, behind the layer norms that carry channel
            scales, the worst of them; `outlier_ratio_unscaled`: the same had they none.
            `flipped_signs`: share of quantised weights whose sign changed since the last call.
            Only those that exist in the model (and, for the last, from the second call on).
        """
        found: dict[str, float] = {}
        steps = [module for _, module in learned(self.model)]
        if steps:
            found["alphas_at_floor"] = sum(bool(m.at_floor()) for m in steps) / len(steps)
        found |= self._bits(batch)
        found |= self._outliers(batch)
        flipped = self._flipped_signs()
        return found if flipped is None else found | {"flipped_signs": flipped}

    def _bits(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        maps = {m.probabilities for m in self.model.modules() if isinstance(m, AttentionOperands)}
        constant: list[tuple[int, int]] = []
        entropies: list[float] = []

        def watch(module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            codes, valid = output[0], args[1]
            if module in maps:
                entropies.append(_map_entropy(codes, valid))
                return
            if codes.dim() == 4:  # [B, H, T, D]: a channel is a pair of head and dimension
                codes = codes.transpose(1, 2).flatten(2)
            rows = codes.flatten(0, -2) if valid is None else codes[valid]
            same = (rows == rows[:1]).all(dim=0)
            constant.append((int(same.sum()), same.numel()))

        one_bit = [
            module
            for module in self.model.modules()
            if isinstance(module, LearnedQuantizer | SignQuantizer) and parse(module.fmt).bits == 1
        ]
        if not one_bit:
            return {}
        step: StepState = self.model.step  # type: ignore[assignment]
        with step.record() as record:
            self._watch(one_bit, watch, batch)
        if any(m.bool_map for m in self.model.modules() if isinstance(m, AttentionOperands)):
            mask = batch.get("attention_mask")
            valid = None if mask is None else mask.bool()
            entropies += [_map_entropy(bits, valid) for bits in record.maps]
        found = {"constant_bits": sum(a for a, _ in constant) / sum(b for _, b in constant)}
        return found | ({"map_entropy_bits": sum(entropies) / len(entropies)} if entropies else {})

    def _outliers(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        ratios: dict[str, list[Tensor]] = {"outlier_ratio": [], "outlier_ratio_unscaled": []}
        mask = batch.get("attention_mask")

        def watch(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            rows = output.flatten(0, 1) if mask is None else output[mask.bool()]
            largest = rows.abs().amax(0)
            unscaled = largest / module.channel_scale()  # type: ignore[operator]
            for values, amax in zip(ratios.values(), (largest, unscaled), strict=True):
                values.append(amax.max() / amax.median().clamp_min(SMALLEST_SCALE))

        norms = [m for m in self.model.modules() if isinstance(m, ScaledLayerNorm)]
        if not norms:
            return {}
        self._watch(norms, watch, batch)
        return {name: torch.stack(values).max().item() for name, values in ratios.items()}

    def _watch(
        self, modules: Sequence[nn.Module], hook: Callable[..., None], batch: Mapping[str, Tensor]
    ) -> None:
        """Run one batch in eval mode with a forward hook on some modules."""
        handles = [module.register_forward_hook(hook) for module in modules]
        was_training = self.model.training
        try:
            self.model.eval()(**{k: v for k, v in batch.items() if k != "labels"})
        finally:
            self.model.train(was_training)
            for handle in handles:
                handle.remove()

    def _flipped_signs(self) -> float | None:
        changed = total = 0
        first = not self._signs
        for name, module in self.model.named_modules():
            if not isinstance(module, QuantLinear | QuantEmbedding | QuantPatches):
                continue
            if module.weight_quantizer is None:
                continue
            latent = module.effective_weight if isinstance(module, QuantLinear) else module.weight
            codes, _ = module.weight_quantizer(latent.flatten(1))
            signs = codes.sign().to(torch.int8)
            if name in self._signs:
                changed += int((signs != self._signs[name]).sum())
                total += signs.numel()
            self._signs[name] = signs
        return None if first or total == 0 else changed / total


def _map_entropy(bits: Tensor, valid: Tensor | None) -> float:
    """Entropy of the bits of a map [B, H, T, S] between real positions; `valid` bool [B, T]."""
    pairs = None if valid is None else valid[:, None, :, None] & valid[:, None, None, :]
    real = bits if pairs is None else bits[pairs.expand_as(bits)]
    return _entropy(real.mean().item())


def _entropy(p: float) -> float:
    """Entropy of a bit that is 1 with probability p."""
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
