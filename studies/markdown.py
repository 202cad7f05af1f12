"""A table as Markdown whose columns are aligned, so that it reads as well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the lines of a table; a column of numbers is set flush right, what is missing is left empty.

    >>> print(*markdown_table(["name", "pJ"], [["a|b", 1.5], ["c", None]]), sep=chr(10))
    | name |  pJ |
    |------|----:|
    | a\\|b | 1.5 |
    | c    |     |
    """
    cells = [[cell_text(value) for value in row] for row in rows]
    lines = ["|"] * (len(cells) + 2)
    for index, name in enumerate(head):
        values = [row[index] for row in rows if row[index] is not None]
        right = bool(values) and all(isinstance(v, int | float) for v in values)
        texts = [name, *(row[index] for row in cells)]
        width = max(3, *map(len, texts))
        padded = [text.rjust(width) if right else text.ljust(width) for text in texts]
        rule = "-" * (width + 1) + (":" if right else "-")
        column = [f" {padded[0]} ", rule, *(f" {text} " for text in padded[1:])]
        lines = [f"{line}{part}|" for line, part in zip(lines, column, strict=True)]
    return lines


def cell_text(value: object) -> str:
    """Write a value as a table shows it: six digits of a number, a text on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).replace("\n", " ").replace("|", r"\|")
