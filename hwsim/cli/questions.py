"""The verbs that ask what would change a conclusion: where the winner changes, and what moves it most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hwsim.cli.models import JsonOption, ObjectiveOption, show
from hwsim.cli.outputs import output_folder, writing
from hwsim.errors import ConfigError

ModelOption = Annotated[
    Path, typer.Option("--model", metavar="MODEL", help="Folder of an exported model.")
]
FirstArgument = Annotated[str, typer.Argument(metavar="A", help="A machine's name or file.")]


def breakeven(
    first: FirstArgument,
    second: Annotated[str, typer.Argument(metavar="B", help="Another machine's name or file.")],
    model: ModelOption,
    over: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="What is varied, on each machine that has it: a quantity, a whole number, or sequence_length.",
        ),
    ],
    from_: Annotated[
        float | None, typer.Option("--from", metavar="VALUE", help="Where the range begins.")
    ] = None,
    to: Annotated[
        float | None, typer.Option("--to", metavar="VALUE", help="Where the range ends.")
    ] = None,
    by: Annotated[
        Literal["energy", "cycles"], typer.Option("--by", help="What is compared; cycles as times.")
    ] = "energy",
    objective: ObjectiveOption = "cycles",
    json_file: JsonOption = None,
) -> None:
    """Find the value of a key at which A stops winning over B."""
    from hwsim.config.load import load_machine
    from hwsim.graph.serialize import load
    from hwsim.report.breakeven import breakeven as find

    machines = load_machine(first), load_machine(second)
    loaded = load(model)
    show(
        find(loaded.graph, loaded.name, machines, (first, second), over, (from_, to), by, objective),
        json_file,
    )  # fmt: skip


def sensitivity(
    first: FirstArgument,
    model: ModelOption,
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another one: then of the energy B / A.")
    ] = None,
    keys: Annotated[
        Literal["10%", "x2"] | None,
        typer.Option("--keys", help="Change every key of the machines by this much, too."),
    ] = None,
    objective: ObjectiveOption = "cycles",
    json_file: JsonOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", callback=output_folder, help="Draw it here, PNG and SVG."
        ),
    ] = None,
) -> None:
    """List what moves an energy, or the ratio of two, most: each unknown alone."""
    from hwsim.config.load import load_machine
    from hwsim.graph.serialize import load
    from hwsim.report.sensitivity import sensitivity as measure

    if first == second:
        raise ConfigError(f"two different machines must be compared, not {first} with itself")
    sources = (first,) if second is None else (first, second)
    machines = tuple(load_machine(source) for source in sources)
    loaded = load(model)
    found = measure(loaded.graph, loaded.name, machines, sources, keys, objective)
    show(found, json_file)
    if out is not None:
        from hwsim.report.figure import render_files
        from hwsim.report.tornado import tornado

        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            files = render_files(tornado(found), out / "tornado")
        for path in files:
            typer.echo(path)
