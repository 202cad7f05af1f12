"""`python -m studies.query DIR...`: ask finished or running studies: filter, sort, keep a front, convert."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hwsim.cli.errors import run_app
from hwsim.errors import ConfigError
from studies.collector import collector_paused
from studies.columns import (
    STUDY,
    Column,
    Record,
    all_columns,
    attempt_records,
    find_column,
    result_records,
)
from studies.markdown import markdown_table
from studies.pareto import front_mask
from studies.plan import write_atomically
from studies.sql import where, write_parquet
from studies.table import load_results

SHOWN = ("student", "seed", "machine", "status", "metric", "score", "energy_pj", "latency_s_steady")
SHOWN_ATTEMPTS = ("date", "label", "attempt", "counts", "status", "seconds", "host", "reason")


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


ENDINGS = {".md": Format.TABLE, **{f".{f}": f for f in Format if f is not Format.TABLE}}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def query(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", help="Folders of studies.")
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="SQL",
            help="Rows to keep, e.g. \"score > 0.9 AND status = 'ok'\".",
        ),
    ] = None,
    front: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN:max|min,...",
            help="Of these, those that no other beats, e.g. score:max,energy_pj:min.",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN[:desc],...", help="Sort by these; what is missing comes last."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep the first N.")] = None,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN,...", help="Columns.", show_default="all; of a table the main ones"
        ),
    ] = None,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="A row for every attempt of the ledger.")
    ] = False,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="How the answer is written.",
            show_default="what --out ends in, else table",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write here.", show_default="the terminal"),
    ] = None,
    columns: Annotated[bool, typer.Option("--columns", help="List the columns and stop.")] = False,
) -> None:
    """Ask the results of studies: rows to keep, front, order and limit are applied in this order."""
    if columns:
        known = all_columns(with_study=True)
        head = ["column", "type", "unit", "meaning"]
        typer.echo("\n".join(markdown_table(head, [list(asdict(c).values()) for c in known])))
        return
    form = _format(form, out)
    known, records = load(folders or [], attempts)
    total = len(records)
    keys = parse_order(order, known) if order else []
    objectives = parse_front(front, known) if front else []
    shown = _selected(select, known, attempts, form, [c for c, _ in objectives])
    if condition is not None:
        records = where(records, known, condition)
    if objectives:
        records, dropped = on_front(records, objectives)
        if dropped:
            print(f"front: {dropped} rows lack one of its values and are left out", file=sys.stderr)
    records = in_order(records, keys)[:limit]
    if form is Format.PARQUET:
        assert out is not None  # _format saw to it
        write_parquet(out, records, shown)
    elif out is not None:
        write_atomically(out, text_of(records, shown, form))
    else:
        typer.echo(text_of(records, shown, form), nl=False)
    if out is not None or form is Format.TABLE:
        print(f"{len(records)} of {total} rows", file=sys.stderr)


@collector_paused()
def load(
    folders: Sequence[Path], attempts: bool = False
) -> tuple[tuple[Column, ...], list[Record]]:
    """Return the columns and rows of studies, or all attempts; of several with the column `study`.

    Raises:
        CheckpointError: a folder holds no study.
        ConfigError: no folder is given, or one twice.
        LedgerError: a ledger is damaged.
    """
    if not folders:
        raise ConfigError("give the folder of a study (the sweep's --out)")
    several = len(folders) > 1
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a folder is given twice: each study must be given once")
    records: list[Record] = []
    for folder in folders:
        found = attempt_records(folder) if attempts else result_records(load_results(folder))
        records += ({STUDY: str(folder), **record} for record in found) if several else found
    return all_columns(with_study=several), records


def parse_front(text: str, columns: Sequence[Column]) -> list[tuple[Column, bool]]:
    """Return the columns of a front, each with whether it is to be made large.

    Raises:
        ConfigError: fewer than two, a column that is unknown or no number, or no direction.
    """
    found = []
    for part in text.split(","):
        name, _, direction = part.strip().partition(":")
        column = find_column(name, columns)
        if direction not in ("max", "min"):
            raise ConfigError(
                f"--front: must be COLUMN:max or COLUMN:min, such as {name}:min, not '{part.strip()}'"
            )
        if column.type not in ("integer", "number"):
            raise ConfigError(f"--front: '{name}' must be a column of numbers, it is {column.type}")
        found.append((column, direction == "max"))
    if len({column.name for column, _ in found}) < max(2, len(found)):
        raise ConfigError(f"--front: must name two or more different columns, not '{text}'")
    return found


def parse_order(text: str, columns: Sequence[Column]) -> list[tuple[Column, bool]]:
    """Return the columns to sort by, each with whether its largest value comes first.

    Raises:
        ConfigError: a column is unknown, or what follows it is neither asc nor desc.
    """
    found = []
    for part in text.split(","):
        name, _, direction = part.strip().partition(":")
        if direction not in ("", "asc", "desc"):
            raise ConfigError(f"--order: must be COLUMN, COLUMN:asc or COLUMN:desc, not '{part}'")
        found.append((find_column(name, columns), direction == "desc"))
    return found


def on_front(
    records: Sequence[Record], objectives: Sequence[tuple[Column, bool]]
) -> tuple[list[Record], int]:
    """Return the records that no other beats, and how many could not compete: a value is missing.

    A record beats another if it is nowhere worse and somewhere better; equals stay together.
    """
    able = [r for r in records if all(r[column.name] is not None for column, _ in objectives)]
    costs = np.array(
        [[-r[c.name] if large else r[c.name] for c, large in objectives] for r in able],
        dtype=np.float64,
    ).reshape(len(able), len(objectives))
    kept = front_mask(costs)
    return [r for r, keep in zip(able, kept, strict=True) if keep], len(records) - len(able)


def in_order(records: Sequence[Record], keys: Sequence[tuple[Column, bool]]) -> list[Record]:
    """Return the records sorted by the first key, equals by the second and so on; missing values last."""
    found = list(records)
    for column, descending in reversed(keys):
        name = column.name
        there = [r for r in found if r[name] is not None]
        there.sort(key=lambda r, name=name: r[name], reverse=descending)  # type: ignore[misc]
        found = there + [r for r in found if r[name] is None]
    return found


def text_of(records: Sequence[Record], columns: Sequence[Column], form: Format) -> str:
    """Return records as a table, as CSV or as a JSON array of objects."""
    names = [column.name for column in columns]
    if form is Format.JSON:
        chosen = [{name: record[name] for name in names} for record in records]
        return json.dumps(chosen, indent=1, ensure_ascii=False, default=datetime.isoformat) + "\n"
    values = [[record[name] for name in names] for record in records]
    if form is Format.TABLE:
        return "\n".join(markdown_table(names, values)) + "\n"
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([names, *values])
    return stream.getvalue()


def _format(form: Format | None, out: Path | None) -> Format:
    """Return the format that is asked for, or that a file's name says."""
    if form is None and out is not None:
        if out.suffix not in ENDINGS:
            raise ConfigError(f"--out: must end in {', '.join(ENDINGS)}, not '{out.name}'; or give --format")  # fmt: skip
        form = ENDINGS[out.suffix]
    if form is Format.PARQUET and out is None:
        raise ConfigError("--format parquet: it is no text; give --out FILE")
    return form or Format.TABLE


def _selected(
    select: str | None,
    columns: Sequence[Column],
    attempts: bool,
    form: Format,
    compared: Sequence[Column],
) -> list[Column]:
    """Return the columns to write: the chosen ones; else all, of a table those that fit a screen."""
    if select is not None:
        return [find_column(name.strip(), columns) for name in select.split(",")]
    if form is not Format.TABLE:
        return list(columns)
    main = (STUDY, *(SHOWN_ATTEMPTS if attempts else SHOWN))
    return [c for c in columns if c.name in main or c in compared]


def main() -> None:
    """Entry point of `python -m studies.query`."""
    run_app(app, "python -m studies.query")


if __name__ == "__main__":
    main()
