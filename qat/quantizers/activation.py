"""Activation quantisers: learned step (elastic, LSQ) and dynamic range that can be frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hwsim.graph.dtype import parse
from qat import ops, processes
from qat.step import StepState

ALPHA_FLOOR = 0.05
"""alpha never falls below this share of its initial value: at 0 a quantiser is dead for good."""

RANGE_MOMENTUM = 0.9
"""Of the running mean of a dynamic scale: about the last ten batches, so late training decides."""


class LearnedQuantizer(nn.Module):
    """Elastic binarisation (1 bit) or LSQ (more bits): codes at a learned step alpha.

    alpha starts from statistics of real batches (`qat.quantizers.initialise`), before that the module
    is `initialised == False` and objective and export refuse it.

    Args:
        fmt: number type of the codes; BIPOLAR takes the sign, the others round and clamp.
        channels: length of the learned shift over the last axis, 0 for none.
        rounding: `half_up` or `half_even`.
        step: the model's state, for the number of elements that alpha's gradient is scaled by.
        start: what alpha starts from: `lsq`, 2 mean|x| / sqrt(qmax) for signed formats and twice that for
            unsigned ones (Esser et al., ICLR 2020; as BiT's authors do), or for one bit `mean`, half of it.
    """

    def __init__(
        self,
        fmt: str,
        channels: int = 0,
        rounding: str = "half_up",
        step: StepState | None = None,
        start: str = "lsq",
    ) -> None:
        super().__init__()
        self.step = step or StepState()
        self.fmt, self.rounding, self.granularity, self.start = fmt, rounding, "tensor", start
        self.alpha = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(channels)) if channels else None
        self.floor: Tensor
        self.initialised: Tensor
        self.register_buffer("floor", torch.zeros(1))
        self.register_buffer("initialised", torch.tensor(False))
        self._observed: tuple[Tensor, Tensor] | None = None
        self._observing = False

    @property
    def bits(self) -> int:
        """Bits of a code in memory."""
        return parse(self.fmt).bits

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the codes of x and the scale [1].

        Args:
            x: [B, T, C], [B, H, T, D], or [B, C] where `valid` is None.
            valid: bool [B, T] (or a mask of x's rank); padded elements steer no gradient of alpha.
        """
        if self._observing:
            self._observe(x, valid)
        count = self.step.elements(x, valid)
        codes = ops.quantize_static(
            x, self.alpha, self.shift, valid, self.fmt, self.rounding, count
        )
        # alpha gets its gradient through the codes alone: contractions give a scale none.
        return codes, self.alpha

    def observe(self, on: bool) -> None:
        """Start or end the collection of statistics; ending it fixes the floor of alpha."""
        self._observing = on
        if not on and self._observed is not None:
            self.floor.copy_(ALPHA_FLOOR * self.alpha.detach())
            self.initialised.fill_(True)
            self._observed = None

    @torch.no_grad()
    def _observe(self, x: Tensor, valid: Tensor | None) -> None:
        """Set alpha from the mean magnitude of all batches so far: the later quantisers see its effect."""
        magnitude = x.abs()
        count = x.new_tensor(float(x.numel()))
        if valid is not None:
            mask = ops.mask_like(valid, x)
            magnitude, count = magnitude * mask, mask.expand_as(x).sum().to(x.dtype)
        total = magnitude.sum()
        if self._observed is not None:
            total, count = total + self._observed[0], count + self._observed[1]
        self._observed = (total, count)
        dtype = parse(self.fmt)
        # mean|x| is the step with the least squared error of a sign, 2 mean that of {0, alpha} on an exponential
        # distribution: beyond alpha / 2 its mean is alpha / 2 + mean
        factor = (2.0 if dtype.is_signed else 4.0) * (0.5 if self.start == "mean" else 1.0)
        mean = total / count.clamp_min(1.0)
        self.alpha.copy_((factor * mean / dtype.qmax**0.5).clamp_min(ops.SMALLEST_SCALE))

    @torch.no_grad()
    def project(self) -> None:
        """Keep alpha at or above its floor; call after every optimiser step."""
        self.alpha.copy_(torch.maximum(self.alpha, self.floor))

    def at_floor(self) -> Tensor:
        """Whether alpha sits on its floor (a sign of a dying quantiser), bool [1]."""
        return self.alpha.detach() <= self.floor

    def extra_repr(self) -> str:
        """Show the settings in the model's printout."""
        return f"{self.fmt}, learned{', shift' if self.shift is not None else ''}"


class DynamicQuantizer(nn.Module):
    """Integers whose range is the largest magnitude of the batch (or token) itself.

    Outputs depend on the batch's composition until `freeze` turns the range into a constant. Where several
    processes share an update, the range per tensor is that of all their batches.

    Args:
        fmt: INTn (symmetric) or UINTn (for values that are never negative).
        granularity: `tensor` or `token`.
        clip: values are first clipped to +-clip, with zero gradient outside; 0 turns it off.
        rounding: `half_up` or `half_even`.
        step: the model's state: it says whether a forward pass is a portion of an update.
    """

    def __init__(
        self,
        fmt: str,
        granularity: str = "tensor",
        clip: float = 0.0,
        rounding: str = "half_up",
        step: StepState | None = None,
    ) -> None:
        super().__init__()
        self.step = step or StepState()
        self.fmt, self.granularity, self.clip, self.rounding = fmt, granularity, clip, rounding
        self.range_scale: Tensor
        self.frozen: Tensor
        self.register_buffer("range_scale", torch.zeros(1))
        self.register_buffer("frozen", torch.tensor(False))
        self._is_frozen = False  # host copy: reading the buffer in forward would stall the device

    @property
    def bits(self) -> int:
        """Bits of a code in memory."""
        return parse(self.fmt).bits

    @property
    def is_frozen(self) -> bool:
        """Whether the range is a constant."""
        return self._is_frozen

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the codes of x and their scale, [1] or [..., 1] per token."""
        if self._is_frozen:
            codes = ops.quantize_static(
                x, self.range_scale, None, valid, self.fmt, self.rounding, 0.0
            )
            return codes, self.range_scale
        amax = None
        if self.granularity == "tensor" and self.step.update is not None and processes.several():
            own = ops.largest_magnitude(x.detach(), valid, self.fmt, self.clip)
            amax = processes.largest(own)
        codes, scale = ops.quantize_dynamic(
            x, valid, self.fmt, self.granularity, self.clip, self.rounding, amax
        )
        if self.training and self.granularity == "tensor":
            self._track(scale)
        return codes, scale

    @torch.no_grad()
    def _track(self, scale: Tensor) -> None:
        old = self.range_scale
        mean = RANGE_MOMENTUM * old + (1 - RANGE_MOMENTUM) * scale.detach()
        old.copy_(torch.where(old > 0, mean, scale.detach()))

    def freeze(self) -> None:
        """Make the running mean of the range a constant.

        Raises:
            RuntimeError: no training batch was seen, or the range is per token.
        """
        if self.granularity != "tensor":
            raise RuntimeError("a range per token cannot be frozen: it has no single scale")
        if not bool(self.range_scale > 0):
            raise RuntimeError("a range can only be frozen after at least one training batch")
        self.frozen.fill_(True)
        self._is_frozen = True

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._is_frozen = bool(self.frozen)

    def extra_repr(self) -> str:
        """Show the settings in the model's printout."""
        return f"{self.fmt}, {'frozen' if self._is_frozen else 'dynamic'} per {self.granularity}"


class SignQuantizer(nn.Module):
    """sign(x) at the constant scale 1, straight through where |x| <= 1 (XNOR-Net, BiBERT)."""

    fmt, granularity, bits = "BIPOLAR", "tensor", 1

    def __init__(self) -> None:
        super().__init__()
        self.one: Tensor
        self.register_buffer("one", torch.ones(1), persistent=False)

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the codes of x and the scale [1]."""
        codes = ops.quantize_static(x, self.one, None, valid, self.fmt, "half_up", 0.0)
        return codes, self.one


ActivationQuantizer = LearnedQuantizer | DynamicQuantizer | SignQuantizer
