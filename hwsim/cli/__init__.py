"""`python -m hwsim`: machines (list, new, check, expand, schema, validate), models (random, run, decode, verify, sizes), costs (explain, diff, plot, breakeven, sensitivity), chips (vectors, activity), arrays (conformance)."""

from __future__ import annotations

import typer

from hwsim.cli import arrays, chip, machines, models, questions, validate, views
from hwsim.cli.errors import run_app

app = typer.Typer(
    help="Run the integer graph of a low-bit transformer on the accelerator that a YAML describes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(machines.list_)
app.command("new")(machines.new)
app.command("check")(machines.check)
app.command("expand")(machines.expand)
app.command("schema")(machines.schema)
app.command("validate")(validate.validate)
app.command("random")(models.random)
app.command("run")(models.run)
app.command("decode")(models.decode)
app.command("verify")(models.verify)
app.command("sizes")(models.sizes)
app.command("explain")(views.explain)
app.command("diff")(views.diff)
app.command("plot")(views.plot)
app.command("breakeven")(questions.breakeven)
app.command("sensitivity")(questions.sensitivity)
app.command("vectors")(chip.vectors)
app.command("activity")(chip.activity)
app.command("conformance")(arrays.conformance)


def main() -> None:
    """Run the command line."""
    run_app(app, "python -m hwsim")
