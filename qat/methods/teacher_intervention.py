"""Teacher Intervention (Kim, Shim, Park, Sung, Choi; EACL 2023): which tensor is replaced at which step.

An explicit function of the step number, so a resumed run needs no state and no config is ever mutated.
Where the tensors are replaced: `qat.attention` (map, context), the hook on the output projection
(output), and the input of the q, k, v projections (`QuantLinear`, stop-gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qat.recipe import TeacherIntervention
from qat.step import Injected

DETACHED: dict[Injected, frozenset[str]] = {
    "map": frozenset({"q", "k"}),
    "context": frozenset({"q", "k", "v"}),
    "output": frozenset({"q", "k", "v"}),
    "input": frozenset(),
}
"""Projections whose *input* gets no gradient. Detaching Q and K themselves would also take the score
loss away from their weights; detaching the input leaves it, layer by layer."""


@dataclass(frozen=True)
class InterventionSchedule:
    """The two steps of a training: `length` steps with intervention, then none.

    Args:
        mode: see `qat.recipe.TeacherIntervention`.
        length: number of steps with intervention, N1.
        seed: of the draws of mode `stochastic`.
    """

    mode: str
    length: int
    seed: int = 0

    @classmethod
    def from_spec(
        cls, spec: TeacherIntervention, total_steps: int, seed: int
    ) -> InterventionSchedule:
        """Resolve a length that is given as a share of all steps.

        Raises:
            ValueError: the intervention would not end before the training does.
        """
        if spec.steps is not None:
            length = spec.steps
        else:
            assert spec.fraction is not None
            length = max(1, round(spec.fraction * total_steps))
        if length >= total_steps:
            raise ValueError(
                f"method.steps must be less than the run's {total_steps} steps, got {length}: the student"
                " must also learn without its teacher's tensors"
            )
        return cls(spec.mode, length, seed)

    def injected(self, step: int) -> Injected | None:
        """Which tensor is replaced at a step (0-based), None where nothing is."""
        if step >= self.length or self.mode == "none":
            return None
        if self.mode == "gradual":  # 1/6 : 1/6 : 2/3
            if 6 * step < self.length:
                return "output"
            return "context" if 3 * step < self.length else "map"
        if self.mode == "inverted":  # equal thirds
            if 3 * step < self.length:
                return "map"
            return "context" if 3 * step < 2 * self.length else "output"
        if self.mode == "stochastic":  # one draw a batch for the whole model
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            drawn = int(torch.randint(3, (1,), generator=generator))
            choices: tuple[Injected, ...] = ("output", "context", "map")
            return choices[drawn]
        fixed: dict[str, Injected] = {"output": "output", "context": "context", "map": "map"}
        return fixed[self.mode]

    @property
    def restart_steps(self) -> tuple[int, ...]:
        """Steps before which optimiser and learning-rate schedule start anew."""
        return (self.length,)
