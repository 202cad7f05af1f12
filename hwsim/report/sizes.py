"""What an exported model takes on disk: every stored constant, their kinds, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.graph.serialize import MODEL_FILES, WEIGHTS_FILE, Model, load

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class ConstantSize:
    """A stored constant of a node; one that several nodes read is listed with the first."""

    name: str
    op: str
    """the operator that reads it"""
    role: str
    """what it is to that operator (docs/files.md)"""
    format: str
    """number type of its codes"""
    shape: tuple[int, ...]
    bytes: int
    """in weights.safetensors, where it is packed and its repetitions are left out"""


@dataclass(frozen=True, slots=True)
class KindSize:
    """All constants of one format in one role of one operator."""

    op: str
    role: str
    format: str
    constants: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class Sizes:
    """The bytes of an export, as the file system has them."""

    model: str
    sha256: str
    constants: tuple[ConstantSize, ...]
    """in the order of execution"""
    file_bytes: Mapping[str, int]

    @property
    def kinds(self) -> tuple[KindSize, ...]:
        """The constants by kind, the largest first."""
        groups: dict[tuple[str, str, str], list[ConstantSize]] = {}
        for c in self.constants:
            groups.setdefault((c.op, c.role, c.format), []).append(c)
        kinds = [
            KindSize(*kind, len(group), sum(prod(c.shape) for c in group), sum(c.bytes for c in group))
            for kind, group in groups.items()
        ]  # fmt: skip
        return tuple(sorted(kinds, key=lambda k: (-k.bytes, k.op, k.role, k.format)))

    @property
    def header_bytes(self) -> int:
        """Of weights.safetensors without the constants: their names and places."""
        return self.file_bytes[WEIGHTS_FILE] - sum(c.bytes for c in self.constants)

    @property
    def model_bytes(self) -> int:
        """Of graph, weights and manifest: what an inference needs."""
        return sum(self.file_bytes[name] for name in MODEL_FILES)

    @property
    def folder_bytes(self) -> int:
        """Of all files: with samples, record and processor."""
        return sum(self.file_bytes.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "constants": [asdict(c) for c in self.constants],
            "kinds": [asdict(k) for k in self.kinds],
            "header_bytes": self.header_bytes,
            "file_bytes": dict(self.file_bytes),
            "model_bytes": self.model_bytes,
            "folder_bytes": self.folder_bytes,
        }

    def render(self, console: Console) -> None:
        """Print the tables, the totals last."""
        from hwsim.report.table import print_sizes

        print_sizes(self.to_json(), console)


def sizes(model: Model | Path | str) -> Sizes:
    """Measure an export.

    Args:
        model: an export folder, or one that is loaded.

    Raises:
        CheckpointError: it is no export, or damaged.
    """
    loaded = model if isinstance(model, Model) else load(model)
    rows: dict[str, ConstantSize] = {}
    for node in loaded.graph.nodes:
        for role, name in node.constants.items():
            constant = loaded.graph.constants[name]
            size = loaded.constant_bytes[name]
            row = ConstantSize(name, node.op, role, constant.dtype.name, constant.array.shape, size)
            rows.setdefault(name, row)
    return Sizes(loaded.name, loaded.sha256, tuple(rows.values()), loaded.file_bytes)
