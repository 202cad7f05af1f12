"""The figures of a study, drawn once and used twice: as files with their data beside them, and inside the report."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.report.figure import (
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    WIDE,
    Drawing,
    Painter,
    new_figure,
)
from studies.criteria import ENERGY_TERMS
from studies.curves import curve, curve_rows, curves_panels, panels_of, students_of
from studies.inline import write_figure
from studies.metric import SCORE
from studies.pareto import Interval, Standing
from studies.quantities import Judged, Quantity
from studies.stack import components_pj, stack_figure
from studies.table import Point
from studies.text import COST_NAMES, hover

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALPHA: Mapping[Standing, float] = {
    "front": 1.0,
    "undecided": 0.7,
    "dominated": 0.35,
    "infeasible": 0.6,
    "unjudged": 0.35,
}
MANY = 150
"""points of which each has its own bars and hover text; beyond, marks have neither"""
GRID_CELLS = (36, 22)
"""of many points off the step line, one a colour, shape and cell of this grid is drawn"""
MOST_NAMES = 24
"""students, or machines, that a legend names; colours and shapes come again after eight, of more names the legend would hide the figure"""
MOST_BARS = 24
"""points of the figure of components; those of the front come first"""


@dataclass(frozen=True)
class StudyFigure:
    """A figure with its words and with the numbers that it shows (all of them, also those too many to draw)."""

    heading: str
    caption: str
    painter: Painter
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    is_front: bool = False

    def write(self, path: Path) -> str:
        """Write `path` as PNG, SVG and CSV; return the figure as HTML."""
        with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(self.columns)
            writer.writerows(self.rows)
        # of a front scripts draw one for any width
        return write_figure(self.painter, path, self.heading, narrow=not self.is_front)


Look = tuple[str, str]
"""colour and shape"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in a figure."""

    point: Point
    look: Look
    standing: Standing
    x: Interval
    y: Interval

    def scaled(self, x_factor: float, y_factor: float) -> Mark:
        """Return the point in the axes' units."""
        return replace(self, x=_scaled(self.x, x_factor), y=_scaled(self.y, y_factor))


def study_figures(judged: Judged, teacher_score: float | None) -> dict[str, StudyFigure]:
    """Return the figures of a study by file name. A study without points has no front."""
    figures: dict[str, StudyFigure] = {}
    if judged.points:
        for x, y in judged.axes:
            names = [_short(q) for q in ((x,) if y == SCORE else (x, y))]
            figure = front_figure(judged, judged.quantities[x], judged.quantities[y], teacher_score)
            if figure is not None:
                figures["_".join(("front", *names))] = figure
        figures["energy_by_component"] = _component_figure(judged)
    students = students_of(judged.results)
    metric = judged.results.metric
    # one evaluation is no curve
    if any(len(curve(student, metric)[0]) > 1 for student in students):
        figures["curves"] = StudyFigure(
            "How the trainings converged",
            f"{metric.title} on the carve-out (a part of the training set that no gradient has seen) after so many steps: the mean "
            "over seeds, and as a band their range. A panel holds students that differ from their control in one thing.",
            curves_panels(panels_of(students), metric),
            ("student", "seed", "step", metric.key),
            curve_rows(students),
        )
    return figures


def _short(key: str) -> str:
    """Return a quantity's key without its unit, for a file name."""
    name, _, token = key.partition("_per_")
    return name.rpartition("_")[0] + (f"_per_{token}" if token else "")


def front_figure(
    judged: Judged, x: Quantity, y: Quantity, teacher_score: float | None
) -> StudyFigure | None:
    """One quantity against another: colour is the student, shape the machine's family, dominated points are faint.

    A step line joins the points that no other beats in both. None: no point has both (an area that no machine states).
    """
    standings = judged.standings[x.key]
    look_of = _looks(judged)
    marks = []
    for point, standing in zip(judged.points, standings, strict=True):
        across, up = x.read(point), y.read(point)
        if across is not None and up is not None:
            marks.append(Mark(point, look_of(point), standing, across, up))
    if not marks:
        return None
    drawn = marks if len(marks) <= MANY else thinned(marks, y)
    drawn = [mark.scaled(x.factor, y.factor) for mark in drawn]
    caption = _caption(judged, x, y, len(marks), len(drawn))
    return StudyFigure(
        f"{y.name} against {x.name.lower()}",
        caption,
        _front_painter(judged, drawn, x, y, teacher_score if y.key == SCORE else None),
        ("student", "machine", "standing", *_columns(x), *_columns(y)),
        [(m.point.student, m.point.machine, m.standing, *_ends(m.x), *_ends(m.y)) for m in marks],
        is_front=True,
    )


def _looks(judged: Judged) -> Callable[[Point], Look]:
    """Return what gives a point its colour, by student, and its shape, by family; of many they come again."""
    colours = dict(zip(judged.results.students, itertools.cycle(SERIES), strict=False))
    shapes = dict(zip(judged.families, itertools.cycle(MARKERS), strict=False))
    return lambda point: (colours[point.student], shapes[point.rows[0].family])


