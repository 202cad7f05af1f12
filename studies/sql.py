"""DuckDB, where it is needed: conditions in SQL, and Parquet files. It is imported by what is called alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.errors import ConfigError, MissingExtra, nearest
from studies.columns import Column, Record

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "studies/table/1"
TYPES = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "TIMESTAMPTZ",
}
"""type of a column -> what SQL and Parquet call it"""


def where(records: Sequence[Record], columns: Sequence[Column], condition: str) -> list[Record]:
    """Return the records for which an SQL condition over the columns is true, in their order.

    As in SQL a comparison with a missing value is not true: use `IS NULL`.

    Raises:
        ConfigError: the condition is no SQL, or names a column that there is not.
        MissingExtra: DuckDB is not installed.
    """
    with _connect() as connection:
        _load(connection, records, columns)
        import duckdb

        try:
            # on a line of its own: a condition may end with a comment
            answer = connection.execute(f"SELECT place FROM rows WHERE (\n{condition}\n)")
            places = sorted(place for (place,) in answer.fetchall())
        except duckdb.Error as fault:
            raise ConfigError(f"--where: {_said(str(fault), columns)}, in: {condition}") from None
    return [records[place] for place in places]


def write_parquet(path: Path, records: Sequence[Record], columns: Sequence[Column]) -> None:
    """Write records as Parquet; names, units and meanings of the columns go into the file's metadata.

    Raises:
        MissingExtra: DuckDB is not installed.
    """
    meta = {
        "schema": SCHEMA,
        "columns": json.dumps({c.name: {"unit": c.unit, "meaning": c.meaning} for c in columns}),
    }
    pairs = ", ".join(f"{key}: {_quoted(text)}" for key, text in meta.items())
    names = ", ".join(f'"{c.name}"' for c in columns)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with _connect() as connection:
        _load(connection, records, columns)
        connection.execute(
            f"COPY (SELECT {names} FROM rows ORDER BY place) TO {_quoted(str(temporary))} "
            f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{pairs}}})"
        )
    temporary.replace(path)


def _connect() -> DuckDBPyConnection:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "report") from None
    # what is not in the package is not looked for on the network
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _load(
    connection: DuckDBPyConnection, records: Sequence[Record], columns: Sequence[Column]
) -> None:
    """Make the table `rows`: the columns, and `place`, the number of the record."""
    # lists side by side, a column each, are two orders of magnitude faster than INSERT, row by row
    lists = [f'unnest($c{i}::{TYPES[c.type]}[]) AS "{c.name}"' for i, c in enumerate(columns)]
    values = {f"c{i}": [r[c.name] for r in records] for i, c in enumerate(columns)}
    connection.execute(
        f"CREATE TABLE rows AS SELECT unnest($place::BIGINT[]) AS place, {', '.join(lists)}",
        {"place": list(range(len(records))), **values},
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _said(message: str, columns: Sequence[Column]) -> str:
    """Return what DuckDB complains of, without its copy of the statement; for a column, the nearest one."""
    unknown = re.search(r'Referenced column "(.+?)" not found', message)
    if unknown is not None:
        near = nearest(unknown[1], [c.name for c in columns])
        return f"there is no column '{unknown[1]}'{near} (--columns lists them)"
    return message.partition("\n")[0].partition(": ")[2]
