"""Two machines of one area: the second one's main array with more or fewer rows and columns.

The area of an array is proportional to its lanes (docs/machine-files.md), so rows times columns are what can change;
lanes are kept, because they are the format's. Ports grow with the rows or columns that they feed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.arch.component import ArraySpec, ceil_div
from hwsim.arch.machine import Machine
from hwsim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EqualArea:
    """What makes a machine as large as another one: settings, and both areas in square micrometres."""

    settings: tuple[tuple[str, int], ...]
    wanted_um2: float
    reached_um2: float

    @property
    def overrides(self) -> list[str]:
        """The settings as `--set` takes them."""
        return [f"{key}={value}" for key, value in self.settings]


def equal_area(machine: Machine, wanted_um2: float) -> EqualArea:
    """Return the rows and columns of a machine's main array, its first, that bring its area nearest to a wanted one.

    Rows and columns grow alike; of the whole numbers around that the pair of the nearest area is taken.

    Raises:
        ConfigError: a part states no area, the array's is fixed or of one row by nature, or all else is larger already.
    """
    total = require_area(machine)
    name, array = next(iter(machine.arrays.items()))
    spec = array.spec
    own = machine.areas_um2[f"array:{name}"] or 0.0
    if spec.reference is None or spec.fixed or not own:
        raise ConfigError(
            f"machine {machine.name}: array {name} must state area_um2 and `reference:`, and not be `fixed`,"
            " to be made as large as another"
        )
    per_cell = own / (spec.rows * spec.cols)
    cells = (wanted_um2 - (total - own)) / per_cell
    if cells < 1:
        raise ConfigError(
            f"machine {machine.name}: all but array {name} takes {total - own:,.0f} um2, which leaves no cell of"
            f" {per_cell:,.0f} um2 in the {wanted_um2:,.0f} um2 of the other machine"
        )
    rows, cols = _shape(spec, cells)
    settings = {
        "rows": rows,
        "cols": cols,
        "activation_port_bits_per_cycle": ceil_div(spec.activation_port_bits_per_cycle * rows, spec.rows),
        "weight_port_bits_per_cycle": ceil_div(spec.weight_port_bits_per_cycle * cols, spec.cols),
    }  # fmt: skip
    changed = tuple(
        (f"arrays.{name}.{key}", value) for key, value in settings.items() if value != getattr(spec, key)
    )  # fmt: skip
    return EqualArea(changed, wanted_um2, total - own + rows * cols * per_cell)


def require_area(machine: Machine) -> float:
    """Return a machine's area in square micrometres.

    Raises:
        ConfigError: a part states none.
    """
    area = machine.area_um2
    if area is None:
        without = ", ".join(name for name, a in machine.areas_um2.items() if a is None)
        raise ConfigError(
            f"machine {machine.name} must state area_um2 of every part; {without} states none"
        )
    return area


def _shape(spec: ArraySpec, cells: float) -> tuple[int, int]:
    """Return rows and columns of about the same proportions with the nearest number of cells."""
    grown = spec.rows * math.sqrt(cells / (spec.rows * spec.cols))
    tried = {max(1, math.floor(grown)), max(1, math.ceil(grown))}
    shapes = [(rows, max(1, math.floor(cells / rows + 0.5))) for rows in sorted(tried)]
    return min(shapes, key=lambda s: (abs(s[0] * s[1] - cells), abs(s[0] - grown)))