def _scaled(bar: Interval, factor: float) -> Interval:
    return Interval(bar.low * factor, bar.nominal * factor, bar.high * factor)


def _columns(quantity: Quantity) -> tuple[str, str, str]:
    return f"{quantity.key}_low", quantity.key, f"{quantity.key}_high"


def _ends(bar: Interval) -> tuple[float, float, float]:
    return bar.low, bar.nominal, bar.high


def _caption(judged: Judged, x: Quantity, y: Quantity, count: int, drawn: int) -> str:
    """Say what colours, shapes, bars and lines of a front mean, and what is not drawn."""
    trains = judged.results.trains
    said = [
        f"Colour: {'how the student was trained' if trains else 'the model and its formats'}. Shape: the machine."
    ]
    models = "students" if trains else "models"
    for things, all_names, looks in (
        (models, judged.results.students, f"{len(SERIES)} colours"),
        ("machines", judged.families, f"{len(MARKERS)} shapes"),
    ):
        if len(all_names) > MOST_NAMES:
            said.append(f"{len(all_names):,} {things} share {looks}: the data beside the figure names them.")  # fmt: skip
    if y.key == SCORE:
        seeds = len(judged.results.plan.study["seeds"])
        what = (
            "t interval of the mean over seeds"
            if seeds > 1
            else "Wilson interval of the test rows, where they are counted"
        )
        said.append(f"Vertical bars: 95 % {what}.")
    if x.key in ENERGY_TERMS or y.key in ENERGY_TERMS:
        way = "Horizontal" if x.key in ENERGY_TERMS else "Vertical"
        said.append(f"{way} bars: 5–95 % band of the energy over joint draws of its unit energies.")
    if "s" in (x.unit, y.unit):
        said.append("Latencies are exact within the machine model and have no bar.")
    said.append("The step line joins the points that no measured point beats in both.")
    if trains:
        said.append("Points whose whole bars are beaten by another point are faint.")
    else:
        names = ", ".join(COST_NAMES[o] for o in judged.objectives)
        said.append(f"Faint points are off the front of {names} together.")
    if "infeasible" in judged.standing:
        said.append("Hollow points break a constraint of the study.")
    if drawn < count:
        said.append(
            f"{drawn:,} of {count:,} points are drawn, those of the line among them, without bars; the data beside the figure has all."
        )
    elif count < len(judged.points):
        said.append(f"{len(judged.points) - count} points lack one of the two and are left out.")
    return " ".join(said)


def thinned(marks: Sequence[Mark], y: Quantity) -> list[Mark]:
    """Return the points of the step line, and of the rest one a standing, look and cell of a grid over the figure.

    Cells are of equal width where the figure has them so: those of a logarithmic axis in the logarithm.
    """
    import numpy as np

    xs = np.log([m.x.nominal for m in marks])
    ys = np.array([m.y.nominal for m in marks])
    if y.log:
        ys = np.log(ys)
    line = set(_front_line(marks, y.more_is_better))
    cells = []
    for values, count in zip((xs, ys), GRID_CELLS, strict=True):
        span = np.ptp(values) or 1.0
        cells.append(np.minimum((values - values.min()) / span * count, count - 1).astype(int))
    kept: dict[object, Mark] = {}
    for index, (mark, across, up) in enumerate(zip(marks, *cells, strict=True)):
        on_line = (mark.x.nominal, mark.y.nominal) in line
        key = index if on_line else (mark.look, mark.standing, int(across), int(up))
        kept.setdefault(key, mark)
    return list(kept.values())


def _front_painter(
    judged: Judged,
    marks: Sequence[Mark],
    x: Quantity,
    y: Quantity,
    teacher_score: float | None,
) -> Painter:
    few = len(marks) <= MANY  # thinned ones may be few, too

    def paint(width: float) -> Drawing:
        figure, axes = new_figure(width, 5.0 if width < WIDE else 4.9)
        drawing = Drawing(figure)
        axes.set_xscale("log")
        if y.log:
            axes.set_yscale("log")
        axes.grid(True, which="major")
        axes.set_xlabel(x.axis)
        axes.set_ylabel(y.axis)
        line = _front_line(marks, y.more_is_better)
        axes.plot(*zip(*line, strict=True), drawstyle="steps-post", color=MUTED, lw=1.2, zorder=2)
        groups: dict[tuple[Look, Standing], list[Mark]] = {}
        for mark in marks:
            groups.setdefault((mark.look, mark.standing), []).append(mark)
        for ((colour, shape), standing), alike in groups.items():
            if few:
                _bars(axes, alike, colour, standing)
            hollow = standing == "infeasible"
            # with few points each is a mark of its own, so that each has its hover text
            for group in [[m] for m in alike] if few else [alike]:
                scatter = axes.scatter(
                    [m.x.nominal for m in group],
                    [m.y.nominal for m in group],
                    s=(64 if standing == "front" else 40) if few else (26 if standing == "front" else 9),
                    marker=shape,
                    facecolor="none" if hollow else colour,
                    edgecolor=colour if hollow else PAPER,
                    linewidth=1.2 if hollow else 0.8 if few else 0.3,
                    alpha=ALPHA[standing],
                    zorder=5 if standing == "front" else 4,
                )  # fmt: skip
                if few:
                    key = f"mark-{len(drawing.titles)}"
                    scatter.set_gid(key)
                    p = group[0].point
                    why = f": {p.infeasible}" if p.infeasible else ""
                    drawing.titles[key] = f"{hover(p)}\n{judged.standing_text[standing]}{why}"
        if teacher_score is not None:
            _teacher_line(axes, y.factor * teacher_score)
        _widen_log_axis(axes, "x")
        if y.log:
            _widen_log_axis(axes, "y")
        else:
            axes.margins(y=0.12)
        _front_legend(figure, _told(judged.results.students), _told(judged.families), width >= WIDE)
        return drawing

    return paint


