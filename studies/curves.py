"""Training curves of a study: the metric on the carve-out against steps, a panel for what is compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from hwsim.report.figure import MARKERS, SERIES, WIDE, Drawing, Painter
from studies.metric import METRICS, Metric
from studies.table import Results

Student = Mapping[str, Any]
COLUMNS = 2
PANEL_HEIGHT = 2.9
"""inches"""


def families(students: Sequence[Student]) -> list[list[Student]]:
    """Students that share a first control, it among them, in the order of the study; those that stand alone are left out."""
    by_name = {student["name"]: student for student in students}

    def root(student: Student) -> str:
        name: str = student["name"]
        control = student.get("control")
        return root(by_name[control]) if control in by_name else name

    groups: dict[str, list[Student]] = {}
    for student in students:
        if any(cell["curve"] for cell in student["by_seed"].values()):
            groups.setdefault(root(student), []).append(student)
    return [group for group in groups.values() if len(group) > 1]


def curve(
    student: Student, metric: Metric
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, and the mean, lowest and highest score of the seeds at each, as people read them."""
    at: dict[int, list[float]] = {}
    for cell in student["by_seed"].values():
        for step, value in cell["curve"]:
            at.setdefault(int(step), []).append(metric.factor * value)
    steps = sorted(at)
    values = [at[step] for step in steps]
    return steps, [fmean(v) for v in values], [min(v) for v in values], [max(v) for v in values]


def students_of(results: Results) -> list[Student]:
    """Return the students of a study folder as a result file has them: name, control, and a curve a seed; those without a curve are left out."""
    parts = {str(s["name"]): s.get("control") for s in results.plan.study["students"]}
    found: dict[str, dict[str, Any]] = {}
    for node in results.plan.of_kind("train"):
        attempt = results.attempts.get(node.id)
        name = str(node.tags["student"])
        if name in parts and attempt is not None and attempt.result and attempt.result["curve"]:
            cell = {"curve": attempt.result["curve"]}
            found.setdefault(name, {})[str(node.tags["seed"])] = cell
    return [
        {"name": name, "control": control, "by_seed": found[name]}
        for name, control in parts.items()
        if name in found
    ]


def panels_of(students: Sequence[Student]) -> list[list[Student]]:
    """Return the families, and last, as one panel, those that stand alone."""
    groups = families(students)
    related = {student["name"] for group in groups for student in group}
    alone = [student for student in students if student["name"] not in related]
    return [*groups, alone] if alone else groups


def curve_rows(students: Sequence[Student]) -> list[tuple[str, int, int, float]]:
    """Return student, seed, step and value of every evaluation."""
    return [
        (student["name"], int(seed), int(step), value)
        for student in students
        for seed, cell in student["by_seed"].items()
        for step, value in cell["curve"]
    ]


def curves_figure(result: Mapping[str, Any]) -> Painter:
    """Draw every family of a study's result file."""
    return curves_panels(families(result["students"]), metric_of(result["students"]))


def metric_of(students: Iterable[Student]) -> Metric:
    """Return what the students of a study's result file are judged by."""
    cells = (cell for student in students for cell in student["by_seed"].values())
    return METRICS[next(cell["test"]["metric"] for cell in cells)]


def curves_panels(groups: Sequence[Sequence[Student]], metric: Metric) -> Painter:
    """Draw a panel a group of students: the mean of the seeds, and as a band their range."""

    def paint(width: float) -> Drawing:
        from matplotlib.figure import Figure

        columns = min(COLUMNS if width >= WIDE else 1, len(groups))
        rows = math.ceil(len(groups) / columns)
        figure = Figure(figsize=(width, PANEL_HEIGHT * rows), layout="constrained")
        for i, group in enumerate(groups):
            axes = figure.add_subplot(rows, columns, i + 1)
            for j, student in enumerate(group):
                steps, mean, low, high = curve(student, metric)
                colour = SERIES[j % len(SERIES)]
                axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
                axes.plot(
                    steps,
                    mean,
                    color=colour,
                    marker=MARKERS[j % len(MARKERS)],
                    markersize=3,
                    linewidth=1.2,
                    label=student["name"],
                )
            axes.grid(visible=True)
            axes.set_xlabel("Step")
            if i % columns == 0:
                axes.set_ylabel(metric.head("on the carve-out"))
            if metric.relative:
                axes.set_yscale("log")
            axes.legend(loc="lower right" if metric.more_is_better else "upper right", fontsize=7)
        return Drawing(figure)

    return paint
