"""Sizes that a person writes with a unit, such as `64KiB`."""

from __future__ import annotations

import re

_FACTORS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"^(\d+) ?([A-Za-z]+)$")


def parse_capacity_bytes(value: object) -> int:
    """Return a capacity in bytes from a count of bytes or a text with a binary unit.

    Decimal units are refused: half of the world reads `64 KB` as 64,000 and half as 65,536.

    >>> parse_capacity_bytes("64KiB"), parse_capacity_bytes(96)
    (65536, 96)

    Raises:
        ValueError: the value is neither a positive whole number nor such a text.
    """
    wanted = (
        f"must be a positive whole number of bytes, or one with a unit of {', '.join(_FACTORS)}"
    )
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        match = _SIZE.match(value) if isinstance(value, str) else None
        if match is None or match[2] not in _FACTORS:
            raise ValueError(f"{wanted}, not {value!r}")
        count = int(match[1]) * _FACTORS[match[2]]
    if count <= 0:
        raise ValueError(f"{wanted}, not {value!r}")
    return count
