"""What the tensors that no on-chip memory had room for cost: their transfers to the DRAM and back.

They are part of what the operators cost. Here they are laid out once more from the mappings that were chosen, and
added up by tensor instead of by operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.engine.draws import Band
from hwsim.engine.energy import Count, Ledger, Prices
from hwsim.mapping.gemm import GemmProblem, build
from hwsim.mapping.mapper import Mapping
from hwsim.mapping.placement import Placement
from hwsim.mapping.problems import Posed, ProblemMaker
from hwsim.mapping.rowwise import build_rows
from hwsim.mapping.site import Direction, Moved, Site
from hwsim.mapping.skipping import tiling_of


@dataclass(frozen=True)
class Spill:
    """One spilled tensor.

    Attributes:
        bytes: what it takes in DRAM at a time.
        written_bytes, read_bytes: what is moved, bursts and repeated reads included.
        cycles: how long the transfers hold the link to the DRAM; others may compute meanwhile.
        energy_pj: of the DRAM, the DMA, the near memory and the control of these transfers.
    """

    bytes: int
    written_bytes: int
    read_bytes: int
    cycles: int
    energy_pj: Band

    def to_json(self) -> dict[str, object]:
        """Return the spill as it is reported."""
        return {
            "bytes": self.bytes,
            "written_bytes": self.written_bytes,
            "read_bytes": self.read_bytes,
            "cycles": self.cycles,
            "energy_pj": self.energy_pj.to_json(),
        }


def spills_of(maker: ProblemMaker, placement: Placement, prices: Prices) -> dict[str, Spill]:
    """Return the spilled tensors of a mapped graph in order of production.

    Args:
        maker: poses the problems that were mapped.
        placement: the mapped graph of a steady inference.
        prices: unit energies.
    """
    plan, program, site = placement.plan, maker.program, maker.site
    link = site.link
    cycles = dict.fromkeys(plan.spilled, 0)
    bits: dict[tuple[str, Direction], int] = {}
    entries: list[tuple[str, Count]] = []
    if not plan.spilled:
        return {}
    for i, (group, mapping) in enumerate(zip(program.groups, placement.mappings, strict=True)):
        ends: list[tuple[str, Direction]] = [(t, "load") for t in group.head.inputs]
        ends.append((group.output, "store"))
        spilled = [(x, program.roots[t], way) for x, (t, way) in enumerate(ends)]
        spilled = [end for end in spilled if end[1] in cycles]
        if not spilled:
            continue
        posed = maker.pose(i, placement.places[i])
        for moved, times in _transfers(posed, mapping, site):
            for x, root, way in spilled:
                operand = moved[x if way == "load" else -1]
                memory = site.activation if way == "load" else site.output
                if isinstance(posed.problem, GemmProblem) and (x, way) == (1, "load"):
                    memory = site.weight
                for run_bits, n in operand:
                    bits[root, way] = bits.get((root, way), 0) + times * n * run_bits
                    cycles[root] += times * n * link.bus_cycles(run_bits)
                counts = site.transfer("activation", memory, way, operand)
                entries += [(root, c.times(times)) for c in counts]
    energy = Ledger(prices, entries).by_operator()
    return {
        root: Spill(
            plan.spilled_bytes(root),
            bits.get((root, "store"), 0) // 8,
            bits.get((root, "load"), 0) // 8,
            cycles[root],
            energy[root],
        )
        for root in plan.spilled
    }


def _transfers(
    posed: Posed, mapping: Mapping, site: Site
) -> Iterator[tuple[tuple[Moved, ...], int]]:
    """Yield what each operand of a group moves in one run, the result last, and how many such runs there are."""
    p = posed.problem
    for part, times in mapping.runs or ((mapping, 1),):
        if isinstance(p, GemmProblem):
            array = site.machine.arrays[p.array]
            yield build(p, tiling_of(part), array, site).moved, times
        else:
            yield build_rows(p, part.tile[0], site).moved, times
