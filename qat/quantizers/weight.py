"""Weight quantisers: statistics of the latent weights, derived anew in every forward pass."""

from __future__ import annotations

from torch import Tensor, nn

from hwsim.graph.dtype import parse
from qat import ops


class WeightQuantizer(nn.Module):
    """Turns a latent weight [N, K] into codes and a positive scale.

    Args:
        fmt: number type of the codes.
        method: `twn` (ternary weight networks), `bwn` (sign), `bwn_centred` (sign after subtracting the
            mean of the whole tensor) or `absmax` (symmetric integers).
        granularity: `tensor` (one scale) or `row` (one per output channel or table row).
        threshold: `twn` keeps |w| > threshold * mean|w|.
        clip: weights are first clipped to +-clip, with zero gradient outside; 0 turns it off.
    """

    def __init__(
        self, fmt: str, method: str, granularity: str, threshold: float = 0.7, clip: float = 0.0
    ) -> None:
        super().__init__()
        self.fmt, self.method, self.granularity = fmt, method, granularity
        self.threshold, self.clip = threshold, clip

    @property
    def bits(self) -> int:
        """Bits of a code in memory."""
        return parse(self.fmt).bits

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes [N, K] and scale, [1] or [N]."""
        codes, scale = ops.quantize_weight(
            weight, self.fmt, self.method, self.granularity, self.threshold, self.clip
        )
        return codes, scale

    def extra_repr(self) -> str:
        """Show the settings in the model's printout."""
        return f"{self.fmt}, {self.method}, per {self.granularity}"
