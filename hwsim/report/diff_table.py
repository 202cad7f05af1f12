"""A comparison of two results on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.report.plain import Table, say
from hwsim.report.table import TOP, energy_text, length_text

if TYPE_CHECKING:
    from rich.console import Console

    from hwsim.report.diff import Difference, Row


def print_difference(d: Difference, console: Console, top: int = TOP) -> None:
    """Print totals, parts, kinds and the operators that differ most.

    Args:
        d: the comparison.
        console: where to.
        top: how many operators to list.
    """
    a, b = d.sides
    length = length_text(a.result["sequence_length"])
    say(console, f"{d.model}, steady{length}: A = {a.name}, B = {b.name}")
    for note in a.result["notes"]:
        if note in b.result["notes"]:
            say(console, f"note: {note}")
    if a.clock_hz != b.clock_hz:
        say(console, f"clocks: A {a.clock_hz:,} Hz, B {b.clock_hz:,} Hz; B/A is of times")
    say(console, _rows("Totals and kinds of operator", [d.total, *d.kinds], "kind"))
    shown = d.operators[:top]
    title = f"Operators that differ most in {d.key} ({len(shown)} of {len(d.operators)})"
    say(console, _rows(title, shown, "operator"))
    say(console, _parts(d))
    if d.ratio is None:
        say(
            console,
            "energy B/A has no band here: that takes two machines, not files, and energies above 0",
        )
        return
    band = d.ratio.band
    say(
        console,
        f"energy B/A: {band.nominal:.3g}, {band.low:.3g} .. {band.high:.3g} in 5-95 % of the joint draws",
    )
    if d.ratio.movers:
        moved = (f"{m.name} ({m.at_low:.3g} .. {m.at_high:.3g})" for m in d.ratio.movers)
        say(console, f"moved most by, each alone over its 5-95 %: {', '.join(moved)}")


def _rows(title: str, rows: list[Row] | tuple[Row, ...], what: str) -> Table:
    table = Table(title=title)
    table.add_column(what, overflow="fold", min_width=20)
    table.add_column("ops" if what == "kind" else "kind", justify="right" if what == "kind" else "left")  # fmt: skip
    for name in ("cycles A", "cycles B", "B/A", "energy A", "energy B", "B/A", "B - A"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        table.add_row(
            r.name, str(r.operators) if what == "kind" else r.kind,
            f"{r.cycles[0]:,}", f"{r.cycles[1]:,}", _over(*r.s),
            energy_text(r.pj[0]), energy_text(r.pj[1]), _over(*r.pj), _signed(r.pj[1] - r.pj[0]),
        )  # fmt: skip
    return table


def _parts(d: Difference) -> Table:
    table = Table(title="Energy by part")
    table.add_column("part")
    for name in ("A", "B", "B/A", "B - A", "of the difference"):
        table.add_column(name, justify="right")
    whole = sum(b - a for a, b in d.parts.values())
    for name, (a, b) in d.parts.items():
        share = f"{(b - a) / whole + 0.0:.0%}" if whole else "-"
        table.add_row(name, energy_text(a), energy_text(b), _over(a, b), _signed(b - a), share)
    return table


def _over(a: float, b: float) -> str:
    return f"{b / a:.3g}" if a else "-"


def _signed(pj: float) -> str:
    return ("+" if pj > 0 else "") + energy_text(pj)
