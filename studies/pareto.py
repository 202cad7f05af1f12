"""Which points are on the front, how surely, and which are off it by more than their error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Standing = Literal["front", "undecided", "dominated", "infeasible", "unjudged"]
Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A nominal value with the ends of its error bar, low <= nominal <= high."""

    low: float
    nominal: float
    high: float


def front_mask(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mark the rows that no other row dominates.

    Args:
        costs: [n, objectives]; every objective is to be made small (negate what should be large).

    Returns:
        [n] booleans. A row dominates another if it is nowhere larger and somewhere smaller; rows that
        are equal in all objectives do not dominate each other, so either all or none are marked.

    Raises:
        ValueError: a cost is not a number: it could neither win nor lose.
    """
    if np.isnan(costs).any():
        raise ValueError("a Pareto front needs numbers in every objective; a cost is nan")
    if not costs.size:
        return np.zeros(len(costs), dtype=np.bool_)
    from moocore import is_nondominated

    return np.asarray(is_nondominated(costs, keep_weakly=True), dtype=np.bool_)


def front_probability(costs: Sequence[Draws]) -> npt.NDArray[np.float64]:
    """Return in which share of the draws each point is on the front.

    Args:
        costs: one array an objective, to be made small, [points, draws]; [points, 1] for one that is exact. Draw d
            of all objectives is one world, so what points share must have been drawn together (`studies.draws`).

    Returns:
        [points] shares. With D draws a share is off by sqrt(p (1 - p) / D) at one standard error: 0.016 at most for 1,000.

    Raises:
        ValueError: a cost is not a number.
    """
    points, draws = np.broadcast_shapes(*(c.shape for c in costs))
    able = np.flatnonzero(~_always_beaten(costs))
    stacked = [np.broadcast_to(c[able], (len(able), draws)) for c in costs]
    wins = np.zeros(points)
    for draw in range(draws):
        wins[able] += front_mask(np.column_stack([c[:, draw] for c in stacked]))
    shares: npt.NDArray[np.float64] = wins / draws
    return shares


def _always_beaten(costs: Sequence[Draws]) -> npt.NDArray[np.bool_]:
    """Mark points that one single point beats in every draw: [points]; of many points nearly all.

    They are on no front, and what they beat their winner beats, too: the fronts of the others are the fronts of all.
    Winners are looked for on the front of the mean costs alone, so a point may be missed; it is then judged draw by draw.
    """
    means = np.column_stack([c.mean(axis=1) for c in costs])
    beaten = np.zeros(len(means), dtype=np.bool_)
    rest = np.arange(len(means))
    for winner in np.flatnonzero(front_mask(means)):
        # the means first, and one cost after the other: each leaves fewer rows of draws to be read
        losers = rest[(means[rest] >= means[winner]).all(axis=1)]
        better = np.zeros((len(losers), 1), dtype=np.bool_)
        for cost in sorted(costs, key=lambda c: c.shape[1]):
            drawn = cost[losers]
            no_worse = (drawn >= cost[winner]).all(axis=1)
            losers = losers[no_worse]
            better = better[no_worse] | (drawn[no_worse] > cost[winner])
        losers = losers[better.all(axis=1)]
        if losers.size:
            beaten[losers] = True
            rest = np.flatnonzero(~beaten)
    return beaten


def standings(benefits: Sequence[Interval], costs: Sequence[Interval]) -> list[Standing]:
    """Judge points with error bars on one benefit (made large) and one cost (made small).

    `front`: no point is better by the nominal values. `dominated`: some point is at least as good with
    both bars at their worst against this point's bars at their best. `undecided`: neither. The bars are
    taken as independent; energies of machines that share a quantity move together, so a `dominated`
    is safe and an `undecided` may be settled by joint draws (`front_probability`).
    """
    nominal = np.array([[-b.nominal, c.nominal] for b, c in zip(benefits, costs, strict=True)])
    mask = front_mask(nominal.reshape(len(benefits), 2))
    beaten = _beaten_at_worst(
        np.array([[-b.low, c.high] for b, c in zip(benefits, costs, strict=True)]).reshape(-1, 2),
        np.array([[-b.high, c.low] for b, c in zip(benefits, costs, strict=True)]).reshape(-1, 2),
    )
    return [
        "front" if on_front else "dominated" if lost else "undecided"
        for on_front, lost in zip(mask, beaten, strict=True)
    ]


def _beaten_at_worst(
    worst: npt.NDArray[np.float64], best: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Mark the points that some point dominates with its worst costs against their best ones.

    Args:
        worst: [points, 2], each cost to be made small.
        best: [points, 2]; nowhere larger than `worst`, so no point beats itself.

    Returns:
        [points] booleans.
    """
    order = np.argsort(worst[:, 0])
    first = worst[order, 0]
    # least[k]: the least second cost of the k points that come first; of none it is no number, and beats nothing
    least = np.concatenate(([np.nan], np.minimum.accumulate(worst[order, 1])))
    less = least[np.searchsorted(first, best[:, 0], side="left")]
    no_larger = least[np.searchsorted(first, best[:, 0], side="right")]
    marked: npt.NDArray[np.bool_] = (less <= best[:, 1]) | (no_larger < best[:, 1])
    return marked
