"""The steps of an operator in lines: how many, their cycles, and the formula that gives the cycles of one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from hwsim.arch.component import ArrayComponent, ceil_div
from hwsim.arch.machine import Machine
from hwsim.engine.schedule import Move, Run
from hwsim.mapping.block import is_divisible, part_of
from hwsim.mapping.gemm import GemmProblem
from hwsim.mapping.rowwise import RowProblem
from hwsim.mapping.site import Site
from hwsim.mapping.skipping import tiling_of


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


def step_lines(run: Run, machine: Machine, skipping: bool) -> list[StepLine]:
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


def transfer_lines(runs: tuple[Run, ...], site: Site) -> list[StepLine]:
    """Return the data steps of all runs, a line an operand and level that it comes from or goes to."""
    found: dict[tuple[str, str, str], list[tuple[Run, Move]]] = {}
    for run in runs:
        for move in run.moves:
            found.setdefault((move.name, move.memory, move.level), []).append((run, move))
    lines = []
    for (text, memory, level), moves in found.items():
        each = np.concatenate([m.cycles[m.cycles > 0] for _, m in moves])
        if not len(each):
            continue
        steps = sum(run.times * int((m.cycles > 0).sum()) for run, m in moves)
        total = sum(run.times * int(m.cycles.sum()) for run, m in moves)
        moved = sum(run.times * int(m.bits.sum()) for run, m in moves)
        link = site.link_to(level, memory, moves[0][1].verb)
        formula = (
            f"{link.latency_cycles} + {_transfer_time(link.bits_per_cycle)} on the link of {level},"
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
