"""`python -m qat`: train, measure and export models. Heavy packages are imported inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.cli.errors import run_app

app = typer.Typer(
    help="Quantisation-aware training of transformers to 8, 2 and 1 bits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `qat train` wrote.")]


def _quiet_libraries() -> None:
    """Leave the terminal to our own bar and messages."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the configuration."),
    ] = None,
) -> None:
    """Train a model, or a chain of them. The same command resumes what was stopped."""
    from qat.chain import ChainConfig, load_training_config, train_chain

    loaded = load_training_config(config, overrides or ())
    _quiet_libraries()
    from qat import processes
    from qat.loop import train as train_run

    if isinstance(loaded, ChainConfig):
        finished = train_chain(loaded, out, progress=True)
    else:
        finished = [train_run(loaded, out, progress=True)]
    talks = processes.first()
    processes.leave()
    for measured in finished if talks else ():
        kept = f"{measured.steps} steps, kept step {measured.kept_step}"
        typer.echo(f"{measured.name}: {kept}: {measured.folder}")
        _show("validation", measured.validation)
        for name, values in measured.tests.items():
            _show(name, values)


@app.command(name="eval")
def evaluate(run: RunFolder) -> None:
    """Measure a finished run's model again, on the carve-out and on the held-out data."""
    _quiet_libraries()
    from qat.checkpoint import load
    from qat.evaluate import evaluate as measure

    loaded = load(run)
    _show("validation", measure(loaded.model, loaded.task.validation, loaded.task))
    for name, split in loaded.task.tests.items():
        _show(name, measure(loaded.model, split, loaded.task))


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder of the export.")],
) -> None:
    """Turn a finished run into an integer graph that `python -m hwsim` runs and verifies."""
    _quiet_libraries()
    from qat.exporter import export_run

    record = export_run(run, out).record
    verdict = "hold" if record["holds"] else "FAIL"
    typer.echo(f"exported: {out}; rungs A1-A3 {verdict} on {record['samples']} samples")
    for line in record["failures"]:
        typer.echo(f"  {line}")


def _show(part: str, values: dict[str, object]) -> None:
    """Print one part's metrics in one line."""
    shown = [f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float)]
    interval = values.get("accuracy_wilson95")
    if isinstance(interval, list):
        shown.append(f"(95 % interval {interval[0]:.4f} to {interval[1]:.4f})")
    typer.echo(f"  {part}: {' '.join(shown)}, {values['rows']} rows")


def main() -> None:
    """Entry point of `python -m qat`."""
    run_app(app, "python -m qat")


if __name__ == "__main__":
    main()
