"""One operator down to counts times units: its problem, its mapping, its cycles by formula, each line of its energy."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.arch.machine import Machine
from hwsim.engine.cost import CostReport, OperatorCost
from hwsim.engine.energy import Count, Price, Prices
from hwsim.engine.schedule import TRANSFERS, Run, Split, runs_of, split_of
from hwsim.errors import GraphError, nearest
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.block import is_divisible, part_of
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.problems import Scenario
from hwsim.mapping.rowwise import RowProblem
from hwsim.mapping.site import Site
from hwsim.mapping.skipping import skips, tiling_of

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
class StepLine:
    """Equal steps of one resource: how many, the cycles of one (the fewest and the most) and of all, and why.

    `what` is `compute`, `post`, or the transfer (`load weight`); `size` the tile, or of a transfer its place on chip.
    """

    what: str
    size: str
    steps: int
    least: int
    most: int
    cycles: int
    formula: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "what": self.what,
            "size": self.size,
            "steps": self.steps,
            "cycles_each": [self.least, self.most],
            "cycles": self.cycles,
            "formula": self.formula,
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
    steps = [line for run in runs for line in _steps(run, machine, skipping)]
    return Explanation(
        model=model,
        machine=machine.name,
        clock_hz=machine.spec.clock_hz,
        scenario=scenario,
        operator=operator,
        problem=_problem(operator),
        mapping=_mapping(operator, runs),
        split=split_of(runs),
        steps=(*steps, *_transfers(runs, site)),
        energy=tuple(EnergyLine(c, prices.price(c.component, c.action)) for c in operator.counts),
    )


def _skips(operator: OperatorCost, graph: QuantGraph, machine: Machine) -> bool:
    assert operator.posed is not None
    p = operator.posed.problem
    return isinstance(p, GemmProblem) and skips(
        machine.arrays[p.array], graph.by_name[operator.node]
    )


def _problem(operator: OperatorCost) -> dict[str, Any]:
    """Return the mapping problem of one block as plain data; nothing for a view."""
    if operator.posed is None:
        return {}
    p = operator.posed.problem
    common = {
        "constant_bytes_loaded": p.constant_bits // 8,
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


def _steps(run: Run, machine: Machine, skipping: bool) -> list[StepLine]:
    """Return the compute steps of a run by size of tile, and what the vector unit does behind them."""
    sizes, kind = np.unique(run.sizes, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    lines = []
    for which, size in reversed(list(enumerate(sizes))):
        here = kind == which
        formula = _formula(run, machine, tuple(int(s) for s in size), skipping)
        lines.append(_line("compute", _text(size), run.steps.compute[here], run.times, formula))
    posts = run.steps.post > 0
    outer, kind = np.unique(run.sizes[:, :2], axis=0, return_inverse=True)
    for which, size in reversed(list(enumerate(outer))):
        here = (kind.reshape(-1) == which) & posts
        if here.any():
            assert isinstance(run.problem, GemmProblem)
            rows, cols = (int(s) for s in size)
            formula = " + ".join(
                _vector_formula(op, rows, rows * cols, machine) for op in run.problem.epilogue
            )
            lines.append(_line("post", _text(size), run.steps.post[here], run.times, formula))
    return lines


def _transfers(runs: tuple[Run, ...], site: Site) -> list[StepLine]:
    """Return the data steps of all runs, a line an operand."""
    link = site.link
    found: dict[tuple[str, str], list[tuple[Run, int, int]]] = {}
    for run in runs:
        for i, row in enumerate(TRANSFERS):
            text = f"{'load' if row < 3 else 'store'} {run.operands[i]}"
            found.setdefault((text, run.memories[i]), []).append((run, i, row))
    lines = []
    for (text, memory), places in found.items():
        cycles = [(run.steps.load[row] if row < 3 else run.steps.store, run.times) for run, _, row in places]  # fmt: skip
        each = np.concatenate([c[c > 0] for c, _ in cycles])
        if not len(each):
            continue
        steps = sum(times * int((c > 0).sum()) for c, times in cycles)
        total = sum(times * int(c.sum()) for c, times in cycles)
        moved = sum(run.times * int(run.moved_bits[i].sum()) for run, i, _ in places)
        formula = (
            f"{link.latency_cycles} + {_transfer_time(link.bits_per_cycle)} on the bus,"
            f" after {link.overhead_cycles} of set-up; {moved // 8:,} bytes in all"
        )
        lines.append(
            StepLine(text, memory, steps, int(each.min()), int(each.max()), total, formula)
        )
    return lines


def _transfer_time(bits_per_cycle: Fraction) -> str:
    top, bottom = bits_per_cycle.denominator, bits_per_cycle.numerator
    return f"ceil(bits / {bottom})" if top == 1 else f"ceil(bits * {top} / {bottom})"


def _line(what: str, size: str, cycles: Any, times: int, formula: str) -> StepLine:
    return StepLine(
        what, size, times * len(cycles), int(cycles.min()), int(cycles.max()), times * int(cycles.sum()), formula
    )  # fmt: skip


def _text(size: Any) -> str:
    return " x ".join(str(int(s)) for s in size)


def _formula(run: Run, machine: Machine, size: tuple[int, ...], skipping: bool) -> str:
    """Write how many cycles a compute step of a size takes."""
    p = run.problem
    if isinstance(p, RowProblem):
        (units,) = size
        return _vector_formula(p.op, units * p.rows_per_unit, units * p.elements_per_unit, machine)
    array = machine.arrays[p.array]
    if not is_divisible(array):
        return f"rhythm of a {array.spec.kind} array (docs/machine.md, section 1)"
    (m, n, k), part = size, part_of(array, tiling_of(run.mapping).block)
    r, c, l = part.block(p.a, p.w)  # noqa: E741
    passes, interval = part.passes(p.a, p.w), part.interval_of(m, n, k, p.a, p.w)
    blocks = f"ceil({m}/{r}) * ceil({n}/{c}) * ceil({k}/{l})"
    if passes > 1:
        blocks += f" * {passes} passes"
    beats = part.beats(m, n, k, p.a, p.w)
    text = f"{blocks} = {beats:,} beats of {interval} cycle{'s' if interval > 1 else ''}"
    if interval > part.spec.initiation_interval_cycles:
        text += f" ({_port(part, p, min(m, r), min(n, c), min(k, l))})"
    return text + (", less the empty ones" if skipping else "")


def _port(part: ArrayComponent, p: GemmProblem, rows: int, cols: int, lanes: int) -> str:
    """Name the operand port that a beat waits for, with the bits that it delivers."""
    s, (a_bits, w_bits) = part.spec, part.operand_bits(p.a, p.w)
    a = ("activation", rows * lanes * a_bits, s.activation_port_bits_per_cycle)
    w = ("weight", cols * lanes * w_bits, s.weight_port_bits_per_cycle)
    name, bits, port = max(a, w, key=lambda x: ceil_div(x[1], x[2]))
    return f"{name} port: ceil({bits}/{port})"


def _vector_formula(op: str, rows: int, elements: int, machine: Machine) -> str:
    assert machine.vector_unit is not None
    unit = machine.vector_unit.spec
    cost = unit.operators[op]
    sweep = " + ".join(str(p.cycles_per_element) for p in cost.passes)
    return (
        f"{op}: {unit.overhead_cycles} + {rows} * {cost.cycles_per_row}"
        f" + ceil({elements}/{unit.lanes}) * ({sweep})"
    )
