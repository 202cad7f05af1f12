"""From a name or a file to a checked description: the way in for machines, trainings and studies alike."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hwsim.config.compose import compose
from hwsim.config.faults import explain
from hwsim.config.source import Document, read_yaml
from hwsim.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hwsim.arch.machine import Machine

M = TypeVar("M", bound=BaseModel)


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


def list_machines() -> list[tuple[str, str]]:
    """Return (name, one-line description) of every machine that comes with the package."""
    found: list[tuple[str, str]] = []
    for path in sorted(machines_folder().glob("*.yaml")):
        data = read_yaml(path).data
        found.append((path.stem, str(data.get("description", ""))))
    return found


def find_machine(name_or_path: str | Path) -> Path:
    """Return the file of a machine given by a shipped machine's name or by a path.

    Raises:
        ConfigError: neither; the nearest name is suggested.
    """
    text = str(name_or_path)
    known = [path.stem for path in sorted(machines_folder().glob("*.yaml"))]
    if text in known:
        return machines_folder() / f"{text}.yaml"
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise ConfigError(
        f"machine must be a YAML file or one of {', '.join(known)}, not {text!r}"
        f"{nearest(text, known)}"
    )


def compose_machine(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Read a machine with all that it extends, unchecked: what `hwsim expand` prints.

    Raises:
        ConfigError: as `find_machine` and `compose`.
    """
    return compose(find_machine(name_or_path), overrides, machines_folder())


def load_machine(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Machine:
    """Read, check and build a machine.

    Raises:
        ConfigError: anything is wrong; all faults at once.
    """
    from hwsim.arch.machine import Machine, MachineSpec
    from hwsim.config.stale import stale_faults

    document = compose_machine(name_or_path, overrides)
    spec = validate(document, MachineSpec)
    faults = stale_faults(spec, document)
    if faults:
        raise ConfigError(faults)
    return Machine(spec)


def machine_schema() -> dict[str, Any]:
    """Return the JSON Schema of a machine file, for editors; `extends` included."""
    from hwsim.arch.machine import MachineSpec

    schema = MachineSpec.model_json_schema(by_alias=True)
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "YAML file beside this one, or a shipped file's name, that this one changes",
    }
    # A file that extends another need not repeat what the other says.
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["extends"]}]
    return schema
