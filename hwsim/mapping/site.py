"""What the mapper needs to know of a machine: memories by role, the links to those behind them, the vector unit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from hwsim.arch.machine import Machine
from hwsim.arch.vector_unit import VectorUnit
from hwsim.engine.energy import Count
from hwsim.engine.timing import Link
from hwsim.errors import GraphError

DRAM = "dram"
"""Name of the level behind all memories. No memory may have it."""
Direction = Literal["load", "store"]
Bits = tuple[int, ...]
"""bits by level, in the order of `Site.levels`; empty where there are none"""
Moved = Sequence[tuple[int, int]]
"""(bits of one transfer, how many such transfers)"""


class Site:
    """A machine as one operator sees it.

    Activations that stay on chip live in the memory that feeds the arrays' rows; weights and the
    vector unit's constants live in the memory that feeds the columns; the memory of the role `output`
    holds accumulators and the tiles on their way out. Behind these memories stand others, the last of
    them DRAM: `activation_homes` and `constant_homes` are where a tensor or a constant may live, nearest
    first, and `levels` are all that have a link of their own, DRAM first.
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
            latency_cycles=machine.dram.latency_cycles,
            bits_per_cycle=min(
                machine.dram.bits_per_cycle, Fraction(spec.dma.width_bits_per_cycle)
            ),
            burst_bits=spec.dram.burst_bytes * 8,
        )
        self.activation_homes = (*machine.chain(self.activation), DRAM)
        self.constant_homes = (*machine.chain(self.weight), DRAM)
        behind = (*self.activation_homes[1:-1], *self.constant_homes[1:-1])
        self.levels = (DRAM, *dict.fromkeys(behind))
        self._links: dict[tuple[str, str, Direction], Link] = {}

    def link_to(self, level: str, memory: str, direction: Direction) -> Link:
        """Return the link between a role memory and a level behind it.

        An access of a memory behind others moves a word of each of its banks, and so does one of the role
        memory; the narrower of them and the DMA channel decides.
        """
        if level == DRAM:
            return self.link
        key = (level, memory, direction)
        if key not in self._links:
            near, far = (self.machine.memories[name].spec for name in (memory, level))
            load = direction == "load"
            width = far.read_width_bits if load else far.write_width_bits
            near_width = near.write_width_bits if load else near.read_width_bits
            channel = self.machine.spec.dma.width_bits_per_cycle
            rate = min(channel, width * far.banks, near_width * near.banks)
            self._links[key] = Link(
                self.link.overhead_cycles, far.latency_cycles, Fraction(rate), width
            )
        return self._links[key]

    def wire(self, level: str) -> int:
        """Return the number of the link of a level."""
        return self.levels.index(level)

    @property
    def ports(self) -> tuple[int, ...]:
        """How many transfers each link serves at once: the DRAM one, a memory one at each port."""
        memories = self.machine.memories
        return tuple(1 if x == DRAM else memories[x].spec.ports for x in self.levels)

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
        self,
        operand: str,
        memory: str,
        direction: Direction,
        moved: Moved,
        level: str = DRAM,
    ) -> list[Count]:
        """Count everything that transfers between a memory and a level behind it do.

        Args:
            operand: on whose behalf.
            memory: the near end.
            direction: `load` writes the memory, `store` reads it.
            moved: the transfers.
            level: the far end.
        """
        if not moved:
            return []
        bits = sum(b * n for b, n in moved)
        load = direction == "load"
        if level == DRAM:
            far = Count("dram", f"{direction}_bit", operand, bits)
        else:
            far = self._accesses(level, "read" if load else "write", operand, moved)
        return [
            far,
            Count("dma", "bit", operand, bits),
            self._accesses(memory, "write" if load else "read", operand, moved),
            *self.control(sum(n for _, n in moved)),
        ]

    def _accesses(self, memory: str, action: str, operand: str, moved: Moved) -> Count:
        count = self.reads if action == "read" else self.writes
        total = sum(count(memory, b) * n for b, n in moved)
        return Count(f"memory:{memory}", action, operand, total)

    def constant_cycles(self, bits: Bits) -> list[int]:
        """Return how long constants that come before the first tile hold each link."""
        return [link.bus_cycles(link.moved_bits(1, b)) for link, b in self._constant_links(bits)]

    def constant_transfers(self, bits: Bits) -> list[Count]:
        """Count what loading constants does: one transfer from each level that holds some."""
        counts: list[Count] = []
        for level, (link, b) in zip(self.levels, self._constant_links(bits), strict=True):
            moved = [(link.moved_bits(1, b), 1)] if b else []
            counts += self.transfer("constant", self.weight, "load", moved, level)
        return counts

    def _constant_links(self, bits: Bits) -> list[tuple[Link, int]]:
        links = (self.link_to(level, self.weight, "load") for level in self.levels)
        return list(zip(links, bits or (0 for _ in self.levels), strict=True))

    def wires(self, a: str, w: str, out: str) -> tuple[int, ...]:
        """Return the links of A, W, the constants of each level, and the output."""
        return self.wire(a), self.wire(w), *range(len(self.levels)), self.wire(out)

    def control(self, steps: int) -> list[Count]:
        """Count steps issued, where the machine states what issuing one costs."""
        return [Count("control", "step", "-", steps)] if self.has_control and steps else []
