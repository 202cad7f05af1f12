"""Axes of a study: one entry of a list that stands for many, a combination of some keys' values each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from hwsim.units import parse_capacity_bytes
from qat.spec import Strict


def _end(value: Any) -> Any:
    return parse_capacity_bytes(value) if isinstance(value, str) else value


End = Annotated[int | float, BeforeValidator(_end)]
"""an end of a range: a number, or bytes with a unit"""


class Range(Strict):
    """Values from one end of a range to the other, for a search to choose from: in equal steps, or each twice the last."""

    from_: End = Field(alias="from")
    to: End
    """the largest value, if a step ends there"""
    step: End | None = None
    log2: bool = False
    """each value is twice the one before it"""

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if not self.to > self.from_:
            raise ValueError(f"to must be greater than from ({self.from_}), not {self.to}")
        if (self.step is None) == (not self.log2):
            raise ValueError("exactly one of step and `log2: true` must be given")
        if self.log2 and not self.from_ > 0:
            raise ValueError(f"from must be greater than 0 with log2, not {self.from_}")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step must be greater than 0, not {self.step}")
        return self

    @property
    def values(self) -> tuple[int | float, ...]:
        """The values, upwards."""
        if self.step is None:
            doubled = itertools.takewhile(
                lambda value: value <= self.to, (self.from_ * 2**k for k in itertools.count())
            )
            return tuple(doubled)
        # in decimals, as they were written: 0.1 + 2 x 0.1 is 0.3 and no 0.30000000000000004
        first, step, last = (Decimal(str(x)) for x in (self.from_, self.step, self.to))
        values = (first + step * k for k in range(int((last - first) / step) + 1))
        whole = isinstance(self.from_, int) and isinstance(self.step, int)
        return tuple(int(v) if whole else float(v) for v in values)


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    texts = [json.dumps(value, sort_keys=True) for value in values]
    twice = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if twice:
        raise ValueError(f"values must differ from each other; given twice: {', '.join(twice)}")
    return values


Values = Annotated[
    Annotated[
        tuple[Any, ...],
        Field(strict=False, min_length=1),
        AfterValidator(_each_once),
        Tag("list"),
    ]
    | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, Mapping | Range) else "list"),
]
Vary = dict[str, Values]
"""key -> its values; the last key changes fastest"""
Setting = tuple[str, Any]


class MachineAxis(Strict):
    """A machine of a study with keys of it set, or a family of its variants. Keys are those of `--set`."""

    machine: str
    """name or file"""
    name: str | None = None
    """what the report calls it; null: the machine's own name"""
    set: dict[str, Any] = Field(default_factory=dict)
    """keys that all variants share, key -> value"""
    vary: Vary = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_key_once(self) -> Self:
        twice = sorted(self.set.keys() & self.vary.keys())
        if twice:
            raise ValueError(f"set and vary must not both hold {', '.join(twice)}")
        return self


class FaultAxis(Strict):
    """Bit errors in the memories of the study's first machine: an accuracy for each export, place, rate and draw.

    The integers are the same on every machine that runs a model, so one of them answers for all.
    """

    where: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """places, `FIELD[:NODES[:FORMAT]]` each (`hwsim run --where`); each is a curve of its own"""
    rates: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False, min_length=1)
    ]
    """probabilities with which a stored bit flips"""
    draws: Annotated[int, Field(ge=1)] = 5
    """how often each rate is drawn, for each seed of the training anew"""

    @model_validator(mode="after")
    def _places_are_places(self) -> Self:
        from hwsim.engine.faults import Place
        from hwsim.errors import BitwrightError

        for text in self.where:
            try:
                Place.parse(text)
            except BitwrightError as fault:
                raise ValueError(str(fault)) from None
        for axis, values in {"where": self.where, "rates": self.rates}.items():
            twice = sorted({str(v) for v in values if tuple(values).count(v) > 1})
            if twice:
                raise ValueError(f"{axis} must differ; given twice: {', '.join(twice)}")
        return self


class Variant(Strict):
    """One machine of a study: what to load, and what the report calls it."""

    machine: str
    name: str | None
    settings: tuple[Setting, ...]
    label: str
    """what tells it from the other variants of its machine; nothing where there are none"""


def variants(axis: MachineAxis | str) -> list[Variant]:
    """Return the machines that an entry of a study's list stands for."""
    if isinstance(axis, str):
        axis = MachineAxis(machine=axis)
    return [variant(axis, point) for point in points(axis.vary)]


def variant(axis: MachineAxis | str, point: Sequence[Setting]) -> Variant:
    """Return the machine that an entry of a study's list becomes with some of its keys set."""
    if isinstance(axis, str):
        axis = MachineAxis(machine=axis)
    settings = (*axis.set.items(), *point)
    return Variant(machine=axis.machine, name=axis.name, settings=settings, label=label(point))


def values_of(values: Values) -> tuple[Any, ...]:
    """Return the values that a key takes, a range written out."""
    return values.values if isinstance(values, Range) else values


def points(vary: Vary) -> Iterator[tuple[Setting, ...]]:
    """Yield every combination of some keys' values; one empty combination where there is no key."""
    for values in itertools.product(*map(values_of, vary.values())):
        yield tuple(zip(vary, values, strict=True))


def label(point: Sequence[Setting]) -> str:
    """Name a combination for people: each key by its last parts, as many as tell it from the other keys.

    >>> label([("arrays.main.rows", 8), ("memories.a.capacity_bytes", "32KiB"), ("memories.b.capacity_bytes", 64)])
    'rows=8 a.capacity_bytes=32KiB b.capacity_bytes=64'
    """
    keys = [key.split(".") for key, _ in point]

    def short(parts: list[str]) -> str:
        for count in range(1, len(parts) + 1):
            if sum(other[-count:] == parts[-count:] for other in keys) == 1:
                break
        return ".".join(parts[-count:])

    return " ".join(
        f"{short(parts)}={_text(value)}" for parts, (_, value) in zip(keys, point, strict=True)
    )


def _text(value: Any) -> str:
    """Write a value; of a physical quantity its number."""
    if isinstance(value, Mapping) and "value" in value:
        value = value["value"]
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def check_keys(vary: Vary, roots: Sequence[str], what: str) -> None:
    """Make sure that varied keys are those of a part that may vary.

    Raises:
        ValueError: a key begins with another word.
    """
    for key in vary:
        if key.partition(".")[0] not in roots:
            raise ValueError(
                f"{what}: vary: a key must be {', '.join(roots[:-1])} or {roots[-1]}, or one below it"
                f" as `recipe.method.mode` is, not '{key}'"
            )
