"""A grid for values that have no quantiser of their own: the residual stream and layer-norm outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwsim.graph.dtype import parse
from qat import ops, processes

HEADROOM = 1.25
"""The grid reaches this much further than the largest value seen: other samples may exceed it."""
MEMORY = 0.99
"""Share of the remembered maximum that is left after one more update."""


class StreamGrid(nn.Module):
    """Puts values on multiples of a power of two, the grid that the integer graph has there.

    The step starts from real batches (`qat.quantizers.lifecycle.initialise`) and follows the largest value of the
    recent updates, padded positions excluded. It changes between updates only (`follow`): all micro-batches and
    processes of one update see one grid, and evaluation never moves it. Powers of two keep
    float32 exact: a sum of two values on one grid lies on it again, so the student's residual stream holds the
    very codes that the machine adds.

    Args:
        fmt: INTn of the codes.
    """

    def __init__(self, fmt: str) -> None:
        super().__init__()
        self.fmt = fmt
        self.amax: Tensor
        self.scale: Tensor
        self.register_buffer("amax", torch.zeros(1))
        self.register_buffer("scale", torch.zeros(1))
        self._seen: Tensor | None = None
        self._observing = False

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Return x on the grid, same shape; `valid` bool [B, T] marks the positions that set its range."""
        if self.training or self._observing:
            self._see(x, valid)
        if self._observing:
            self.follow()
        return ops.snap(x, self.scale, self.fmt)

    @property
    def initialised(self) -> bool:
        """Whether any batch has set the step."""
        return bool(self.scale > 0)

    def observe(self, on: bool) -> None:
        """Start or end following the values in evaluation mode too."""
        self._observing = on

    @torch.no_grad()
    def _see(self, x: Tensor, valid: Tensor | None) -> None:
        mask = valid if valid is not None and x.shape[:-1] == valid.shape else None
        largest = ops.largest_magnitude(x.detach(), mask, self.fmt, 0.0)
        self._seen = largest if self._seen is None else torch.maximum(self._seen, largest)

    @torch.no_grad()
    def follow(self) -> None:
        """Set the step from what was seen since the last call; call after every update of the weights."""
        if self._seen is None:
            return
        if (
            self._observing
        ):  # the first batches: nothing to forget, and every process sees all of them
            remembered, seen = self.amax, self._seen
        else:
            remembered, seen = self.amax * MEMORY, processes.largest(self._seen)
        self._seen = None
        self.amax.copy_(torch.maximum(remembered, seen))
        needed = (self.amax * (HEADROOM / parse(self.fmt).qmax)).clamp_min(ops.SMALLEST_SCALE)
        # frexp is exact where a logarithm would be off by one next to a power of two
        exponent = torch.frexp(needed).exponent
        self.scale.copy_(torch.ldexp(torch.ones_like(needed), exponent))

    def extra_repr(self) -> str:
        """Show the format in the model's printout."""
        return f"{self.fmt}, power of two"
