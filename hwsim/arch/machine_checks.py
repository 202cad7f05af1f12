"""Faults that no single key shows: parts of a machine that do not fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim import registry
from hwsim.arch.component import ArrayComponent, ArraySpec, ceil_div
from hwsim.arch.spec import Quantity, Spec
from hwsim.errors import nearest
from hwsim.graph import dtype as dt
from hwsim.graph.ops import OPERATORS

if TYPE_CHECKING:
    from hwsim.arch.machine_spec import MachineSpec

_MEMORY_FREE_SCOPES = ("datapath",)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the path of the key to blame and what is wrong with it."""

    path: tuple[str | int, ...]
    text: str
    of_key: bool = False
    """the key itself is wrong, not its value"""


def find_faults(machine: MachineSpec) -> list[Fault]:
    """Return every fault between the parts of a machine."""
    return [
        *_roles(machine),
        *_backings(machine),
        *_formats(machine),
        *_zero_skipping(machine),
        *_capacities(machine),
        *_operators(machine),
        *_scopes(machine),
        *_shared(machine),
        *_operating_points(machine),
        *_targets(machine),
        *_calibrations(machine),
    ]


def _roles(machine: MachineSpec) -> Iterator[Fault]:
    known = list(machine.memories)
    for role in ("activation", "weight", "output"):
        name = getattr(machine.roles, role)
        if name not in machine.memories:
            yield Fault(
                ("roles", role),
                f"must name a memory of this machine ({', '.join(known)}),"
                f" not {name!r}{nearest(name, known)}",
            )


def _backings(machine: MachineSpec) -> Iterator[Fault]:
    """What stands behind another memory is a memory without a role, and all ways lead to DRAM."""
    memories, roles = machine.memories, machine.roles
    of_role = {roles.activation, roles.weight, roles.output}
    if "dram" in memories:
        yield Fault(("memories", "dram"), "must have another name: dram is what is off chip", True)
    behind = {m.backing for m in memories.values() if m.backing is not None}
    able = [name for name in memories if name not in of_role]
    for name, memory in memories.items():
        path = ("memories", name)
        if memory.backing is not None and memory.backing not in able:
            yield Fault(
                (*path, "backing"),
                f"must name a memory of this machine without a role ({', '.join(able) or 'none'}),"
                f" not {memory.backing!r}{nearest(memory.backing, able)}",
            )
        elif (circle := _circle(machine, name)) is not None:
            yield Fault((*path, "backing"), f"must lead to DRAM, not in a circle: {circle}")
        if name in behind and memory.buffering != "single":
            yield Fault(
                (*path, "buffering"),
                "must be single: in a memory behind others whole tensors stay, it has no halves",
            )
        if name in behind and memory.handoff_cycles:
            yield Fault(
                (*path, "handoff_cycles"),
                f"must be 0 in a memory behind others, not {memory.handoff_cycles}: no halves change hands",
            )
        if name not in behind and memory.latency_cycles:
            yield Fault(
                (*path, "latency_cycles"),
                f"must be 0 in a memory that is behind no other, not {memory.latency_cycles}: what an"
                " array's own access takes is part of its pipeline_depth_cycles",
            )
    if not of_role <= memories.keys():
        return  # named above
    first, second = memories[roles.activation].backing, memories[roles.output].backing
    if first != second:
        yield Fault(
            ("memories", roles.output, "backing"),
            f"must be {first or 'absent'}, as that of {roles.activation}, not {second or 'absent'}:"
            " what the output memory writes the activation memory reads",
        )


def _circle(machine: MachineSpec, name: str) -> str | None:
    """Return the names of a circle that the memories behind one form, or None."""
    seen = [name]
    while (behind := machine.memories[seen[-1]].backing) in machine.memories:
        assert behind is not None
        seen.append(behind)
        if behind in seen[:-1]:
            return " -> ".join(seen)
    return None


def _formats(machine: MachineSpec) -> Iterator[Fault]:
    for name, array in machine.arrays.items():
        component = registry.lookup("array", array.kind)
        for index, pair in enumerate(array.formats):
            wrong = component.check_formats(dt.parse(pair.activation), dt.parse(pair.weight))  # type: ignore[attr-defined]
            if wrong is not None:
                yield Fault(
                    ("arrays", name, "formats", index),
                    f"{wrong}, not {pair.activation} x {pair.weight}",
                )


