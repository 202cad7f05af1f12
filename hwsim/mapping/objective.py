"""What a mapping is chosen for, and what a candidate is worth under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hwsim.arch.machine import Machine
from hwsim.engine.energy import Prices, waiting_counts

Goal = Literal["cycles", "energy", "weighted"]
Worth = tuple[float, float]
"""(what is minimised, what decides between equals); both add up over operators"""


@dataclass(frozen=True, slots=True)
class Objective:
    """An additive objective: cycles, energy in pJ, or energy + `pj_per_cycle` * cycles.

    Of equal cycles the less energy wins; of equal energy, or of an equal sum, the fewer cycles.
    """

    goal: Goal = "cycles"
    pj_per_cycle: float = 0.0

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of a cycle and of a picojoule in what is minimised."""
        if self.goal == "cycles":
            return 1.0, 0.0
        return (self.pj_per_cycle if self.goal == "weighted" else 0.0), 1.0

    def worth(self, cycles: int, pj: float) -> Worth:
        """Rank a candidate; less is better."""
        if self.goal == "cycles":
            return float(cycles), pj
        return pj + self.weights[0] * cycles, float(cycles)


@dataclass(frozen=True, slots=True)
class WaitingPower:
    """Energy that time alone costs: leakage, and the idle clock of units that wait, pJ a cycle.

    `units` counts the arrays and the vector unit, each of which pays `idle_pj` while it waits.
    """

    leakage_pj: float
    idle_pj: float
    units: int

    @classmethod
    def of(cls, machine: Machine, prices: Prices) -> WaitingPower:
        """Read a machine's figures."""
        one = waiting_counts(machine, 1, {})
        leakage = prices.nominal_pj(c for c in one if c.action == "leakage_cycle")
        idle = prices.price("array", "idle_cycle").pj if machine.spec.idle is not None else 0.0
        units = len(machine.arrays) + (machine.spec.vector_unit is not None)
        return cls(leakage, idle, units)

    def pj(self, cycles: Any, busy: Any) -> Any:
        """Return the energy that time costs, of one length or of an array of them.

        Args:
            cycles: length of the operator.
            busy: cycles that the array and the vector unit worked, together.
        """
        return self.leakage_pj * cycles + self.idle_pj * (self.units * cycles - busy)
