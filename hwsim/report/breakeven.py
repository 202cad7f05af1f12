"""At which value of one key a machine stops winning over another.

A unit energy enters both totals linearly once the mappings are fixed, so its crossing is solved for exactly, and
once for each of the joint draws of all other unknowns. Any other key is a whole number: both machines are costed
at values spread over the range, and between two with different winners the first of the other winner is bisected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.arch.machine import Machine
from hwsim.arch.spec import Quantity
from hwsim.engine.cost import cost
from hwsim.engine.draws import HIGH_PERCENT, LOW_PERCENT
from hwsim.engine.energy import Ledger, Prices
from hwsim.errors import ConfigError
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.objective import Objective
from hwsim.report.keys import LENGTH, Number, find_number, with_quantity
from hwsim.report.table import energy_text
from hwsim.search import Costs, Variant
from hwsim.search import cost as cost_many

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "hwsim/breakeven/1"
POINTS = 9
"""Values that a range is first tried at. Two crossings between neighbours of them are not seen."""
SPAN = 8
"""Without a range, from a machine's own value over this to this times it."""
Key = Literal["energy", "cycles"]
Goal = Literal["cycles", "energy"]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the winner changes.

    `value` is exact for a unit energy; of a whole number it is the first value with the winner `above`. `totals` are those there
    of A and B (pJ, or seconds), with the mappings chosen anew. `band` is the 5th and 95th percentile over the draws in
    which there is a crossing, `share` of all.
    """

    value: float
    totals: tuple[float, float]
    below: str
    above: str
    band: tuple[float, float] | None = None
    share: float | None = None


@dataclass(frozen=True)
class BreakEven:
    """What `hwsim breakeven` shows. `winner` wins wherever nothing crosses; None where there is a crossing."""

    model: str
    sides: tuple[str, str]
    over: str
    by: Key
    exact: bool
    own: tuple[float | None, float | None]
    """the key's value in each machine's file"""
    range: tuple[float, float]
    crossings: tuple[Crossing, ...]
    winner: str | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data; an open end of the range is None."""
        unit = "energy_pj" if self.by == "energy" else "latency_s"
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "sides": list(self.sides),
            "over": self.over,
            "by": self.by,
            "exact": self.exact,
            "own": list(self.own),
            "range": [None if math.isinf(x) else x for x in self.range],
            "crossings": [
                {
                    "value": c.value,
                    unit: list(c.totals),
                    "wins_below": c.below,
                    "wins_above": c.above,
                    "band": None if c.band is None else list(c.band),
                    "share_of_draws": c.share,
                }
                for c in self.crossings
            ],
            "winner": self.winner,
            "notes": list(self.notes),
        }

    def render(self, console: Console) -> None:
        """Print the crossings, or who wins throughout."""
        from hwsim.report.question_tables import print_breakeven

        print_breakeven(self, console)


