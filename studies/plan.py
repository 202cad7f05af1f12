"""Nodes of a study, their content-addressed identity, and the plan that holds them.

An id is the SHA-256 of everything that the result depends on: the resolved spec, the ids of the parents,
the content of input files, the source files of the packages that the node runs, and the versions of
torch, numpy and numba. The git revision is not part of it: a commit that touches documents alone must
not void a training. It is recorded beside each attempt instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hwsim.errors import CheckpointError

NodeKind = Literal["train", "export", "untrained", "evaluate", "fault", "cost"]

NUMERIC_DISTRIBUTIONS = ("torch", "numpy", "numba")
PLAN_SCHEMA = "studies/plan/1"
PLAN_FILE = "plan.json"
PROPOSED = ("students", "machines", "machine_sha256")
"""parts of a study that a search fills in"""

# What each kind of node runs. A training reads the number types and the strict reader of hwsim, not its
# kernels: a faster kernel must not void trainings.
SOURCES: dict[NodeKind, tuple[str, ...]] = {
    "train": (
        "qat",
        "hwsim/config",
        "hwsim/errors.py",
        "hwsim/graph/dtype.py",
        "hwsim/graph/ops.py",
        "hwsim/metrics.py",
        "hwsim/provenance.py",
        "hwsim/units.py",
    ),
    "export": ("qat", "hwsim"),
    "untrained": ("qat", "hwsim"),
    "evaluate": ("hwsim",),
    "fault": ("hwsim",),
    "cost": ("hwsim",),
}


def canonical_json(data: Any) -> str:
    """Return the one text that stands for a JSON value: sorted keys, no spaces, no nan."""
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_of(data: Any) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def sha256_of_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files of a folder."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    members = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_of([[p.relative_to(path).as_posix(), sha256_of_path(p)] for p in members])


@cache
def numeric_versions() -> dict[str, str]:
    """Return the installed versions of what decides the last bit of a float; read once a process."""
    return {name: version(name) for name in NUMERIC_DISTRIBUTIONS}


@cache
def source_sha256(kind: NodeKind) -> str:
    """Return the hash of the Python and YAML sources that a kind of node runs."""
    digests: list[list[str]] = []
    for entry in SOURCES[kind]:
        package, _, rest = entry.partition("/")
        root = Path(str(files(package)))
        target = root / rest if rest else root
        found = [target] if target.is_file() else sorted(target.rglob("*"))
        digests += [
            [f"{package}/{p.relative_to(root).as_posix()}", sha256_of_path(p)]
            for p in found
            if p.suffix in (".py", ".yaml") and p.is_file()
        ]
    return sha256_of(digests)


@dataclass(frozen=True, slots=True)
class Node:
    """One unit of work. `spec` is all that its function is told.

    `label` is for people and `tags` (student, seed, machine and its family, place and draw of bit errors) for tables: neither is part of the identity.
    """

    id: str
    kind: NodeKind
    label: str
    spec: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    tags: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def folder_name(self) -> str:
        """Name of the node's output folder: readable, and unique through the id."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")
        return f"{slug[:60]}-{self.id[:12]}"


def make_node(
    kind: NodeKind,
    label: str,
    spec: Mapping[str, Any],
    parents: Sequence[Node] = (),
    inputs: Iterable[Path] = (),
    tags: Mapping[str, str | int] | None = None,
) -> Node:
    """Build a node with its identity.

    Args:
        kind: which node function runs it.
        label: what people read.
        spec: JSON-able, complete; part of the identity.
        parents: nodes whose outputs it reads, in the order its function expects.
        inputs: files or folders of the user that it reads; their content is part of the identity.
        tags: what tables group by.
    """
    parent_ids = tuple(p.id for p in parents)
    identity = {
        "kind": kind,
        "spec": spec,
        "parents": parent_ids,
        "inputs": [sha256_of_path(p) for p in inputs],
        "sources": source_sha256(kind),
        "versions": numeric_versions(),
    }
    return Node(sha256_of(identity), kind, label, spec, parent_ids, tags or {})


@dataclass(frozen=True, slots=True)
class Plan:
    """All nodes of a study in an order in which parents come first; shared nodes appear once."""

    study: Mapping[str, Any]
    """the resolved study: what a later sweep in the folder compares and the report quotes"""
    nodes: tuple[Node, ...]
    invocation: str = "python -m studies.sweep"
    """the command that asked for it, for the report; no part of the study's identity"""

    @property
    def by_id(self) -> dict[str, Node]:
        """Nodes by id."""
        return {node.id: node for node in self.nodes}

    @property
    def study_sha256(self) -> str:
        """Identity of the question, without the code that answers it, and without what a search has proposed so far."""
        proposed = PROPOSED if self.searched else ()
        return sha256_of({k: v for k, v in self.study.items() if k not in proposed})

    @property
    def searched(self) -> bool:
        """Whether its students and machines are those that a search proposed."""
        return "search" in self.study

    def of_kind(self, kind: NodeKind) -> list[Node]:
        """Return the nodes of one kind in plan order."""
        return [node for node in self.nodes if node.kind == kind]

    def save(self, folder: Path) -> None:
        """Write the plan into a study folder, so that a report needs neither the study nor the code."""
        data = {
            "schema": PLAN_SCHEMA,
            "study_sha256": self.study_sha256,
            "study": self.study,
            "invocation": self.invocation,
            "nodes": [asdict(node) for node in self.nodes],
        }
        write_atomically(folder / PLAN_FILE, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def load_plan(folder: Path) -> Plan:
    """Read the plan of a study folder.

    Raises:
        CheckpointError: the folder holds no plan, or an unreadable one.
    """
    path = folder / PLAN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != PLAN_SCHEMA:
            raise ValueError(f"schema must be {PLAN_SCHEMA}, not {data['schema']!r}")
        nodes = tuple(Node(**{**n, "parents": tuple(n["parents"])}) for n in data["nodes"])
        return Plan(data["study"], nodes, data["invocation"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no study was run here ({PLAN_FILE} is missing)") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise CheckpointError(f"{path}: not a study plan ({fault})") from None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would hold what is left
        raise
