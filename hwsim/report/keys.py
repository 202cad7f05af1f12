"""The numbers of a machine by the key that `--set` would use: physical quantities, and whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hwsim.arch.machine import Machine
from hwsim.arch.spec import Quantity, Spec
from hwsim.errors import ConfigError, nearest

LENGTH = "sequence_length"
"""the one key that is no machine's"""
_APART = ("validation", "operating_points", "technology", "reference", "scaling")
"""parts that change no cost by themselves: figures to compare with, points to run at, what numbers refer to"""

Number = Quantity | int


def numbers(machine: Machine) -> dict[str, Number]:
    """Return the quantities and whole numbers of a machine, areas left out, by key in the file's order."""
    return dict(_numbers(machine.spec, ()))


def _numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Number]]:
    if isinstance(value, Quantity) or (isinstance(value, int) and not isinstance(value, bool)):
        yield ".".join(path), value
    elif isinstance(value, Spec):
        for field in type(value).model_fields:
            if field not in _APART and field != "area_um2":
                yield from _numbers(getattr(value, field), (*path, field))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _numbers(part, (*path, str(index)))


def find_number(machines: Sequence[Machine], key: str) -> list[Number | None]:
    """Return the number that each machine has under a key; None where only others have it.

    Raises:
        ConfigError: none has it, or it is a quantity of one and a whole number of another.
    """
    known = [numbers(m) for m in machines]
    found = [table.get(key) for table in known]
    there = [n for n in found if n is not None]
    names = " and ".join(m.name for m in machines)
    if not there:
        keys = list(dict.fromkeys(k for table in known for k in table))
        raise ConfigError(
            f"{key!r} must be a number of a machine, or {LENGTH}; none of {names} has this"
            f"{nearest(key, [*keys, LENGTH])}"
        )
    if len({isinstance(n, Quantity) for n in there}) > 1:
        raise ConfigError(f"{key} must be the same kind of number on {names}")
    return found


def with_quantity(machine: Machine, key: str, factor: float | None = None) -> Machine:
    """Return a machine with one quantity multiplied, or, without a factor, set to exactly 1 of its unit.

    A factor of 0 leaves out what it stands for.
    """
    return Machine(_replaced(machine.spec, key.split("."), factor))


def _replaced(value: Any, path: list[str], factor: float | None) -> Any:
    if not path:
        if factor is None:
            update = {"value": 1.0, "low": 1.0, "high": 1.0}
        else:
            update = {b: getattr(value, b) * factor for b in ("value", "low", "high")}
        return value.model_copy(update=update)
    first, rest = path[0], path[1:]
    if isinstance(value, Spec):
        return value.model_copy(update={first: _replaced(getattr(value, first), rest, factor)})
    if isinstance(value, dict):
        return {**value, first: _replaced(value[first], rest, factor)}
    return [_replaced(v, rest, factor) if i == int(first) else v for i, v in enumerate(value)]
