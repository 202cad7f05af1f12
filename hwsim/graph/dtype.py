"""Number types of the integer graph: what codes a tensor may hold and how wide they are.

A code is an integer; the value it stands for is `scale * (code - zero_point)`. The canonical name
(`BIPOLAR`, `INT8`, `UINT8`, `INT8N` for the narrow range) travels on every tensor and in every file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["bipolar", "unipolar", "ternary", "int", "uint"]

_NAME = re.compile(r"^(U?INT)([1-9]\d?)(N?)$")


@dataclass(frozen=True, slots=True)
class DataType:
    """A number type.

    >>> parse("INT8N").qmin, parse("INT8N").qmax
    (-127, 127)
    >>> parse("TERNARY").bits, BIPOLAR.levels
    (2, (-1, 1))
    """

    kind: Kind
    bits: int
    narrow: bool = False

    @property
    def name(self) -> str:
        """Canonical name, for example `INT8`."""
        if self.kind in ("int", "uint"):
            return f"{self.kind.upper()}{self.bits}{'N' if self.narrow else ''}"
        return self.kind.upper()

    @property
    def qmin(self) -> int:
        """Smallest code."""
        if self.kind in ("bipolar", "ternary"):
            return -1
        if self.kind == "int":
            return -(1 << (self.bits - 1)) + int(self.narrow)
        return 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        if self.kind in ("bipolar", "ternary", "unipolar"):
            return 1
        return (1 << (self.bits - 1)) - 1 if self.kind == "int" else (1 << self.bits) - 1

    @property
    def is_signed(self) -> bool:
        """Whether negative codes exist."""
        return self.qmin < 0

    @property
    def max_abs(self) -> int:
        """Largest magnitude of a code."""
        return max(-self.qmin, self.qmax)

    @property
    def step(self) -> int:
        """Distance of neighbouring codes: 2 for bipolar, else 1 (arithmetic contract, section 4)."""
        return 2 if self.kind == "bipolar" else 1

    @property
    def levels(self) -> tuple[int, ...]:
        """All codes in ascending order; only for types of at most 8 bits."""
        if self.bits > 8:
            raise ValueError(f"{self.name} has too many codes to list")
        return tuple(range(self.qmin, self.qmax + 1, self.step))

    def __str__(self) -> str:
        return self.name


BIPOLAR = DataType("bipolar", 1)
UNIPOLAR = DataType("unipolar", 1)
TERNARY = DataType("ternary", 2)


def int_(bits: int, narrow: bool = False) -> DataType:
    """Two's-complement integers of `bits` bits; `narrow` drops the most negative code."""
    return DataType("int", bits, narrow)


def uint(bits: int) -> DataType:
    """Unsigned integers of `bits` bits."""
    return DataType("uint", bits)


def parse(name: str) -> DataType:
    """Read a canonical name.

    Raises:
        ValueError: the name is no number type.
    """
    simple = {"BIPOLAR": BIPOLAR, "UNIPOLAR": UNIPOLAR, "TERNARY": TERNARY}
    if name in simple:
        return simple[name]
    match = _NAME.match(name)
    if match is None or int(match[2]) > 64 or (match[1] == "UINT" and match[3]):
        raise ValueError(
            f"a number type must be BIPOLAR, UNIPOLAR, TERNARY, INTn, INTnN or UINTn, not {name!r}"
        )
    return DataType("uint" if match[1] == "UINT" else "int", int(match[2]), bool(match[3]))
