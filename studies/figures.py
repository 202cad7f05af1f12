"""The figures of a study, drawn once and used twice: as PNG and SVG files, and inside the report.

Inside the report the colours become CSS variables, so that light, dark and print each get their own, and
the marks get hover titles. No figure names an address: an inlined SVG needs no XML namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from hwsim.report.figure import (
    GRID,
    INK,
    MARKERS,
    MUTED,
    NARROW,
    PAPER,
    PARTS,
    SERIES,
    WIDE,
    Drawing,
    Painter,
    new_figure,
    style,
)
from studies.table import Point, judged
from studies.text import hover, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# light value -> CSS variable; the report's style sheet gives each variable its light and dark value
VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)},
    **{colour: f"--part-{i}" for i, colour in enumerate(PARTS)},
}
FAINT = 0.35
UNDECIDED = 0.7

COST_AXES: Mapping[str, tuple[str, float]] = {
    "energy_pj": ("Energy an inference (µJ)", 1e-6),
    "latency_s": ("Latency of an inference, steady (ms)", 1e3),
}
"""objective -> (axis label with unit, factor from the objective's own unit)"""


def front_figure(
    points: Sequence[Point],
    objective: str,
    students: Sequence[str],
    machines: Sequence[str],
    teacher_accuracy: float | None,
) -> Painter:
    """Accuracy against one cost: colour is the student, shape is the machine, dominated points are faint.

    A step line joins the points of the front: at a given cost, nothing measured is above it.
    """

    def paint(width: float) -> Drawing:
        figure, axes = new_figure(width, 5.0 if width < WIDE else 4.9)
        drawing = Drawing(figure)
        label, factor = COST_AXES[objective]
        axes.set_xscale("log")
        axes.grid(True, which="major")
        axes.set_xlabel(label)
        axes.set_ylabel("Accuracy on the test set (%)")
        ranked = judged(points, objective)
        front = sorted(
            (p.cost(objective).nominal * factor, 100 * p.accuracy_bar.nominal)
            for p, standing in ranked
            if standing == "front"
        )
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color=MUTED, lw=1.2, zorder=2)
        for index, (point, standing) in enumerate(ranked):
            alpha = {"front": 1.0, "undecided": UNDECIDED}.get(standing, FAINT)
            colour = SERIES[students.index(point.student) % len(SERIES)]
            cost, bar = point.cost(objective), point.accuracy_bar
            x, y = cost.nominal * factor, 100 * bar.nominal
            axes.errorbar(
                x,
                y,
                xerr=[[x - cost.low * factor], [cost.high * factor - x]],
                yerr=[[y - 100 * bar.low], [100 * bar.high - y]],
                fmt="none",
                ecolor=colour,
                elinewidth=1.3 if standing == "front" else 0.9,
                alpha=alpha,
                zorder=3,
            )
            mark = axes.scatter(
                x,
                y,
                s=64 if standing == "front" else 40,
                marker=MARKERS[machines.index(point.machine) % len(MARKERS)],
                color=colour,
                edgecolor=PAPER,
                linewidth=0.8,
                alpha=alpha,
                zorder=5 if standing == "front" else 4,
            )
            mark.set_gid(f"mark-{index}")
            drawing.titles[f"mark-{index}"] = f"{hover(point)}\n{STANDING_TEXT[standing]}"
        if teacher_accuracy is not None:
            axes.axhline(100 * teacher_accuracy, color=MUTED, lw=0.9, ls=(0, (5, 3)), zorder=1)
            axes.annotate(
                "float32 teacher",
                (0.005, 100 * teacher_accuracy),
                (0, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="left",  # cheap machines are seldom as accurate: the left is free
                fontsize=8,
                color=MUTED,
            )
        _widen_log_axis(axes)
        axes.margins(y=0.12)
        _front_legend(figure, students, machines, wide=width >= WIDE)
        return drawing

    return paint


STANDING_TEXT = {
    "front": "on the front",
    "undecided": "off the front by less than the error bars",
    "dominated": "dominated, error bars included",
    "infeasible": "breaks a constraint",
}


def _widen_log_axis(axes: Axes) -> None:
    """Let a log axis span at least a decade, with plain numbers at 1, 2 and 5 of each."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    if high / low < 10:
        middle = (low * high) ** 0.5
        axes.set_xlim(middle / 10**0.5, middle * 10**0.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _front_legend(
    figure: Figure, students: Sequence[str], machines: Sequence[str], wide: bool
) -> None:
    """Put colours and shapes below the axes: as two rows on a wide figure, as two columns on a narrow one."""
    from matplotlib.lines import Line2D

    columns = max(len(students), len(machines))
    empty = Line2D([], [], ls="", label=" ")
    colours = [
        Line2D([], [], ls="", marker="o", color=SERIES[i % len(SERIES)], label=name)
        for i, name in enumerate(students)
    ]
    shapes = [
        Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)], color=MUTED, label=name)
        for i, name in enumerate(machines)
    ]
    colours += [empty] * (columns - len(colours))
    shapes += [empty] * (columns - len(shapes))
    # matplotlib fills a legend column by column
    pairs = [h for pair in zip(colours, shapes, strict=True) for h in pair]
    figure.legend(
        handles=pairs if wide else [*colours, *shapes],
        loc="outside lower center",
        ncols=columns if wide else 2,
        handletextpad=0.3,
        columnspacing=1.6,
    )


def stack_figure(points: Sequence[Point]) -> Painter:
    """Energy of every point by component of its machine: shares as lengths, the total beside each bar."""
    names = _components(points)

    def paint(width: float) -> Drawing:
        wide = width >= WIDE
        columns = 5 if wide else 2
        height = 1.1 + (0.27 if wide else 0.36) * len(points) + 0.2 * -(-len(names) // columns)
        figure, axes = new_figure(width, height)
        drawing = Drawing(figure)
        left = [0.0] * len(points)
        for part, name in enumerate(names):
            joules = [_component_pj(p, name, names) * 1e-12 for p in points]
            shares = [
                100 * j / (p.energy_pj.nominal * 1e-12) for j, p in zip(joules, points, strict=True)
            ]
            bars = axes.barh(
                range(len(points)),
                shares,
                left=left,
                height=0.74,
                color=PARTS[part % len(PARTS)],
                label=name,
                edgecolor=PAPER,
                linewidth=0.5,
            )
            for index, bar in enumerate(bars):
                key = f"part-{part}-{index}"
                bar.set_gid(key)
                drawing.titles[key] = (
                    f"{points[index].student} on {points[index].machine}\n"
                    f"{name}: {si(joules[index], 'J')}, {shares[index]:.1f} %"
                )
            left = [a + b for a, b in zip(left, shares, strict=True)]
        for index, point in enumerate(points):
            axes.annotate(
                si(point.energy_pj.nominal * 1e-12, "J"),
                (left[index], index),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        axes.set_xlim(0, 118 if wide else 128)  # room for the totals
        axes.set_xticks(range(0, 101, 20 if wide else 50))
        axes.set_yticks(range(len(points)), [_two_part_label(p, width) for p in points])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Share of the energy of an inference (%)")
        figure.legend(
            loc="outside lower center",
            ncols=columns,
            handlelength=1.0,
            handleheight=1.0,
            columnspacing=1.2,
        )
        return drawing

    return paint


OTHER = "all others"


def _components(points: Sequence[Point]) -> list[str]:
    """Return components by falling energy over all points; what has no colour of its own is one rest."""
    totals: dict[str, float] = {}
    for point in points:
        for row in point.rows:
            for name, value in row.components_pj.items():
                totals[name] = totals.get(name, 0.0) + value
    ordered = sorted((n for n in totals if totals[n] > 0), key=lambda n: -totals[n])
    if len(ordered) <= len(PARTS):
        return ordered
    return [*ordered[: len(PARTS) - 1], OTHER]


def _component_pj(point: Point, name: str, shown: Sequence[str]) -> float:
    """Return a component's energy of a point in pJ, the mean over its seeds."""
    total = 0.0
    for row in point.rows:
        if name == OTHER:
            total += sum(v for n, v in row.components_pj.items() if n not in shown)
        else:
            total += row.components_pj.get(name, 0.0)
    return total / len(point.rows)


def _two_part_label(point: Point, width: float) -> str:
    return f"{point.student}{' · ' if width >= WIDE else chr(10)}{point.machine}"


def render_inline(painter: Painter, name: str, description: str) -> str:
    """Return the figure as HTML: a wide and a narrow SVG, of which the style sheet shows one."""
    parts = []
    for variant, width in (("wide", WIDE), ("narrow", NARROW)):
        with style(f"{name}-{variant}"):
            drawing = painter(width)
            text = StringIO()
            drawing.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        parts.append(_inline(text.getvalue(), drawing.titles, f"{name}-{variant}", description))
        parts[-1] = f'<div class="{variant}">{parts[-1]}</div>'
    return "\n".join(parts)


def _inline(svg: str, titles: Mapping[str, str], prefix: str, description: str) -> str:
    """Turn a matplotlib SVG file into an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    for key, title in titles.items():
        svg = svg.replace(
            f'<g id="{key}">', f'<g class="mark" tabindex="0"><title>{escape(title)}</title>', 1
        )
    return _own_ids(svg, prefix)


def _own_ids(svg: str, prefix: str) -> str:
    """Keep only the ids that something refers to, and make them unique in the page."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\s+id="([^"]+)"', rename, svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    return svg.replace("url(#", f"url(#{prefix}-")


def study_figures(
    points: Sequence[Point],
    objectives: Iterable[str],
    students: Sequence[str],
    machines: Sequence[str],
    teacher_accuracy: float | None,
) -> dict[str, Painter]:
    """Return the figures of a study by file name. A study without points has none."""
    if not points:
        return {}
    fronts: dict[str, Any] = {
        f"front_{objective.rpartition('_')[0]}": front_figure(
            points, objective, students, machines, teacher_accuracy
        )
        for objective in objectives
    }
    return {**fronts, "energy_by_component": stack_figure(points)}
