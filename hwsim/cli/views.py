"""The verbs that look into a cost: explain an operator, compare two machines, draw figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hwsim.cli.machines import Overrides
from hwsim.cli.models import (
    JsonOption,
    LengthOption,
    MachineOption,
    ModelArgument,
    ObjectiveOption,
    show,
)
from hwsim.cli.outputs import output_folder, writing
from hwsim.errors import ConfigError

if TYPE_CHECKING:
    from hwsim.report.diff import Side

SideArgument = Annotated[
    str,
    typer.Argument(
        metavar="MACHINE_OR_RESULT", help="A machine's name or file, or a result of `run --json`."
    ),
]
ColdOption = Annotated[
    bool, typer.Option("--cold/--steady", help="With constants from DRAM, or on chip where they stay.")
]  # fmt: skip


def explain(
    model: ModelArgument,
    machine: MachineOption,
    operator: Annotated[
        str, typer.Option("--operator", metavar="NODE", help="Name of the operator, as `run` lists it.")
    ],
    cold: ColdOption = False,
    length: LengthOption = None,
    objective: ObjectiveOption = "cycles",
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:  # fmt: skip
    """Explain an operator's cost: problem, mapping, cycles by formula, energy as counts times units."""
    from hwsim.config.load import load_machine
    from hwsim.engine.cost import cost
    from hwsim.graph.serialize import load
    from hwsim.mapping.objective import Objective
    from hwsim.report.explain import explain as explain_operator

    loaded, on = load(model), load_machine(machine, set_ or ())
    report = cost(loaded.graph, on, length, Objective(objective))
    scenario: Literal["cold", "steady"] = "cold" if cold else "steady"
    show(explain_operator(report, report.graph, on, operator, scenario, loaded.name), json_file)


def diff(
    first: SideArgument,
    second: SideArgument,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL", help="Folder of an exported model, for machines."),
    ] = None,
    by: Annotated[
        Literal["cycles", "energy"], typer.Option("--by", help="What the rows are sorted by.")
    ] = "cycles",
    length: LengthOption = None,
    objective: ObjectiveOption = "cycles",
    json_file: JsonOption = None,
    equal_area: Annotated[
        bool,
        typer.Option(
            "--equal-area",
            help="Scale rows and columns of the second machine's main array to the first's area.",
        ),
    ] = False,
    set_first: Annotated[
        list[str] | None,
        typer.Option("--set-a", metavar="PATH=VALUE", help="Change one key of the first machine."),
    ] = None,
    set_second: Annotated[
        list[str] | None,
        typer.Option("--set-b", metavar="PATH=VALUE", help="Change one key of the second machine."),
    ] = None,
) -> None:
    """Compare two machines on a model, or two results of one: where cycles and energy differ."""
    from hwsim.report.diff import diff as difference
    from hwsim.report.diff import read_result

    files = [name.endswith(".json") for name in (first, second)]
    if files[0] != files[1]:
        raise ConfigError(
            "two machines or two results must be compared, not one of each:"
            f" {first} and {second}; make the missing result with `run --cost --json`"
        )
    if files[0]:
        if model is not None or set_first or set_second or equal_area or length is not None:
            raise ConfigError(
                "--model, --length, --equal-area, --set-a and --set-b are for machines, not for results"
            )
        sides = (read_result(Path(first)), read_result(Path(second)))
    else:
        if model is None:
            raise ConfigError("two machines must be compared on a model: give --model MODEL")
        changes = list(set_second or [])
        if equal_area:
            changes += _to_equal_area(first, set_first or [], second, changes)
        sides = (
            _costed(model, first, set_first or [], objective, length),
            _costed(model, second, changes, objective, length),
        )
    show(difference(*sides, by), json_file)


def _to_equal_area(
    first: str, set_first: list[str], second: str, set_second: list[str]
) -> list[str]:
    """Return what makes the second machine as large as the first; print it."""
    from hwsim.config.load import load_machine
    from hwsim.report.equal_area import equal_area, require_area

    a, b = load_machine(first, set_first), load_machine(second, set_second)
    made = equal_area(b, require_area(a))
    was = require_area(b)
    changed = ", ".join(made.overrides) or "nothing changed"
    typer.echo(
        f"equal area: A {made.wanted_um2:,.0f} um2, B {was:,.0f} um2 -> {made.reached_um2:,.0f} um2: {changed}"
    )
    return made.overrides


def _costed(
    model: Path,
    machine: str,
    overrides: list[str],
    objective: Literal["cycles", "energy"],
    length: int | None,
) -> Side:
    """Cost a model on one of the machines."""
    from hwsim import api
    from hwsim.report.diff import Side

    run = api.run(
        model, machine, cost_only=True, overrides=overrides, objective=objective, length=length
    )
    name = " ".join([run.result.cost.machine, *overrides])
    return Side(name, run.to_json(), run.result.cost.steady.ledger)


def plot(
    model: ModelArgument,
    machine: MachineOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=output_folder,
            help="Folder of the figures, PNG and SVG.",
        ),
    ],
    cold: ColdOption = False,
    length: LengthOption = None,
    objective: ObjectiveOption = "cycles",
    set_: Overrides = None,
) -> None:
    """Draw a cost: roofline, cycles and energy by operator."""
    from hwsim.config.load import load_machine
    from hwsim.engine.cost import cost
    from hwsim.graph.serialize import load
    from hwsim.mapping.objective import Objective
    from hwsim.report.figure import render_files
    from hwsim.report.plots import cost_figures

    loaded, on = load(model), load_machine(machine, set_ or ())
    report = cost(loaded.graph, on, length, Objective(objective))
    scenario: Literal["cold", "steady"] = "cold" if cold else "steady"
    figures = cost_figures(report, report.graph, on, scenario, loaded.name)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        files = [path for name, draw in figures.items() for path in render_files(draw, out / name)]
    for path in files:
        typer.echo(path)
