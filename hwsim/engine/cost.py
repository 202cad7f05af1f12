"""What one inference costs on a machine: cycles, energy, memory, from shapes alone.

Operators run one after another (a barrier after each). Views cost nothing: they are address generation.
Everything else occupies a unit, moves data and takes energy, or the machine is refused.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hwsim.arch.machine import Machine
from hwsim.engine.draws import Band
from hwsim.engine.energy import Count, Ledger, Prices
from hwsim.engine.inference import (
    GroupWork,
    Mapped,
    costed,
    ledger_of,
    map_inference,
    peak_bytes,
)
from hwsim.engine.memory_plan import (
    MemoryPlan,
    bind_length,
    make_program,
)
from hwsim.engine.spills import Spill, spills_of
from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.mapper import Mapper, Mapping
from hwsim.mapping.memo import Memo, RememberingMapper
from hwsim.mapping.objective import Objective
from hwsim.mapping.placement import Placement
from hwsim.mapping.problems import Posed
from hwsim.mapping.site import Site

NOT_MODELLED = (
    "overlap of operators (each waits for the one before it)",
    "energy that depends on the data (toggling)",
    "port conflicts of tensors that stay on chip",
    "the count of ones that UNIPOLAR operands need",
    "alignment of transfers to bursts",
    "the host: making the input, loss and metric",
)
"""What no machine's numbers include; a machine's file adds its own."""

DEFAULT_OBJECTIVE = Objective()


@dataclass(frozen=True)
class OperatorCost:
    """One row of the report: a group of nodes that runs as one, or a view.

    `blocks` is how many times over it ran, a head each in attention. `cycles` is its length, `compute_cycles` how long its unit (array or vector unit)
    worked, `stall_cycles` the rest. `binding` names the busiest resource. `posed` is the mapping problem of one block.
    """

    node: str
    op: str
    fused: tuple[str, ...]
    unit: str
    cycles: int
    compute_cycles: int
    binding: str
    blocks: int
    utilisation_frac: float
    energy_pj: Band
    counts: tuple[Count, ...]
    traffic_bytes: dict[str, int]
    mapping: Mapping | None
    posed: Posed | None

    @property
    def stall_cycles(self) -> int:
        """Cycles in which the operator's unit waits for data or drains."""
        return self.cycles - self.compute_cycles

    def to_json(self) -> dict[str, object]:
        """Return the row; counts are summed over operands by component and action."""
        return {
            "node": self.node,
            "op": self.op,
            "fused": list(self.fused),
            "unit": self.unit,
            "cycles": self.cycles,
            "compute_cycles": self.compute_cycles,
            "stall_cycles": self.stall_cycles,
            "binding": self.binding,
            "blocks": self.blocks,
            "utilisation_frac": self.utilisation_frac,
            "energy_pj": self.energy_pj.to_json(),
            "counts": {
                f"{c}.{action}.{operand}": n
                for (c, action, operand), n in sorted(_summed(self.counts).items())
            },
            "traffic_bytes": self.traffic_bytes,
            "mapping": None if self.mapping is None else self.mapping.to_json(),
        }


@dataclass(frozen=True)
class ScenarioCost:
    """One inference, `cold` or `steady`: operators in order, the priced ledger, and where things were."""

    operators: tuple[OperatorCost, ...]
    ledger: Ledger
    placement: Placement

    @property
    def cycles(self) -> int:
        """Latency in core cycles: operators do not overlap."""
        return sum(o.cycles for o in self.operators)

    def traffic_bytes(self) -> dict[str, int]:
        """Return the bytes moved at each level, loads and stores of DRAM apart."""
        total: dict[str, int] = {}
        for operator in self.operators:
            for level, size in operator.traffic_bytes.items():
                total[level] = total.get(level, 0) + size
        return dict(sorted(total.items()))


