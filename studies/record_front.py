"""What a finished study answers, for its result file: the sentences, and the points of its front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies.criteria import ENERGY_TERMS
from studies.front import front_of
from studies.markdown import markdown_table
from studies.metric import METRICS, SCORE
from studies.table import Point, Results
from studies.text import answer, criterion_name, joules, percent, value_text

MOST_POINTS = 12
"""lines of a front on the page of results; the result file has all"""
DIGITS = 6
"""of a value in a result file"""


def collect_front(results: Results) -> dict[str, Any]:
    """Return the answer of a study and the points of its front, the cheapest first.

    Returns:
        `answer`, a paragraph each; `metric` (None of hardware alone); `criteria`; `points`, how many were measured, and `refused`;
        `front`: student, machine, each criterion's nominal value or [low, nominal, high], `probability`.
    """
    points = results.points()
    front = front_of(results, points)
    found: dict[str, Any] = {
        "answer": answer(results, points, front),
        "metric": results.metric.key if results.trains else None,
        "criteria": list(front.names),
        "points": len(points),
        "refused": sum(row.status == "refused" for row in results.rows),
        "front": [],
    }
    if front.points:
        found["front"] = [
            {
                "student": front.points[i].student,
                "machine": front.points[i].machine,
                **{name: _value(front.points[i], name) for name in front.names},
                "probability": float(front.probability[i]),
            }
            for i in front.members
        ]
    return found


def _value(point: Point, name: str) -> float | list[float]:
    bar = point.score_bar if name == SCORE else point.cost(name)
    ends = [_short(v) for v in (bar.low, bar.nominal, bar.high)]
    return ends if ends[0] < ends[2] else ends[1]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def front_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of a front in a study's section of the page of results, in Markdown."""
    metric = None if found["metric"] is None else METRICS[found["metric"]]
    names = found["criteria"]
    heads = [criterion_name(metric, name) for name in names]
    lines = []
    for point in found["front"][:MOST_POINTS]:
        cells = []
        for name in names:
            low, nominal, high = _ends(point[name])
            if metric and name == SCORE:
                spread = metric.range_text(low, high)
                cells.append(f"{metric.text(nominal)} ({spread})" if low < high else metric.text(nominal))  # fmt: skip
            elif name in ENERGY_TERMS:
                cells.append(f"{joules(nominal)} ({joules(low)} to {joules(high)})")
            else:
                cells.append(value_text(name, nominal))
        lines.append([point["student"], point["machine"], *cells, percent(point["probability"])])
    more = len(found["front"]) - len(lines)
    return [
        *(line for paragraph in found["answer"] for line in (paragraph, "")),
        *markdown_table(["model", "machine", *heads, "on the front"], lines),
        "",
        *(
            [f"The {more} other points of the front are in the result file.", ""]
            if more > 0
            else []
        ),
    ]


def _ends(value: Any) -> tuple[float, float, float]:
    if isinstance(value, list):
        low, nominal, high = value
        return low, nominal, high
    return value, value, value
