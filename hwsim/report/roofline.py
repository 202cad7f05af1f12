"""The roofline of an inference (Williams, Waterman, Patterson, 2009): products below the roofs of bus and arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.arch.machine import Machine
from hwsim.engine.cost import OperatorCost
from hwsim.mapping.gemm import GemmProblem
from hwsim.report.figure import MARKERS, MUTED, PAPER, SERIES, WIDE, Drawing, Painter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SHAPES = len(SERIES)
"""Products of a roofline with a colour of their own."""


@dataclass(frozen=True)
class Point:
    """Equal products on the roofline. `intensity` is MAC a byte of DRAM traffic, inf without any; `rate` MAC a cycle."""

    label: str
    count: int
    intensity: float
    rate: float
    share: float


@dataclass(frozen=True)
class Roof:
    """What an array reaches at most in some pairs of formats: MAC a cycle."""

    label: str
    rate: float


def roofline_points(
    operators: Sequence[OperatorCost], machine: Machine
) -> tuple[list[Point], list[Roof]]:
    """Return the products of an inference, equal ones together, and the roofs of the arrays that they use."""
    total = sum(o.cycles for o in operators)
    alike: dict[tuple[str, float, float], list[int]] = {}
    for o in operators:
        p = None if o.posed is None else o.posed.problem
        if not isinstance(p, GemmProblem):
            continue
        macs, moved = macs_of(o), dram_bytes_of(o)
        label = f"{o.op} {o.blocks * p.batch} × " if o.blocks * p.batch > 1 else f"{o.op} "
        label += f"{p.m} × {p.n} × {p.k}"
        key = (label, macs / moved if moved else math.inf, macs / o.cycles)
        alike.setdefault(key, []).append(o.cycles)
    points = [
        Point(label, len(cycles), intensity, rate, sum(cycles) / total)
        for (label, intensity, rate), cycles in alike.items()
    ]
    return points, roofs_of(operators, machine)


def macs_of(operator: OperatorCost) -> int:
    """Return the multiplications of a product, over all its blocks; 0 of an operator that is none."""
    p = None if operator.posed is None else operator.posed.problem
    if not isinstance(p, GemmProblem):
        return 0
    return operator.blocks * p.batch * p.m * p.n * p.k


def dram_bytes_of(operator: OperatorCost) -> int:
    """Return the bytes that an operator loads from the DRAM and stores there."""
    moved = operator.traffic_bytes
    return moved.get("dram_load", 0) + moved.get("dram_store", 0)


def roofs_of(operators: Sequence[OperatorCost], machine: Machine) -> list[Roof]:
    """Return the roofs of the arrays that an inference uses, one a rate."""
    roofs: dict[tuple[str, float], list[str]] = {}
    for o in operators:
        p = None if o.posed is None else o.posed.problem
        if not isinstance(p, GemmProblem):
            continue
        array = machine.arrays[p.array]
        block = array.block(p.a, p.w)
        beat = array.passes(p.a, p.w) * array.initiation_interval(p.a, p.w, *block)
        formats = roofs.setdefault((p.array, math.prod(block) / beat), [])
        if f"{p.a} × {p.w}" not in formats:
            formats.append(f"{p.a} × {p.w}")
    return [
        Roof(f"{array}, {', '.join(formats)}", rate) for (array, rate), formats in roofs.items()
    ]


def roofline(
    title: str, points: Sequence[Point], roofs: Sequence[Roof], bytes_per_cycle: float
) -> Painter:
    """Draw attained MAC a cycle over MAC a byte of DRAM traffic, below the roofs of the bus and the arrays.

    A mark's area is its share of the cycles. Products without DRAM traffic stand in a panel of their own.
    """
    labels = sorted({p.label for p in points}, key=lambda x: -sum(p.share for p in points if p.label == x))  # fmt: skip
    shown = labels if len(labels) <= MOST_SHAPES else labels[: MOST_SHAPES - 1]

    def look(label: str) -> tuple[str, str]:
        at = shown.index(label) if label in shown else MOST_SHAPES - 1
        return SERIES[at], MARKERS[at]

    def paint(width: float) -> Drawing:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        finite = [p for p in points if math.isfinite(p.intensity)]
        figure = Figure(figsize=(width, 0.62 * WIDE), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
        top = max(r.rate for r in roofs)
        ridge = [r.rate / bytes_per_cycle for r in roofs]
        xs = [p.intensity for p in finite] + ridge
        low, high = min(xs) / 3, max(xs) * 6
        bottom = min(p.rate for p in points) / 3
        for roof, at in zip(roofs, ridge, strict=True):
            left.plot((at, high), (roof.rate, roof.rate), color=MUTED, lw=1.2)
            right.axhline(roof.rate, color=MUTED, lw=1.2)
            left.annotate(
                f"{roof.label}: {roof.rate:,.4g} MAC a cycle", (high, roof.rate), (-2, 9), textcoords="offset points", ha="right", fontsize=7.5, color=MUTED
            )  # fmt: skip
        left.plot((low, max(ridge)), (low * bytes_per_cycle, top), color=MUTED, lw=1.2)
        left.annotate(
            f"bus: {bytes_per_cycle:.3g} bytes a cycle", (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=7.5, color=MUTED
        )  # fmt: skip
        for p in points:
            axes: Axes = left if math.isfinite(p.intensity) else right
            colour, marker = look(p.label)
            x = p.intensity if axes is left else 0.5
            axes.scatter(
                x, p.rate, s=24 + 700 * p.share, marker=marker, color=colour, edgecolor=PAPER, linewidth=0.7, alpha=0.85, zorder=3
            )  # fmt: skip
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_xlim(low, high)
        left.set_ylim(bottom, top * 2)
        left.grid(True, which="major")
        right.grid(True, which="major", axis="y")
        left.set_xlabel("MAC a byte of DRAM traffic")
        left.set_ylabel("MAC a cycle")
        right.set_xlim(0, 1)
        right.set_xticks([])
        right.set_xlabel("no DRAM traffic")
        left.set_title(title, loc="left", fontsize=9)
        counts = {x: sum(p.count for p in points if p.label == x) for x in labels}
        names = [f"{x} ({counts[x]})" if counts[x] > 1 else x for x in shown]
        if len(shown) < len(labels):
            names.append(f"all others ({sum(counts[x] for x in labels if x not in shown)})")
        handles = [
            Line2D([], [], ls="", marker=MARKERS[i], color=SERIES[i], label=name)
            for i, name in enumerate(names)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, handletextpad=0.3, fontsize=8
        )
        return Drawing(figure)

    return paint