@dataclass(frozen=True)
class CostReport:
    """The cost of one inference on one machine. Energies are those of `steady` unless named cold."""

    machine: str
    graph: QuantGraph
    """what was costed: the model's graph, its convolutions as the products of their windows"""
    clock_hz: int
    sequence_length: int
    cold: ScenarioCost
    steady: ScenarioCost
    memory: dict[str, object]
    arrays: dict[str, dict[str, float]]
    not_modelled: tuple[str, ...]
    mapping_problems: int
    objective: Objective

    @property
    def latency_cycles(self) -> dict[str, int]:
        """Core cycles from the first load to the last store."""
        return {"cold": self.cold.cycles, "steady": self.steady.cycles}

    @property
    def latency_s(self) -> dict[str, float]:
        """Seconds at the machine's clock."""
        return {name: cycles / self.clock_hz for name, cycles in self.latency_cycles.items()}

    @property
    def energy_pj(self) -> Band:
        """Energy of a steady inference."""
        return self.steady.ledger.total

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data."""
        ledger = self.steady.ledger
        return {
            "machine": self.machine,
            "clock_hz": self.clock_hz,
            "sequence_length": self.sequence_length,
            "latency_cycles": self.latency_cycles,
            "latency_s": self.latency_s,
            "energy_pj": self.energy_pj.to_json(),
            "energy_cold_pj": self.cold.ledger.total.to_json(),
            "energy_by_component_pj": _bands(ledger.by_component()),
            "energy_by_part_pj": _bands(ledger.by_part()),
            "energy_by_operator_pj": _bands(ledger.by_operator()),
            "energy_by_operand_pj": _bands(ledger.by_operand()),
            "energy_by_action_pj": _bands(ledger.by_action()),
            "share_assumed_frac": ledger.share_assumed_frac(),
            "memory": self.memory,
            "arrays": self.arrays,
            "operators": [o.to_json() for o in self.steady.operators],
            "cold_operators": [
                {"node": o.node, "cycles": o.cycles, "binding": o.binding}
                for o in self.cold.operators
            ],
            "mapping_problems": self.mapping_problems,
            "mapping": {
                "objective": self.objective.goal,
                **{
                    name: {
                        "found": placement.worth[0],
                        "lower_bound": placement.bound,
                        "gap_frac": placement.gap_frac,
                    }
                    for name, placement in (
                        ("cold", self.cold.placement),
                        ("steady", self.steady.placement),
                    )
                },
            },
            "not_modelled": list(self.not_modelled),
        }


def cost(
    graph: QuantGraph,
    machine: Machine,
    sequence_length: int | None = None,
    objective: Objective = DEFAULT_OBJECTIVE,
    memo: Memo | None = None,
) -> CostReport:
    """Return what one inference of a graph costs on a machine.

    Args:
        graph: the integer graph.
        machine: the machine.
        sequence_length: tokens of the sample; None takes the longest that the graph was built for.
        objective: what the mapping is chosen for.
        memo: what searches on other machines have found; it changes no number.

    Raises:
        GraphError: the machine lacks operators or formats, or the length is out of range.
        CapacityError: not even the smallest tile of an operator fits a memory.
    """
    machine.check(graph)
    stage = machine.output_stage(graph)
    ops = {node.name: node.op for node in graph.nodes}
    length = bind_length(graph, sequence_length)
    what = costed(graph, machine, length)
    graph, split = what.graph, what.cut_views
    site = Site(machine)
    prices = Prices(machine)
    mapper = (
        Mapper(site, prices, objective)
        if memo is None
        else RememberingMapper(site, prices, objective, memo)
    )
    runs = map_inference(graph, make_program(graph, length), site, mapper)
    steady, cold = _price(runs.steady, prices, ops), _price(runs.cold, prices, ops)
    own = (
        *(() if machine.spec.idle is not None else ("idle clock: the machine states none",)),
        *(() if site.has_control else ("control: the machine states no energy a step",)),
        *(() if not split else (f"repacking of {split} views whose rows are not whole words",)),
        *(() if not stage else (f"the output stage, which runs {_operators(stage)}",)),
    )
    return CostReport(
        machine=machine.name,
        graph=graph,
        clock_hz=machine.spec.clock_hz,
        sequence_length=length,
        cold=cold,
        steady=steady,
        memory=_memory(steady, site, spills_of(runs.steady.maker, runs.steady.placement, prices)),
        arrays=_arrays(machine, steady),
        not_modelled=(*NOT_MODELLED, *own, *machine.spec.not_modelled),
        mapping_problems=mapper.problems,
        objective=objective,
    )


def _price(mapped: Mapped, prices: Prices, ops: dict[str, str]) -> ScenarioCost:
    """Price all groups of one scenario in order; views and output stages follow, at no cost.

    `ops` are the operators of the nodes as the model has them; products at the border of a convolution are its own.
    """
    maker, plan = mapped.maker, mapped.placement.plan
    graph, machine = maker.graph, maker.site.machine
    rows: list[OperatorCost] = []
    work = mapped.work()
    ledger = ledger_of(work, prices)
    energy = ledger.by_operator()
    for w, blocks in zip(work, plan.repeats, strict=True):
        group, unit, mapping = w.group, w.unit, w.mapping
        t = mapping.timeline
        links = zip(maker.site.levels, t.links_busy, maker.site.ports, strict=True)
        resources = {unit: t.array_busy, **{level: busy / n for level, busy, n in links}}
        if unit != "vector":
            resources["vector"] = t.vector_busy
        rows.append(
            OperatorCost(
                node=group.head.name,
                op=ops.get(group.head.name, group.head.op),
                fused=tuple(n.name for n in group.nodes[1:]),
                unit=unit,
                cycles=t.cycles,
                compute_cycles=t.array_busy,
                binding=max(resources, key=lambda r: resources[r]),
                blocks=blocks,
                utilisation_frac=_utilisation(w, blocks, machine),
                energy_pj=energy[group.head.name],
                counts=w.counts,
                traffic_bytes=_traffic(w.counts, machine),
                mapping=mapping,
                posed=w.posed,
            )
        )
    free = [n for n in graph.nodes if OPERATORS[n.op].unit == "view"]
    rows += [_free(n.name, ops.get(n.name, n.op)) for n in free]
    return ScenarioCost(tuple(rows), ledger, mapped.placement)


def _free(node: str, op: str) -> OperatorCost:
    unit = "view" if OPERATORS[op].unit == "view" else "output stage"
    zero = Band(0.0, 0.0, 0.0)
    return OperatorCost(node, op, (), unit, 0, 0, "free", 1, 0.0, zero, (), {}, None, None)


def _utilisation(work: GroupWork, blocks: int, machine: Machine) -> float:
    problem = work.posed.problem
    if isinstance(problem, GemmProblem):
        return _gemm_utilisation(problem, blocks, work.mapping, machine)
    return _vector_utilisation(work.mapping, machine)


def _gemm_utilisation(p: GemmProblem, blocks: int, mapping: Mapping, machine: Machine) -> float:
    """Return used lane-cycles over all lane-cycles of the operator's time."""
    array = machine.arrays[p.array]
    used = blocks * p.batch * p.m * p.n * p.k * array.passes(p.a, p.w)
    if array.spec.zero_skipping:  # a product that was skipped used nothing
        used = sum(c.count for c in mapping.counts if c.action.startswith("lane_op:"))
    return used / (mapping.timeline.cycles * math.prod(array.block(p.a, p.w)))


