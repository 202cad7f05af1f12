"""Scores against the rate of bit errors: rows, curves, a CSV and a JSON file, and the figure of a study's `faults`.

A value's interval is that of the mean over all draws of all seeds, each draw with flips of its own: it speaks of the
models that were trained, not of others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.report.figure import INK, MARKERS, MUTED, SERIES, WIDE, Drawing, Painter
from studies.ledger import Attempt
from studies.metric import METRICS, Metric
from studies.plan import Plan, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAULTS_FILE = "faults"
"""of JSON and figure, without the ending"""
TOLERATED_LOSS = 0.01
"""of a score: what a table calls robust loses no more"""
PANEL_HEIGHT = 2.2
"""inches"""

Curve = Mapping[str, Any]
"""student, place, metric, undamaged, and points by rising rate: see `fault_curves`"""


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One draw of bit errors at one rate in one place of one exported student."""

    student: str
    seed: int
    place: str
    draw: int
    status: str
    """ok, refused, failed, or missing (not run yet)"""
    rate: float | None = None
    metric: str | None = None
    value: float | None = None
    correct: int | None = None
    total: int | None = None
    bits: int | None = None
    """that could flip; of activations each time that they are written"""
    flipped: int | None = None
    reason: str | None = None


FAULT_COLUMNS = tuple(f.name for f in fields(FaultRow))


def fault_rows(plan: Plan, attempts: Mapping[str, Attempt]) -> list[FaultRow]:
    """Return the rows of every draw, in the plan's order; a draw without a result is one row without a rate."""
    rows = []
    for node in plan.of_kind("fault"):
        tags, attempt = node.tags, attempts.get(node.id)
        blank = FaultRow(
            str(tags["student"]),
            int(tags["seed"]),
            str(tags["place"]),
            int(tags["draw"]),
            "missing" if attempt is None else attempt.status,
            reason=None if attempt is None else attempt.error,
        )
        if attempt is None or attempt.result is None:
            rows.append(blank)
            continue
        kept = {**asdict(blank), "metric": attempt.result["metric"]}
        rows += [FaultRow(**{**kept, **row}) for row in attempt.result["rows"]]
    return rows


def undamaged(plan: Plan, attempts: Mapping[str, Attempt]) -> dict[str, list[float]]:
    """Return student -> the scores without errors, on the same samples, of the machine that the errors are on."""
    machines = {node.tags["machine"] for node in plan.of_kind("fault")}
    found: dict[str, list[float]] = {}
    for node in plan.of_kind("evaluate"):
        attempt = attempts.get(node.id)
        result = None if attempt is None else attempt.result
        if node.tags["machine"] in machines and result is not None:
            value = float(result["accuracy"]["value"])
            found.setdefault(str(node.tags["student"]), []).append(value)
    return found


def fault_curves(plan: Plan, attempts: Mapping[str, Attempt]) -> list[dict[str, Any]]:
    """Return a curve for each place and student: plain data, for the JSON file, the figure and the record.

    Each has `place`, `student`, `metric`, `undamaged` (mean over seeds; None where it was not measured) and `points`: rate, mean
    over all draws, the ends of its 95 % interval, the lowest and highest draw, their number, mean number of flips.
    """
    without = undamaged(plan, attempts)
    groups: dict[tuple[str, str], dict[float, list[FaultRow]]] = {}
    for row in fault_rows(plan, attempts):
        if row.rate is not None:
            groups.setdefault((row.place, row.student), {}).setdefault(row.rate, []).append(row)
    return [
        {
            "place": place,
            "student": student,
            "metric": next(iter(by_rate.values()))[0].metric,
            "undamaged": math.fsum(without[student]) / len(without[student])
            if student in without
            else None,
            "points": [_point(rate, by_rate[rate]) for rate in sorted(by_rate)],
        }
        for (place, student), by_rate in groups.items()
    ]


def _point(rate: float, rows: Sequence[FaultRow]) -> dict[str, Any]:
    values = [row.value for row in rows if row.value is not None]
    mean = METRICS[str(rows[0].metric)].mean(values)
    return {
        "rate": rate,
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "lowest": min(values),
        "highest": max(values),
        "draws": mean.count,
        "flipped": math.fsum(row.flipped or 0 for row in rows) / len(rows),
    }


def tolerated_rate(curve: Curve, loss: float = TOLERATED_LOSS) -> float | None:
    """Return the largest measured rate up to which the mean loses at most so much; None where the first loses more."""
    held = None
    for point in curve["points"]:
        if curve["undamaged"] - point["mean"] > loss:
            break
        held = float(point["rate"])
    return held


def write_faults(path: Path, curves: Sequence[Curve]) -> None:
    """Write the curves as JSON; every draw stands in the CSV of their figure."""
    write_atomically(path.with_suffix(".json"), json.dumps(list(curves), indent=1) + "\n")


