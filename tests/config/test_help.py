"""Every help text: nothing of it is lost on the way to the screen."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer
from rich.text import Text

import hwsim.cli
import qat.__main__
from studies import bench, compare, merge, new, query, record, report, sweep
from studies.crosstool import __main__ as crosstool


def of_function(function: object) -> click.Command:
    """Return the command that `typer.run` makes of a function."""
    app = typer.Typer(add_completion=False)
    app.command()(function)  # type: ignore[type-var]
    return typer.main.get_command(app)


PROGRAMS = {
    "hwsim": typer.main.get_command(hwsim.cli.app),
    "qat": typer.main.get_command(qat.__main__.app),
    "studies.sweep": of_function(sweep.main),
    "studies.report": of_function(report.main),
    "studies.crosstool": typer.main.get_command(crosstool.app),
} | {
    f"studies.{module.__name__.rpartition('.')[2]}": typer.main.get_command(module.app)
    for module in (bench, compare, merge, new, query, record)
}


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all that are below it, with the names that are typed."""
    yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {key}", inner)


ALL = dict(pair for name, program in PROGRAMS.items() for pair in commands(name, program))


@pytest.mark.parametrize("name", ALL)
def test_no_part_of_a_help_text_is_taken_for_markup(name: str) -> None:
    """Rich takes `[default: x]` for a style that it does not know, and prints nothing."""
    command = ALL[name]
    texts = {p.name: getattr(p, "help", None) for p in command.params} | {"": command.help}
    swallowed = {
        key: text for key, text in texts.items() if text and Text.from_markup(text).plain != text
    }
    assert not swallowed


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("studies.query", ("all; of a table the main ones", "what --out ends in", "the terminal")),
        ("studies.sweep", ("bitwright-runs/NAME", "the usable cores", "never")),
        ("hwsim run", ("weight", "0")),
    ],
)
def test_defaults_that_are_no_value_are_shown(
    name: str,
    shown: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    with pytest.raises(SystemExit):
        ALL[name].main(["--help"], prog_name=name)
    printed = capsys.readouterr().out
    assert [text for text in shown if f"[default: ({text}" not in printed] == []
