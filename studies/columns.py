"""The columns of a study's table: a row's results, and the attempt that they come from.

Names, types, units and meanings are those of the fields of `Row` and `Origin`; there is no second list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from hwsim.errors import ConfigError, nearest
from studies.ledger import FILE_NAME, Attempt, read, view
from studies.plan import Node, canonical_json, load_plan
from studies.row import COLUMNS, CONSTRAINED, EVALUATIONS, Row, outcome
from studies.table import Results

Record = Mapping[str, Any]
"""one line of the table: a value, or None, by the name of its column"""

STUDY = "study"
UNITS = {
    "pj": "pJ",
    "s": "s",
    "seconds": "s",
    "cycles": "cycles",
    "bytes": "B",
    "um2": "µm²",
    "frac": "fraction",
}
"""part of a column's name -> unit; the last such part counts"""


@dataclass(frozen=True, slots=True)
class Origin:
    """The attempt that a row comes from, when and where it was made, and with what."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    node: str
    """identity of the node: everything that its result depends on"""
    kind: str
    """what it does: train, export, evaluate; untrained, cost"""
    label: str
    """name of the node"""
    attempt: int | None = None
    """number of the try, from 1"""
    counts: bool = False
    """whether this is the attempt of its node that counts: the last final one, else the last"""
    date: datetime | None = None
    """when it ended, UTC"""
    seconds: float | None = None
    """how long it took"""
    host: str | None = None
    """computer"""
    git_revision: str | None = None
    """commit of the checkout, `-dirty` if files were changed; none if installed from a package"""
    sources_sha256: str | None = None
    """source files that its kind of node runs"""
    python: str | None = None
    """version"""
    torch: str | None = None
    """version"""
    numpy: str | None = None
    """version"""
    numba: str | None = None
    """version"""
    graph_schema: str | None = None
    """of the exports that its process reads and writes"""
    platform: str | None = None
    """operating system"""
    processor: str | None = None
    """of the computer"""
    threads: str | None = None
    """of torch and numba where they were loaded, and the variables that bound OpenMP and BLAS"""


ORIGIN_COLUMNS = tuple(f.name for f in fields(Origin))


@dataclass(frozen=True, slots=True)
class Column:
    """A column as people and files are told of it."""

    name: str
    type: str
    """text, integer, number, boolean or date"""
    unit: str
    meaning: str


MADE_WITH = ("python", "torch", "numpy", "numba", "graph_schema", "platform", "processor")
"""columns of `Origin` that the worker's description of itself has by the same name"""

_TYPES = {"string": "text", "date-time": "date"}


@cache
def columns_of(table: type[Row] | type[Origin]) -> tuple[Column, ...]:
    """Return the columns that the fields of a class make, in their order."""
    found = []
    properties = TypeAdapter(table).json_schema()["properties"]
    for name in COLUMNS if table is Row else ORIGIN_COLUMNS:
        schema = properties[name]
        (kind,) = (s for s in schema.get("anyOf", [schema]) if s["type"] != "null")
        plain = kind.get("format", kind["type"])
        unit = [UNITS[part] for part in name.split("_") if part in UNITS]
        meaning = schema.get("description", "")
        found.append(Column(name, _TYPES.get(plain, plain), unit[-1] if unit else "", meaning))
    return tuple(found)


def all_columns(with_study: bool = False) -> tuple[Column, ...]:
    """Return the columns of a table; that of several studies begins with the folder of each row's."""
    study = (Column(STUDY, "text", "", "folder of the study, as it was given"),)
    return (*(study if with_study else ()), *columns_of(Row), *columns_of(Origin))


def find_column(name: str, columns: Sequence[Column]) -> Column:
    """Return the column of a name; objectives are known by theirs, too.

    Raises:
        ConfigError: there is none; says the nearest.
    """
    by_name = {column.name: column for column in columns}
    name = CONSTRAINED.get(name, name)
    if name not in by_name:
        raise ConfigError(
            f"there is no column '{name}'{nearest(name, list(by_name))} (--columns lists them)"
        )
    return by_name[name]


def result_records(results: Results) -> list[Record]:
    """Return a study's rows with the attempts that they come from, in the plan's order."""
    nodes = results.plan.by_id
    return [
        {
            **{name: getattr(row, name) for name in COLUMNS},
            **_origin(nodes[row.node], results.attempts.get(row.node), counts=True),
        }
        for row in results.rows
    ]


def attempt_records(folder: Path) -> Iterator[Record]:
    """Yield every attempt of a study's ledger, trainings and exports too, in the order in which they were made.

    Attempts of nodes that the plan has no more (code or study was changed since) have no student, seed or machine.

    Raises:
        CheckpointError: no study was run there.
        LedgerError: the ledger is damaged.
    """
    planned = load_plan(folder).by_id
    attempts = read(folder / FILE_NAME)
    chosen = view(attempts)
    for attempt in attempts:
        node = planned.get(attempt.id)
        tags = node.tags if node is not None else {}
        values = dict.fromkeys(COLUMNS) | {"status": attempt.status, "reason": attempt.error}
        if attempt.kind in EVALUATIONS:
            settings = canonical_json(dict(attempt.spec.get("settings", ())))
            exports = (chosen.get(parent) for parent in attempt.parents)
            found = outcome(attempt, next(exports, None))
            row = Row(student="", seed=0, machine="", settings=settings, **found)
            values = {name: getattr(row, name) for name in COLUMNS}
        values |= {name: tags.get(name) for name in ("student", "seed", "machine", "family")}
        yield {**values, **_origin(attempt, attempt, counts=chosen[attempt.id] is attempt)}


def _origin(node: Node | Attempt, attempt: Attempt | None, counts: bool) -> dict[str, Any]:
    if attempt is None:
        return _values(Origin(node.id, node.kind, node.label))
    volatile = attempt.volatile
    made = volatile.get("environment", {})
    date = volatile.get("date")
    return _values(
        Origin(
            node.id,
            node.kind,
            node.label,
            attempt.attempt,
            counts,
            None if date is None else datetime.fromisoformat(date),
            volatile.get("seconds"),
            volatile.get("host"),
            volatile.get("git_revision"),
            volatile.get("sources_sha256"),
            **{name: made.get(name) for name in MADE_WITH},
            threads=", ".join(f"{n} {v}" for n, v in made.get("threads", {}).items()) or None,
        )
    )


def _values(origin: Origin) -> dict[str, Any]:
    # not `asdict`, which copies every value: half of the time of a large study
    return {name: getattr(origin, name) for name in ORIGIN_COLUMNS}
