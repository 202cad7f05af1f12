"""What the mapper needs to know of a machine: memories by role, the link to DRAM, the vector unit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hwsim.arch.machine import Machine
from hwsim.arch.vector_unit import VectorUnit
from hwsim.engine.energy import Count
from hwsim.engine.timing import Link
from hwsim.errors import GraphError


class Site:
    """A machine as one operator sees it.

    Activations that stay on chip live in the memory that feeds the arrays' rows; weights and the
    vector unit's constants live in the memory that feeds the columns; the memory of the role `output`
    holds accumulators and the tiles on their way to DRAM.
    """

    def __init__(self, machine: Machine) -> None:
        spec = machine.spec
        self.machine = machine
        self.activation = spec.roles.activation
        self.weight = spec.roles.weight
        self.output = spec.roles.output
        self.channels = spec.dma.channels
        self.has_control = spec.control_pj_per_step is not None
        self.link = Link(
            overhead_cycles=spec.dma.overhead_cycles,
            latency_cycles=spec.dram.latency_cycles,
            bits_per_cycle=min(
                machine.dram.bits_per_cycle, Fraction(spec.dma.width_bits_per_cycle)
            ),
            burst_bits=spec.dram.burst_bytes * 8,
        )

    @property
    def vector(self) -> VectorUnit:
        """The vector unit.

        Raises:
            GraphError: the machine has none.
        """
        unit = self.machine.vector_unit
        if unit is None:
            raise GraphError(f"machine {self.machine.name} has no vector unit")
        return unit

    def halves(self, memory: str) -> int:
        """Return how many tiles of one operand a memory's buffers hold: 1 single, 2 double."""
        return 2 if self.machine.memories[memory].spec.buffering == "double" else 1

    def handoff(self, memory: str) -> int:
        """Return the cycles that a half of a memory takes to change hands."""
        return self.machine.memories[memory].spec.handoff_cycles

    def capacity_bytes(self, memory: str) -> int:
        """Return the capacity of a memory."""
        return self.machine.memories[memory].spec.capacity_bytes

    def reads(self, memory: str, bits: int) -> int:
        """Count the read accesses for so many contiguous bits."""
        return self.machine.memories[memory].reads(bits)

    def writes(self, memory: str, bits: int) -> int:
        """Count the write accesses for so many contiguous bits."""
        return self.machine.memories[memory].writes(bits)

    def transfer(
        self, operand: str, memory: str, direction: str, moved: Sequence[tuple[int, int]]
    ) -> list[Count]:
        """Count everything that transfers between DRAM and a memory do.

        Args:
            operand: on whose behalf.
            memory: the on-chip end.
            direction: `load` writes the memory, `store` reads it.
            moved: (bits of one transfer, how many such transfers).
        """
        if not moved:
            return []
        bits = sum(b * n for b, n in moved)
        if direction == "load":
            access = Count(
                f"memory:{memory}",
                "write",
                operand,
                sum(self.writes(memory, b) * n for b, n in moved),
            )
        else:
            access = Count(
                f"memory:{memory}",
                "read",
                operand,
                sum(self.reads(memory, b) * n for b, n in moved),
            )
        return [
            Count("dram", f"{direction}_bit", operand, bits),
            Count("dma", "bit", operand, bits),
            access,
            *self.control(sum(n for _, n in moved)),
        ]

    def control(self, steps: int) -> list[Count]:
        """Count steps issued, where the machine states what issuing one costs."""
        return [Count("control", "step", "-", steps)] if self.has_control and steps else []
