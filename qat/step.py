"""What a prepared model shares during one forward pass: an explicit object, never a mutated config.

Every swapped module of one prepared model holds the same `StepState`. The objective writes into it
before a forward pass and clears it after; outside training it is empty and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Injected = Literal["map", "context", "output", "input"]


class Extent(NamedTuple):
    """How much a batch, or all that one update of the weights sees, holds of what a mean is taken over.

    Where no mask says what is padded all rows have one length, and rows stand for all of these.
    """

    rows: int
    positions: int
    """Real positions."""
    pairs: int
    """(Query, key), both real."""
    scores: int
    """The pairs that take part in attention: fewer than `pairs` in a causal model."""
    targets: int
    """Labels that count: tokens to predict, or rows."""


class Portion(NamedTuple):
    """What a batch is of the update that it belongs to: its own extent, and that of the whole."""

    own: Extent
    whole: Extent


@dataclass
class Recording:
    """Intermediate tensors of one forward pass, one entry a layer, in the order of the layers."""

    queries: list[Tensor] = field(default_factory=list)
    """Results of the query projection before their quantiser, [B, H, T, D]; `keys` and `values` likewise."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
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
    """Which of the student's tensors the teacher's take the place of, in every layer (`input`: the layer's own)."""
    teacher: Recording | None = None
    """Where injected tensors come from."""
    detached: frozenset[str] = frozenset()
    """Roles of projections (`q`, `k`, `v`) whose *input* gets no gradient."""
    update: Extent | None = None
    """What the update sees that this forward pass is a portion of; None where the pass is by itself."""

    def elements(self, x: Tensor, valid: Tensor | None) -> float:
        """Count the real elements that tensors like x have in all of the update; 0 where x is by itself.

        Args:
            x: [B, ...], [B, T, C], [B, H, T, D] or [B, H, T, S].
            valid: None, bool [B, T], or bool [B, 1, T, S] (which pairs of positions are real).
        """
        if self.update is None:
            return 0.0
        if valid is None:
            return float(self.update.rows * (x.numel() // x.shape[0]))
        if valid.dim() == 2:
            return float(self.update.positions * (x.numel() // valid.numel()))
        return float(self.update.pairs * x.shape[1])

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Record the tensors of the forward passes inside the block."""
        self.recording = Recording()
        try:
            yield self.recording
        finally:
            self.recording = None

    @contextmanager
    def portion_of(self, update: Extent | None) -> Iterator[None]:
        """Let the forward passes inside the block be portions of an update."""
        self.update = update
        try:
            yield
        finally:
            self.update = None

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
