"""The verbs about a model: make a random one, run it, decode with it, verify it, list its sizes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hwsim.cli.machines import Overrides
from hwsim.cli.outputs import output_file, output_folder, write_json, writing
from hwsim.errors import DataError

if TYPE_CHECKING:
    from hwsim.engine.faults import BitErrors

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
ObjectiveOption = Annotated[
    Literal["cycles", "energy"], typer.Option(help="What the mapping is chosen for.")
]
LengthOption = Annotated[
    int | None,
    typer.Option(
        "--length",
        min=1,
        metavar="TOKENS",
        help="Tokens of the inference that is costed.",
        show_default="the longest that the model was built for; of data that runs, the longest sample",
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", callback=output_file, help="Write the result here, too."
    ),
]


def run(
    model: ModelArgument,
    machine: MachineOption,
    samples: SamplesOption = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="From the shapes only: no data, milliseconds.")
    ] = False,
    length: LengthOption = None,
    objective: ObjectiveOption = "cycles",
    operating_point: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One of the machine's own: another voltage and clock."),
    ] = None,
    bit_errors: Annotated[
        float | None,
        typer.Option(
            "--bit-errors",
            metavar="RATE",
            help="Probability with which each stored bit flips; the accuracy is then the damaged model's.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD[:NODES[:FORMAT]]",
            help="Where bits flip: a constant's role as in `verify --inject`, activation or cache, of the nodes and"
            " number types that match patterns; may be repeated.",
            show_default="weight",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Which draw of the bit errors.", show_default="0"),
    ] = None,
    json_file: JsonOption = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            callback=output_file,
            help="Timeline of a steady inference, for Perfetto.",
        ),
    ] = None,
    trace_cold: Annotated[
        Path | None,
        typer.Option(
            "--trace-cold", metavar="FILE", callback=output_file, help="That of a cold one."
        ),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Run a model on a machine: accuracy, cycles, energy and memory."""
    from hwsim import api
    from hwsim.config.load import load_machine
    from hwsim.graph.serialize import load

    loaded, on = load(model), load_machine(machine, set_ or ())
    result = api.run(
        loaded,
        on,
        samples=samples,
        cost_only=cost,
        length=length,
        objective=objective,
        operating_point=operating_point,
        faults=_bit_errors(bit_errors, where, seed),
    )
    show(result, json_file)
    report = result.result.cost
    for file, name in ((trace, "steady"), (trace_cold, "cold")):
        if file is None:
            continue
        from hwsim.report.trace import trace as timeline

        priced = on.at(operating_point) if operating_point else on
        title = f"{loaded.name} on {on.name}, {name}"
        made = timeline(getattr(report, name), report.graph, priced, title)
        with writing(file):
            made.write(file)
        typer.echo(f"{file}: {made.summary()}")


def _bit_errors(rate: float | None, where: list[str] | None, seed: int | None) -> BitErrors | None:
    """Return the bit errors that the options ask for."""
    from hwsim.engine.faults import BitErrors

    if rate is None:
        if where or seed is not None:
            raise DataError("--where and --seed say which bits flip: give --bit-errors RATE, too")
        return None
    return BitErrors(rate, tuple(where or ("weight",)), seed or 0)


def decode(
    model: ModelArgument,
    machine: MachineOption,
    prompt_ids: Annotated[
        str | None,
        typer.Option("--prompt-ids", metavar="IDS", help="Token ids, separated by commas."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=0, help="Number of a stored sample that is the prompt."),
    ] = None,
    prompt_length: Annotated[
        int | None,
        typer.Option("--prompt-length", min=1, help="Only the sample's first tokens."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many to generate.")] = 32,
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Continue a prompt token by token through a key-value cache: ids, cycles and energy of each."""
    from hwsim import api

    prompt = _prompt(model, prompt_ids, sample, prompt_length)
    show(api.decode(model, machine, prompt, tokens, overrides=set_ or ()), json_file)


def _prompt(
    model: Path, prompt_ids: str | None, sample: int | None, prompt_length: int | None
) -> list[int]:
    """Return the ids of the prompt that the options name."""
    if (prompt_ids is None) == (sample is None):
        raise DataError("a prompt must come from one of --prompt-ids and --sample")
    if prompt_ids is None:
        from hwsim import api

        assert sample is not None
        return api.sample_prompt(model, sample, prompt_length)
    if prompt_length is not None:
        raise DataError("--prompt-length cuts a --sample; --prompt-ids are taken whole")
    try:
        return [int(i) for i in prompt_ids.split(",")]
    except ValueError:
        raise DataError(
            f"--prompt-ids must be whole numbers separated by commas, as 15,2,7, not {prompt_ids!r}"
        ) from None


def verify(
    model: ModelArgument,
    machine: MachineOption,
    samples: SamplesOption = None,
    inject: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD:NODE:INDEX:BIT",
            help="Flip one bit in the machine's memory first; FIELD is weight, M, S, B, G,"
            " threshold, direction, table, addend, rows, length or cache.",
        ),
    ] = None,
    host: Annotated[
        bool,
        typer.Option(
            "--host",
            help="What the machine has no unit for runs on the host: listed, and not verified.",
        ),
    ] = False,
    json_file: JsonOption = None,
    set_: Overrides = None,
) -> None:
    """Compare every tensor of the machine with the reference; exit code 0 only if all are equal."""
    from hwsim import api

    result = api.verify(
        model, machine, samples=samples, inject=inject, overrides=set_ or (), host=host
    )
    show(result, json_file)
    if not result.ok:
        raise typer.Exit(1)


def random(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="A shipped workload's name or a YAML file.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", callback=output_folder, help="Folder of the model."),
    ],
    reduce: Annotated[
        int, typer.Option("--reduce", min=1, metavar="N", help="Divide channels and image by N.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights and inputs.")] = 0,
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many random inputs.")] = 8,
) -> None:
    """Write a workload's layers with random weights as a model that all other commands take."""
    from hwsim.random_weights import random_model

    model = random_model(workload, out, reduce=reduce, seed=seed, samples=samples)
    nodes = len(model.graph.nodes)
    typer.echo(f"{out}: {model.graph.meta['task']}, {nodes} operators, {model.sha256[:12]}")


def sizes(model: ModelArgument, json_file: JsonOption = None) -> None:
    """List what a model takes on disk: every constant, their kinds, the files."""
    from hwsim.report.sizes import sizes as measure

    show(measure(model), json_file)


def show(result: Any, json_file: Path | None) -> None:
    """Print a result, and write it as JSON where a file is given."""
    from rich.console import Console

    result.render(Console(soft_wrap=not sys.stdout.isatty()))
    if json_file is not None:
        write_json(result.to_json(), json_file)
