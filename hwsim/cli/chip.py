"""The verbs for who builds the chip: golden vectors of an operator, switching activity of the operand ports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hwsim.cli.machines import Overrides
from hwsim.cli.models import JsonOption, MachineOption, ModelArgument, SamplesOption, show
from hwsim.cli.outputs import output_folder, writing
from hwsim.errors import DataError
from hwsim.rtl import TILE_LIMIT


def vectors(
    model: ModelArgument,
    machine: MachineOption,
    operator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The contraction; without it, they are listed."),
    ] = None,
    tile: Annotated[
        str | None, typer.Option(metavar="I", help="Number of a compute step, or `all`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", callback=output_folder, help="New or empty folder for the files."
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Number of a stored sample.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Most tiles that `all` may be.")] = TILE_LIMIT,
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Write what an array receives in a compute step and what must come out, for a testbench."""
    if operator is None:
        if tile is not None or out is not None:
            raise DataError(
                "--tile and --out need --operator NAME; without it, operators are listed"
            )
        from hwsim.rtl.listing import list_products

        show(list_products(model, machine, sample, set_ or ()), json_file)
        return
    if tile is None or out is None:
        raise DataError("--operator needs --tile I (or all) and --out DIR")
    from hwsim.rtl.vectors import write_vectors

    which = _tile(tile)
    show(write_vectors(model, machine, operator, which, out, sample, limit, set_ or ()), json_file)


def activity(
    model: ModelArgument,
    machine: MachineOption,
    samples: SamplesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=output_folder,
            help="Write activity.csv and activity.saif here, too.",
        ),
    ] = None,
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Count how often the bits of the arrays' operand registers switch on real data."""
    from hwsim.rtl.activity import activity as measure

    found = measure(model, machine, samples, set_ or ())
    if out is not None:
        with writing(out):
            found.write(out)
    show(found, json_file)


def _tile(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise DataError(f"--tile must be a number from 0, or all, not {text!r}")
    return int(text)
