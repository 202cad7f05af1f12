"""Weight quantisers: statistics of the latent weights, derived anew in every forward pass, or a learned step."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from hwsim.graph.dtype import parse
from qat import ops
from qat.formats import BitSchedule
from qat.quantizers.activation import LearnedQuantizer


class WeightQuantizer(nn.Module):
    """Turns a latent weight [N, K] into codes and a positive scale.

    Args:
        fmt: number type of the codes.
        method: `twn` (ternary weight networks), `bwn` (sign), `bwn_centred` (sign after subtracting the
            mean of the whole tensor), `bwn_row_centred` (after subtracting each row's mean, the scale is that of
            what is left) or `absmax` (symmetric integers).
        granularity: `tensor` (one scale) or `row` (one per output channel or table row).
        threshold: `twn` keeps |w| > threshold * mean|w|.
        clip: weights are first clipped to +-clip, with zero gradient outside; 0 turns it off.
        schedule: of more bits at first. It applies from the first call of `at_step`; until then, and so wherever
            a student is not being trained, the format is the own one.
    """

    def __init__(
        self,
        fmt: str,
        method: str,
        granularity: str,
        threshold: float = 0.7,
        clip: float = 0.0,
        schedule: BitSchedule | None = None,
    ) -> None:
        super().__init__()
        self.fmt, self.method, self.granularity = fmt, method, granularity
        self.threshold, self.clip, self.schedule = threshold, clip, schedule
        self._target = fmt, method

    def at_step(self, step: int) -> None:
        """Take the format that the schedule has for an update (0-based)."""
        if self.schedule is None:
            return
        target = parse(self._target[0]).bits
        bits = self.schedule.bits(step, target)
        if bits == target:
            self.fmt, self.method = self._target
        else:
            self.fmt, self.method = ("TERNARY", "twn") if bits == 2 else (f"INT{bits}", "absmax")

    @property
    def final_step(self) -> int:
        """First step at the own format."""
        return 0 if self.schedule is None else self.schedule.end(parse(self._target[0]).bits)

    @property
    def bits(self) -> int:
        """Bits of a code in memory."""
        return parse(self.fmt).bits

    @property
    def rows_stand_alone(self) -> bool:
        """Whether the codes and scale of a row are a function of that row alone."""
        return self.granularity == "row" and self.method != "bwn_centred"

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes [N, K] and scale, [1] or [N]."""
        codes, scale = ops.quantize_weight(
            weight, self.fmt, self.method, self.granularity, self.threshold, self.clip
        )
        return codes, scale

    def extra_repr(self) -> str:
        """Show the settings in the model's printout."""
        return f"{self.fmt}, {self.method}, per {self.granularity}"


class LearnedWeightQuantizer(LearnedQuantizer):
    """LSQ on a weight: integers at a learned step alpha, one for the whole tensor.

    Esser et al., ICLR 2020: alpha starts at 2 mean|w| / sqrt(qmax) and its gradient is scaled by
    1 / sqrt(number of weights * qmax).
    """

    @classmethod
    def from_weight(cls, fmt: str, weight: Tensor) -> Self:
        """Make a quantiser whose step fits this weight [N, K]."""
        new = cls(fmt).to(weight.device)
        new.observe(True)
        new(weight.detach())
        new.observe(False)
        return new

    rows_stand_alone = False
    """One step holds for all rows, and takes its gradient from all of them."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return codes [N, K] and the scale [1]."""
        return super().forward(x, valid)


AnyWeightQuantizer = WeightQuantizer | LearnedWeightQuantizer
