"""Break-even points and sensitivities on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.report.keys import LENGTH
from hwsim.report.plain import Table, say
from hwsim.report.table import TOP, energy_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

    from hwsim.report.breakeven import BreakEven, Crossing
    from hwsim.report.sensitivity import Bar, Sensitivity


def print_breakeven(b: BreakEven, console: Console) -> None:
    """Print where the winner changes, or who wins throughout."""
    a_name, b_name = b.sides
    what = "energy" if b.by == "energy" else "latency"
    how = "solved: the totals are linear in it" if b.exact else "bisected"
    say(console, f"{b.model}, steady, less {what} wins: A = {a_name}, B = {b_name}")
    own = ", ".join(f"{n} {x:,.10g}" for n, x in zip("AB", b.own, strict=True) if x is not None)
    files = f"; in the files: {own}" if own and b.over != LENGTH else ""
    say(console, f"over {b.over} ({how}{files})")
    low, high = (f"{x:,.10g}" for x in b.range)
    if not b.crossings:
        wins = f"{b.winner} wins" if b.winner else "neither wins"
        say(console, f"no crossing from {low} to {high}: {wins} throughout")
    for c in b.crossings:
        say(console, f"at {c.value:,.6g}: {_totals(c, b)}")
        say(console, f"  below: {c.below} wins; from there on: {c.above} wins")
        if c.band is not None and c.share is not None:
            say(
                console,
                f"  {c.band[0]:,.4g} .. {c.band[1]:,.4g} in 5-95 % of the joint draws of all other unknowns;"
                f" {c.share:.0%} of the draws have a crossing",
            )
    for note in b.notes:
        say(console, f"note: {note}")


def _totals(c: Crossing, b: BreakEven) -> str:
    if b.by == "energy":
        return f"A {energy_text(c.totals[0])}, B {energy_text(c.totals[1])}"
    return f"A {time_text(c.totals[0])}, B {time_text(c.totals[1])}"


def print_sensitivity(s: Sensitivity, console: Console, top: int = TOP) -> None:
    """Print the widest bars of each table.

    Args:
        s: the bars.
        console: where to.
        top: how many of each.
    """
    one = len(s.sides) == 1
    what = f"energy of {s.sides[0]}" if one else f"energy B/A, A = {s.sides[0]}, B = {s.sides[1]}"
    say(console, f"{s.model}, steady: {what}: {number_text(s, s.nominal)}")
    title = "Each unknown alone, 5th and 95th percentile"
    say(console, _bars(s, title, s.unknowns, top, ("at 5 %", "at 95 %")))
    if s.change is not None:
        ends = ("-10 %", "+10 %") if s.change == "10%" else ("half", "double")
        say(console, _bars(s, "Each key alone", s.keys, top, ends))
        refused = [b for b in s.keys if b.why]
        for b in refused:
            say(console, f"not possible: {b.name}: {b.why}")


def _bars(
    s: Sensitivity, title: str, bars: tuple[Bar, ...], top: int, ends: tuple[str, str]
) -> Table:
    full = [b for b in bars if b.at_low is not None and b.at_high is not None]
    table = Table(title=f"{title} ({min(top, len(full))} of {len(full)})")
    table.add_column("name", overflow="fold", min_width=24)
    for name in (*ends, "span"):
        table.add_column(name, justify="right", no_wrap=True)
    for b in full[:top]:
        low, high = (number_text(s, x) for x in (b.at_low, b.at_high) if x is not None)
        table.add_row(b.name, low, high, f"{b.width / s.nominal:.1%}")
    return table


def number_text(s: Sensitivity, value: float) -> str:
    """Write an energy or a ratio."""
    return energy_text(value) if len(s.sides) == 1 else f"{value:.3g}"
