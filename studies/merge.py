"""`python -m studies.merge A B ... --out DIR`: one study that was run in several places becomes one folder."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hwsim.cli.errors import run_app
from hwsim.errors import ConfigError
from studies.coordinator import NODES_FOLDER
from studies.ledger import FILE_NAME, FINAL, Attempt, Ledger, read
from studies.plan import NUMERIC_DISTRIBUTIONS, Plan, canonical_json, load_plan
from studies.worker import read_marker

T = TypeVar("T", bound=Hashable)

AXES = ("seeds", "machines", "students")
"""lists of a study that may differ: the merged study has all their members"""
BY_MACHINE = "machine_sha256"
FAULTS_SHOWN = 20
TEXT_SHOWN = 60

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Part:
    """What one folder holds of a study."""

    folder: Path
    plan: Plan
    attempts: Sequence[Attempt]


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="A B ...", help="Folders of one study, two or more.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    files: Annotated[
        bool,
        typer.Option("--files", help="Bring the nodes' folders, too: hard links where it can be."),
    ] = False,
) -> None:
    """Join the ledgers and plans of a study that was run in several places; what contradicts is an error."""
    if len(folders) < 2:
        raise ConfigError("give two or more folders of one study")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: not empty; --out must be a new folder")
    command = ["python", "-m", "studies.merge", *map(str, folders), "--out", str(out)]
    parts = [Part(f, load_plan(f), read(f / FILE_NAME)) for f in folders]
    plan = merged_plan(parts, shlex.join(command))
    attempts = merged_attempts([part.attempts for part in parts])
    check_agreement(parts)
    write(out, plan, attempts, folders if files else ())
    given = sum(len(part.attempts) for part in parts)
    done = {a.id for a in attempts if a.status in FINAL} & plan.by_id.keys()
    typer.echo(
        f"{out}: {len(plan.nodes)} nodes, {len(done)} finished; {len(attempts)} attempts,"
        f" {given - len(attempts)} that were there twice"
    )


# -- plans


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
        raise ConfigError(_shown(faults))
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


# -- attempts


def merged_attempts(ledgers: Sequence[Sequence[Attempt]]) -> list[Attempt]:
    """Return the attempts of all ledgers, in their order, each once, numbered anew within its node.

    What stands in two ledgers with all its content (result, host, date, seconds; not its number) is one attempt.
    """
    merged: list[Attempt] = []
    tries: Counter[str] = Counter()
    held: Counter[bytes] = Counter()
    for ledger in ledgers:
        seen: Counter[bytes] = Counter()
        for attempt in ledger:
            content = hashlib.sha256(replace(attempt, attempt=0).to_line().encode()).digest()
            seen[content] += 1
            if seen[content] > held[content]:
                held[content] += 1
                tries[attempt.id] += 1
                merged.append(replace(attempt, attempt=tries[attempt.id]))
    return merged


def check_agreement(parts: Sequence[Part]) -> None:
    """Compare all final attempts of each node: status, result and reason must be the same.

    Raises:
        ConfigError: two differ; names node, folders, column and both values.
    """
    first: dict[str, tuple[Path, Attempt]] = {}
    faults: dict[str, None] = {}
    for part in parts:
        for attempt in part.attempts:
            if attempt.status not in FINAL:
                continue
            folder, held = first.setdefault(attempt.id, (part.folder, attempt))
            for column, a, b in contradictions(held, attempt):
                faults[f"{attempt.label}: {column} is {a} in {folder}, {b} in {part.folder}"] = None
    if faults:
        raise ConfigError(_shown(list(faults)))


def contradictions(a: Attempt, b: Attempt) -> Iterator[tuple[str, str, str]]:
    """Yield path and both values of everything that two final attempts of one node say differently."""
    declared_a = {"status": a.status, "reason": a.error, **(a.result or {})}
    declared_b = {"status": b.status, "reason": b.error, **(b.result or {})}
    yield from _differences(declared_a, declared_b, "")


def _differences(a: Any, b: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    # as the ledger has it: nan is nan, 1 is not 1.0
    elif (text_a := json.dumps(a, sort_keys=True)) != (text_b := json.dumps(b, sort_keys=True)):
        yield path, _short(text_a), _short(text_b)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}..."


def _shown(faults: Sequence[str]) -> list[str]:
    more = len(faults) - FAULTS_SHOWN
    return [*faults[:FAULTS_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


# -- the new folder


def write(
    out: Path, plan: Plan, attempts: Sequence[Attempt], files_of: Sequence[Path] = ()
) -> None:
    """Make a study's folder: all of it, or none.

    Args:
        out: a folder that is empty or not there.
        plan: its plan.
        attempts: its ledger.
        files_of: folders of studies whose nodes' finished folders are brought, of the first that has it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        plan.save(temporary)
        with Ledger(temporary) as ledger:
            for attempt in attempts:
                ledger.append(attempt)
        for node in plan.nodes:
            place = Path(NODES_FOLDER) / node.folder_name
            for folder in files_of:
                if read_marker(folder / place, node.id) is not None:
                    shutil.copytree(folder / place, temporary / place, copy_function=_link)
                    break
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _link(source: str, target: str) -> str:
    """Give a file a second name; copy it where the file system has no hard links, or is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def main() -> None:
    """Entry point of `python -m studies.merge`."""
    run_app(app, "python -m studies.merge")


if __name__ == "__main__":
    main()
