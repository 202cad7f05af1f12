"""Which points are on the front, and which are off it by more than their error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Standing = Literal["front", "undecided", "dominated", "infeasible"]


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
    mask = np.zeros(len(costs), dtype=np.bool_)
    kept = np.empty_like(costs)
    count = 0
    # In lexicographic order whoever dominates a row comes before it, and some undominated row does.
    for index in np.lexsort(costs.T[::-1]):
        row = costs[index]
        held = kept[:count]
        dominated = ((held <= row).all(axis=1) & (held < row).any(axis=1)).any()
        if not dominated:
            kept[count] = row
            count += 1
            mask[index] = True
    return mask


def standings(benefits: Sequence[Interval], costs: Sequence[Interval]) -> list[Standing]:
    """Judge points with error bars on one benefit (made large) and one cost (made small).

    `front`: no point is better by the nominal values. `dominated`: some point is at least as good with
    both bars at their worst against this point's bars at their best. `undecided`: neither. The bars are
    taken as independent; energies of machines that share a quantity move together, so a `dominated`
    is safe and an `undecided` may be settled by joint draws.
    """
    nominal = np.array([[-b.nominal, c.nominal] for b, c in zip(benefits, costs, strict=True)])
    mask = front_mask(nominal.reshape(len(benefits), 2))
    result: list[Standing] = []
    for on_front, benefit, cost in zip(mask, benefits, costs, strict=True):
        beaten = any(
            b.low >= benefit.high
            and c.high <= cost.low
            and (b.low > benefit.high or c.high < cost.low)
            for b, c in zip(benefits, costs, strict=True)
        )
        result.append("front" if on_front else "dominated" if beaten else "undecided")
    return result
