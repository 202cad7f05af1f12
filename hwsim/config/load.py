"""From a name or a file to a checked description: the way in for machines, trainings and studies alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from hwsim.config.compose import (
    Setting,
    compose,
    compose_bases,
    is_file,
    with_overrides,
    with_preset,
)
from hwsim.config.energy_table import with_energy_tables
from hwsim.config.faults import explain
from hwsim.config.source import Document, read_yaml
from hwsim.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine
    from hwsim.workload import Workload

M = TypeVar("M", bound=BaseModel)

PUBLISHED = "published"
"""folder, within that of the machines, of the models of published chips"""
DRAM = "dram"
"""folder, within that of the machines, of the presets of off-chip memories"""
WORKLOADS = "workloads"
"""folder, within that of the machines, of the networks that published figures are about"""
_YAML = (".yaml", ".yml")


def load_spec(
    path: Path | str,
    model: type[M],
    overrides: Sequence[str] = (),
    *,
    presets: Path | None = None,
) -> M:
    """Read a YAML file, with what it extends and the overrides, as a pydantic model.

    Args:
        path: the file.
        model: a model; strict, with unknown keys forbidden, if typing errors are to be found.
        overrides: texts `a.b.c=value`.
        presets: folder in which `extends: NAME` is looked up.

    Raises:
        ConfigError: anything is wrong; all faults, each as `file:line:col: path: must be ..., not ...`.
    """
    return validate(compose(Path(path), overrides, presets), model)


def validate(document: Document, model: type[M]) -> M:
    """Check composed data against a model.

    Raises:
        ConfigError: all faults at once.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(explain(error, document, model)) from None


def machines_folder() -> Path:
    """Return the folder of the machines that come with the package."""
    return Path(str(files("accelerators")))


def machine_files() -> list[Path]:
    """Return the files of all machines that come with the package: those to study with, then published ones."""
    folder = machines_folder()
    return [*sorted(folder.glob("*.yaml")), *sorted((folder / PUBLISHED).glob("*.yaml"))]


def list_machines(*, published: bool) -> list[tuple[str, str]]:
    """Return (name, one-line description) of the machines that come with the package.

    Args:
        published: the models of published chips, or the machines to study with.
    """
    return [
        (path.stem, str(read_yaml(path).data.get("description", "")))
        for path in machine_files()
        if (path.parent.name == PUBLISHED) == published
    ]


def list_dram() -> list[tuple[str, str]]:
    """Return (name, one-line description and energy a bit) of the off-chip memories that `dram.preset` may name."""
    found = []
    for path in sorted((machines_folder() / DRAM).glob("*.yaml")):
        data = read_yaml(path).data
        bit = data["energy_pj_per_bit"]
        energy = f"{bit['value']:g} pJ a bit ({bit['low']:g} to {bit['high']:g})"
        found.append((path.stem, f"{data['description']}, {energy}"))
    return found


def find_machine(name_or_path: str | Path) -> Path:
    """Return the file of a machine given by a shipped machine's name or by a path.

    Raises:
        ConfigError: neither; the nearest name is suggested.
    """
    return _find("machine", name_or_path, machine_files())


def find_workload(name_or_path: str | Path) -> Path:
    """Return the file of a workload given by a shipped workload's name or by a path.

    Raises:
        ConfigError: neither; the nearest name is suggested.
    """
    return _find("workload", name_or_path, sorted((machines_folder() / WORKLOADS).glob("*.yaml")))


def _find(what: str, name_or_path: str | Path, shipped: Sequence[Path]) -> Path:
    text = str(name_or_path)
    known = {path.stem: path for path in shipped}
    if text in known:
        return known[text]
    path = Path(name_or_path)
    if is_file(path):
        return path
    beside = [f"{text}{suffix}" for suffix in _YAML if is_file(Path(f"{text}{suffix}"))]
    if os.path.isdir(text) and not beside:  # Path.is_dir stops at a name that is too long
        raise ConfigError(f"{what} must be a YAML file or a shipped name; {text!r} is a folder")
    if path.suffix in _YAML:
        here = [str(p) for p in path.parent.glob("*") if p.suffix in _YAML]
        raise ConfigError(f"{what} file must exist, not {text!r}{nearest(text, here)}")
    hint = f"; did you mean '{beside[0]}'?" if beside else nearest(text, list(known))
    raise ConfigError(
        f"{what} must be a YAML file or one of {', '.join(known)}, not {text!r}{hint}"
    )


def compose_machine(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Read a machine with all that it extends, unchecked: what `hwsim expand` prints.

    Raises:
        ConfigError: as `find_machine` and `compose`.
    """
    return changed_machine(machine_bases(name_or_path), overrides)


def machine_bases(name_or_path: str | Path) -> Document:
    """Read a machine with all that it extends, to be changed in memory by `changed_machine`.

    Raises:
        ConfigError: as `find_machine` and `compose`.
    """
    return compose_bases(find_machine(name_or_path), machines_folder(), with_energy_tables)


def changed_machine(bases: Document, overrides: Sequence[str | Setting]) -> Document:
    """Return what `compose_machine` does, of bases that were read before.

    Raises:
        ConfigError: as `compose`.
    """
    document = with_overrides(bases, overrides, with_energy_tables)
    return with_preset(document, "dram", machines_folder() / DRAM)


def load_machine(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Machine:
    """Read, check and build a machine.

    Raises:
        ConfigError: anything is wrong; all faults at once.
    """
    return build_machine(compose_machine(name_or_path, overrides))


def build_machine(document: Document) -> Machine:
    """Check and build a machine from its composed description.

    Raises:
        ConfigError: anything is wrong; all faults at once.
    """
    from hwsim.arch.machine import Machine, MachineSpec
    from hwsim.config.misnamed import misnamed
    from hwsim.config.stale import stale_faults

    try:
        spec = validate(document, MachineSpec)
    except ConfigError as error:
        raise ConfigError([*misnamed(document), *error.faults]) from None
    faults = stale_faults(spec, document)
    if faults:
        raise ConfigError(faults)
    return Machine(spec)


def load_workload(name_or_path: str | Path) -> Workload:
    """Read, check and build a workload.

    Raises:
        ConfigError: anything is wrong; all faults at once.
    """
    from hwsim.workload import Workload, WorkloadSpec

    return Workload(load_spec(find_workload(name_or_path), WorkloadSpec))
