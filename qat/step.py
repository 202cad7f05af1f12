"""What a prepared model shares during one forward pass: an explicit object, never a mutated config.

Every swapped module of one prepared model holds the same `StepState`. The objective writes into it
before a forward pass and clears it after; outside training it is empty and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Injected = Literal["map", "context", "output"]


@dataclass
class Recording:
    """Intermediate tensors of one forward pass, one entry a layer, in the order of the layers."""

    scores: list[Tensor] = field(default_factory=list)
    """Scaled scores before the softmax, masked entries included, [B, H, T, S]."""
    maps: list[Tensor] = field(default_factory=list)
    """Attention probabilities before dropout and quantiser, [B, H, T, S]."""
    contexts: list[Tensor] = field(default_factory=list)
    """Probabilities times values, [B, H, T, D]."""
    outputs: list[Tensor] = field(default_factory=list)
    """Result of the output projection, before dropout, residual and layer norm, [B, T, C]."""
    post_norm: list[Tensor] = field(default_factory=list)
    """Result of the layer norm that follows the attention block, [B, T, C]."""
    hidden: list[Tensor] = field(default_factory=list)
    """Embedding output, then each layer's output, [B, T, C]."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that was recorded."""
        return tuple(tensor for tensors in vars(self).values() for tensor in tensors)


@dataclass
class StepState:
    """State of the current forward pass of one prepared model."""

    valid: Tensor | None = None
    """Bool [B, T], True at real positions; None where nothing is padded. Set by the model's own hook."""
    recording: Recording | None = None
    injected: Injected | None = None
    """Which of the student's tensors the teacher's take the place of, in every layer."""
    teacher: Recording | None = None
    """Where injected tensors come from."""
    detached: frozenset[str] = frozenset()
    """Roles of projections (`q`, `k`, `v`) whose *input* gets no gradient."""

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Record the tensors of the forward passes inside the block."""
        self.recording = Recording()
        try:
            yield self.recording
        finally:
            self.recording = None

    @contextmanager
    def intervene(
        self, injected: Injected | None, detached: frozenset[str], teacher: Recording | None
    ) -> Iterator[None]:
        """Let the teacher's tensors replace the student's inside the block."""
        self.injected, self.detached, self.teacher = injected, detached, teacher
        try:
            yield
        finally:
            self.injected, self.detached, self.teacher = None, frozenset(), None
