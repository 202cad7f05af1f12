"""The verbs about an exported model: run it, verify it, list its sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hwsim.cli.machines import Overrides

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of an exported model.")
]
MachineOption = Annotated[
    str,
    typer.Option("--machine", metavar="NAME_OR_FILE", help="A shipped machine's name or a file."),
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="Use the first N stored samples; all when not given."),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result here, too.")
]


def run(
    model: ModelArgument,
    machine: MachineOption,
    samples: SamplesOption = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="From the shapes only: no data, milliseconds.")
    ] = False,
    objective: Annotated[
        Literal["cycles", "energy"], typer.Option(help="What the mapping is chosen for.")
    ] = "cycles",
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Run a model on a machine: accuracy, cycles, energy and memory."""
    from hwsim import api

    result = api.run(
        model,
        machine,
        samples=samples,
        cost_only=cost,
        overrides=set_ or (),
        objective=objective,
    )
    _show(result, json_file)


def verify(
    model: ModelArgument,
    machine: MachineOption,
    samples: SamplesOption = None,
    inject: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD:NODE:INDEX:BIT",
            help="Flip one bit in the machine's memory first; FIELD is weight, M, S, B,"
            " threshold, table or length.",
        ),
    ] = None,
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Compare every tensor of the machine with the reference; exit code 0 only if all are equal."""
    from hwsim import api

    result = api.verify(model, machine, samples=samples, inject=inject, overrides=set_ or ())
    _show(result, json_file)
    if not result.ok:
        raise typer.Exit(1)


def sizes(model: ModelArgument, json_file: JsonOption = None) -> None:
    """List what a model takes on disk: every constant, their kinds, the files."""
    from hwsim.report.sizes import sizes as measure

    _show(measure(model), json_file)


def _show(result: Any, json_file: Path | None) -> None:
    from rich.console import Console

    result.render(Console(soft_wrap=not sys.stdout.isatty()))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
