"""The report's tables of the front: its points with their probabilities, what one machine or student alone reaches, equal accuracy."""

from __future__ import annotations

import itertools

from studies.criteria import ENERGY_TERMS
from studies.front import Front
from studies.iso_accuracy import iso_accuracies
from studies.metric import SCORE, Metric
from studies.table import Point
from studies.tables import Cell, Line, Table, difference_cell
from studies.text import (
    COST_NAMES,
    WORTH_NAMING,
    cost_text,
    criterion_name,
    listed,
    margin_text,
    percent,
    ratio_band,
    score_text,
    times,
    value_text,
)

MOST_BASELINES = 10
MOST_LINES = 40
"""more points than this are in the CSV"""


def front_table(front: Front) -> Table:
    """Every point that is on the front, or may be: what it costs, and in which share of the joint draws it is there."""
    text = (
        "A point is on the front in a draw if no other beats it there. One draw gives every unit energy one value on all "
        "machines, and every seed one push to all students of that seed, as the seeds' t intervals say; with one seed, "
        "another test set of that size to all models. A dot marks the front by nominal values; a point off it is listed "
        f"from {percent(WORTH_NAMING)} on."
    )
    if front.exact:
        text += " All values are exact within the model: nothing was drawn."
    table = Table(
        "Who is on the front",
        text,
        [
            "Student, machine",
            *(criterion_name(front.metric, name) for name in front.names),
            "on the front",
            "",
        ],
    )
    shares = front.probability
    first = front.criteria[0].costs
    listed_ = [i for i in range(len(first)) if front.mask[i] or shares[i] >= WORTH_NAMING]
    for index in sorted(listed_, key=lambda i: first[i])[:MOST_LINES]:
        point = front.points[index]
        table.rows.append(
            Line(
                [
                    Cell(f"{point.student}, {point.machine}"),
                    *(Cell(_value(point, name)) for name in front.names),
                    Cell(percent(shares[index])),
                    Cell("knee" if index == front.knee else ""),
                ],
                "front" if front.mask[index] else "",
            )
        )
    return table


def share_table(front: Front) -> Table:
    """Which part of the volume that all points dominate each machine, and each student, dominates alone."""
    reference = listed(
        [
            front.metric.text(v) if front.metric and n == SCORE else value_text(n, v)
            for n, v in zip(front.names, front.reference, strict=True)
        ]
    )
    table = Table(
        "What one machine or one student reaches alone",
        "The share of the hypervolume of all points, with costs on a logarithmic scale, up to the reference of "
        f"{reference}: a tenth of the measured range beyond the worst. A hundred per cent: the others add nothing. Variants of a machine count as one. Of more "
        f"than {MOST_LINES} machines or students those are listed that have a point on the front.",
        ["Points of", "share of the hypervolume", "points", "on the front"],
    )
    for kind in ("machine", "student"):
        names = dict.fromkeys(_of(p, kind) for p in front.points)
        if len(names) > MOST_LINES:
            names = dict.fromkeys(_of(front.points[i], kind) for i in front.members)
        for name in names:

            def chosen(point: Point, kind: str = kind, name: str = name) -> bool:
                return _of(point, kind) == name

            share = front.share(chosen)
            members = sum(chosen(front.points[i]) for i in front.members)
            table.rows.append(
                Line(
                    [
                        Cell(f"{kind} {name}"),
                        Cell("–" if share is None else percent(share)),
                        Cell(str(sum(map(chosen, front.points)))),
                        Cell(str(members)),
                    ]
                )
            )
    return table


def _of(point: Point, kind: str) -> str:
    """Return a point's student, or its machine; variants of one machine are one."""
    return point.student if kind == "student" else point.rows[0].family or point.machine


def equal_score_table(front: Front, metric: Metric) -> Table:
    """What one saves without losing the score of each of the best students."""
    objective = next(name for name in front.names if name != SCORE)
    table = Table(
        f"At equal {metric.name}",
        f"For each student, {MOST_BASELINES} at most, the cheapest combination of another student that is as good to "
        f"within {margin_text(metric)}, against the student where it is cheapest; both were measured, nothing is "
        "interpolated. Shown: the whole 95 % interval of the paired difference lies above the margin. Measured: the "
        "difference itself does and the interval holds 0, but a larger loss is not excluded. Ratios of energies have "
        "their 5–95 % band over joint draws.",
        [
            f"At the {metric.name} of",
            COST_NAMES[objective],
            "as good",
            "times less",
            f"difference in {metric.difference_unit}",
            "",
        ],
    )
    for found in itertools.islice(iso_accuracies(front.points, objective), MOST_BASELINES):
        base, saving = found.baseline, found.saving
        cells = [
            Cell(f"{base.student}, {base.machine}"),
            Cell(cost_text(objective, base.cost(objective))),
        ]
        if saving is None:
            cells.append(Cell(f"none of {found.candidates} cheaper", span=4))
        else:
            band = ratio_band(saving.ratio) if objective in ENERGY_TERMS else ""
            cells += [
                Cell(f"{saving.cheap.student}, {saving.cheap.machine}"),
                Cell(times(saving.ratio.nominal), band),
                difference_cell(metric, saving.difference),
                Cell("shown" if saving.shown else "measured"),
            ]
        table.rows.append(Line(cells))
    return table


def _value(point: Point, name: str) -> str:
    if name == SCORE and point.score is not None:
        return score_text(point.metric, point.score)
    return cost_text(name, point.cost(name))
