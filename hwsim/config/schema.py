"""The JSON Schema of a machine file, as editors need it.

A file that stands alone must say everything; one that `extends` another says what differs. So the schema holds
each description twice: complete, and as `changes.NAME`, where only what replaces the inherited mapping as a whole
must be complete: a list's entries, and mappings with a `kind:` or `preset:` of their own (hwsim.config.compose).
"""

from __future__ import annotations

from typing import Any

from hwsim import registry
from hwsim.config.compose import EXTENDS, PRESET
from hwsim.config.energy_table import FROM
from hwsim.config.load import list_dram
from hwsim.graph.ops import OPERATORS

DIALECT = "http://json-schema.org/draft-07/schema#"
"""the dialect that editors know best; nothing here needs a newer one"""

Schema = dict[str, Any]

_CHANGES = "changes."
_REF = "#/$defs/"
_ARRAY = "ArraySpec"


def machine_schema() -> Schema:
    """Return the JSON Schema of a machine file; `extends`, `preset` and `from` included."""
    from hwsim.arch.machine import MachineSpec

    machine = MachineSpec.model_json_schema(by_alias=True)
    parts: Schema = machine.pop("$defs")
    name = machine["title"]
    machine["properties"][EXTENDS] = {
        "type": "string",
        "description": "a machine to study with, published/NAME, base/NAME, or a YAML file beside this one, that this one changes",
        "examples": ["xnor_edge", "published/ita", "base/silicon_22nm"],
    }
    parts[name] = machine
    kinds = _choose_by_kind(parts, machine["properties"]["arrays"])
    _add_what_is_composed(parts)
    for part in parts.values():
        for key in part.get("properties", {}).values():
            key.pop("title", None)  # the key's name in capitals again
    changes = {_CHANGES + key: _changes(key, part) for key, part in parts.items()}
    # Without a kind of its own a change is that of an array of some kind.
    changes[_CHANGES + _ARRAY]["else"] = {"anyOf": [_inherited(kind) for kind in kinds]}
    return {
        "$schema": DIALECT,
        "title": "Machine",
        "type": "object",
        "if": {"required": [EXTENDS]},
        "then": {"$ref": f"{_REF}{_CHANGES}{name}"},
        "else": {"$ref": _REF + name},
        "$defs": parts | changes,
    }


def _choose_by_kind(parts: Schema, arrays: Schema) -> list[Schema]:
    """Let `kind:` alone choose an array's description, so that faults are those of one kind; return all of them.

    A `oneOf` would only say that none of ten descriptions fits.
    """
    specs: list[Schema] = arrays["additionalProperties"]["oneOf"]
    by_kind = dict(zip(registry.kinds("array"), specs, strict=True))
    parts[_ARRAY] = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(by_kind), "description": "which array this is"}},
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": spec}
            for kind, spec in by_kind.items()
        ],
    }
    arrays["additionalProperties"] = {"$ref": _REF + _ARRAY}
    return specs


def _add_what_is_composed(parts: Schema) -> None:
    """Add what is resolved before a description is read, and the names that only other files know."""
    for name, part in parts.items():
        if name.endswith("EnergySpec"):
            part["properties"][FROM] = {
                "type": "string",
                "description": "CSV beside this file with the quantities, a row each",
                "pattern": r"\.csv$",
            }
            part["anyOf"] = [{"required": part.pop("required")}, {"required": [FROM]}]
    dram = parts["DramSpec"]
    dram["properties"][PRESET] = {
        "enum": [name for name, _ in list_dram()],
        "description": "shipped off-chip memory that the other keys change",
    }
    dram["anyOf"] = [{"required": dram.pop("required")}, {"required": [PRESET]}]
    operators = parts["VectorUnitSpec"]["properties"]["operators"]
    cost = operators.pop("additionalProperties")
    operators["additionalProperties"] = False
    operators["properties"] = {
        name: {**cost, "description": entry.meaning}
        for name, entry in OPERATORS.items()
        if entry.unit == "vector"
    }


def _changes(name: str, part: Schema) -> Schema:
    """Return the description of what a file that extends another may say of a part."""
    free = {key: value for key, value in part.items() if key not in ("required", "anyOf")}
    if "properties" in part:
        free["properties"] = {key: _inherited(value) for key, value in part["properties"].items()}
    whole = next((key for key in ("kind", PRESET) if key in part.get("properties", {})), None)
    if whole is None:
        return free
    return {"if": {"required": [whole]}, "then": {"$ref": _REF + name}, "else": free}


def _inherited(value: Any) -> Any:
    """Return a copy that refers to changes of the parts named, but for the entries of a list."""
    if isinstance(value, list):
        return [_inherited(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    copy = {key: entry if key == "items" else _inherited(entry) for key, entry in value.items()}
    if isinstance(copy.get("$ref"), str):
        copy["$ref"] = copy["$ref"].replace(_REF, _REF + _CHANGES)
    return copy
