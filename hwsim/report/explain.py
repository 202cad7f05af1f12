"""One operator down to counts times units: its problem, its mapping, its cycles by formula, each line of its energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.arch.machine import Machine
from hwsim.engine.cost import CostReport, OperatorCost
from hwsim.engine.energy import Count, Price, Prices
from hwsim.engine.schedule import Run, Split, runs_of, split_of
from hwsim.errors import GraphError, nearest
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.problems import Scenario
from hwsim.mapping.rowwise import RowProblem
from hwsim.mapping.site import Site
from hwsim.mapping.skipping import skips
from hwsim.report.step_lines import StepLine, step_lines, transfer_lines

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "hwsim/explain/1"


@dataclass(frozen=True)
class EnergyLine:
    """`count` times one action: an entry of the ledger with its price."""

    count: Count
    price: Price

    @property
    def pj(self) -> float:
        """Nominal picojoules: count times unit energy, as the ledger multiplies them."""
        return self.count.count * self.price.pj

    def to_json(self) -> dict[str, Any]:
        """Return the line; `unit_pj` with its bounds, the kind of figure that it is, and its source."""
        q = self.price.quantity
        return {
            "component": self.count.component,
            "action": self.count.action,
            "operand": self.count.operand,
            "count": self.count.count,
            "unit_pj": {
                "low": q.low * self.price.to_pj,
                "nominal": self.price.pj,
                "high": q.high * self.price.to_pj,
            },
            "pj": self.pj,
            "quantity": self.price.name,
            "kind": q.kind,
            "source": q.source,
        }


@dataclass(frozen=True)
class Explanation:
    """What `hwsim explain` shows of an operator. `problem` and `mapping` are plain data; a view has neither."""

    model: str
    machine: str
    clock_hz: int
    scenario: Scenario
    operator: OperatorCost
    problem: dict[str, Any]
    mapping: dict[str, Any]
    split: Split
    steps: tuple[StepLine, ...]
    energy: tuple[EnergyLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data. The `pj` of all lines add up (`math.fsum`) to `nominal`."""
        o = self.operator
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "machine": self.machine,
            "scenario": self.scenario,
            "node": o.node,
            "op": o.op,
            "fused": list(o.fused),
            "unit": o.unit,
            "blocks": o.blocks,
            "problem": self.problem,
            "mapping": self.mapping,
            "cycles": {"total": o.cycles, **self.split.to_json()},
            "steps": [s.to_json() for s in self.steps],
            "energy_pj": o.energy_pj.to_json(),
            "energy": [line.to_json() for line in self.energy],
        }

    def render(self, console: Console) -> None:
        """Print the problem, the mapping, the cycles and the energy."""
        from hwsim.report.explain_table import print_explanation

        print_explanation(self, console)


def explain(
    report: CostReport, graph: QuantGraph, machine: Machine, node: str, scenario: Scenario, model: str
) -> Explanation:  # fmt: skip
    """Explain what an operator costs.

    Args:
        report: the cost of an inference.
        graph: the graph that was costed.
        machine: the machine that it was costed on.
        node: the operator: the first node of a group, or one that runs behind it.
        scenario: `cold` or `steady`.
        model: name of the model.

    Raises:
        GraphError: the graph has no such operator; names the nearest one.
    """
    priced = report.cold if scenario == "cold" else report.steady
    rows = {name: o for o in priced.operators for name in (o.node, *o.fused)}
    if node not in rows:
        raise GraphError(f"{model}: has no operator {node!r}{nearest(node, list(rows))}")
    operator = rows[node]
    site, prices = Site(machine), Prices(machine)
    runs = runs_of(operator, graph, site)
    skipping = bool(runs) and _skips(operator, graph, machine)
    steps = [line for run in runs for line in step_lines(run, machine, skipping)]
    return Explanation(
        model=model,
        machine=machine.name,
        clock_hz=machine.spec.clock_hz,
        scenario=scenario,
        operator=operator,
        problem=_problem(operator),
        mapping=_mapping(operator, runs),
        split=split_of(runs),
        steps=(*steps, *transfer_lines(runs, site)),
        energy=tuple(EnergyLine(c, prices.price(c.component, c.action)) for c in operator.counts),
    )


def _skips(operator: OperatorCost, graph: QuantGraph, machine: Machine) -> bool:
    assert operator.posed is not None
    p = operator.posed.problem
    return isinstance(p, GemmProblem) and skips(
        machine.arrays[p.array], graph, graph.by_name[operator.node], p
    )


def _problem(operator: OperatorCost) -> dict[str, Any]:
    """Return the mapping problem of one block as plain data; nothing for a view."""
    if operator.posed is None:
        return {}
    p = operator.posed.problem
    common = {
        "constant_bytes_loaded": sum(p.constant_bits) // 8,
        "constant_bytes_a_tile": p.constant_fetch_bits // 8,
    }
    if isinstance(p, RowProblem):
        return {
            "units": p.units,
            "rows_a_unit": p.rows_per_unit,
            "elements_a_unit": p.elements_per_unit,
            "inputs": [
                {
                    "operand": s.operand,
                    "memory": s.memory,
                    "place": "stream" if s.streams else "chip",
                    "bytes_a_unit": s.bits_per_unit / 8,
                    "passes": s.passes,
                }
                for s in p.sources
            ],
            "output": {"place": "stream" if p.out_streams else "chip", "bytes_a_unit": p.out_bits_per_unit / 8},
            **common,
        }  # fmt: skip
    return {
        "batch": p.batch,
        "m": p.m,
        "n": p.n,
        "k": p.k,
        "activation": {"format": str(p.a), "place": p.a_place},
        "weight": {"format": str(p.w), "place": p.w_place, "memory": p.w_memory},
        "output": {"format": str(p.out), "place": "stream" if p.out_streams else "chip"},
        "epilogue": list(p.epilogue),
        "whole_lanes": p.whole_lanes,
        **common,
    }


def _mapping(operator: OperatorCost, runs: tuple[Run, ...]) -> dict[str, Any]:
    """Return the chosen mapping as plain data, `runs` being the mappings of its passes over all tiles."""
    if operator.mapping is None:
        return {}
    each = [{"times": run.times, **run.mapping.to_json()} for run in runs]
    return {**operator.mapping.to_json(), "runs": each}
