"""Energy: integer counts times unit energies, with their provenance and their joint uncertainty.

A `Count` says how often a component did something. `Prices` turns counts into picojoules. Bounds of a
total are never sums of bounds: every unit energy is drawn log-uniformly between its low and high, a
quantity that several parts or machines share is drawn once, and the band is that of the totals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.arch.component import ArrayComponent
from hwsim.arch.machine import Machine
from hwsim.arch.spec import Quantity
from hwsim.arch.work import Work
from hwsim.engine.draws import DRAWS, Band, Draws, draw_position
from hwsim.graph.dtype import DataType, parse

PARTS = ("array", "vector", "memory", "dram", "dma", "control", "leakage", "idle")
"""what an energy is divided into where machines with other components are compared"""

_PJ_PER_FJ = 1e-3
_PJ_PER_S_OF_MW = 1e9

Units = tuple[tuple[tuple[str, str], int], ...]
"""how often each (component, action) is done, sorted"""


@dataclass(frozen=True, slots=True)
class Count:
    """`count` times `action` in `component`, on behalf of `operand` (`-`: of none in particular)."""

    component: str
    action: str
    operand: str
    count: int

    def times(self, factor: int) -> Count:
        """Return as many times as much."""
        return Count(self.component, self.action, self.operand, factor * self.count)


@dataclass(frozen=True, slots=True)
class Price:
    """Energy of one action: a quantity and the factor from its unit to pJ. `name` identifies its draw."""

    name: str
    quantity: Quantity
    to_pj: float

    @property
    def pj(self) -> float:
        """Nominal picojoules of one action."""
        return self.quantity.value * self.to_pj


class Prices:
    """Unit energies of a machine by (component, action)."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known: dict[tuple[str, str], Price] = {}
        self._drawn: dict[tuple[str, str], Draws] = {}
        self._bands: dict[Units, tuple[float, float]] = {}

    def price(self, component: str, action: str) -> Price:
        """Return the price of one action.

        Raises:
            KeyError: the machine's description has no such component or action.
        """
        key = (component, action)
        if key not in self._known:
            quantity, to_pj, local = self._look_up(component, action)
            # One clock tree: the same unknown for every component that waits.
            owner = "idle" if action == "idle_cycle" else f"{component}.{local}"
            scope = f"{self._machine.name}/{owner}"
            self._known[key] = Price(quantity.shared or scope, quantity, to_pj)
        return self._known[key]

    def nominal_pj(self, counts: Iterable[Count]) -> float:
        """Return the nominal energy of some counts."""
        return math.fsum(c.count * self.price(c.component, c.action).pj for c in counts)

    def drawn_pj(self, units: Units) -> Draws:
        """Return the energy of some units in each draw: [draws] pJ."""
        totals = np.zeros(DRAWS)
        for unit, count in units:
            totals += count * self._drawn_unit_pj(*unit)
        return totals

    def band(self, units: Units, nominal: float) -> Band:
        """Return the band of some units; equal ones, those of equal layers for instance, are drawn once."""
        if units not in self._bands:
            drawn = Band.of(self.drawn_pj(units), nominal)
            self._bands[units] = drawn.low, drawn.high
        low, high = self._bands[units]
        return Band(low, nominal, high)

    def _drawn_unit_pj(self, component: str, action: str) -> Draws:
        """Return the energy of one action in each draw: low * (high / low) ** position."""
        key = (component, action)
        if key not in self._drawn:
            price = self.price(component, action)
            q = price.quantity
            if q.low == q.high:
                self._drawn[key] = np.full(DRAWS, q.value * price.to_pj)
            else:
                spread = (q.high / q.low) ** draw_position(price.name)
                self._drawn[key] = np.asarray(q.low * spread * price.to_pj)
        return self._drawn[key]

    def _look_up(self, component: str, action: str) -> tuple[Quantity, float, str]:
        """Return quantity, factor to pJ and the name of the quantity within its component."""
        kind, _, name = component.partition(":")
        verb, _, detail = action.partition(":")
        spec = self._machine.spec
        if action == "leakage_cycle":
            leakage = self._leakage(kind, name)
            return leakage, _PJ_PER_S_OF_MW / spec.clock_hz, "leakage_mw"
        if action == "idle_cycle" and spec.idle is not None:
            return spec.idle.clock_pj_per_cycle, 1.0, "idle"
        if kind == "array":
            return self._array(name, verb, detail)
        if kind == "memory" and verb in ("read", "write"):
            memory = self._machine.memories[name]
            return (memory.read_pj if verb == "read" else memory.write_pj), 1.0, f"{verb}_pj"
        if kind == "vector" and spec.vector_unit is not None:
            cost = spec.vector_unit.operators[detail]
            per_row = verb == "row"
            quantity = cost.energy_pj_per_row if per_row else cost.energy_pj_per_element
            return quantity, 1.0, f"{detail}.energy_pj_per_{'row' if per_row else 'element'}"
        if kind == "dram":
            return spec.dram.energy_pj_per_bit, 1.0, "energy_pj_per_bit"
        if kind == "dma":
            return spec.dma.energy_pj_per_bit, 1.0, "energy_pj_per_bit"
        if kind == "control" and spec.control_pj_per_step is not None:
            return spec.control_pj_per_step, 1.0, "pj_per_step"
        raise KeyError(f"{component}.{action}")

    def _array(self, name: str, verb: str, detail: str) -> tuple[Quantity, float, str]:
        array = self._machine.arrays[name]
        energy = array.spec.energy
        if verb == "lane_op":
            activation, weight = detail.split("x")
            quantity = array.lane_op_fj(parse(activation), parse(weight))
            common = quantity is energy.lane_op_fj
            return quantity, _PJ_PER_FJ, "lane_op" if common else f"lane_op.{detail}"
        return array.action_fj(verb), _PJ_PER_FJ, verb

    def _leakage(self, kind: str, name: str) -> Quantity:
        machine = self._machine
        quantity: Quantity | None = None
        if kind == "array":
            quantity = machine.arrays[name].leakage_mw
        elif kind == "memory":
            quantity = machine.memories[name].leakage_mw
        elif kind == "vector" and machine.spec.vector_unit is not None:
            quantity = machine.spec.vector_unit.leakage_mw
        if quantity is None:
            raise KeyError(f"{kind}:{name}.leakage_mw")
        return quantity


