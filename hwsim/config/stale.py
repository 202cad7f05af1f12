"""Numbers that were stated for one size and inherited by another.

A memory's energy belongs to a capacity, a width and a number of banks; an array's area and leakage to
its rows, columns and lanes. Where a file or `--set` changes the size but not the numbers, they must be
re-evaluated by a stated function, or the file must insist with `fixed: true`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hwsim.arch.machine_spec import MachineSpec
from hwsim.config.source import Document, KeyPath, dotted

_MEMORY_SIZE = ("capacity_bytes", "read_width_bits", "write_width_bits")
_MEMORY_NUMBERS = ("read_pj", "write_pj", "leakage_mw", "area_um2")
_ARRAY_SIZE = ("rows", "cols", "lanes")
_ARRAY_NUMBERS = ("area_um2", "leakage_mw")


def stale_faults(spec: MachineSpec, document: Document) -> list[str]:
    """Return a message for every size that was changed away from the numbers stated for it."""
    faults: list[str] = []
    for name, memory in spec.memories.items():
        if memory.fixed:
            continue
        sizes = ("banks",) if memory.scaling is not None else (*_MEMORY_SIZE, "banks")
        faults += _changed(document, ("memories", name), sizes, _MEMORY_NUMBERS, "`scaling:`")
    for name, array in spec.arrays.items():
        if not array.fixed and array.reference is None:
            faults += _changed(
                document, ("arrays", name), _ARRAY_SIZE, _ARRAY_NUMBERS, "`reference:`"
            )
    return faults


def _changed(
    document: Document,
    part: KeyPath,
    sizes: tuple[str, ...],
    numbers: tuple[str, ...],
    function: str,
) -> Iterator[str]:
    for size in sizes:
        path = (*part, size)
        place = document.values.get(path)
        if place is None:
            continue
        stale = [
            number
            for number in numbers
            if (at := document.values.get((*part, number, "value"))) is not None
            and at.origin != place.origin
        ]
        if stale:
            yield (
                f"{place}: {dotted(path)}: must come with new {', '.join(stale)}, with {function}"
                f" that re-evaluates them, or with `fixed: true` to insist; they were stated for"
                f" another size at {document.values[(*part, stale[0])]}"
            )
