"""What a finished run measured, and where it comes from: `RUN/result.json`."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from hwsim.errors import CheckpointError
from hwsim.provenance import source_revision
from qat.checkpoint import read_json, write_json

RESULT_FILE: Final = "result.json"
SCHEMA: Final = "qat/result/1"
PACKAGES: Final = ("torch", "transformers", "accelerate", "numpy", "scikit-learn", "bitwright")


def package_versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a source tree on the path, not installed
            continue
    return found


@dataclass(frozen=True)
class RunResult:
    """Final measurements of the kept weights.

    `validation` is the carve-out (it chose the step, so it flatters), `tests` the held-out parts by name, read
    once; each holds the task's metrics as fractions, `rows`, and `correct` with the Wilson interval where
    there is an accuracy. `metric` is the one that selected. `wall_s` is the training's time, resumes added up.
    """

    folder: Path
    name: str
    recipe: str
    task: str
    metric: str
    seed: int
    config_sha256: str
    teacher_sha256: str | None
    model_sha256: str
    steps: int
    kept_step: int
    stopped_early: bool
    validation: dict[str, Any]
    tests: dict[str, dict[str, Any]]
    wall_s: float
    versions: dict[str, str] = field(default_factory=package_versions)
    git_revision: str | None = field(default_factory=source_revision)


def write_result(measured: RunResult) -> None:
    """Write a result into its run's folder."""
    values = asdict(measured)
    del values["folder"]
    write_json(measured.folder / RESULT_FILE, {"schema": SCHEMA, **values})


def read_result(folder: Path) -> RunResult:
    """Read a run's result. Raises CheckpointError."""
    path = folder / RESULT_FILE
    values = read_json(path)
    if values.pop("schema", None) != SCHEMA:
        raise CheckpointError(f"{path}: schema must be '{SCHEMA}'")
    try:
        return RunResult(folder=folder, **values)
    except TypeError as fault:
        raise CheckpointError(f"{path}: damaged: {fault}") from None
