"""What a search proposed and how its front grew: `search.json` in the study's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from studies.front import hypervolume, reference_of
from studies.metric import METRICS, SCORE
from studies.pareto import front_mask
from studies.plan import write_atomically
from studies.proposed import Measured, Trial
from studies.search_space import Space
from studies.space import Study

SEARCH_FILE = "search.json"
SCHEMA = "studies/search/1"


class SearchRecord:
    """The trials of a search in the order in which they were proposed."""

    def __init__(self, study: Study, space: Space) -> None:
        assert study.search is not None
        self.search = study.search
        self.trials: list[Trial] = []
        self.ended: Literal["trials", "exhausted", "budget", "failed"] | None = None
        """why it ended: as many as were asked for, no more points, no more budget, all of a batch failed; None: it did not"""
        self._study = study
        self._space = space
        self._criteria = (*([SCORE] if study.teacher is not None else []), *study.objectives)

    def add(self, trials: Sequence[Trial]) -> None:
        """Take the trials of the next batch."""
        self.trials += trials

    def save(self, folder: Path) -> None:
        """Write the file; nothing in it depends on when or where nodes ran."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / SEARCH_FILE, text)

    def to_json(self) -> dict[str, Any]:
        """Return the trials with the hypervolume that all points up to each have together."""
        volumes, reference = self._volumes()
        return {
            "schema": SCHEMA,
            "search": self.search.model_dump(mode="json"),
            "space": self._space.size,
            "ended": self.ended,
            "criteria": list(self._criteria),
            "reference": reference,
            "trials": [
                {
                    "number": number,
                    "batch": number // self.search.batch,
                    "student": trial.student,
                    "status": trial.status,
                    "reason": trial.reason,
                    SCORE: trial.score,
                    "steps": trial.steps,
                    "points": [self._point(point) for point in trial.points],
                    "hypervolume": volume,
                }
                for number, (trial, volume) in enumerate(zip(self.trials, volumes, strict=True))
            ],
        }

    def _point(self, point: Measured) -> dict[str, Any]:
        values = point.values or {}
        return {
            "machine": point.machine,
            "status": point.status,
            "reason": point.reason,
            "infeasible": "; ".join(
                text
                for c in self._study.constraints
                if (text := c.broken_by(values.get(c.column))) is not None
            )
            or None,
            **{name: values.get(name) for name in self._criteria},
            "nodes": list(point.nodes),
        }

    def _volumes(self) -> tuple[list[float], dict[str, float] | None]:
        """Return the hypervolume after each trial, and what all are measured up to; None while no point counts."""
        drawn = [
            [
                [_drawn(trial, name, (point.values or {})[name]) for name in self._criteria]
                for point in trial.points
                if self._counts(point)
            ]
            for trial in self.trials
        ]
        flat = [values for of_trial in drawn for values in of_trial]
        if not flat:
            return [0.0] * len(drawn), None
        edge = reference_of(np.array(flat))
        front: npt.NDArray[np.float64] = np.empty((0, len(self._criteria)))
        volumes: list[float] = []
        for of_trial in drawn:
            if of_trial:
                front = np.concatenate([front, np.array(of_trial)])
                front = front[front_mask(front)]
            volumes.append(hypervolume(front, edge))
        metric = next((METRICS[t.metric] for t in self.trials if t.metric is not None), None)
        shown = zip(self._criteria, edge.tolist(), strict=True)
        return volumes, {
            n: metric.score(-x) if metric and n == SCORE else math.exp(x) for n, x in shown
        }

    def _counts(self, point: Measured) -> bool:
        values = point.values or {}
        return not point.broken(self._study.constraints) and all(
            n in values for n in self._criteria
        )


def _drawn(trial: Trial, name: str, value: float) -> float:
    """Return a value as it is told and drawn, to be made small: costs on a logarithmic scale."""
    if name == SCORE and trial.metric is not None:
        return -METRICS[trial.metric].gain(value)
    return math.log(value)
