"""Text on a console as it is written: the names come from a user's files, and `[/red]` or `:key:` in one is part of it.

On whatever console: `render` of a result is called with the user's own, too, on which rich's markup is on.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text


def say(console: Console, what: str | RichTable) -> None:
    """Print a line, or a table."""
    console.print(what, markup=False, emoji=False)


class Table(RichTable):
    """A table whose title and cells are plain text."""

    def __init__(self, title: str, **options: Any) -> None:
        super().__init__(title=Text(title, style="table.title"), **options)

    def add_row(self, *renderables: RenderableType | None, **options: Any) -> None:
        """Add a row; what rich does with it, but for markup."""
        cells = (Text(cell) if isinstance(cell, str) else cell for cell in renderables)
        super().add_row(*cells, **options)
