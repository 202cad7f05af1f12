"""The figure of where the energy goes: every shown point's energy by component of its machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.report.figure import PAPER, PARTS, WIDE, Drawing, Painter, new_figure
from studies.table import Point
from studies.text import si

if TYPE_CHECKING:
    from matplotlib.patches import Patch

THICKNESS = 0.74
"""of a bar, of the distance from one to the next"""


def stack_figure(points: Sequence[Point]) -> Painter:
    """Energy of every point by component of its machine: shares as lengths, the total beside each bar."""
    names = _components(points)
    sums = [components_pj(p) for p in points]

    def paint(width: float) -> Drawing:
        from matplotlib.patches import Patch, Rectangle

        wide = width >= WIDE
        columns = 5 if wide else 2
        height = 1.1 + (0.27 if wide else 0.36) * len(points) + 0.2 * -(-len(names) // columns)
        figure, axes = new_figure(width, height)
        drawing = Drawing(figure)
        legend: list[Patch] = []
        left = [0.0] * len(points)
        for part, name in enumerate(names):
            joules = [_component_pj(each, name, names) * 1e-12 for each in sums]
            shares = [
                100 * j / (p.cost("energy_pj").nominal * 1e-12)
                for j, p in zip(joules, points, strict=True)
            ]
            look: dict[str, Any] = {
                "facecolor": PARTS[part % len(PARTS)],
                "edgecolor": PAPER,
                "linewidth": 0.5,
            }
            legend.append(Patch(**look, label=name))
            for index, (begin, share) in enumerate(zip(left, shares, strict=True)):
                key = f"part-{part}-{index}"
                # not `barh`, which fits the axes to each of hundreds of bars anew
                bar = Rectangle((begin, index - THICKNESS / 2), share, THICKNESS, gid=key, **look)
                bar.set_in_layout(False)  # within the axes: no room is to be made for it
                axes.add_artist(bar)
                drawing.titles[key] = (
                    f"{points[index].student} on {points[index].machine}\n"
                    f"{name}: {si(joules[index], 'J')}, {shares[index]:.1f} %"
                )
            left = [a + b for a, b in zip(left, shares, strict=True)]
        for index, point in enumerate(points):
            axes.annotate(
                si(point.cost("energy_pj").nominal * 1e-12, "J"),
                (left[index], index),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        axes.set_xlim(0, 118 if wide else 128)  # room for the totals
        edge = 1 - THICKNESS / 2  # the space between two bars, before the first and after the last
        axes.set_ylim(len(points) - 1 + edge, -edge)  # downwards
        axes.set_xticks(range(0, 101, 20 if wide else 50))
        axes.set_yticks(range(len(points)), [_two_part_label(p, width) for p in points])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Share of the energy of an inference (%)")
        figure.legend(
            handles=legend,
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
        for name, value in components_pj(point).items():
            totals[name] = totals.get(name, 0.0) + value
    ordered = sorted((n for n in totals if totals[n] > 0), key=lambda n: -totals[n])
    if len(ordered) <= len(PARTS):
        return ordered
    return [*ordered[: len(PARTS) - 1], OTHER]


def components_pj(point: Point) -> Mapping[str, float]:
    """Return the energy of each component of a point's machine in pJ, the mean over its seeds."""
    if len(point.rows) == 1:  # thousands of points of hardware alone
        return point.rows[0].components_pj
    sums: dict[str, float] = {}
    for row in point.rows:
        for name, value in row.components_pj.items():
            sums[name] = sums.get(name, 0.0) + value / len(point.rows)
    return sums


def _component_pj(sums: Mapping[str, float], name: str, shown: Sequence[str]) -> float:
    if name == OTHER:
        return sum(v for n, v in sums.items() if n not in shown)
    return sums.get(name, 0.0)


def _two_part_label(point: Point, width: float) -> str:
    wide = width >= WIDE
    return (
        f"{point.student}{' · ' if wide else chr(10)}{clipped(point.machine, 44 if wide else 26)}"
    )


def clipped(text: str, most: int) -> str:
    """Return a text without its middle where it is too long: variants of a machine differ at their end."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]}…{text[head + 1 - most :]}"
