"""What points are judged by: any of score, energy, latency and area, each as nominal values and as joint draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.metrics import unpack_right
from studies.draws import (
    Draws,
    EnergyTerm,
    answer_draws,
    energy_draws,
    mean_draws,
    share_draws,
)
from studies.metric import SCORE
from studies.row import Row
from studies.table import Point

ENERGY_TERMS: dict[str, Callable[[Row], Sequence[EnergyTerm]]] = {
    "energy_pj": lambda row: row.energy_terms,
    "energy_pj_per_token": lambda row: row.energy_terms_per_token,
}
"""costs that are drawn -> what they are drawn from"""


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
    """Return points by what they are judged by: `score`, or a cost that `Point.cost` knows."""
    return [_score(points) if name == SCORE else _cost(points, name) for name in names]


def _score(points: Sequence[Point]) -> Criterion:
    nominal = np.array([p.score_bar.nominal for p in points])
    maximise = all(p.metric.more_is_better for p in points)
    return Criterion(SCORE, maximise, nominal, score_draws(points))


def score_draws(points: Sequence[Point]) -> Draws:
    """Draw every point's score: over its seeds, or, of a point with one seed, over test sets of that size.

    Returns:
        [points, draws]. One model has one draw, whatever machine it runs on. A point of one seed whose metric counts no
        correct samples has its value in every draw.
    """
    draws = mean_draws([scores_by_seed(p) for p in points])
    drawn = _tested([p.rows[0] for p in points if len(p.rows) == 1])
    for index, point in enumerate(points):
        if len(point.rows) == 1 and (known := drawn.get(_model(point.rows[0]))) is not None:
            draws[index] = known
    return draws


def _model(row: Row) -> str:
    """Name what a row's model answered: rows of one model on several machines have one name."""
    return f"model {row.model_sha256}, {row.correct} of {row.total}"


def _tested(rows: Sequence[Row]) -> dict[str, Draws]:
    """Draw the share of right answers of each row's model, paired where it is known which answers were right."""
    models = {_model(row): row for row in rows if row.correct is not None and row.total}
    found: dict[str, Draws] = {}
    answered: dict[int, dict[str, npt.NDArray[np.bool_]]] = {}
    for name, row in models.items():
        assert row.correct is not None  # of those above
        assert row.total is not None
        if row.right is None:
            found[name] = share_draws(name, row.correct, row.total)
        else:
            answered.setdefault(row.total, {})[name] = unpack_right(row.right, row.total)
    for right in answered.values():
        found |= answer_draws(right)
    return found


def scores_by_seed(point: Point) -> dict[int, float]:
    """Return a point's score by seed."""
    return {r.seed: r.score for r in point.rows if r.score is not None}


def _cost(points: Sequence[Point], name: str) -> Criterion:
    nominal = np.array([p.cost(name).nominal for p in points])
    # cycles are exact within the model, and so is what follows from them
    terms = ENERGY_TERMS.get(name)
    draws = (
        nominal[:, None]
        if terms is None
        else energy_draws([[terms(r) for r in p.rows] for p in points])
    )
    return Criterion(name, False, nominal, draws)
