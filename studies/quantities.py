"""What a point is measured in: the axes of figures, the columns of their data, the numbers of the report's page.

A further number of a point is one more `Quantity` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from studies.metric import SCORE, Metric
from studies.pareto import Interval, Standing
from studies.table import Point, Results

Unit = Literal["share", "number", "pJ", "s", "um2", "B"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a point, with its error bar where it has one."""

    key: str
    """as in an objective of a study and a column of the CSV; it ends in its unit"""
    name: str
    unit: Unit
    axis: str
    """label of an axis, with the axis's unit"""
    factor: float
    """from the own unit to the axis's"""
    more_is_better: bool
    log: bool
    """whether its axis is logarithmic"""
    read: Callable[[Point], Interval | None]
    """None where the point has no such number"""


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value)


def _cost(key: str) -> Callable[[Point], Interval | None]:
    return lambda p: p.costs.get(key)


COSTS: dict[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("energy_pj", "Energy", "pJ", "Energy an inference (µJ)", 1e-6, False, True, _cost("energy_pj")),
        Quantity("latency_s", "Latency", "s", "Latency of an inference, steady (ms)", 1e3, False, True, _cost("latency_s")),
        Quantity("energy_pj_per_token", "Energy a token", "pJ", "Energy a decoded token (µJ)", 1e-6, False, True, _cost("energy_pj_per_token")),
        Quantity("latency_s_per_token", "Latency a token", "s", "Latency of a decoded token, steady (ms)", 1e3, False, True, _cost("latency_s_per_token")),
        Quantity("area_um2", "Area", "um2", "Area of the chip's parts (mm²)", 1e-6, False, True, _cost("area_um2")),
        Quantity("weight_bytes", "Weights", "B", "Weights (KiB)", 1 / 1024, False, True, lambda p: _exact(p.rows[0].weight_bytes)),
        Quantity("peak_activation_bytes", "Peak activations", "B", "Peak activations (KiB)", 1 / 1024, False, True, lambda p: _exact(p.rows[0].peak_activation_bytes)),
    )
}  # fmt: skip
"""key -> quantity, of what every model has"""


def score_quantity(metric: Metric) -> Quantity:
    """Return the score of a task as a quantity. A perplexity grows exponentially with the loss, so its axis is logarithmic."""
    unit: Unit = "share" if metric.unit == "%" else "number"
    return Quantity(
        SCORE,
        metric.title,
        unit,
        metric.head("on the test set"),
        metric.factor,
        metric.more_is_better,
        metric.relative,
        lambda p: None if p.score is None else p.score_bar,
    )


STANDING_TEXT: dict[Standing, str] = {
    "front": "on the front",
    "undecided": "off the front by less than the error bars",
    "dominated": "dominated, error bars included",
    "infeasible": "breaks a constraint",
    "unjudged": "lacks a cost that the study asks about",
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

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """What its points are measured in, by key: the score first, where there is one."""
        score = {SCORE: score_quantity(self.results.metric)} if self.results.trains else {}
        return {**score, **COSTS}

    @property
    def axes(self) -> list[tuple[str, str]]:
        """Pairs of quantities that the study asks about, (x, y): the score over each cost, or each pair of costs."""
        if self.results.trains:
            return [(objective, SCORE) for objective in self.objectives]
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
