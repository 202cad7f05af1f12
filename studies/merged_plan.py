"""The plan of a study that was run in several places, and what forbids that there is one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hwsim.errors import ConfigError
from studies.ledger import FINAL, Attempt
from studies.plan import NUMERIC_DISTRIBUTIONS, Plan, canonical_json

T = TypeVar("T", bound=Hashable)

AXES = ("seeds", "machines", "students")
"""lists of a study that may differ: the merged study has all their members"""
BY_MACHINE = "machine_sha256"
FAULTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Part:
    """What one folder holds of a study."""

    folder: Path
    plan: Plan
    attempts: Sequence[Attempt]


def merged_plan(parts: Sequence[Part], command: str) -> Plan:
    """Return the plan of all parts: seeds, machines, students and nodes of each, in the parts' order.

    Args:
        parts: what the folders hold.
        command: what the report shall quote if the parts were made by different commands.

    Raises:
        ConfigError: the studies differ in more than their axes; a student or machine of one name is not the
            same; or one question got two nodes, because sources, inputs or versions differ.
    """
    study = parts[0].plan.study
    nodes = parts[0].plan.by_id
    owner = dict.fromkeys(nodes, parts[0].folder)
    for part in parts[1:]:
        study = _merged_study(study, part.plan.study, parts[0].folder, part.folder)
        found = part.plan.by_id
        order = interleaved(list(nodes), list(found))
        nodes = {key: nodes.get(key) or found[key] for key in order}
        for key in found:
            owner.setdefault(key, part.folder)
    asked: dict[str, str] = {}
    faults = []
    for key, node in nodes.items():
        other = asked.setdefault(canonical_json([node.kind, node.tags, node.label]), key)
        if owner[other] != owner[key]:
            faults.append(
                f"{node.label}: {owner[other]} and {owner[key]} made different nodes of it:"
                f" {_why(nodes[other].spec, node.spec)} differ"
            )
    if faults:
        raise ConfigError(first_faults(faults))
    _check_sources(parts)
    invocations = list(dict.fromkeys(part.plan.invocation for part in parts))
    return Plan(study, tuple(nodes.values()), invocations[0] if len(invocations) == 1 else command)


def interleaved(a: Sequence[T], b: Sequence[T]) -> list[T]:
    """Return all members of two sequences, each once: in the order of both where they agree, else of `a`.

    A member comes after all that stands before it in the sequence, or sequences, that it is of, unless the two
    contradict each other.

    >>> interleaved(["t", "s", "x", "u"], ["t", "s", "y", "u", "z"])
    ['t', 's', 'x', 'y', 'u', 'z']
    """
    common = set(a) & set(b)
    rest = iter(b)
    found: dict[T, None] = {}
    for member in a:
        if member in common and member not in found:
            for other in rest:
                found[other] = None
                if other == member:
                    break
        found[member] = None
    found.update(dict.fromkeys(rest))
    return list(found)


def _merged_study(
    a: Mapping[str, Any], b: Mapping[str, Any], a_from: Path, b_from: Path
) -> dict[str, Any]:
    """Return a study with the axes of both.

    Only lists whose members are independent of each other are joined; whatever else differs could change
    what a node means, so that the joined folder would answer a question that nobody asked.
    """
    keys = [k for k in interleaved(list(a), list(b)) if k not in (*AXES, BY_MACHINE)]
    differ = [key for key in keys if a.get(key) != b.get(key)]
    if differ:
        raise ConfigError(
            f"{a_from} and {b_from} hold different studies: they differ in {', '.join(differ)};"
            f" only {', '.join(AXES)} may"
        )
    faults = []
    students = {s["name"]: s for s in a["students"]}
    for student in b["students"]:
        held = students.setdefault(student["name"], student)
        if held != student:
            inside = [k for k in {**held, **student} if held.get(k) != student.get(k)]
            faults.append(f"student '{student['name']}': differs in {', '.join(inside)}")
    machines = {**b.get(BY_MACHINE, {}), **a.get(BY_MACHINE, {})}
    faults += [
        f"machine '{name}': its file differs"
        for name, sha256 in b.get(BY_MACHINE, {}).items()
        if machines[name] != sha256
    ]
    if faults:
        raise ConfigError([f"{a_from} and {b_from} hold different studies: {f}" for f in faults])
    names = interleaved([s["name"] for s in a["students"]], [s["name"] for s in b["students"]])
    merged = {
        "seeds": interleaved(a["seeds"], b["seeds"]),
        "machines": interleaved(a["machines"], b["machines"]),
        "students": [students[name] for name in names],
        BY_MACHINE: machines,
    }
    return {key: merged.get(key, value) for key, value in {**a, **b}.items()}


def _why(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Say in what two nodes differ that answer the same question."""
    inside = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return ", ".join(inside) or "sources, input files or versions of torch, numpy, numba"


def _check_sources(parts: Sequence[Part]) -> None:
    """Refuse parts whose nodes of one kind were made by different sources, or other versions.

    Nodes of different seeds or machines have different identities anyway: only the attempts tell.
    """
    made: dict[str, dict[str, Path]] = {}
    for part in parts:
        ids = part.plan.by_id
        for attempt in part.attempts:
            environment = attempt.volatile.get("environment")
            if attempt.id in ids and attempt.status in FINAL and environment:
                versions = [f"{name} {environment[name]}" for name in NUMERIC_DISTRIBUTIONS]
                sources = f"sources {attempt.volatile['sources_sha256'][:12]}"
                text = ", ".join((sources, *versions))
                made.setdefault(attempt.kind, {}).setdefault(text, part.folder)
    faults = [
        f"{kind} nodes were made by different code: "
        + "; ".join(f"{folder} by {text}" for text, folder in found.items())
        for kind, found in made.items()
        if len(found) > 1
    ]
    if faults:
        raise ConfigError(faults)


def first_faults(faults: Sequence[str]) -> list[str]:
    """Return the first faults, and how many more there are: a whole study may be at fault."""
    more = len(faults) - FAULTS_SHOWN
    return [*faults[:FAULTS_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