def breakeven(
    graph: QuantGraph,
    model: str,
    machines: tuple[Machine, Machine],
    sources: tuple[str, str],
    over: str,
    limits: tuple[float | None, float | None] = (None, None),
    by: Key = "energy",
    objective: Goal = "cycles",
) -> BreakEven:
    """Find where the cheaper of two machines changes; all of one steady inference.

    Args:
        graph: the model's graph.
        model: its name.
        machines: A and B.
        sources: their names or files, to set whole numbers in.
        over: the key, changed on each machine that has it, or `sequence_length`.
        limits: ends of the range; a unit energy needs none.
        by: what is compared: nominal energy, or the time of the cycles.
        objective: what mappings are chosen for.

    Raises:
        ConfigError: neither machine has such a number, or the range is empty.
    """
    names = (machines[0].name, machines[1].name)
    if names[0] == names[1]:
        names = (f"A:{names[0]}", f"B:{names[1]}")
    if over == LENGTH:
        found: list[Number | None] = [None, None]
        low, high = limits[0] or 1, limits[1] or graph.max_length or 1
        own: tuple[float | None, float | None] = (None, None)
    else:
        found = find_number(machines, over)
        own = (_value(found[0]), _value(found[1]))
        if any(isinstance(n, Quantity) for n in found):
            span = (limits[0] or 0.0, math.inf if limits[1] is None else limits[1])
            _check(over, span)
            base = BreakEven(model, names, over, by, True, own, span, (), None, ())
            return _exact(base, graph, machines, objective)
        there = [n for n in found if isinstance(n, int)]
        low = limits[0] if limits[0] is not None else max(1, min(there) // SPAN)
        high = limits[1] if limits[1] is not None else max(there) * SPAN
    if int(low) != low or int(high) != high:
        raise ConfigError(f"{over} must be whole, so must its range, not {low:g} to {high:g}")
    ends = int(low), int(high)
    _check(over, ends)
    totals = _length_totals(graph, machines, by, objective) if over == LENGTH else _key_totals(
        graph, sources, [n is not None for n in found], over, by, objective
    )  # fmt: skip
    crossings, winner, notes = bisect(totals, ends, names)
    return BreakEven(model, names, over, by, False, own, ends, crossings, winner, notes)


def _value(number: Number | None) -> float | None:
    return number.value if isinstance(number, Quantity) else number


def _check(over: str, span: tuple[float, float]) -> None:
    if not 0 <= span[0] < span[1]:
        raise ConfigError(
            f"{over}: the range must go up from at least 0, not {span[0]:g} to {span[1]:g}"
        )


# -- unit energies --------------------------------------------------------------------------------


def _exact(
    base: BreakEven, graph: QuantGraph, machines: tuple[Machine, Machine], objective: Goal
) -> BreakEven:
    """Fill in the crossing of a unit energy, or who wins throughout."""
    key, names, (low, high) = base.over, base.sides, base.range
    goal = Objective(objective)
    reports = [cost(graph, m, objective=goal) for m in machines]
    if base.by == "cycles":
        note = "cycles do not depend on a unit energy"
        winner = _winner([r.latency_s["steady"] for r in reports], names)
        return replace(base, winner=winner, notes=(note,))
    has = [n is not None for n in base.own]
    sides = list(zip(machines, has, reports, strict=True))
    a, b = (Line.of(r.steady.ledger, m, key if there else None) for m, there, r in sides)
    at = a.meets(b)
    if at is None or not low < at < high:
        inside = low + 1.0 if math.isinf(high) else (low + high) / 2
        return replace(base, winner=_winner([a.at(inside), b.at(inside)], names))
    drawn = (b.draws - a.draws) / (a.slope - b.slope)
    drawn = drawn[drawn > 0]  # in the other draws one machine wins at every value
    band = np.percentile(drawn, (LOW_PERCENT, HIGH_PERCENT)) if len(drawn) else (at, at)
    anew = [
        _anew(graph, m, key, at, goal) if there else r.energy_pj.nominal for m, there, r in sides
    ]
    notes: tuple[str, ...] = ()
    if any(not math.isclose(x, a.at(at), rel_tol=1e-6) for x in anew):
        fixed = energy_text(a.at(at))
        notes = (f"solved with the mappings of the files' values, {fixed} each; mapped anew there, they differ",)  # fmt: skip
    below, above = names if a.slope > b.slope else names[::-1]
    crossing = Crossing(
        value=at,
        totals=(anew[0], anew[1]),
        below=below,
        above=above,
        band=(float(band[0]), float(band[1])),
        share=len(drawn) / len(a.draws),
    )
    return replace(base, crossings=(crossing,), notes=notes)


@dataclass(frozen=True)
class Line:
    """An energy as a function of one unit energy x, in its own unit: fixed + slope * x, pJ; `draws` of the fixed part."""

    fixed: float
    slope: float
    draws: Any

    @classmethod
    def of(cls, ledger: Ledger, machine: Machine, key: str | None) -> Line:
        """Take a run's counts apart; without a key nothing depends on it."""
        if key is None:
            return cls(ledger.total.nominal, 0.0, ledger.draws)
        none = Ledger(Prices(with_quantity(machine, key, 0.0)), ledger.entries)
        one = Prices(with_quantity(machine, key))
        slope = math.fsum(
            c.count * one.price(c.component, c.action).pj
            for _, c in ledger.entries
            if none.prices.price(c.component, c.action).pj != one.price(c.component, c.action).pj
        )
        return cls(none.nominal_pj, slope, none.draws)

    def at(self, x: float) -> float:
        """Return the energy at a value, pJ."""
        return self.fixed + self.slope * x

    def meets(self, other: Line) -> float | None:
        """Return where two lines cross, or None."""
        if self.slope == other.slope:
            return None
        return (other.fixed - self.fixed) / (self.slope - other.slope)


def _anew(graph: QuantGraph, machine: Machine, key: str, value: float, goal: Objective) -> float:
    one = with_quantity(machine, key)
    return cost(graph, with_quantity(one, key, value), objective=goal).energy_pj.nominal


def _winner(totals: Any, names: tuple[str, str]) -> str | None:
    if totals[0] == totals[1]:
        return None
    return names[0] if totals[0] < totals[1] else names[1]


# -- whole numbers --------------------------------------------------------------------------------

Totals = Callable[[list[int]], list["tuple[float, float] | str"]]
"""values -> totals of A and B at each, or why one of them cannot run there"""


def _key_totals(
    graph: QuantGraph, sources: tuple[str, str], has: list[bool], key: str, by: Key, goal: Goal
) -> Totals:
    def totals(values: list[int]) -> list[tuple[float, float] | str]:
        sides = [
            cost_many(graph, [Variant(s, ((key, v),) if there else ()) for v in values], goal)
            for s, there in zip(sources, has, strict=True)
        ]
        return [_pair(sides[0], sides[1], i, by) for i in range(len(values))]

    return totals


def _length_totals(
    graph: QuantGraph, machines: tuple[Machine, Machine], by: Key, goal: Goal
) -> Totals:
    def totals(values: list[int]) -> list[tuple[float, float] | str]:
        found = [cost_many(graph, machines, goal, length=v) for v in values]
        return [_pair(c.at([0]), c.at([1]), 0, by) for c in found]

    return totals


def _pair(a: Costs, b: Costs, i: int, by: Key) -> tuple[float, float] | str:
    for side in (a, b):
        if side.refusal[i]:
            return str(side.refusal[i])
    if by == "energy":
        return float(a.energy_pj[i]), float(b.energy_pj[i])
    return tuple(int(s.cycles_steady[i]) / int(s.clock_hz[i]) for s in (a, b))  # type: ignore[return-value]


def bisect(
    totals: Totals, ends: tuple[int, int], names: tuple[str, str]
) -> tuple[tuple[Crossing, ...], str | None, tuple[str, ...]]:
    """Return the crossings in a range of whole numbers, who wins where there are none, and what to know.

    Args:
        totals: of both machines at some values.
        ends: first and last value.
        names: of the machines.
    """
    grid = np.geomspace(max(ends[0], 1), ends[1], POINTS)
    values = sorted({ends[0], *(round(float(x)) for x in grid), ends[1]})
    known: dict[int, tuple[float, float] | str] = dict(zip(values, totals(values), strict=True))
    runs = {v: t for v, t in known.items() if not isinstance(t, str)}
    refused = {v: t for v, t in known.items() if isinstance(t, str)}
    notes = [f"{v:,}: {_first_line(text)}" for v, text in refused.items()]
    if not runs:
        raise ConfigError(f"no value from {ends[0]:,} to {ends[1]:,} can run: {notes[0]}")
    notes.append(
        f"looked at {len(values)} values first; two crossings between neighbours are not seen"
    )
    won = {v: _winner(t, names) for v, t in runs.items() if t[0] != t[1]}
    crossings = []
    for low, high in zip(list(won)[:-1], list(won)[1:], strict=True):
        if won[low] != won[high]:
            crossings.append(_bracket(totals, low, high, won, names, runs))
    winner = next(iter(won.values()), None) if not crossings else None
    return tuple(crossings), winner, tuple(notes)


def _bracket(
    totals: Totals, low: int, high: int, won: Mapping[int, str | None],
    names: tuple[str, str], runs: dict[int, tuple[float, float]],
) -> Crossing:  # fmt: skip
    """Return the first value of the winner at `high`, a tie counting for it."""
    below, above, low_end = won[low], won[high], low
    while high - low > 1:
        middle = (low + high) // 2
        (found,) = totals([middle])
        if isinstance(found, str):
            raise ConfigError(
                f"cannot bisect between {low_end:,} and {high:,}, at {middle:,}: {_first_line(found)}"
            )
        runs[middle] = found
        if _winner(found, names) == below:
            low = middle
        else:
            high = middle
    return Crossing(float(high), runs[high], str(below), str(above))


def _first_line(text: str) -> str:
    return text.splitlines()[0]
