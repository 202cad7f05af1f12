"""The verb about kinds of array."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.cli.machines import Overrides
from hwsim.errors import ConfigError

if TYPE_CHECKING:
    from hwsim.arch.component import ArrayComponent
    from hwsim.arch.machine import Machine

KindArgument = Annotated[
    str,
    typer.Argument(metavar="MODULE:CLASS_OR_KIND", help="Where the array is, or its `kind:`."),
]
MachineOption = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="NAME_OR_FILE",
        help="Check the arrays of this kind in a machine; without it, in toy's place of `main`.",
    ),
]


def conformance(kind: KindArgument, machine: MachineOption = None, set_: Overrides = None) -> None:
    """Check a kind of array: products, accumulators, beats, cycles, counts, energy."""
    component, name = _find(kind)
    on = _machine(component, name, machine, set_ or [])
    arrays = [array for array in on.arrays.values() if array.spec.kind == name]
    if not arrays:
        kinds = ", ".join(f"{n}: {array.spec.kind}" for n, array in on.arrays.items())
        raise ConfigError(f"machine {on.name} must have an array of kind {name!r}, not {kinds}")
    from hwsim.conformance import check_array

    failed = False
    for array in arrays:
        s = array.spec
        typer.echo(f"array {array.name} of {on.name}: {name}, {s.rows} x {s.cols} x {s.lanes}")
        for check in check_array(array, on):
            typer.echo(check.text())
            failed |= bool(check.faults)
    typer.echo("FAIL" if failed else "ok")
    if failed:
        raise typer.Exit(1)


def _find(text: str) -> tuple[type[ArrayComponent], str]:
    """Return the component class and its kind, imported by its place or looked up by its kind."""
    from hwsim import registry
    from hwsim.arch.component import ArrayComponent
    from hwsim.arch.machine_spec import array_class

    module, colon, attribute = text.partition(":")
    if not colon:
        try:
            return array_class(text), text
        except KeyError as error:
            raise ConfigError(f"{text}: {error.args[0]}; or give MODULE:CLASS") from None
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: the module may lie where the user works
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{text}: must be MODULE:CLASS that can be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, ArrayComponent)):
        raise ConfigError(f"{text}: must be a subclass of hwsim.arch.component.ArrayComponent")
    for kind in registry.kinds("array"):
        if registry.lookup("array", kind) is found:
            return found, kind
    raise ConfigError(f"{text}: must be registered: decorate it with @register('array', KIND)")


def _machine(
    component: type[ArrayComponent], kind: str, machine: str | None, overrides: list[str]
) -> Machine:
    from hwsim.config.load import load_machine
    from hwsim.conformance import format_pairs

    if machine is not None:
        return load_machine(machine, overrides)
    pairs = ", ".join(f"{{activation: {a}, weight: {w}}}" for a, w in format_pairs(component))
    return load_machine(
        "toy", [f"arrays.main.kind={kind}", f"arrays.main.formats=[{pairs}]", *overrides]
    )
