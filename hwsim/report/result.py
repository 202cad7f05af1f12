"""The result of a run as plain data, with the hashes of everything that it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from hwsim.engine.cost import CostReport
from hwsim.engine.draws import DRAWS, SEED
from hwsim.errors import BitwrightError

SCHEMA_VERSION = "hwsim/result/1"


class ResultMismatch(BitwrightError):
    """Two results are compared that do not come from the same inputs."""


@cache
def code_sha256() -> str:
    """Return the SHA-256 of all Python files of `hwsim`: path and content, in order of path."""
    digest = hashlib.sha256()
    for path, content in _sources(files("hwsim"), ""):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found.append((prefix + entry.name, entry.read_bytes()))
    return sorted(found)


def package_version() -> str:
    """Return the version of the installed distribution, or `uninstalled` in a bare checkout."""
    try:
        return version("bitwright")
    except PackageNotFoundError:
        return "uninstalled"


@dataclass(frozen=True)
class Result:
    """What `hwsim run` returns.

    Attributes:
        model: name of the model.
        model_sha256: hash of the exported graph and its constants.
        machine_sha256: hash of the machine's resolved description.
        cost: what an inference costs.
        accuracy: metric, value and number of samples where data went through; None for cost alone.
        notes: remarks for the reader, for example the numeric profile that decided the results.
        operating_point: name, voltage_v and clock_hz of the one that was run; None for the file's own.
    """

    model: str
    model_sha256: str
    machine_sha256: str
    cost: CostReport
    accuracy: Mapping[str, Any] | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    operating_point: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, ready for `json.dumps`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "accuracy": None if self.accuracy is None else dict(self.accuracy),
            **self.cost.to_json(),
            "operating_point": None if self.operating_point is None else dict(self.operating_point),
            "hashes": {
                "model": self.model_sha256,
                "machine": self.machine_sha256,
                "code": code_sha256(),
            },
            "provenance": {
                "package_version": package_version(),
                "energy_draws": DRAWS,
                "energy_seed": SEED,
            },
            "notes": list(self.notes),
        }


def require_comparable(
    first: Mapping[str, Any], second: Mapping[str, Any], *, may_differ: Sequence[str] = ()
) -> None:
    """Make sure that two results (as `Result.to_json` makes them) may stand side by side.

    Args:
        first: a result.
        second: another one.
        may_differ: what the comparison is about, of `model`, `machine` and `code`.

    Raises:
        ResultMismatch: anything else differs; names all of it at once.
    """
    faults: list[str] = []
    if first["schema_version"] != second["schema_version"]:
        faults.append(
            f"schema_version: {first['schema_version']} against {second['schema_version']}"
        )
    for what in ("model", "machine", "code"):
        a, b = first["hashes"][what], second["hashes"][what]
        if a != b and what not in may_differ:
            faults.append(f"{what}: {a[:12]} against {b[:12]}")
    for what in ("energy_draws", "energy_seed"):
        a, b = first["provenance"][what], second["provenance"][what]
        if a != b:
            faults.append(f"{what}: {a} against {b}")
    if "model" not in may_differ and first["sequence_length"] != second["sequence_length"]:
        faults.append(
            f"sequence_length: {first['sequence_length']} against {second['sequence_length']}"
        )
    if faults:
        raise ResultMismatch(
            "these results must come from the same inputs to be compared; they differ in "
            + "; ".join(faults)
        )
