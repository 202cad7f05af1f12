"""Switching activity as SAIF 2.0 (IEEE 1801, annex on the Switching Activity Interchange Format), backward form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

_FEMTOSECONDS = 10**15
_UNITS = (("ns", 10**6), ("ps", 10**3), ("fs", 1))

Bits = npt.NDArray[np.int64]


def time_scale(clock_hz: int) -> tuple[str, int]:
    """Return the coarsest SAIF time unit that divides a clock period, and the units in a period.

    A period that is no whole number of femtoseconds is rounded to one.

    >>> time_scale(100_000_000), time_scale(400_000_000), time_scale(300_000_000)
    (('10 ns', 1), ('100 ps', 25), ('1 fs', 3333333))
    """
    period, rest = divmod(_FEMTOSECONDS, clock_hz)
    if rest:
        return "1 fs", period + (2 * rest >= clock_hz)
    for name, size in _UNITS:
        for count in (100, 10, 1):
            if period % (count * size) == 0:
                return f"{count} {name}", period // (count * size)
    raise AssertionError("a whole number of femtoseconds is divisible by one")


def escaped(name: str) -> str:
    r"""Return a name with a backslash in front of what no identifier has.

    >>> print(escaped("a_op[3]"))
    a_op\[3\]
    """
    return re.sub(r"(\W)", r"\\\1", name, flags=re.ASCII)


def saif_lines(
    design: str,
    version: str,
    clock_hz: int,
    cycles: int,
    instances: Mapping[str, Iterable[tuple[str, Bits, Bits]]],
) -> Iterable[str]:
    """Yield the lines of a SAIF file: an instance an array, a net a bit.

    Args:
        design: name of the design.
        version: of this package.
        clock_hz: core clock; times are written in its periods.
        cycles: duration.
        instances: name -> (net, cycles for which each of its bits is 1, flips of each bit), in bit order.
    """
    unit, ticks = time_scale(clock_hz)
    yield "(SAIFILE"
    yield '(SAIFVERSION "2.0")'
    yield '(DIRECTION "backward")'
    yield f'(DESIGN "{design}")'
    yield "(DATE )"  # the same data give the same file
    yield '(VENDOR "Bitwright")'
    yield '(PROGRAM_NAME "hwsim activity")'
    yield f'(VERSION "{version}")'
    yield "(DIVIDER / )"
    yield f"(TIMESCALE {unit})"
    yield f"(DURATION {cycles * ticks})"
    for name, nets in instances.items():
        yield f"(INSTANCE {escaped(name)}"
        yield "  (NET"
        for net, high, toggles in nets:
            for bit, (one, flips) in enumerate(zip(high.tolist(), toggles.tolist(), strict=True)):
                times = f"(T0 {(cycles - one) * ticks}) (T1 {one * ticks}) (TX 0)"
                yield f"    ({escaped(f'{net}[{bit}]')} {times} (TC {flips}) (IG 0))"
        yield "  )"
        yield ")"
    yield ")"
