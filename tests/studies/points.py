"""Points made by hand, for the statistics that need no folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studies.draws import EnergyTerm
from studies.metric import METRICS
from studies.pareto import Interval
from studies.row import Row
from studies.table import Point


def make_point(
    student: str,
    machine: str,
    scores: Mapping[int, float],
    energy_pj: float,
    terms: Sequence[EnergyTerm] | None = None,
    total: int | None = 100,
    latency_s: float = 1e-3,
    metric: str = "accuracy",
) -> Point:
    """Return a point whose rows all cost the same; without terms its energy is exact."""
    rows = tuple(
        Row(
            student,
            seed,
            machine,
            "ok",
            metric=metric,
            score=value,
            correct=None if total is None else round(value * total),
            total=total,
            energy_pj=energy_pj,
            energy_terms=[("", 1.0, energy_pj)] if terms is None else terms,
            model_sha256=f"{student} {seed}",
        )
        for seed, value in scores.items()
    )
    return Point(
        student,
        machine,
        rows,
        METRICS[metric].mean(scores.values()),
        {
            "energy_pj": Interval(energy_pj, energy_pj, energy_pj),
            "latency_s": Interval(latency_s, latency_s, latency_s),
        },
    )
