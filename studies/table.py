"""From a study folder to rows and points: what figures, report and CSV show.

A row is one student of one seed on one machine. A point is a student on a machine over all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from studies.collector import collector_paused
from studies.ledger import FILE_NAME, FINAL, Attempt, attempts_in, view
from studies.metric import METRICS, Metric
from studies.pareto import Interval, Standing, front_mask, standings
from studies.plan import Plan, load_plan
from studies.row import EVALUATIONS, Row, constrained, read_row
from studies.space import Constraint
from studies.statistics import Estimate, share_interval

MODEL_FILES = ("graph.json", "weights.safetensors")
"""what an export needs to run; the labelled samples and the processor lie beside them"""
COST_COLUMNS: dict[str, tuple[str, str, str]] = {
    "energy_pj": ("energy_pj_low", "energy_pj", "energy_pj_high"),
    "latency_s": ("latency_s_steady",) * 3,
    "area_um2": ("area_um2",) * 3,
    "energy_pj_per_token": (
        "energy_pj_per_token_low",
        "energy_pj_per_token",
        "energy_pj_per_token_high",
    ),
    "latency_s_per_token": ("latency_s_per_token",) * 3,
}
"""objective of a study -> columns of low end, nominal value and high end; latencies and areas are exact within the model"""
UNKNOWN = Interval(math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training: its test result and the bytes of its float32 weights."""

    student: str
    seed: int
    correct: int | None
    total: int | None
    metric: str
    score: float
    float_bytes: int
    right: str | None = None
    """which test rows it got right, packed, of an accuracy"""


@dataclass(frozen=True, slots=True)
class Exported:
    """An integer model on disk, with the record of rungs A1 to A3."""

    student: str
    seed: int
    file_bytes: Mapping[str, int]
    rungs: Mapping[str, Any]

    @property
    def model_bytes(self) -> int:
        """Bytes of graph and weights, as the file system has them."""
        return sum(self.file_bytes.get(name, 0) for name in MODEL_FILES)


@dataclass(frozen=True, slots=True)
class Point:
    """A student on a machine: mean score over seeds with its t interval, costs with their 5-95 % band.

    Costs depend on shapes and formats, not on trained values, up to how many thresholds a layer has; the
    ends of the band are the means over seeds of the rows' ends.
    """

    student: str
    machine: str
    rows: tuple[Row, ...]
    score: Estimate | None
    """None: an untrained model has none"""
    costs: Mapping[str, Interval]
    """by objective of a study; those that it does not have are left out"""

    @property
    def metric(self) -> Metric:
        """What the score is.

        Raises:
            ValueError: the model is untrained.
        """
        key = self.rows[0].metric
        if key is None:
            raise ValueError(f"{self.student} is untrained: it has no score")
        return METRICS[key]

    @property
    def infeasible(self) -> str | None:
        """Which constraints its rows break, each once."""
        broken = dict.fromkeys(r.infeasible for r in self.rows if r.infeasible)
        return "; ".join(broken) or None

    @property
    def score_bar(self) -> Interval:
        """The score with its error bar: over seeds, or of a single seed the Wilson interval of its test rows, if it counts them.

        Raises:
            ValueError: the model is untrained.
        """
        s = self.score
        if s is None:
            raise ValueError(f"{self.student} is untrained: it has no score")
        row = self.rows[0]
        if len(self.rows) == 1 and row.correct is not None and row.total:
            low, high = share_interval(row.correct, row.total)
            return Interval(low, s.mean, high)
        low = s.mean if s.low is None else s.low
        high = s.mean if s.high is None else s.high
        return Interval(low, s.mean, high)

    def has(self, objectives: Iterable[str]) -> bool:
        """Whether it has all these costs: no one states the area of some machines, and not all models are decoded."""
        return all(name in self.costs for name in objectives)

    def cost(self, objective: str) -> Interval:
        """Return the cost that an objective of the study names; one that the point lacks, as an area that no one states, is larger than any."""
        return self.costs.get(objective, UNKNOWN)


