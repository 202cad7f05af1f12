"""One inference mapped on a machine, before anything is reported: what each group does, where everything is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from hwsim.arch.machine import Machine
from hwsim.engine.energy import Count, Ledger, Prices, waiting_counts
from hwsim.engine.memory_plan import (
    Group,
    MemoryPlan,
    Program,
    backed_choices,
    resident_choices,
)
from hwsim.engine.products import as_products
from hwsim.engine.repacking import cutting, repacked
from hwsim.errors import CapacityError
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.mapper import Mapper, Mapping
from hwsim.mapping.placement import Placement, Placer
from hwsim.mapping.problems import Places, Posed, ProblemMaker, Scenario
from hwsim.mapping.site import DRAM, Site
from hwsim.mapping.skipping import skips, without_empty_beats


@dataclass(frozen=True)
class Costed:
    """A graph as a machine runs it: convolutions as products, views that cut words as passes of the vector unit.

    `cut_views` counts the views that would need such a pass where the machine has no `relayout`.
    """

    graph: QuantGraph
    cut_views: int


def costed(graph: QuantGraph, machine: Machine, length: int) -> Costed:
    """Return what is costed of a graph at a sequence length."""
    graph = as_products(graph, machine.spec.output_stage)
    unit = machine.vector_unit
    if unit is not None and unit.supports("relayout"):
        return Costed(repacked(graph, length), 0)
    return Costed(graph, len(cutting(graph, length)))


@dataclass(frozen=True)
class GroupWork:
    """A group on its unit: its problem, the mapping that runs, and all counts, those of waiting included."""

    group: Group
    posed: Posed
    unit: str
    mapping: Mapping
    counts: tuple[Count, ...]


@dataclass(frozen=True)
class Mapped:
    """One scenario of an inference: the problems that its groups pose, and how they are mapped."""

    maker: ProblemMaker
    placement: Placement

    def work(self) -> list[GroupWork]:
        """Return what each group does, in order, empty beats left out."""
        return [self._work(i) for i in range(len(self.placement.mappings))]

    def _work(self, i: int) -> GroupWork:
        maker, machine = self.maker, self.maker.site.machine
        group, mapping = maker.program.groups[i], self.placement.mappings[i]
        posed = maker.pose(i, self.placement.places[i])
        problem = posed.problem
        if not isinstance(problem, GemmProblem):
            counts = _with_waiting(machine, mapping, {"vector": mapping.timeline.array_busy})
            return GroupWork(group, posed, "vector", mapping, counts)
        array = machine.arrays[problem.array]
        if skips(array, maker.graph, group.head, problem):
            weight = maker.graph.constant(group.head, "weight")
            mapping = without_empty_beats(mapping, problem, weight, array, maker.site)
        unit = f"array:{problem.array}"
        busy = {unit: mapping.timeline.array_busy, "vector": mapping.timeline.vector_busy}
        return GroupWork(group, posed, unit, mapping, _with_waiting(machine, mapping, busy))


@dataclass(frozen=True)
class Inference:
    """A graph mapped twice."""

    steady: Mapped
    cold: Mapped


def map_inference(graph: QuantGraph, program: Program, site: Site, mapper: Mapper) -> Inference:
    """Map both scenarios of an inference, with the constants on chip that are best for the steady one.

    Args:
        graph: what runs, without convolutions.
        program: its order and sizes.
        site: the machine.
        mapper: of the same machine.

    Raises:
        CapacityError: not even the smallest tile of an operator fits a memory.
    """
    steady = _best_residents(graph, program, site, mapper)
    maker = replace(steady.maker, scenario="cold")
    placement = Placer(maker, mapper).place()
    if placement is None:
        raise AssertionError("without a cutoff there is an answer or an error")
    return Inference(steady, Mapped(maker, placement))


def ledger_of(work: Iterable[GroupWork], prices: Prices) -> Ledger:
    """Return the priced counts of groups."""
    return Ledger(prices, [(w.group.head.name, c) for w in work for c in w.counts])


def _best_residents(graph: QuantGraph, program: Program, site: Site, mapper: Mapper) -> Mapped:
    """Map a steady inference with each choice of resident constants and keep the best.

    Raises:
        CapacityError: with none of them does every operator fit; that of the fewest constants.
    """
    scenario: Scenario = "steady"
    best: Mapped | None = None
    refused: CapacityError | None = None
    posed: dict[tuple[int, Places, Hashable], Posed] = {}
    makers = (
        ProblemMaker(graph, program, site, scenario, resident, backed, posed)
        for resident in resident_choices(program, site)
        for backed in backed_choices(program, site, resident)
    )
    # The least roofline first: what it comes to mostly excludes the others.
    placers = sorted(((m, Placer(m, mapper)) for m in makers), key=lambda x: x[1].rooflines[0])
    for maker, placer in placers:
        try:
            placement = placer.place(math.inf if best is None else best.placement.worth[0])
        except CapacityError as error:
            refused = error
            continue
        if placement is not None and (best is None or placement.worth < best.placement.worth):
            best = Mapped(maker, placement)
    if best is None:
        raise refused or AssertionError("there is at least one choice")
    return best


def peak_bytes(plan: MemoryPlan, mappings: Iterable[Mapping], site: Site) -> tuple[int, int]:
    """Return the peak of live activations and buffers, and of those in the activation and output memories.

    Args:
        plan: where everything is.
        mappings: of the program's groups, in order.
        site: the machine.
    """
    held_in = {site.activation, site.output}
    buffers = [sum(size for memory, size in m.buffer_bytes if memory in held_in) for m in mappings]
    elsewhere = (*site.activation_homes[1:-1], DRAM)
    on_chip = [plan.live_bytes(i, site.activation) + size for i, size in enumerate(buffers)]
    peak = [
        sum(plan.live_bytes(i, home) for home in elsewhere) + size for i, size in enumerate(on_chip)
    ]
    return max(peak, default=0), max(on_chip, default=0)


def _with_waiting(machine: Machine, mapping: Mapping, busy: dict[str, int]) -> tuple[Count, ...]:
    return (*mapping.counts, *waiting_counts(machine, mapping.timeline.cycles, busy))
