"""`python -m studies.crosstool`: the same products in other tools, side by side with ours.

`run` installs ZigZag and SCALE-Sim into environments of their own, runs them and us in turn and writes one JSON
file; `tables` rewrites the tables of `docs/crosstool.md` from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli.errors import run_app
from studies.crosstool.page import page_with_tables
from studies.plan import write_atomically

RESULT = Path("studies/results/crosstool.json")
PAGE = Path("docs/crosstool.md")

app = typer.Typer(
    help="The same products on the same machines in other tools.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    env: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the tools' environments; default in the user's cache."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--json", metavar="FILE")] = RESULT,
    limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="What each run of a tool may take.")
    ] = 600.0,
    lpf_limit: Annotated[
        int, typer.Option(min=1, help="Loops that ZigZag tries all orders of; slow above 7.")
    ] = 6,
) -> None:
    """Install the tools where they are missing, run everything, write the record. Needs a package index once."""
    from studies.crosstool.compare import collect
    from studies.crosstool.tools import default_folder

    record = collect((env or default_folder()).resolve(), limit, typer.echo, lpf_limit)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    typer.echo(f"{out}: written")


@app.command()
def tables(
    result: Annotated[Path, typer.Option(metavar="FILE", help="The record.")] = RESULT,
    page: Annotated[Path, typer.Option(metavar="FILE", help="The document to rewrite.")] = PAGE,
) -> None:
    """Rewrite the tables of the page from the record."""
    record = json.loads(result.read_text(encoding="utf-8"))
    write_atomically(page, page_with_tables(page.read_text(encoding="utf-8"), record))
    typer.echo(f"{page}: rewritten")


def main() -> None:
    """Entry point of `python -m studies.crosstool`."""
    run_app(app, "python -m studies.crosstool")


if __name__ == "__main__":
    main()
