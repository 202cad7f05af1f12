"""The verbs about machine files. None of them needs a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one key, e.g. clock_hz=100000000."),
]
MachineArgument = Annotated[
    str, typer.Argument(metavar="NAME_OR_FILE", help="A shipped machine's name or a YAML file.")
]


def list_() -> None:
    """List the machines that come with the package, and the off-chip memories that they can be given."""
    from hwsim.config.load import list_dram, list_machines

    groups = [list_machines(published=False), list_machines(published=True), list_dram()]
    width = max(len(name) for group in groups for name, _ in group)
    headings = ("To study with", "Published", "Off-chip memory, for dram.preset")
    for heading, group in zip(headings, groups, strict=True):
        typer.echo(f"{heading}:")
        for name, description in group:
            typer.echo(f"  {name:<{width}}  {description}")


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The file to write.")],
    extends: Annotated[
        str, typer.Option(metavar="NAME_OR_FILE", help="The machine that it starts from.")
    ],
    set_: Overrides = None,
) -> None:
    """Write a machine file that extends another machine: what `--set` changes, and its sizes ready to be changed."""
    from hwsim.config.starter import write_starter

    write_starter(file, extends, set_ or ())
    typer.echo(f"{file}: written; the lines behind '#' in it are what else may be changed first")
    check(str(file))


def check(file: MachineArgument, set_: Overrides = None) -> None:
    """Check a machine file; print every fault with its place, or what was understood."""
    from hwsim.config.load import load_machine
    from hwsim.report.facts import limits

    machine = load_machine(file, set_ or ())
    spec = machine.spec
    typer.echo(
        f"{spec.name}: ok, {spec.technology.node_nm:g} nm at {spec.technology.voltage_v:g} V,"
        f" {spec.clock_hz / 1e6:g} MHz, sha256 {machine.sha256[:16]}"
    )
    for name, array in spec.arrays.items():
        formats = ", ".join(f"{p.activation} x {p.weight}" for p in array.formats)
        typer.echo(
            f"  array {name}: {array.kind} {array.rows} x {array.cols} x {array.lanes}, {formats}"
        )
    for name, memory in spec.memories.items():
        behind = f", {memory.backing} behind it" if memory.backing is not None else ""
        typer.echo(
            f"  memory {name}: {memory.capacity_bytes} bytes, {memory.buffering} buffer{behind}"
        )
    typer.echo(
        f"  dram: {spec.dram.bandwidth_bytes_per_s / 1e9:g} GB/s, {machine.dram.latency_cycles} cycles to the first data"
    )
    stage = ", ".join(spec.output_stage) or "none"
    unit = "none" if spec.vector_unit is None else ", ".join(spec.vector_unit.operators)
    typer.echo(f"  output stage: {stage}; vector unit: {unit}")
    for point in spec.operating_points:
        typer.echo(
            f"  operating point {point.name}: {point.voltage_v:g} V, {point.clock_hz / 1e6:g} MHz"
        )
    for target in spec.validation:
        typer.echo(f"  published: {target.name}, {target.value:g} {target.metric}")
    for note in limits(machine):
        typer.echo(f"  note: {note}")
    if spec.idle is None:
        typer.echo("  note: no idle term; waiting costs only leakage")


def expand(
    machine: MachineArgument,
    set_: Overrides = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="One line a key: path, value, where it was written.")
    ] = False,
) -> None:
    """Print a machine with everything that it extends, as one file."""
    from hwsim.config.dump import leaves_with_origin, to_yaml
    from hwsim.config.load import compose_machine, load_machine

    load_machine(machine, set_ or ())  # an expanded file that is wrong would mislead
    document = compose_machine(machine, set_ or ())
    if origin:
        for path, value, place in leaves_with_origin(document):
            typer.echo(f"{path}: {value}  # {place}")
    else:
        typer.echo(to_yaml(document.data), nl=False)


def schema() -> None:
    """Print the JSON Schema of a machine file, for editors."""
    from hwsim.config.schema import machine_schema

    typer.echo(json.dumps(machine_schema(), indent=2))
