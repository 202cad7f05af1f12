"""How a command ends: a user's mistake is one message a fault on stderr and exit code 2."""

from __future__ import annotations

import sys

import typer

from hwsim.errors import BitwrightError

USER_ERROR = 2


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line. Bugs keep their traceback and exit code 1; closed pipes end quietly."""
    try:
        app(prog_name=name)
    except BitwrightError as error:
        print(error, file=sys.stderr)
        sys.exit(USER_ERROR)