def _zero_skipping(machine: MachineSpec) -> Iterator[Fault]:
    able = [k for k in registry.kinds("array") if registry.lookup("array", k).skips_zeros]  # type: ignore[attr-defined]
    for name, array in machine.arrays.items():
        if array.zero_skipping and array.kind not in able:
            yield Fault(
                ("arrays", name, "zero_skipping"),
                f"must be false on an array of kind {array.kind}: beats are skipped by {', '.join(able)}",
            )


def _capacities(machine: MachineSpec) -> Iterator[Fault]:
    """A memory must hold one block of the array that it feeds, in each half if it is double."""
    for name, array in machine.arrays.items():
        for role, bits, what in _block_bits(name, array):
            memory_name = getattr(machine.roles, role)
            memory = machine.memories.get(memory_name)
            need = ceil_div(bits, 8)
            if memory is not None and memory.half_bytes < need:
                half = "a half" if memory.buffering == "double" else "all"
                yield Fault(
                    ("memories", memory_name, "capacity_bytes"),
                    f"must hold one {what} block of array {name} ({need} bytes) in {half} of the"
                    f" {memory.buffering}-buffered memory, not {memory.half_bytes} bytes",
                )


def _block_bits(name: str, array: ArraySpec) -> Iterator[tuple[str, int, str]]:
    """Yield (role, bits, what) of the largest block that each memory must hold."""
    component: ArrayComponent = registry.lookup("array", array.kind)(name, array)
    bits: dict[tuple[str, str], int] = {}
    for pair in array.formats:
        a, w = dt.parse(pair.activation), dt.parse(pair.weight)
        m, n, k = component.block(a, w)
        for key, size in (
            (("activation", "rows x lanes"), m * k * a.bits),
            (("weight", "cols x lanes"), n * k * w.bits),
            (("output", "rows x cols"), m * n * array.accumulator_bits),
        ):
            bits[key] = max(bits.get(key, 0), size)
    yield from ((role, size, what) for (role, what), size in bits.items())


def _operators(machine: MachineSpec) -> Iterator[Fault]:
    if machine.vector_unit is None:
        return
    known = [op for op, entry in OPERATORS.items() if entry.unit == "vector"]
    for op in machine.vector_unit.operators:
        if op not in known:
            yield Fault(
                ("vector_unit", "operators", op),
                f"must be a vector operator ({', '.join(known)}), not {op!r}{nearest(op, known)}",
                of_key=True,
            )


def _scopes(machine: MachineSpec) -> Iterator[Fault]:
    """A figure that contains memories or control may not stand beside a model of them."""
    parts: list[tuple[tuple[str | int, ...], Spec]] = [
        (("arrays", name), array) for name, array in machine.arrays.items()
    ]
    if machine.vector_unit is not None:
        parts.append((("vector_unit",), machine.vector_unit))
    for root, part in parts:
        for path, quantity in quantities(part, root):
            if path[-1] in ("area_um2", "leakage_mw"):
                continue
            if quantity.scope not in _MEMORY_FREE_SCOPES and quantity.split is None:
                yield Fault(
                    (*path, "scope"),
                    f"must be datapath, or come with `split:` that says how memories and control"
                    f" were taken out, not {quantity.scope}: they are modelled apart",
                )


def _shared(machine: MachineSpec) -> Iterator[Fault]:
    """Quantities that share a draw must be spread alike, or one name would mean two unknowns."""
    first: dict[str, tuple[str, tuple[float, float]]] = {}
    for path, quantity in quantities(machine):
        if quantity.shared is None or quantity.value == 0:
            continue
        spread = (
            round(quantity.low / quantity.value, 6),
            round(quantity.high / quantity.value, 6),
        )
        here = ".".join(map(str, path))
        seen = first.setdefault(quantity.shared, (here, spread))
        if seen[1] != spread:
            yield Fault(
                (*path, "shared"),
                f"must have the same low/value and high/value as {seen[0]}, which shares"
                f" {quantity.shared!r}, not {spread[0]:g} and {spread[1]:g} against"
                f" {seen[1][0]:g} and {seen[1][1]:g}",
            )