def part(count: Count) -> str:
    """Return which of `PARTS` a count belongs to."""
    if count.action in ("leakage_cycle", "idle_cycle"):
        return count.action.removesuffix("_cycle")
    return count.component.partition(":")[0]


def array_counts(
    array: ArrayComponent, a: DataType, w: DataType, steps: Sequence[tuple[int, Work]]
) -> list[Count]:
    """Count what an array does in compute steps, memory accesses apart.

    Args:
        array: the array.
        a: type of the activation.
        w: type of the other operand.
        steps: (how many such steps, what one of them does).
    """
    name = f"array:{array.name}"
    totals: dict[tuple[str, str], int] = {}
    for times, work in steps:
        for key, count in (
            ((f"lane_op:{a}x{w}", "-"), work.lane_ops),
            (("accumulator_update", "accumulator"), work.accumulator_updates),
            (("operand_register_bit", "activation"), work.activation.register_bits),
            (("operand_register_bit", "weight"), work.weight.register_bits),
            *(((action, "-"), count) for action, count in work.own),
        ):
            totals[key] = totals.get(key, 0) + times * count
    return [Count(name, action, operand, count) for (action, operand), count in totals.items()]


def waiting_counts(machine: Machine, cycles: int, busy: dict[str, int]) -> list[Count]:
    """Count leakage in every cycle of every part, and idle clock in the cycles that a unit waits.

    Args:
        machine: the machine.
        cycles: length of the stretch of time.
        busy: component -> cycles that it worked; the arrays and the vector unit wait otherwise.
    """
    spec = machine.spec
    units = [f"array:{name}" for name in machine.arrays]
    leaking = [u for u, a in zip(units, machine.arrays.values(), strict=True) if a.leakage_mw]
    leaking += [f"memory:{name}" for name in machine.memories]
    if spec.vector_unit is not None:
        units.append("vector")
        if spec.vector_unit.leakage_mw is not None:
            leaking.append("vector")
    counts = [Count(unit, "leakage_cycle", "-", cycles) for unit in leaking]
    if spec.idle is not None:
        counts += [Count(u, "idle_cycle", "-", cycles - busy.get(u, 0)) for u in units]
    return [c for c in counts if c.count]


