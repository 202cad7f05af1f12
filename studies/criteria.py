"""What points are judged by: any of accuracy, energy, latency and area, each as nominal values and as joint draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studies.draws import Draws, energy_draws, mean_draws, share_draws
from studies.table import Point

ACCURACY = "accuracy"
ENERGY = "energy_pj"


@dataclass(frozen=True, slots=True, eq=False)
class Criterion:
    """One thing that points are judged by."""

    name: str
    maximise: bool
    nominal: npt.NDArray[np.float64]
    """[points]"""
    draws: Draws
    """[points, draws], or [points, 1] where it is exact"""

    @property
    def costs(self) -> npt.NDArray[np.float64]:
        """Nominal values, to be made small: [points]."""
        return -self.nominal if self.maximise else self.nominal

    @property
    def cost_draws(self) -> Draws:
        """Draws, to be made small."""
        return -self.draws if self.maximise else self.draws


def criteria_of(points: Sequence[Point], names: Sequence[str]) -> list[Criterion]:
    """Return points by what they are judged by: `accuracy`, or a cost that `Point.cost` knows."""
    return [_accuracy(points) if name == ACCURACY else _cost(points, name) for name in names]


def _accuracy(points: Sequence[Point]) -> Criterion:
    nominal = np.array([p.accuracy_bar.nominal for p in points])
    return Criterion(ACCURACY, True, nominal, accuracy_draws(points))


def accuracy_draws(points: Sequence[Point]) -> Draws:
    """Draw every point's accuracy: over its seeds, or, of a point with one seed, over test sets of that size.

    Returns:
        [points, draws]. One model has one draw, whatever machine it runs on. A point of one seed whose metric counts no
        correct samples has its value in every draw.
    """
    draws = mean_draws([accuracy_by_seed(p) for p in points])
    of_model: dict[tuple[str | None, int, int], Draws] = {}
    for drawn, point in zip(draws, points, strict=True):
        row = point.rows[0]
        if len(point.rows) == 1 and row.correct is not None and row.total:
            key = (row.model_sha256, row.correct, row.total)
            if key not in of_model:
                of_model[key] = share_draws(f"model {row.model_sha256}", row.correct, row.total)
            drawn[:] = of_model[key]
    return draws


def accuracy_by_seed(point: Point) -> dict[int, float]:
    """Return a point's accuracy by seed."""
    return {r.seed: r.accuracy for r in point.rows if r.accuracy is not None}


def _cost(points: Sequence[Point], name: str) -> Criterion:
    nominal = np.array([p.cost(name).nominal for p in points])
    # cycles are exact within the model, and so is what follows from them
    draws = (
        energy_draws([[r.energy_terms for r in p.rows] for p in points])
        if name == ENERGY
        else nominal[:, None]
    )
    return Criterion(name, False, nominal, draws)
