"""The front of measured points: who is on it and how surely, where its knee is, how much it dominates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from studies.criteria import Criterion, criteria_of
from studies.metric import SCORE, Metric
from studies.pareto import front_mask, front_probability
from studies.table import Point, Results

BEYOND = 0.1
"""at the worst value itself the front's ends would count for nothing (Ishibuchi et al. 2018)"""
FEWEST_FOR_A_KNEE = 3
"""a front of two points is its own chord"""
FLAT = 1e-9
"""a point that is nearer to the chord than this, of a front that is one wide and one high, lies on it"""


def front_of(results: Results, points: Sequence[Point]) -> Front:
    """Return the front that answers a study: the score against its first objective, or without a score all objectives.

    Points that break a constraint are left out, and so are those that lack a cost: an area that no one states, a token of a
    model that cannot be decoded.
    """
    objectives = tuple(str(name) for name in results.plan.study["objectives"])
    names = (objectives[0], SCORE) if results.trains else objectives
    costs = [name for name in names if name != SCORE]
    able = [p for p in points if p.infeasible is None and p.has(costs)]
    return Front(able, names)


@dataclass(frozen=True, eq=False)
class Front:
    """Points with what judges them; everything else is computed when it is asked for, once."""

    points: Sequence[Point]
    names: tuple[str, ...]
    """two criteria or more: `score`, or costs"""

    @property
    def metric(self) -> Metric | None:
        """What the score is; None where it judges nothing, or there is no point."""
        return self.points[0].metric if self.points and SCORE in self.names else None

    @cached_property
    def criteria(self) -> list[Criterion]:
        """What judges the points, in the order of `names`."""
        return criteria_of(self.points, self.names)

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which points no other beats by nominal values: [points]."""
        return front_mask(np.column_stack([c.costs for c in self.criteria]))

    @cached_property
    def members(self) -> list[int]:
        """Indices of the points on the front, by the first criterion, the best first."""
        found = np.flatnonzero(self.mask)
        return [int(i) for i in found[np.argsort(self.criteria[0].costs[found], kind="stable")]]

    @property
    def exact(self) -> bool:
        """Whether no criterion has any spread, so that a point is on the front or not."""
        return all(c.draws.shape[1] == 1 for c in self.criteria)

    @cached_property
    def probability(self) -> npt.NDArray[np.float64]:
        """In which share of the joint draws each point is on the front: [points]."""
        return front_probability([c.cost_draws for c in self.criteria])

    @cached_property
    def knee(self) -> int | None:
        """Index of the knee, costs on a logarithmic scale as the figures have them; None without one, or beyond two criteria."""
        if len(self.criteria) != 2:
            return None
        found = knee(self._drawn[self.members])
        return None if found is None else self.members[found]

    @property
    def reference(self) -> list[float]:
        """What a hypervolume is measured up to, a value of each criterion in its own unit: `BEYOND` of the range past the worst."""
        return [
            -float(r) if c.maximise else float(np.exp(r))
            for c, r in zip(self.criteria, self._reference, strict=True)
        ]

    def share(self, chosen: Callable[[Point], bool]) -> float | None:
        """Return which part of the hypervolume of all points some of them have alone, with costs on a logarithmic scale.

        None where all points are equal in a criterion: nothing spans a volume then.
        """
        whole = self._volume
        of = np.array([chosen(p) for p in self.points])
        return hypervolume(self._drawn[of], self._reference) / whole if whole else None

    @cached_property
    def _volume(self) -> float:
        return hypervolume(self._drawn, self._reference)

    @cached_property
    def _reference(self) -> npt.NDArray[np.float64]:
        return reference_of(self._drawn)

    @cached_property
    def _drawn(self) -> npt.NDArray[np.float64]:
        """Nominal values on the figures' scales, to be made small: [points, criteria]."""
        return np.column_stack([c.costs if c.maximise else np.log(c.costs) for c in self.criteria])


def reference_of(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what a hypervolume of points is measured up to: `BEYOND` of their range past the worst value of each objective.

    Args:
        costs: [n, objectives], each to be made small; at least one point.
    """
    worst = costs.max(axis=0)
    edge: npt.NDArray[np.float64] = worst + BEYOND * (worst - costs.min(axis=0))
    return edge


def hypervolume(costs: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> float:
    """Return the volume that points dominate, up to a reference point; exact, by dimension sweeps (moocore).

    Of two sets that are measured from one reference, the one that is nowhere worse has the larger volume (Zitzler and
    Thiele 1998). It depends on the reference and on the scale of each objective, so both are to be said with it.

    Args:
        costs: [n, objectives], each to be made small. Points that do not reach the reference in every objective add nothing.
        reference: [objectives], the worst value that still counts.

    Raises:
        ValueError: a number is nan or infinite.
    """
    if not (np.isfinite(costs).all() and np.isfinite(reference).all()):
        raise ValueError(
            "a hypervolume needs finite numbers in every objective and in the reference"
        )
    if not len(costs):
        return 0.0
    from moocore import hypervolume as exact

    return float(exact(costs, ref=reference))


def knee(costs: npt.NDArray[np.float64]) -> int | None:
    """Return the index of the knee of a front of two objectives, None where it has none.

    The knee is the point farthest from the chord between the front's two ends on the side of the better values, with
    both objectives scaled to the range of the front (Das 1999, "On characterizing the 'knee' of the Pareto curve based
    on Normal-Boundary Intersection"). Fewer than three different points have none, and neither has a front that nowhere bulges
    beyond its chord: there no point buys more than the ends do. Of equally far points the first in cost 0 is it.

    Args:
        costs: [n, 2], each to be made small, none dominated. Scale matters: give the logarithm of what is drawn on a log axis.

    Raises:
        ValueError: a point is dominated, or there are not two objectives.
    """
    if costs.ndim != 2 or costs.shape[1] != 2:
        raise ValueError(f"a knee is one of two objectives; got an array of shape {costs.shape}")
    if not front_mask(costs).all():
        raise ValueError("a knee is one of a front; a point is dominated")
    if len(np.unique(costs, axis=0)) < FEWEST_FOR_A_KNEE:
        return None
    low = costs.min(axis=0)
    scaled = (costs - low) / (costs.max(axis=0) - low)
    # the ends are (0, 1) and (1, 0): the chord is x + y = 1
    beyond = 1 - scaled.sum(axis=1)
    order = np.argsort(costs[:, 0], kind="stable")
    best = int(order[np.argmax(beyond[order])])
    return best if beyond[best] > FLAT else None
