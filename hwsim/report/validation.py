"""The table of `hwsim validate`: on the console, and as Markdown for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.report.plain import Table, say

if TYPE_CHECKING:
    from rich.console import Console

    from hwsim.validation.judge import Row, Validation

HEADINGS = (
    "machine",
    "target",
    "workload",
    "metric",
    "published",
    "ours (5 .. 95 %)",
    "error",
    "baseline",
    "its error",
    "class",
)
_NUMBERS = HEADINGS[4:9]


def number_text(value: float) -> str:
    """Write a number with three significant digits, whole thousands with separators.

    >>> number_text(21906.0), number_text(2.7249), number_text(0.0312)
    ('21,906', '2.72', '0.0312')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _error_text(error: float | None) -> str:
    return "-" if error is None else f"{error:+.1%}"


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's texts, one for each heading. A changed prediction shows the first one beside it."""
    ours = number_text(row.ours)
    if row.low != row.high:
        ours += f" ({number_text(row.low)} .. {number_text(row.high)})"
    error = _error_text(row.error)
    if number_text(row.first) != number_text(row.ours):
        ours += f"; first {number_text(row.first)}"
        error += f"; first {_error_text(row.first_error)}"
    return (
        row.machine,
        row.target,
        row.workload,
        row.metric,
        number_text(row.published),
        ours,
        error,
        "-" if row.naive is None else number_text(row.naive),
        _error_text(row.naive_error),
        row.standing,
    )


def summary_lines(validation: Validation) -> list[str]:
    """Return the summary, a sentence a line."""
    s = validation.summary()
    if not s["predicted"]:
        return ["No target is predicted."]
    several = s["groups"] > 1
    who = f", from {s['groups']} groups of authors" if several else ""
    of_groups = f"; of the groups' medians {s['median_error_of_groups']:.1%}" if several else ""
    lines = [
        f"Predicted: {s['predicted']} of {len(validation.rows)} targets{who}: median |error|"
        f" {s['median_error']:.1%} (first predictions {s['median_first_error']:.1%}){of_groups}."
    ]
    if s["with_baseline"]:
        lines.append(
            f"Against the naive baseline, {s['with_baseline']} of them: median |error|"
            f" {s['median_error_with_baseline']:.1%} against {s['median_naive_error']:.1%};"
            f" nearer in {s['nearer_than_baseline']}."
        )
    return lines


def print_validation(validation: Validation, console: Console) -> None:
    """Print the table, what the classes rest on, and the summary."""
    table = Table(title="Published figures and ours")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for row in validation.rows:
        table.add_row(*cells(row))
    say(console, table)
    for row in validation.rows:
        say(console, f"{row.machine}, {row.target}: {row.standing}: {row.why}. {row.source}")
    for row in validation.changed:
        say(
            console,
            f"changed: {row.machine}, {row.target}: now {number_text(row.ours)}, first"
            f" {number_text(row.first)}; --record writes the new prediction down",
        )
    for line in summary_lines(validation):
        say(console, line)


def markdown(validation: Validation) -> str:
    """Return the table and the summary as Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |"]
    lines.append("|" + "|".join("---:" if h in _NUMBERS else "---" for h in HEADINGS) + "|")
    lines += ["| " + " | ".join(cells(row)) + " |" for row in validation.rows]
    return "\n".join([*lines, "", *summary_lines(validation)]) + "\n"