def _vector_utilisation(mapping: Mapping, machine: Machine) -> float:
    """Return used lane-cycles of the element passes over all lane-cycles of the operator's time."""
    unit = machine.spec.vector_unit
    if unit is None:
        return 0.0
    used = 0
    for c in mapping.counts:
        verb, _, op = c.action.partition(":")
        if verb == "element":
            used += c.count * sum(p.cycles_per_element for p in unit.operators[op].passes)
    return used / (mapping.timeline.cycles * unit.lanes)


def _traffic(counts: Iterable[Count], machine: Machine) -> dict[str, int]:
    """Return bytes by level: `dram_load`, `dram_store`, and read and write of each memory."""
    bits = _traffic_bits(counts, machine)
    return {level: -(-sum(part.values()) // 8) for level, part in bits.items()}


def _traffic_bits(counts: Iterable[Count], machine: Machine) -> dict[str, dict[str, int]]:
    """Return bits by level and operand: accesses of a memory are of its full width."""
    bits: dict[str, dict[str, int]] = {}
    for c in counts:
        kind, _, name = c.component.partition(":")
        if kind == "dram":
            level, width = f"dram_{c.action.removesuffix('_bit')}", 1
        elif kind == "memory" and c.action in ("read", "write"):
            spec = machine.memories[name].spec
            width = spec.read_width_bits if c.action == "read" else spec.write_width_bits
            level = f"{name}_{c.action}"
        else:
            continue
        part = bits.setdefault(level, {})
        part[c.operand] = part.get(c.operand, 0) + c.count * width
    return {level: dict(sorted(part.items())) for level, part in sorted(bits.items())}


def _memory(steady: ScenarioCost, site: Site, spills: dict[str, Spill]) -> dict[str, object]:
    """Return the memory section of the report, bytes throughout."""
    # The rows that have a mapping are those of the program's groups, in that order.
    plan: MemoryPlan = steady.placement.plan
    program = plan.program
    mappings = [o.mapping for o in steady.operators if o.mapping is not None]
    peak, on_chip = peak_bytes(plan, mappings, site)
    weights = [s for s in program.stores.values() if s.is_weight]
    return {
        "weight_bytes": sum(s.bytes for s in program.stores.values()),
        "weight_codes_bytes": sum(s.bytes for s in weights),
        "resident_bytes": plan.resident_bytes(),
        "streamed": sorted(set(program.stores) - plan.resident),
        "behind": {
            level: {
                "constant_bytes": plan.backed_bytes(level),
                "peak_activation_bytes": max(
                    (plan.live_bytes(i, level) for i in range(len(program.groups))), default=0
                ),
                "constants": sorted(n for n, home in plan.backed.items() if home == level),
                "activations": sorted(n for n, home in plan.homes.items() if home == level),
            }
            for level in site.levels[1:]
        },
        "peak_activation_bytes": peak,
        "peak_activation_on_chip_bytes": on_chip,
        "graph_liveness_bytes": program.graph_liveness_bytes,
        "spills": {name: spill.to_json() for name, spill in spills.items()},
        "traffic_bytes": steady.traffic_bytes(),
        "traffic_by_operand_bits": _traffic_bits(
            (c for o in steady.operators for c in o.counts), site.machine
        ),
    }


def _arrays(machine: Machine, steady: ScenarioCost) -> dict[str, dict[str, float]]:
    """Return each array's operators: how many, their cycles and energy, and the shares of the whole."""
    result: dict[str, dict[str, float]] = {}
    total_pj = steady.ledger.total.nominal
    for name in machine.arrays:
        own = [o for o in steady.operators if o.unit == f"array:{name}"]
        cycles = sum(o.cycles for o in own)
        energy = sum(o.energy_pj.nominal for o in own)
        result[name] = {
            "operators": len(own),
            "cycles": cycles,
            "cycles_frac": cycles / steady.cycles if steady.cycles else 0.0,
            "energy_pj": energy,
            "energy_frac": energy / total_pj if total_pj else 0.0,
        }
    return result


def _operators(nodes: Iterable[Node]) -> str:
    times = collections.Counter(node.op for node in nodes)
    return ", ".join(f"{n} {op}" for op, n in sorted(times.items()))


def _summed(counts: Sequence[Count]) -> dict[tuple[str, str, str], int]:
    total: dict[tuple[str, str, str], int] = {}
    for c in counts:
        key = (c.component, c.action, c.operand)
        total[key] = total.get(key, 0) + c.count
    return total


def _bands(bands: dict[str, Band]) -> dict[str, dict[str, float]]:
    return {name: band.to_json() for name, band in sorted(bands.items())}