def _front_line(marks: Sequence[Mark], more_is_better: bool) -> list[tuple[float, float]]:
    """Return the points that no feasible one beats in both quantities, by rising x."""
    sign = -1.0 if more_is_better else 1.0
    best, line = float("inf"), []
    able = [m for m in marks if m.standing != "infeasible"] or marks
    for mark in sorted(able, key=lambda m: (m.x.nominal, sign * m.y.nominal)):
        if sign * mark.y.nominal < best:
            best = sign * mark.y.nominal
            line.append((mark.x.nominal, mark.y.nominal))
    return line


def _bars(axes: Axes, marks: Sequence[Mark], colour: str, standing: Standing) -> None:
    xs, ys = [m.x for m in marks], [m.y for m in marks]
    axes.errorbar(
        [b.nominal for b in xs],
        [b.nominal for b in ys],
        xerr=_reach(xs),
        yerr=_reach(ys),
        fmt="none",
        ecolor=colour,
        elinewidth=1.3 if standing == "front" else 0.9,
        alpha=ALPHA[standing],
        zorder=3,
    )


def _reach(values: Sequence[Interval]) -> list[list[float]]:
    """Return how far bars reach down and up; a nominal value may lie beyond an end of its band by rounding, or by skew."""
    down = [max(0.0, v.nominal - v.low) for v in values]
    return [down, [max(0.0, v.high - v.nominal) for v in values]]


def _teacher_line(axes: Axes, score: float) -> None:
    axes.axhline(score, color=MUTED, lw=0.9, ls=(0, (5, 3)), zorder=1)
    axes.annotate(
        "float32 teacher",
        (0.005, score),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",  # cheap machines are seldom as accurate: the left is free
        fontsize=8,
        color=MUTED,
    )


def _widen_log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Let a log axis span at least a decade, with plain numbers at 1, 2 and 5 of each."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high / low < 10:
        middle = (low * high) ** 0.5
        (axes.set_xlim if which == "x" else axes.set_ylim)(middle / 10**0.5, middle * 10**0.5)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _told(names: Sequence[str]) -> Sequence[str]:
    """Return the names that a legend has: none of too many."""
    return names if len(names) <= MOST_NAMES else ()


def _front_legend(
    figure: Figure, students: Sequence[str], families: Sequence[str], wide: bool
) -> None:
    """Put colours and shapes below the axes: as two rows on a wide figure, as two columns on a narrow one."""
    from matplotlib.lines import Line2D

    columns = max(len(students), len(families))
    if not columns:
        return
    empty = Line2D([], [], ls="", label=" ")
    colours = [
        Line2D([], [], ls="", marker="o", color=SERIES[i % len(SERIES)], label=name)
        for i, name in enumerate(students)
    ]
    shapes = [
        Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)], color=MUTED, label=name)
        for i, name in enumerate(families)
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


def _component_figure(judged: Judged) -> StudyFigure:
    """Energy by component of all points, or of many the cheapest of the front; where none is on it the first of the study."""
    points = judged.points
    shown: Sequence[Point] = points
    caption = (
        "Nominal energy of one inference by component of the machine, mean over seeds: shares as lengths, the total "
        "beside each bar. Hover or focus a part for its joules."
    )
    if len(points) > MOST_BARS:
        front = judged.front()
        shown = (front or points)[:MOST_BARS]
        which = "the cheapest of the front" if front else "the first of the study"
        caption += f" {len(shown)} of {len(points):,} points are drawn, {which}; the data beside the figure has all."
    return StudyFigure(
        "Where the energy goes",
        caption,
        stack_figure(shown),
        ("student", "machine", "component", "energy_pj"),
        [(p.student, p.machine, name, pj) for p in points for name, pj in components_pj(p).items()],
    )