@dataclass(frozen=True)
class Ledger:
    """All counts of a run by operator, priced. Breakdowns and bands are read from it."""

    prices: Prices
    entries: Sequence[tuple[str, Count]]
    """(operator, count)"""

    @cached_property
    def _energies(self) -> list[float]:
        return [c.count * self.prices.price(c.component, c.action).pj for _, c in self.entries]

    def bands(self, keys: Sequence[str]) -> dict[str, Band]:
        """Group the entries by a key each and return the band of every group.

        Args:
            keys: one group name for each entry, for example its operator.
        """
        nominal: dict[str, list[float]] = {}
        units: dict[str, dict[tuple[str, str], int]] = {}
        for key, (_, count), energy in zip(keys, self.entries, self._energies, strict=True):
            nominal.setdefault(key, []).append(energy)
            group = units.setdefault(key, {})
            unit = (count.component, count.action)
            group[unit] = group.get(unit, 0) + count.count
        return {
            key: self.prices.band(tuple(sorted(units[key].items())), math.fsum(nominal[key]))
            for key in nominal
        }

    @cached_property
    def draws(self) -> Draws:
        """Energy of everything in each draw: [draws] pJ."""
        units: dict[tuple[str, str], int] = {}
        for _, c in self.entries:
            units[c.component, c.action] = units.get((c.component, c.action), 0) + c.count
        return self.prices.drawn_pj(tuple(sorted(units.items())))

    def by_quantity(self) -> dict[str, tuple[float, Quantity]]:
        """Return what rests on each physical unknown: nominal pJ, and one of its quantities."""
        found: dict[str, tuple[float, Quantity]] = {}
        for (_, c), energy in zip(self.entries, self._energies, strict=True):
            price = self.prices.price(c.component, c.action)
            before = found.get(price.name, (0.0, price.quantity))[0]
            found[price.name] = before + energy, price.quantity
        return found

    @property
    def nominal_pj(self) -> float:
        """Nominal energy of everything: `total.nominal` without the draws."""
        return math.fsum(self._energies)

    @cached_property
    def total(self) -> Band:
        """Energy of everything."""
        if not self.entries:
            return Band(0.0, 0.0, 0.0)
        return self.bands(["all"] * len(self.entries))["all"]

    def by_operator(self) -> dict[str, Band]:
        """Return the energy of each operator."""
        return self.bands([node for node, _ in self.entries])

    def by_component(self) -> dict[str, Band]:
        """Return the energy of each component, its leakage and idle clock included."""
        return self.bands([c.component for _, c in self.entries])

    def by_part(self) -> dict[str, Band]:
        """Return the energy of each of `PARTS`: the kinds of component, leakage and idle clock apart."""
        return self.bands([part(c) for _, c in self.entries])

    def by_operand(self) -> dict[str, Band]:
        """Return the energy spent on behalf of each operand; `-` is work for none in particular."""
        return self.bands([c.operand for _, c in self.entries])

    def by_action(self) -> dict[str, Band]:
        """Return the energy of each kind of action (`leakage_cycle`, `read`, `lane_op:...`)."""
        return self.bands([c.action for _, c in self.entries])

    def share_by_provenance(self) -> dict[str, float]:
        """Return the share of the nominal joules that rests on unit energies of each kind."""
        joules: dict[str, list[float]] = {}
        for (_, c), energy in zip(self.entries, self._energies, strict=True):
            kind = self.prices.price(c.component, c.action).quantity.kind
            joules.setdefault(kind, []).append(energy)
        total = math.fsum(self._energies)
        shares = {k: math.fsum(v) / total if total else 0.0 for k, v in joules.items()}
        return dict(sorted(shares.items()))

    def share_assumed_frac(self) -> float:
        """Return the share of the nominal joules that rests on unit energies of kind `assumed`."""
        return self.share_by_provenance().get("assumed", 0.0)
