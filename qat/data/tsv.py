"""Reading tables of text: tab-separated (no quoting, as GLUE is), CSV and JSON lines.

Nothing here knows a task. Every fault of a file is reported at once (the first `FAULTS_SHOWN` of them),
each with the file and the line.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsim.errors import DataError, nearest

FAULTS_SHOWN = 10
CLASSES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file: `texts` has one tuple (a text for each text column) and `labels` one number a row.

    Labels are class ids (int) or scores (float). `skipped` counts broken lines that were allowed.
    """

    texts: list[tuple[str, ...]]
    labels: list[int] | list[float]
    skipped: int = 0


def read_rows(
    path: Path,
    text: Sequence[str],
    label: str,
    labels: Mapping[str, str] | None,
    *,
    columns: Sequence[str] = (),
    broken_rows_max: float = 0.0,
) -> Rows:
    """Read a table whose format its suffix gives: `.tsv`/`.txt`, `.csv` or `.jsonl`.

    `columns` names the columns of a file without a header. `labels` maps a raw label to its name, in
    class order; None asks for finite numbers. `broken_rows_max` is the share of lines with a wrong number
    of fields that may be skipped.
    Raises DataError: no such file, unknown suffix, not UTF-8, no rows, missing column, wrong number of
    fields, empty or unknown label.
    """
    content = _read_text(path)
    _check_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        records = _json_records(path, content, (*text, label))
    else:
        records = _delimited_records(path, content, suffix, columns, (*text, label))
    ids = {raw: number for number, raw in enumerate(labels)} if labels is not None else None
    texts: list[tuple[str, ...]] = []
    values: list[float] = []
    broken: list[str] = []
    faults: list[str] = []
    for line, fields in records:
        if isinstance(fields, str):
            broken.append(f"{path}:{line}: {fields}")
            continue
        *parts, raw = fields
        value = _label_value(raw.strip(), label, ids)
        if isinstance(value, str):
            faults.append(f"{path}:{line}: {value}")
            continue
        texts.append(tuple(parts))
        values.append(value)
    if len(broken) > broken_rows_max * (len(texts) + len(faults)):
        faults = broken + faults
    if faults:
        raise DataError(_shorten(faults))
    if not texts:
        raise DataError(f"{path}: the file has no rows")
    numbers: list[int] | list[float] = values if ids is None else [int(v) for v in values]
    return Rows(texts, numbers, skipped=len(broken))


def label_values(path: Path, column: str) -> list[str]:
    """Return the distinct values of one column in sorted order: the classes of a user's own table."""
    return sorted(set(column_values(path, column)))


def column_values(path: Path, column: str) -> list[str]:
    """Return the values of one column, row by row; broken rows are left out."""
    content = _read_text(path)
    records = (
        _json_records(path, content, (column,))
        if path.suffix.lower() == ".jsonl"
        else _delimited_records(path, content, path.suffix.lower(), (), (column,))
    )
    return [fields[0].strip() for _, fields in records if not isinstance(fields, str)]


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns; of JSON lines, the keys of the first object.

    Raises:
        DataError: no such file, not UTF-8, unknown suffix, empty, or a first line that is no object.
    """
    content = _read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        first = next((line for line in content.split("\n") if line.strip()), "")
        try:
            record = json.loads(first)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            raise DataError(f"{path}:1: the first line must be a JSON object")
        return list(record)
    _check_suffix(path)
    lines = _csv_lines(path, content) if suffix == ".csv" else _tab_lines(content)
    try:
        return [name.strip() for name in next(lines)[1]]
    except StopIteration:
        raise DataError(f"{path}: the file is empty") from None


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in {".tsv", ".txt", ".csv", ".jsonl"}:
        raise DataError(
            f"{path}: the suffix must be .tsv, .txt, .csv or .jsonl, not '{path.suffix.lower()}'"
        )


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return path.read_bytes().decode("utf-8-sig")  # -sig: MRPC starts with a byte-order mark
    except UnicodeDecodeError as fault:
        line = path.read_bytes()[: fault.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text (byte {fault.start})") from None


def _label_value(raw: str, label: str, ids: Mapping[str, int] | None) -> float | str:
    """Return the class id or the score, or the fault as text."""
    if ids is not None:
        if raw in ids:
            return ids[raw]
        named = ", ".join(list(ids)[:CLASSES_SHOWN])
        more = len(ids) - CLASSES_SHOWN
        known = f"{named} and {more:,} more" if more > 0 else named
        return f"column '{label}': must be one of {known}, not '{raw}'"
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else f"column '{label}': must be a number, not '{raw}'"


def _delimited_records(
    path: Path, content: str, suffix: str, columns: Sequence[str], wanted: Sequence[str]
) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line, the wanted fields), or (line, what is wrong with it)."""
    lines = _csv_lines(path, content) if suffix == ".csv" else _tab_lines(content)
    if columns:
        header = list(columns)
    else:
        try:
            header = [name.strip() for name in next(lines)[1]]
        except StopIteration:
            raise DataError(f"{path}: the file is empty") from None
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            "\n".join(
                f"{path}:1: no column '{name}'; the file has {', '.join(header)}{nearest(name, header)}"
                for name in missing
            )
        )
    places = [header.index(name) for name in wanted]
    for number, fields in lines:
        if len(fields) != len(header):
            yield number, f"must have {len(header)} fields, has {len(fields)}"
        else:
            yield number, [fields[place] for place in places]


def _tab_lines(content: str) -> Iterator[tuple[int, list[str]]]:
    # split on \n only: str.splitlines would also break a sentence at U+2028 or U+0085
    numbered = enumerate(content.split("\n"), start=1)
    return ((n, line.rstrip("\r").split("\t")) for n, line in numbered if line.strip())


def _csv_lines(path: Path, content: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise DataError(f"{path}:{reader.line_num}: {fault}") from None
        if fields:
            yield reader.line_num, fields


def _json_records(
    path: Path, content: str, wanted: Sequence[str]
) -> Iterator[tuple[int, list[str] | str]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as fault:
            yield number, f"not JSON: {fault.msg} at column {fault.colno}"
            continue
        if not isinstance(record, dict):
            yield number, f"must be a JSON object, not {type(record).__name__}"
            continue
        missing = [name for name in wanted if name not in record]
        if missing:
            yield number, f"no key '{missing[0]}'; the object has {', '.join(record)}"
        else:
            yield number, [str(record[name]) for name in wanted]


def _shorten(faults: Sequence[str]) -> str:
    shown = list(faults[:FAULTS_SHOWN])
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"... and {len(faults) - FAULTS_SHOWN} more")
    return "\n".join(shown)
