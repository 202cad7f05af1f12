"""An explanation on the console."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwsim.report.plain import Table, say
from hwsim.report.table import energy_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

    from hwsim.report.explain import EnergyLine, Explanation

_PLACES = {
    "chip": "on chip",
    "fill": "from DRAM once, then on chip",
    "stream": "DRAM, tile by tile",
}


def print_explanation(e: Explanation, console: Console) -> None:
    """Print an operator's problem, mapping, cycles and energy.

    Args:
        e: the explanation.
        console: where to.
    """
    o = e.operator
    behind = f", then {', '.join(o.fused)}" if o.fused else ""
    say(console, f"{o.node} ({o.op}){behind}")
    say(console, f"{e.model} on {e.machine}, {e.scenario}")
    if o.mapping is None:
        staged = "runs in the array's output stage, on results on their way to memory: no cycles and no energy of its own"
        say(
            console,
            staged
            if o.unit == "output stage"
            else "a view: address generation, no cycles and no energy",
        )
        return
    say(console, f"runs on {o.unit}" + (f", {o.blocks} times, a head each" if o.blocks > 1 else ""))  # fmt: skip
    for line in _problem(e.problem):
        say(console, f"  {line}")
    for line in _mapping(e.mapping):
        say(console, f"  {line}")
    say(console, _cycles(e))
    say(console, _steps(e))
    say(console, _energy(e))
    say(console, "where the unit energies come from:")
    for text in _sources(e.energy):
        say(console, f"  {text}")


def _problem(p: Mapping[str, Any]) -> list[str]:
    """Return the problem in words."""
    out = f"result {_PLACES[p['output']['place']]}"
    if "m" in p:
        a, w = p["activation"], p["weight"]
        lines = [
            f"problem: {p['batch']} x (M {p['m']} x N {p['n']} x K {p['k']}),"
            f" {a['format']} x {w['format']} -> {p['output']['format']}",
            f"places: A {_PLACES[a['place']]}; W {_PLACES[w['place']]}; {out}",
        ]
        if p["whole_lanes"]:
            lines.append("an accumulator may overflow: K is summed in whole beats")
    else:
        inputs = "; ".join(
            f"{s['operand']} {_PLACES[s['place']]}, {s['bytes_a_unit']:g} bytes a unit, read {s['passes']} times"
            for s in p["inputs"]
        )
        lines = [
            f"problem: {p['units']} units of {p['rows_a_unit']} rows, {p['elements_a_unit']} elements each",
            f"places: {inputs}; {out}",
        ]
    loaded, fetched = p["constant_bytes_loaded"], p["constant_bytes_a_tile"]
    lines.append(f"constants: {loaded:,} bytes from DRAM first, {fetched:,} read for every tile")
    return lines


def _mapping(m: Mapping[str, Any]) -> list[str]:
    """Return the mapping in words, a line for each of its different runs."""
    lines = []
    for run in m["runs"]:
        tile, block = (" x ".join(map(str, run[key])) for key in ("tile", "block"))
        text = f"mapping: tiles of {tile}, {run['tiles']} of them"
        if block:
            text += f"; {run['order']} stays; {block} a beat"
        held = ", ".join(f"{size:,} bytes of {name}" for name, size in run["buffer_bytes"].items())
        text += f"; buffers {held or 'none'}"
        lines.append(text if len(m["runs"]) == 1 else f"{text} ({run['times']} times)")
    return lines


def _cycles(e: Explanation) -> Table:
    o, s = e.operator, e.split
    table = Table(title=f"{o.cycles:,} cycles = {time_text(o.cycles / e.clock_hz)}")
    for name in ("where they go", "cycles", "share"):
        table.add_column(name, justify="left" if name == "where they go" else "right")
    rows = (
        (f"computing ({o.unit})", s.computing),
        ("waiting: the vector unit works on results", s.vector),
        ("waiting: the bus moves data", s.bus),
        ("waiting: set-up, pipeline, hand-over", s.other),
    )
    for text, cycles in rows:
        table.add_row(text, f"{cycles:,}", f"{cycles / o.cycles:.1%}")
    return table


def _steps(e: Explanation) -> Table:
    table = Table(title="Steps; those of different resources run at the same time")
    for name in ("step", "tile or memory", "steps", "cycles each", "cycles", "formula of one"):
        right = name in ("steps", "cycles each", "cycles")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for s in e.steps:
        each = f"{s.least:,}" if s.least == s.most else f"{s.least:,} .. {s.most:,}"
        table.add_row(s.what, s.size, f"{s.steps:,}", each, f"{s.cycles:,}", s.formula)
    return table


def _energy(e: Explanation) -> Table:
    """Lines of one component, action and operand are one row here; the JSON has each by itself."""
    band = e.operator.energy_pj
    spread = f"{energy_text(band.low)} .. {energy_text(band.high)}"
    table = Table(title=f"Energy: {band.nominal:,.1f} pJ = {energy_text(band.nominal)} ({spread})")
    for name in ("component", "action", "for", "count", "unit pJ (low .. high)", "pJ", "share", "kind"):  # fmt: skip
        right = name not in ("component", "action", "for", "kind")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    rows: dict[tuple[str, str, str], list[EnergyLine]] = {}
    for line in e.energy:
        c = line.count
        rows.setdefault((c.component, c.action, c.operand), []).append(line)
    for (component, action, operand), lines in rows.items():
        price, pj = lines[0].price, math.fsum(line.pj for line in lines)
        q = price.quantity
        unit = f"{price.pj:.4g}"
        if q.low != q.high:
            unit += f" ({q.low * price.to_pj:.4g} .. {q.high * price.to_pj:.4g})"
        share = pj / band.nominal if band.nominal else 0.0
        count = sum(line.count.count for line in lines)
        table.add_row(
            component, action, operand, f"{count:,}", unit, f"{pj:,.1f}", f"{share:.1%}", q.kind
        )  # fmt: skip
    return table


def _sources(lines: tuple[EnergyLine, ...]) -> list[str]:
    """Return each quantity once with its source."""
    return list(dict.fromkeys(f"{line.price.name}: {line.price.quantity.source}" for line in lines))