def faults_file(name: str) -> str:
    """Where a study's figure of bit errors lies beside the page of results, without the ending."""
    return f"img/{name}"


def faults_section(result: Mapping[str, Any]) -> list[str]:
    """Return the lines about bit errors in a study's section of the page of results, in Markdown."""
    curves = {(c["place"], c["student"]): c for c in result["fault_curves"]}
    students = list(dict.fromkeys(student for _, student in curves))
    places = list(dict.fromkeys(place for place, _ in curves))
    metric = metric_of_curves(result["fault_curves"])
    samples = (
        "all test samples" if result["samples"] is None else f"{result['samples']} test samples"
    )
    return [
        f"The largest measured rate of bit errors up to which the mean {metric.name} of {result['faults']['draws']} draws for each"
        f" seed, on {samples}, loses at most {100 * TOLERATED_LOSS:g} point; in brackets the {metric.name} at the next"
        " rate that was measured:",
        "",
        "| errors in | " + " | ".join(students) + " |",
        "|---|" + "---|" * len(students),
        *(
            f"| `{place}` | "
            + " | ".join(_tolerates(curves.get((place, s))) for s in students)
            + " |"
            for place in places
        ),
        "",
        "A dash: the model has nothing there. Mean of the draws, and as a band their range:",
        "",
        f"![{metric.title} against the rate of bit errors]({faults_file(result['name'])}.svg)",
        "",
    ]


def _tolerates(curve: Curve | None) -> str:
    if curve is None:
        return "–"
    held = tolerated_rate(curve)
    beyond = [p for p in curve["points"] if held is None or p["rate"] > held]
    text = f"below {curve['points'][0]['rate']:g}" if held is None else f"{held:g}"
    mean = metric_of_curves([curve]).text
    return f"{text} ({mean(beyond[0]['mean'])})" if beyond else f"{text}, the largest"


def metric_of_curves(curves: Sequence[Curve]) -> Metric:
    """Return what a study's curves are of."""
    return METRICS[curves[0]["metric"]]


def faults_figure(curves: Sequence[Curve], students: Sequence[str]) -> Painter:
    """Draw a panel for each place: the mean of the draws against the rate, and as a band their range.

    Colours and shapes are those of the students in `students`; a dotted line is a student without errors.
    """
    places = list(dict.fromkeys(c["place"] for c in curves))

    def paint(width: float) -> Drawing:
        from matplotlib.figure import Figure

        columns = min(len(places), 3 if width >= WIDE else 1)
        rows = math.ceil(len(places) / columns)
        figure = Figure(figsize=(width, PANEL_HEIGHT * rows + 0.5), layout="constrained")
        drawing = Drawing(figure)
        first: Axes | None = None
        for i, place in enumerate(places):
            axes = first = figure.add_subplot(rows, columns, i + 1, sharex=first, sharey=first)
            axes.set_title(place, fontsize=8.5, loc="left", color=INK)
            for j, curve in enumerate(c for c in curves if c["place"] == place):
                _draw(axes, curve, students.index(curve["student"]), drawing, f"fault-{i}-{j}")
            axes.grid(visible=True)
            axes.set_xscale("log")
            if i + columns >= len(places):
                axes.set_xlabel("Bit error rate")
            if i % columns == 0:
                axes.set_ylabel(metric_of_curves(curves).head())
        _legend(drawing, curves, students)
        return drawing

    return paint


def _draw(axes: Axes, curve: Curve, index: int, drawing: Drawing, key: str) -> None:
    points = curve["points"]
    rates = [p["rate"] for p in points]
    colour = SERIES[index % len(SERIES)]
    axes.fill_between(
        rates,
        [100 * p["lowest"] for p in points],
        [100 * p["highest"] for p in points],
        color=colour,
        alpha=0.12,
        linewidth=0,
    )
    (line,) = axes.plot(
        rates,
        [100 * p["mean"] for p in points],
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        markersize=3,
        linewidth=1.2,
    )
    line.set_gid(key)
    text = metric_of_curves([curve]).text
    means = ", ".join(f"{p['rate']:g}: {text(p['mean'])}" for p in points)
    drawing.titles[key] = f"{curve['student']}, errors in {curve['place']}\n{means}"
    if curve["undamaged"] is not None:
        axes.axhline(100 * curve["undamaged"], color=colour, lw=0.7, ls=":", zorder=1)


def _legend(drawing: Drawing, curves: Sequence[Curve], students: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    shown = [s for s in students if any(c["student"] == s for c in curves)]
    handles = [
        Line2D(
            [],
            [],
            color=SERIES[students.index(s) % len(SERIES)],
            marker=MARKERS[students.index(s) % len(MARKERS)],
            markersize=4,
            label=s,
        )
        for s in shown
    ]
    handles.append(Line2D([], [], color=MUTED, ls=":", lw=0.9, label="without errors"))
    drawing.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
