"""Which unknown moves an energy, or the ratio of two, most: each alone from its 5th to its 95th percentile.

On request also what each key of the machines does when it is made smaller and larger, unknown or not. Unit energies
are priced anew on the same counts; whole numbers change the mapping, so the model is costed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hwsim.arch.machine import Machine
from hwsim.arch.spec import Quantity
from hwsim.engine.cost import CostReport, cost
from hwsim.engine.energy import Ledger, Prices
from hwsim.engine.ratio import movers
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.objective import Objective
from hwsim.report.keys import numbers, with_quantity
from hwsim.search import Variant
from hwsim.search import cost as cost_many

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "hwsim/sensitivity/1"
Change = Literal["10%", "x2"]
FACTORS: dict[Change, tuple[float, float]] = {"10%": (0.9, 1.1), "x2": (0.5, 2.0)}


@dataclass(frozen=True, slots=True)
class Bar:
    """What one unknown or key does to the energy (pJ) or the ratio; None where a machine cannot be so, `why` says why."""

    name: str
    at_low: float | None
    at_high: float | None
    why: str = ""

    @property
    def width(self) -> float:
        """Distance of the ends; 0 where one is missing."""
        if self.at_low is None or self.at_high is None:
            return 0.0
        return abs(self.at_high - self.at_low)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "name": self.name,
            "at_low": self.at_low,
            "at_high": self.at_high,
            "refusal": self.why,
        }


@dataclass(frozen=True)
class Sensitivity:
    """What `hwsim sensitivity` shows: of one machine an energy in pJ, of two the energy B / A; the widest bar first."""

    model: str
    sides: tuple[str, ...]
    nominal: float
    unknowns: tuple[Bar, ...]
    change: Change | None
    keys: tuple[Bar, ...]

    @property
    def quantity(self) -> str:
        """What the bars are of."""
        return "energy_pj" if len(self.sides) == 1 else "energy_ratio"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "scenario": "steady",
            "sides": list(self.sides),
            "quantity": self.quantity,
            "nominal": self.nominal,
            "unknowns": [b.to_json() for b in self.unknowns],
            "change": self.change,
            "keys": [b.to_json() for b in self.keys],
        }

    def render(self, console: Console) -> None:
        """Print the tables."""
        from hwsim.report.question_tables import print_sensitivity

        print_sensitivity(self, console)


def sensitivity(
    graph: QuantGraph,
    model: str,
    machines: tuple[Machine, ...],
    sources: tuple[str, ...],
    change: Change | None = None,
    objective: Literal["cycles", "energy"] = "cycles",
) -> Sensitivity:
    """Vary every unknown by itself, and every key where a change is given.

    Args:
        graph: the model's graph.
        model: its name.
        machines: one, or A and B.
        sources: their names or files, to set whole numbers in.
        change: by how much keys are changed; None leaves them out. One that two machines share is changed on both.
        objective: what mappings are chosen for.

    Raises:
        DataError: an energy is zero.
    """
    reports = [cost(graph, m, objective=Objective(objective)) for m in machines]
    ledgers = [r.steady.ledger for r in reports]
    first, second = ledgers[-1], ledgers[0] if len(ledgers) > 1 else None
    found = movers(first, second)
    energies = [ledger.total.nominal for ledger in ledgers]
    bars = [Bar(m.name, m.at_low, m.at_high) for m in found if m.at_low != m.at_high]
    keys: list[Bar] = []
    if change is not None:
        keys = _keys(graph, machines, sources, reports, FACTORS[change], objective)
    return Sensitivity(
        model=model,
        sides=tuple(m.name for m in machines),
        nominal=_over(energies),
        unknowns=_widest_first(bars),
        change=change,
        keys=_widest_first([k for k in keys if k.why or k.at_low != k.at_high]),
    )


def _over(energies: list[float]) -> float:
    """Return the energy of one machine, or B / A of two."""
    return energies[0] if len(energies) == 1 else energies[1] / energies[0]


def _widest_first(bars: list[Bar]) -> tuple[Bar, ...]:
    return tuple(sorted(bars, key=lambda b: (-b.width, b.name)))


def _keys(
    graph: QuantGraph,
    machines: tuple[Machine, ...],
    sources: tuple[str, ...],
    reports: list[CostReport],
    factors: tuple[float, float],
    objective: Literal["cycles", "energy"],
) -> list[Bar]:
    tables = [numbers(m) for m in machines]
    ends: dict[str, list[list[float | str]]] = {
        key: [[] for _ in factors] for table in tables for key in table
    }
    for machine, source, table, report in zip(machines, sources, tables, reports, strict=True):
        whole = [(k, n) for k, n in table.items() if not isinstance(n, Quantity)]
        settings = [(k, max(round(n * f), min(n, 1))) for k, n in whole for f in factors]
        costs = cost_many(graph, [Variant(source, (s,)) for s in settings], objective)
        anew: dict[tuple[str, int], float | str] = {
            s: str(refusal) or float(pj)
            for s, refusal, pj in zip(settings, costs.refusal, costs.energy_pj, strict=True)
        }
        for key, found in ends.items():
            for end, factor in zip(found, factors, strict=True):
                number = table.get(key)
                if number is None:
                    end.append(report.energy_pj.nominal)
                elif isinstance(number, Quantity):
                    end.append(_repriced(report.steady.ledger, machine, key, factor))
                else:
                    end.append(anew[key, max(round(number * factor), min(number, 1))])
    return [_bar(key, found) for key, found in ends.items()]


def _repriced(ledger: Ledger, machine: Machine, key: str, factor: float) -> float:
    """Return the energy of the same counts with one unit energy changed."""
    return Ledger(Prices(with_quantity(machine, key, factor)), ledger.entries).nominal_pj


def _bar(key: str, ends: list[list[float | str]]) -> Bar:
    values: list[float | None] = []
    why = ""
    for end in ends:
        refused = [x for x in end if isinstance(x, str)]
        why = why or next(iter(refused), "")
        values.append(None if refused else _over([float(x) for x in end]))
    return Bar(key, values[0], values[1], why.splitlines()[0] if why else "")