def _operating_points(machine: MachineSpec) -> Iterator[Fault]:
    """Names are new, and neither energy nor leakage falls where the voltage rises, the file's own included."""
    own = (machine.technology.voltage_v, 1.0, 1.0)
    points = [(p.voltage_v, p.dynamic_scale, p.leakage_scale) for p in machine.operating_points]
    names = [p.name for p in machine.operating_points]
    for index, (voltage, *scales) in enumerate(points):
        path = ("operating_points", index)
        if names.index(names[index]) < index:
            yield Fault((*path, "name"), f"must be new, not {names[index]!r} again")
        for key, at in (("dynamic_scale", 0), ("leakage_scale", 1)):
            # Compared with the points before it: each pair is looked at once.
            for other, *known in (own, *points[:index]):
                if (voltage - other) * (scales[at] - known[at]) < 0:
                    yield Fault(
                        (*path, key),
                        f"must not fall where the voltage rises: {known[at]:g} at {other:g} V,"
                        f" not {scales[at]:g} at {voltage:g} V",
                    )
                    break


def _targets(machine: MachineSpec) -> Iterator[Fault]:
    """A validation target may only name what the machine has."""
    names = [t.name for t in machine.validation]
    for index, target in enumerate(machine.validation):
        known = {
            "operating_point": [p.name for p in machine.operating_points],
            "baseline": [n for n in names if n != target.name],
            "engines": list(machine.arrays),
        }
        for key, have in known.items():
            value = getattr(target, key)
            for name in value if isinstance(value, list) else [value]:
                if name is not None and name not in have:
                    listed = ", ".join(have) or "none"
                    yield Fault(
                        ("validation", index, key),
                        f"must name one of this machine ({listed}), not {name!r}{nearest(name, have)}",
                    )
        if names.index(target.name) < index:
            yield Fault(("validation", index, "name"), f"must be new, not {target.name!r} again")
        if target.mode is not None:
            a, w = dt.parse(target.mode.activation), dt.parse(target.mode.weight)
            arrays = [registry.lookup("array", s.kind)(n, s) for n, s in machine.arrays.items()]
            if not any(array.supports(a, w) for array in arrays):
                yield Fault(
                    ("validation", index, "mode"),
                    f"must be formats that an array multiplies, not {a} x {w}",
                )


def _calibrations(machine: MachineSpec) -> Iterator[Fault]:
    """At most one peak may set constants, and a figure of a target's publication must own up to it."""
    peaks = [t.name for t in machine.validation if t.mode is not None]
    used: str | None = None
    for path, quantity in quantities(machine):
        if path[-1] == "area_um2":
            continue
        by = quantity.calibrated_by
        if by is None:
            cited = [t for t in machine.validation if publication(t.source) in quantity.source]
            if cited:
                yield Fault(
                    path,
                    f"must say `calibrated_by:` with the target that set it: it cites"
                    f" {publication(cited[0].source)}, which target {cited[0].name!r} is from",
                )
        elif by not in peaks:
            yield Fault(
                (*path, "calibrated_by"),
                f"must name a peak of this machine's validation ({', '.join(peaks) or 'none'}),"
                f" not {by!r}{nearest(by, peaks)}",
            )
        elif used not in (None, by):
            yield Fault(
                (*path, "calibrated_by"),
                f"must be {used!r}, not {by!r}: one target at most may set constants",
            )
        else:
            used = by


def publication(source: str) -> str:
    """Return what identifies a publication in the text of a source: its arXiv number, or its first words.

    >>> publication("BrainTTA, arXiv 2211.11331: table 2"), publication("ISSCC 2025: press kit")
    ('arXiv 2211.11331', 'ISSCC 2025')
    """
    found = re.search(r"arXiv \d{4}\.\d{4,5}", source)
    return found[0] if found else source.partition(":")[0]


def quantities(
    part: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Quantity]]:
    """Walk a description and yield every quantity with its path."""
    if isinstance(part, Quantity):
        yield path, part
    elif isinstance(part, Spec):
        for name in type(part).model_fields:
            yield from quantities(getattr(part, name), (*path, name))
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from quantities(value, (*path, key))
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from quantities(value, (*path, index))
