"""What a point is measured in: the axes of figures, the columns of their data, the numbers of the report's page.

A further number of a point is one more `Quantity` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from studies.pareto import Interval, Standing
from studies.table import Point, Results


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a point, with its error bar where it has one."""

    key: str
    """as in an objective of a study and a column of the CSV; it ends in its unit"""
    name: str
    unit: Literal["share", "pJ", "s", "um2", "B"]
    axis: str
    """label of an axis, with the axis's unit"""
    factor: float
    """from the own unit to the axis's"""
    more_is_better: bool
    read: Callable[[Point], Interval | None]
    """None where the point has no such number"""


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value)


QUANTITIES: dict[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("accuracy", "Accuracy", "share", "Accuracy on the test set (%)", 100.0, True, lambda p: None if p.accuracy is None else p.accuracy_bar),
        Quantity("energy_pj", "Energy", "pJ", "Energy an inference (µJ)", 1e-6, False, lambda p: p.energy_pj),
        Quantity("latency_s", "Latency", "s", "Latency of an inference, steady (ms)", 1e3, False, lambda p: p.latency_s),
        Quantity("area_um2", "Area", "um2", "Area of the chip's parts (mm²)", 1e-6, False, lambda p: _exact(p.area_um2)),
        Quantity("weight_bytes", "Weights", "B", "Weights (KiB)", 1 / 1024, False, lambda p: _exact(p.rows[0].weight_bytes)),
        Quantity("peak_activation_bytes", "Peak activations", "B", "Peak activations (KiB)", 1 / 1024, False, lambda p: _exact(p.rows[0].peak_activation_bytes)),
    )
}  # fmt: skip
"""key -> quantity"""

STANDING_TEXT: dict[Standing, str] = {
    "front": "on the front",
    "undecided": "off the front by less than the error bars",
    "dominated": "dominated, error bars included",
    "infeasible": "breaks a constraint",
}


@dataclass(frozen=True)
class Judged:
    """The points of a study, and how each stands by each objective: worked out once for all that shows them."""

    results: Results
    points: Sequence[Point]
    standings: dict[str, list[Standing]]
    """objective -> one a point. Of hardware alone all objectives are judged together, so that the lists are equal"""

    @property
    def objectives(self) -> list[str]:
        """Objectives of the study; the first decides what "front" means where nothing else is said."""
        return [str(o) for o in self.results.plan.study["objectives"]]

    @property
    def standing(self) -> list[Standing]:
        """How each point stands by the first objective."""
        return self.standings[self.objectives[0]]

    @property
    def standing_text(self) -> dict[Standing, str]:
        """What each standing means: hardware alone is judged by nominal values."""
        if self.results.trains:
            return STANDING_TEXT
        return {**STANDING_TEXT, "dominated": "off the front, by nominal values"}

    @property
    def families(self) -> list[str]:
        """Machines, all variants of one as one, in the study's order."""
        return list(dict.fromkeys(row.family for row in self.results.rows))

    @property
    def axes(self) -> list[tuple[str, str]]:
        """Pairs of quantities that the study asks about, (x, y): accuracy over each cost, or each pair of costs."""
        if self.results.trains:
            return [(objective, "accuracy") for objective in self.objectives]
        return [(x, y) for i, x in enumerate(self.objectives) for y in self.objectives[i + 1 :]]

    def front(self) -> list[Point]:
        """Return the points on the front by the first objective, the cheapest first."""
        found = [p for p, s in zip(self.points, self.standing, strict=True) if s == "front"]
        return sorted(found, key=lambda p: p.cost(self.objectives[0]).nominal)


def judge(results: Results) -> Judged:
    """Return a study's points with their standings."""
    points = results.points()
    objectives = [str(o) for o in results.plan.study["objectives"]]
    if not results.trains:
        alike = [standing for _, standing in results.judged(points, objectives[0])]
        return Judged(results, points, dict.fromkeys(objectives, alike))
    return Judged(
        results, points, {o: [s for _, s in results.judged(points, o)] for o in objectives}
    )
