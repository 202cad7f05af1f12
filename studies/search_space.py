"""The finite space of a search: of each list of a study one entry, and of each key that it varies one value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.units import parse_capacity_bytes
from studies.axes import Setting, Vary, label, values_of

Key = tuple[tuple[int, ...], ...]
"""a point: for each axis the place of its entry in the list, then the places of the values of that entry's keys"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a sampler chooses: one of `count` places."""

    name: str
    count: int
    ordered: bool
    """whether neighbours are alike: numbers that go up are, entries and names are not"""


class Axis:
    """A list of a study, of whose entries a point has one.

    Args:
        name: what the list holds.
        entries: what each of them varies, by its name.
    """

    def __init__(self, name: str, entries: Mapping[str, Vary]) -> None:
        self._names = list(entries)
        self._vary = [
            {key: values_of(values) for key, values in vary.items()} for vary in entries.values()
        ]
        self._entry = Parameter(name, len(self._vary), ordered=False)
        self._keys = [
            [
                Parameter(f"{name} {entry}: {key}", len(values), _ordered(values))
                for key, values in vary.items()
            ]
            for entry, vary in zip(entries, self._vary, strict=True)
        ]

    @property
    def parameters(self) -> list[Parameter]:
        """The choice of the entry, then the keys of all entries: those of the others do nothing."""
        return [self._entry, *itertools.chain.from_iterable(self._keys)]

    @property
    def size(self) -> int:
        """How many different members it has."""
        return sum(math.prod(p.count for p in keys) for keys in self._keys)

    def place(self, chosen: Mapping[str, int]) -> tuple[int, ...]:
        """Return a member by what was chosen for each parameter."""
        entry = chosen[self._entry.name]
        return (entry, *(chosen[p.name] for p in self._keys[entry]))

    def chosen(self, place: Sequence[int]) -> dict[str, int]:
        """Return what must be chosen for a member, without the parameters that do nothing."""
        entry, *values = place
        keys = zip(self._keys[entry], values, strict=True)
        return {self._entry.name: entry, **{p.name: value for p, value in keys}}

    def settings(self, place: Sequence[int]) -> tuple[Setting, ...]:
        """Return the values of a member's keys."""
        entry, *values = place
        vary = self._vary[entry].items()
        return tuple((key, of[i]) for (key, of), i in zip(vary, values, strict=True))

    def label(self, place: Sequence[int]) -> str:
        """Name a member for people."""
        return " ".join(filter(None, (self._names[place[0]], label(self.settings(place)))))

    @property
    def ends(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of each entry the member with the first value of each key, and the one with the last."""
        return [
            ((entry, *(0 for _ in keys)), (entry, *(p.count - 1 for p in keys)))
            for entry, keys in enumerate(self._keys)
        ]

    def places(self) -> Iterator[tuple[int, ...]]:
        """Yield all members, entry by entry, the last key changing fastest."""
        for entry, keys in enumerate(self._keys):
            for values in itertools.product(*(range(p.count) for p in keys)):
                yield (entry, *values)


class Space:
    """All combinations of the members of some axes."""

    def __init__(self, *axes: Axis) -> None:
        self.axes = axes
        self.parameters = [p for axis in axes for p in axis.parameters]
        self.size = math.prod(axis.size for axis in axes)

    def key(self, chosen: Mapping[str, int]) -> Key:
        """Return a point by what was chosen for each parameter."""
        return tuple(axis.place(chosen) for axis in self.axes)

    def chosen(self, key: Key) -> dict[str, int]:
        """Return what must be chosen for a point."""
        places = zip(self.axes, key, strict=True)
        return {name: i for axis, place in places for name, i in axis.chosen(place).items()}

    def all_keys(self) -> Iterator[Key]:
        """Yield all points, those of the last axis changing fastest."""
        return itertools.product(*(axis.places() for axis in self.axes))


def _ordered(values: Sequence[Any]) -> bool:
    numbers = [_number(value) for value in values]
    return all(a is not None and b is not None and a < b for a, b in itertools.pairwise(numbers))


def _number(value: Any) -> int | float | None:
    """Return what a value measures, None where it is no number and no size."""
    if isinstance(value, str):
        try:
            return parse_capacity_bytes(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