@dataclass(frozen=True)
class Results:
    """Everything that one study folder holds, in the plan's order."""

    folder: Path
    plan: Plan
    attempts: Mapping[str, Attempt]
    rows: tuple[Row, ...]
    trained: tuple[Trained, ...]
    exported: tuple[Exported, ...]

    @property
    def trains(self) -> bool:
        """Whether the models are trained; a study of hardware alone has costs and no score."""
        return self.plan.study["teacher"] is not None

    @property
    def teacher(self) -> str | None:
        """Name of the float32 teacher, where there is one."""
        teacher = self.plan.study["teacher"]
        return None if teacher is None else str(teacher["name"])

    @property
    def students(self) -> list[str]:
        """Names of the students, or of the untrained models, in the study's order."""
        parts = self.plan.study["students"] or self.plan.study.get("untrained", ())
        return [str(s["name"]) for s in parts]

    @property
    def machines(self) -> list[str]:
        """Names of the machines in the study's order."""
        return list(dict.fromkeys(row.machine for row in self.rows))

    @property
    def failures(self) -> list[Attempt]:
        """Attempts that failed and that nothing later made good."""
        return [a for a in self.attempts.values() if a.status == "failed"]

    def points(self) -> list[Point]:
        """Return one point for each student and machine with at least one finished row."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.status == "ok":
                groups.setdefault((row.student, row.machine), []).append(row)
        return [_point(*key, rows) for key, rows in groups.items()]

    @property
    def metric(self) -> Metric:
        """What the task is judged by; accuracy where nothing was measured yet."""
        named = (row.metric for row in self.rows if row.metric is not None)
        return METRICS[next(named, next((t.metric for t in self.trained), "accuracy"))]

    def judged(self, points: Sequence[Point], objective: str) -> list[tuple[Point, Standing]]:
        """Return each point with its standing: of the score against one cost, or without a score of all costs."""
        if self.trains:
            return judged(points, objective)
        names = self.plan.study["objectives"]

        def by_costs(able: Sequence[Point]) -> list[Standing]:
            costs = np.array([[p.cost(n).nominal for n in names] for p in able])
            mask = front_mask(costs.reshape(len(able), len(names)))
            return ["front" if on_front else "dominated" for on_front in mask]

        return _with_standings(points, names, by_costs)


def judged(points: Sequence[Point], objective: str) -> list[tuple[Point, Standing]]:
    """Return each point with its standing on the front of the score against one cost.

    Points of one student and the same seeds run the same models: their scores are equal for sure, whatever the bars say, so
    one whose whole cost lies above another's is dominated.
    """

    def by_score(able: Sequence[Point]) -> list[Standing]:
        costs = [p.cost(objective) for p in able]
        found = standings([_benefit(p) for p in able], costs)
        least: dict[object, float] = {}
        for p, cost in zip(able, costs, strict=True):
            least[_models(p)] = min(cost.high, least.get(_models(p), math.inf))
        return [
            "dominated" if s == "undecided" and least[_models(p)] < cost.low else s
            for p, cost, s in zip(able, costs, found, strict=True)
        ]

    return _with_standings(points, (objective,), by_score)


def _with_standings(
    points: Sequence[Point],
    costs: Sequence[str],
    judge: Callable[[Sequence[Point]], Sequence[Standing]],
) -> list[tuple[Point, Standing]]:
    """Return each point with its standing.

    Points that break a constraint of the study are `infeasible`, those that lack a cost are `unjudged`; neither beats anybody.
    """
    found = iter(judge([p for p in points if p.infeasible is None and p.has(costs)]))
    said: list[tuple[Point, Standing]] = []
    for p in points:
        if p.infeasible is not None:
            said.append((p, "infeasible"))
        else:
            said.append((p, next(found) if p.has(costs) else "unjudged"))
    return said


def _models(point: Point) -> tuple[str, tuple[int, ...]]:
    return point.student, tuple(sorted(row.seed for row in point.rows))


def _benefit(point: Point) -> Interval:
    bar = point.score_bar
    return bar if point.metric.more_is_better else Interval(-bar.high, -bar.nominal, -bar.low)


@collector_paused()
def load_results(folder: Path) -> Results:
    """Read a study folder: the plan says what belongs to the study, the ledger what came of it.

    Raises:
        CheckpointError: no study was run there.
        LedgerError: the ledger is damaged, or its rows are those of an older version.
    """
    plan = load_plan(folder)
    ids = plan.by_id
    attempts = {k: a for k, a in view(attempts_in(folder / FILE_NAME)).items() if k in ids}
    constraints = [Constraint.model_validate(c) for c in plan.study.get("constraints", ())]
    rows: list[Row] = []
    trained: list[Trained] = []
    exported: list[Exported] = []
    for node in plan.nodes:
        attempt = attempts.get(node.id)
        done = attempt if attempt is not None and attempt.status in FINAL else None
        student, seed = str(node.tags["student"]), int(node.tags["seed"])
        if node.kind in EVALUATIONS:
            exports = (attempts.get(parent) for parent in node.parents)
            row = read_row(node, attempt, next(exports, None))
            rows.append(constrained(row, constraints))
        elif done is not None and done.result is not None:
            if node.kind == "train" and done.result["test"] is not None:
                trained.append(_trained(student, seed, done.result))
            if node.kind == "export":
                exported.append(Exported(student, seed, done.result["bytes"], done.result["rungs"]))
    return Results(folder, plan, attempts, tuple(rows), tuple(trained), tuple(exported))


def _trained(student: str, seed: int, result: Mapping[str, Any]) -> Trained:
    test = result["test"]
    counted = test["metric"] == "accuracy"
    return Trained(
        student,
        seed,
        test["correct"] if counted else None,
        test["total"],
        test["metric"],
        test["value"],
        sum(result["bytes"].values()),
        test.get("right") if counted else None,
    )


def _point(student: str, machine: str, rows: Sequence[Row]) -> Point:
    scores = [r.score for r in rows if r.score is not None]
    mean = METRICS[str(rows[0].metric)].mean(scores) if scores else None
    found = {name: _interval(rows, columns) for name, columns in COST_COLUMNS.items()}
    return Point(
        student, machine, tuple(rows), mean, {k: v for k, v in found.items() if v is not None}
    )


def _interval(rows: Sequence[Row], columns: Sequence[str]) -> Interval | None:
    """Return the means over rows of low end, nominal value and high end; None where a row has none."""
    values = list(map(attrgetter(*columns), rows))
    if any(None in ends for ends in values):
        return None
    if len(values) == 1:  # thousands of points of hardware alone
        return Interval(*values[0])
    return Interval(*(math.fsum(column) / len(rows) for column in zip(*values, strict=True)))
