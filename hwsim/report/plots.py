"""The figures of a cost: a roofline, and where the cycles and the energy of each operator go."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from hwsim.arch.machine import Machine
from hwsim.engine.cost import CostReport
from hwsim.engine.energy import PARTS as ENERGY_PARTS
from hwsim.engine.energy import Ledger, part
from hwsim.engine.schedule import runs_of, split_of
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.problems import Scenario
from hwsim.mapping.site import Site
from hwsim.report.figure import PARTS, SERIES, Drawing, Painter, new_figure
from hwsim.report.roofline import roofline, roofline_points
from hwsim.report.table import energy_text, energy_unit

MOST_BARS = 40
"""Bars of a figure. With more operators, those of all layers are one bar; beyond that, the least are."""
LABEL = 44
"""Characters of a bar's label; the end of a name tells operators apart."""
OTHERS = "all others"

Values = tuple[float, ...]


def cost_figures(
    report: CostReport, graph: QuantGraph, machine: Machine, scenario: Scenario, model: str
) -> dict[str, Painter]:
    """Return the figures of an inference by file name.

    Args:
        report: the cost.
        graph: the graph that was costed.
        machine: the machine that it was costed on.
        scenario: `cold` or `steady`.
        model: name of the model.
    """
    priced = report.cold if scenario == "cold" else report.steady
    rows = [o for o in priced.operators if o.mapping is not None]
    site = Site(machine)
    title = f"{model} on {machine.name}, {scenario}"
    cycles = {}
    for o in rows:
        s = split_of(runs_of(o, graph, site))
        cycles[o.node] = (float(s.computing), float(s.vector), float(s.bus), float(s.other))
    joules = gather(energies(priced.ledger))
    factor, unit = energy_unit(max(math.fsum(row) for row in joules.values()))
    figures = {
        "cycles_by_operator": bars(
            f"{title}: {priced.cycles:,} cycles",
            "Cycles",
            gather(cycles),
            dict(zip(WAITS, (SERIES[0], SERIES[2], SERIES[1], PARTS[9]), strict=True)),
            lambda value: f"{value:,.0f}",
        ),
        "energy_by_operator": bars(
            f"{title}: {energy_text(priced.ledger.total.nominal)}",
            f"Energy ({unit})",
            joules,
            dict(zip(ENERGY_PARTS, PARTS, strict=False)),
            energy_text,
            scale=1 / factor,
        ),
    }
    points, roofs = roofline_points(rows, machine)
    if points:
        slope = float(site.link.bits_per_cycle) / 8
        figures["roofline"] = roofline(title, points, roofs, slope)
    return figures


WAITS = (
    "computing",
    "waiting: vector unit on results",
    "waiting: bus",
    "waiting: set-up, pipeline, hand-over",
)
"""Where cycles go, in the order of `Split`."""


def energies(ledger: Ledger) -> dict[str, Values]:
    """Return the pJ of each operator by `ENERGY_PARTS`."""
    bands = ledger.bands([f"{node}\0{part(c)}" for node, c in ledger.entries])
    found: dict[str, dict[str, float]] = {}
    for key, band in bands.items():
        node, _, name = key.partition("\0")
        found.setdefault(node, {})[name] = band.nominal
    return {
        node: tuple(parts.get(name, 0.0) for name in ENERGY_PARTS) for node, parts in found.items()
    }


def gather(rows: Mapping[str, Values], most: int = MOST_BARS) -> dict[str, Values]:
    """Return at most so many bars: operators of equal names but for numbers become one, then the least do."""
    bars = dict(rows)
    if len(bars) > most:
        layers: dict[str, list[Values]] = {}
        for name, values in rows.items():
            layers.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(values)
        bars = {
            f"{name} ({len(found)})" if len(found) > 1 else name: _added(found)
            for name, found in layers.items()
        }
    if len(bars) > most:
        kept = set(sorted(bars, key=lambda name: (-sum(bars[name]), name))[: most - 1])
        rest = [values for name, values in bars.items() if name not in kept]
        bars = {name: values for name, values in bars.items() if name in kept}
        bars[f"{OTHERS} ({len(rest)})"] = _added(rest)
    return bars


def _added(rows: Sequence[Values]) -> Values:
    return tuple(math.fsum(column) for column in zip(*rows, strict=True))


def bars(
    title: str,
    label: str,
    rows: Mapping[str, Values],
    colours: Mapping[str, str],
    text: Callable[[float], str],
    scale: float = 1.0,
) -> Painter:
    """Draw a stacked bar a row, with its total beside it.

    Args:
        title: of the figure.
        label: of the axis, with its unit.
        rows: values of each bar, from the left.
        colours: of the values, by their names.
        text: writes a total.
        scale: from the values to the unit of the axis.
    """

    def paint(width: float) -> Drawing:
        figure, axes = new_figure(width, 1.3 + 0.19 * len(rows))
        left = [0.0] * len(rows)
        for i, (name, colour) in enumerate(colours.items()):
            values = [scale * row[i] for row in rows.values()]
            if not any(values):
                continue
            axes.barh(range(len(rows)), values, left=left, height=0.76, color=colour, label=name)
            left = [a + b for a, b in zip(left, values, strict=True)]
        for at, (total, row) in enumerate(zip(left, rows.values(), strict=True)):
            axes.annotate(
                text(math.fsum(row)), (total, at), (4, 0), textcoords="offset points", va="center", fontsize=7
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows], fontsize=7)
        axes.set_xlim(0, 1.13 * max(left) or 1.0)  # room for the totals
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.set_title(title, loc="left", fontsize=9)
        figure.legend(loc="outside lower center", ncols=4, handlelength=1.0, handleheight=1.0)
        return Drawing(figure)

    return paint


def _short(name: str) -> str:
    """Cut a long name in front, between its components where that can be."""
    if len(name) <= LABEL:
        return name
    end = name[1 - LABEL :]
    return "…" + end[end.find(".") + 1 :]
