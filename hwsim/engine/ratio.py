"""How two energies compare when both rest on the same unknowns.

Each draw prices both at once, so that what they share cancels: the band of a ratio is no ratio of bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.arch.spec import Quantity
from hwsim.engine.draws import HIGH_PERCENT, LOW_PERCENT, Band
from hwsim.engine.energy import Ledger
from hwsim.errors import DataError

MOST_MOVERS = 3


@dataclass(frozen=True, slots=True)
class Mover:
    """A quantity, and the ratio, or the energy in pJ, with it alone at its 5th and at its 95th percentile."""

    name: str
    at_low: float
    at_high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The band of a ratio of energies, and the quantities that move it most, the first most."""

    band: Band
    movers: tuple[Mover, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        movers = [
            {"quantity": m.name, "at_low": m.at_low, "at_high": m.at_high} for m in self.movers
        ]
        return {**self.band.to_json(), "movers": movers}


def ratio(first: Ledger, second: Ledger) -> Ratio:
    """Return the energy of one run over that of another, on the same draws.

    Raises:
        DataError: the second took no energy.
    """
    above, below = first.total.nominal, second.total.nominal
    if below == 0:
        raise DataError("a ratio needs an energy that is not zero below the line")
    band = Band.of(first.draws / second.draws, above / below)
    moved = movers(first, second)[:MOST_MOVERS]
    return Ratio(band, tuple(m for m in moved if m.at_low != m.at_high))


def movers(first: Ledger, second: Ledger | None = None) -> tuple[Mover, ...]:
    """Return every unknown that a ratio of energies rests on, what moves it most first; without a second run, of one energy in pJ.

    Raises:
        DataError: an energy is zero.
    """
    above, below = first.total.nominal, 1.0 if second is None else second.total.nominal
    if not (above and below):
        raise DataError("what moves an energy needs one that is not zero")
    parts = first.by_quantity(), {} if second is None else second.by_quantity()
    found = []
    for name in sorted(parts[0].keys() | parts[1].keys()):
        quantity = (parts[0].get(name) or parts[1][name])[1]
        shares = [part[name][0] if name in part else 0.0 for part in parts]
        ends = [
            (above + shares[0] * change) / (below + shares[1] * change)
            for change in (_change(quantity, percent) for percent in (LOW_PERCENT, HIGH_PERCENT))
        ]
        found.append(Mover(name, *ends))
    found.sort(key=lambda m: (-abs(math.log(m.at_high / m.at_low)), m.name))
    return tuple(found)


def _change(quantity: Quantity, percent: int) -> float:
    """Return by what part of its nominal value a log-uniform quantity is off at a percentile."""
    if quantity.low == quantity.high:
        return 0.0
    drawn: float = quantity.low * (quantity.high / quantity.low) ** (percent / 100)
    return drawn / quantity.value - 1
