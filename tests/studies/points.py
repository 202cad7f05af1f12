"""Points made by hand, for the statistics that need no folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studies.draws import EnergyTerm
from studies.pareto import Interval
from studies.statistics import mean_interval
from studies.table import Point, Row


def make_point(
    student: str,
    machine: str,
    accuracy: Mapping[int, float],
    energy_pj: float,
    terms: Sequence[EnergyTerm] | None = None,
    total: int | None = 100,
    latency_s: float = 1e-3,
) -> Point:
    """Return a point whose rows all cost the same; without terms its energy is exact."""
    rows = tuple(
        Row(
            student,
            seed,
            machine,
            "ok",
            accuracy=value,
            correct=None if total is None else round(value * total),
            total=total,
            energy_pj=energy_pj,
            energy_terms=[("", 1.0, energy_pj)] if terms is None else terms,
            model_sha256=f"{student} {seed}",
        )
        for seed, value in accuracy.items()
    )
    return Point(
        student,
        machine,
        rows,
        mean_interval(list(accuracy.values()), bounds=(0.0, 1.0)),
        Interval(energy_pj, energy_pj, energy_pj),
        Interval(latency_s, latency_s, latency_s),
    )
