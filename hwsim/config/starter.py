"""A machine file to begin with: what differs from another machine, and its main sizes ready to be changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.config.compose import EXTENDS, PRESET, difference, with_overrides
from hwsim.config.dump import to_flow
from hwsim.config.energy_table import with_energy_tables
from hwsim.config.load import (
    DRAM,
    build_machine,
    changed_machine,
    find_machine,
    list_dram,
    machine_bases,
    machines_folder,
)
from hwsim.errors import ConfigError

if TYPE_CHECKING:
    from hwsim.arch.machine_spec import MachineSpec

ARRAY_SIZES = (
    "rows",
    "cols",
    "lanes",
    "activation_port_bits_per_cycle",
    "weight_port_bits_per_cycle",
)
"""ports, too: where they feed no more, more rows or columns do nothing"""


def starter(file: Path, base: str, overrides: Sequence[str] = ()) -> str:
    """Return the text of a machine file that extends another machine.

    Args:
        file: where it will be written; its stem is the machine's name.
        base: a shipped machine's name or a YAML file.
        overrides: texts `a.b.c=value`: what differs.

    Raises:
        ConfigError: the base or an override is wrong.
    """
    bases = machine_bases(base)
    spec = build_machine(changed_machine(bases, overrides)).spec
    own = difference(bases.data, with_overrides(bases, overrides, with_energy_tables).data)
    head = {
        "schema": spec.schema_,
        EXTENDS: _extended(file, base),
        "name": file.stem,
        "description": f"made from {spec.name}",
    }
    lines = [
        f"# {spec.name}, and what differs from it. The lines behind '#' say what {spec.name} has: remove the '#', change the value.",
        f"# All keys: python -m hwsim expand {base}, and docs/machine-files.md.",
        *(f"{key}: {to_flow(value)}" for key, value in head.items()),
        "",
        *_body({k: v for k, v in own.items() if k not in head}, sizes(spec, bases.data)),
    ]
    return "\n".join(lines) + "\n"


def sizes(spec: MachineSpec, data: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of a machine that a file may change by themselves, in the words of its own files.

    Sizes whose energies and areas were stated for them alone are none of these.
    """
    arrays = {
        name: {
            size: data["arrays"][name][size] for size in ARRAY_SIZES if size in data["arrays"][name]
        }
        for name, array in spec.arrays.items()
        if array.reference is not None
    }
    memories = {
        name: {"capacity_bytes": data["memories"][name]["capacity_bytes"]}
        for name, memory in spec.memories.items()
        if memory.scaling is not None
    }
    found: dict[str, Any] = {"clock_hz": data["clock_hz"]}
    found |= {"arrays": arrays} if arrays else {}
    found |= {"memories": memories} if memories else {}
    return found


def write_starter(file: Path, base: str, overrides: Sequence[str] = ()) -> None:
    """Write `starter`'s text to a new file.

    Raises:
        ConfigError: as `starter`; the file exists, its name is that of no YAML file or of no machine, or it
            cannot be written.
    """
    check_new(file)
    _check_name(file)
    write_new(file, starter(file, base, overrides))


def check_new(file: Path) -> None:
    """Make sure that a YAML file may be written under this name.

    Raises:
        ConfigError: it is there already, or its name does not end as one.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{file}: the name must end in .yaml")
    if file.exists():
        raise ConfigError(f"{file}: exists already; give another name")


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigError: it is there by now, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigError(f"{file}: exists already; give another name") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None


def _check_name(file: Path) -> None:
    """Make sure that a machine may be called as its file is: else the file would be there, and wrong."""
    from hwsim.arch.machine_spec import MachineSpec

    pattern = MachineSpec.model_json_schema()["properties"]["name"]["pattern"]
    if re.fullmatch(pattern, file.stem) is None:
        raise ConfigError(
            f"{file}: a machine is called as its file; that must match {pattern}, not {file.stem!r}; give another name"
        )


def _extended(file: Path, base: str) -> str:
    """Return how a file calls its base: a shipped one by name, another by the way that leads to it."""
    found = find_machine(base)
    if found.is_relative_to(machines_folder()):
        return found.relative_to(machines_folder()).with_suffix("").as_posix()
    return Path(os.path.relpath(found, file.parent)).as_posix()


def _body(own: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of what differs and, behind '#', of what may: a line a key, in a section a line a part."""
    for key, value in {**known, **own}.items():
        mark = "" if key in own else "#"
        if not (isinstance(value, dict) and all(isinstance(part, dict) for part in value.values())):
            yield f"{mark}{key}: {to_flow(value)}"
            continue
        yield f"{mark}{key}:"
        changed = own.get(key, {})
        for name, part in {**known.get(key, {}), **changed}.items():
            yield f"{'' if name in changed else '#'}  {name}: {to_flow(part)}"
    if DRAM not in own:
        names = [name for name, _ in list_dram()]
        yield f"# In place of its own off-chip memory one of {', '.join(names)}:"
        yield f"#{DRAM}: {{{PRESET}: {names[-1]}}}"
