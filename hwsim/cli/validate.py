"""The verb that holds machines against published figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli.outputs import output_file, write_json

FILE_COLUMNS = 200
"""width of the table where no terminal says one"""

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME_OR_FILE]...", help="Machines; all that come with the package when none."
    ),
]


def validate(
    names: NamesArgument = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write down predictions that have changed.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", callback=output_file, help="Write the rows here, too."
        ),
    ] = None,
) -> None:
    """Hold machines against published figures; exit code 1 if a prediction has changed."""
    from hwsim.validation.judge import validate as hold

    result = hold(names or (), record=record)
    if markdown:
        from hwsim.report.validation import markdown as as_markdown

        typer.echo(as_markdown(result), nl=False)
    else:
        from rich.console import Console

        result.render(Console(width=None if sys.stdout.isatty() else FILE_COLUMNS))
    if json_file is not None:
        write_json(result.to_json(), json_file)
    if result.changed:
        raise typer.Exit(1)
