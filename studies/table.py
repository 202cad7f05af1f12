"""From a study folder to rows and points: what figures, report and CSV show.

A row is one student of one seed on one machine. A point is a student on a machine over all seeds.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict

from studies.draws import EnergyTerm
from studies.ledger import FILE_NAME, FINAL, Attempt, LedgerError, attempts_in, view
from studies.metric import METRICS, Metric
from studies.pareto import Interval, Standing, front_mask, standings
from studies.plan import Node, Plan, canonical_json, load_plan
from studies.space import Constraint
from studies.statistics import Estimate

MODEL_FILES = ("graph.json", "weights.safetensors")
"""what an export needs to run; the labelled samples and the processor lie beside them"""


@dataclass(frozen=True, slots=True)
class Row:
    """One student of one seed on one machine. The fields up to `reason` are the declared result columns:
    serial and parallel runs, and two computers, must agree on them."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    student: str
    """how the model was trained: its name in the study"""
    seed: int
    """of the training; students and teacher of one seed are paired"""
    machine: str
    """name of the accelerator"""
    status: str
    """ok, refused, failed, or missing (not run yet)"""
    metric: str | None = None
    """what the score is: accuracy, perplexity, matthews ..."""
    score: float | None = None
    """of the model's integers on the test rows, by the task's metric; `verified_samples` of the rows ran on the machine, equal in every tensor"""
    correct: int | None = None
    """test rows that it got right, of an accuracy"""
    total: int | None = None
    """test rows that the score is of"""
    energy_pj_low: float | None = None
    """energy of an inference: 5 % end of the band over draws of the unit energies"""
    energy_pj: float | None = None
    """energy of an inference, nominal"""
    energy_pj_high: float | None = None
    """energy of an inference: 95 % end of the band"""
    latency_cycles_cold: int | None = None
    """cycles of the first inference, weights not on chip yet"""
    latency_cycles_steady: int | None = None
    """cycles of each further inference"""
    latency_s_cold: float | None = None
    """latency of the first inference"""
    latency_s_steady: float | None = None
    """latency of each further inference"""
    energy_pj_per_token_low: float | None = None
    """energy of a decoded token: 5 % end of the band over draws of the unit energies"""
    energy_pj_per_token: float | None = None
    """energy of a decoded token, nominal: mean of the positions that the study decodes at"""
    energy_pj_per_token_high: float | None = None
    """energy of a decoded token: 95 % end of the band"""
    latency_s_per_token: float | None = None
    """latency of a decoded token, steady: mean of the same positions"""
    tokens: int | None = None
    """length of the inference that is costed: the longest test row's; none of images"""
    weight_bytes: int | None = None
    """packed weights, thresholds and tables"""
    peak_activation_bytes: int | None = None
    """the most that activations take at one time"""
    area_um2: float | None = None
    """compute arrays; none unless the machine's file gives one for each"""
    unequal_tensors: int | None = None
    """tensors that differ from the reference anywhere: 0, or something is wrong"""
    compared_tensors: int | None = None
    """tensors that were compared with the reference"""
    verified_samples: int | None = None
    """samples on which they were compared"""
    model_sha256: str | None = None
    """identity of the exported integer model"""
    machine_sha256: str | None = None
    """identity of the resolved machine file"""
    share_assumed_frac: float | None = None
    """share of the joules that rests on unit energies without a source"""
    side_array_cycles_frac: float | None = None
    """share of the cycles on arrays after the machine's first: what the main array's formats exclude"""
    side_array_energy_frac: float | None = None
    """share of the energy on arrays after the machine's first"""
    infeasible: str | None = None
    """which constraints of the study it breaks"""
    reason: str | None = None
    """why it was refused, or how it failed"""
    family: str = ""
    """the machine that this one is a variant of"""
    settings: str = "{}"
    """what was set on the machine: JSON of key -> value"""
    components_pj: Mapping[str, float] = field(default_factory=dict)
    energy_terms: Sequence[EnergyTerm] = ()
    """what the energy is drawn from, jointly with that of every other row (`studies.draws`)"""
    energy_terms_per_token: Sequence[EnergyTerm] = ()
    not_modelled: tuple[str, ...] = ()
    node: str = ""
    """identity of the evaluation that gave the row"""


UNDECLARED = ("components_pj", "energy_terms", "energy_terms_per_token", "not_modelled", "node")
COLUMNS = tuple(f.name for f in fields(Row) if f.name not in UNDECLARED)
EVALUATIONS = ("evaluate", "cost")
"""kinds of nodes that give a row"""
CONSTRAINED = {"latency_s": "latency_s_steady"}
"""columns of constraints that rows have by another name"""
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
    value: float
    float_bytes: int


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
        """The score with its error bar; a single seed has none.

        Raises:
            ValueError: the model is untrained.
        """
        s = self.score
        if s is None:
            raise ValueError(f"{self.student} is untrained: it has no score")
        low = s.mean if s.low is None else s.low
        high = s.mean if s.high is None else s.high
        return Interval(low, s.mean, high)

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
        able = [p for p in points if p.infeasible is None]
        names = self.plan.study["objectives"]
        costs = np.array([[p.cost(n).nominal for n in names] for p in able])
        mask = iter(front_mask(costs.reshape(len(able), len(names))))
        return [(p, _standing(p, mask)) for p in points]


def judged(points: Sequence[Point], objective: str) -> list[tuple[Point, Standing]]:
    """Return each point with its standing on the front of the score against one cost.

    Points that break a constraint of the study are `infeasible`, and beat nobody.
    """
    able = [p for p in points if p.infeasible is None]
    costs = [p.cost(objective) for p in able]
    found = iter(standings([_benefit(p) for p in able], costs))
    return [(p, next(found) if p.infeasible is None else "infeasible") for p in points]


def _benefit(point: Point) -> Interval:
    bar = point.score_bar
    return bar if point.metric.more_is_better else Interval(-bar.high, -bar.nominal, -bar.low)


def _standing(point: Point, mask: Iterator[np.bool_]) -> Standing:
    if point.infeasible is not None:
        return "infeasible"
    return "front" if next(mask) else "dominated"


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
            row = filled(blank_row(node), attempt, next(exports, None))
            rows.append(constrained(row, constraints))
        elif done is not None and done.result is not None:
            if node.kind == "train" and done.result["test"] is not None:
                trained.append(_trained(student, seed, done.result))
            if node.kind == "export":
                exported.append(Exported(student, seed, done.result["bytes"], done.result["rungs"]))
    return Results(folder, plan, attempts, tuple(rows), tuple(trained), tuple(exported))


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the declared result columns, units in their names, one line a row."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)


def constrained(row: Row, constraints: Iterable[Constraint]) -> Row:
    """Return a row with the constraints that it breaks."""
    broken = [
        text
        for c in constraints
        if (text := c.broken_by(getattr(row, CONSTRAINED.get(c.column, c.column))))
    ]
    return replace(row, infeasible="; ".join(broken)) if broken else row


def blank_row(node: Node) -> Row:
    """Return the row of an evaluation or a costing that was not made yet."""
    tags = node.tags
    return Row(
        str(tags["student"]),
        int(tags["seed"]),
        str(tags["machine"]),
        "missing",
        family=str(tags.get("family", tags["machine"])),
        settings=canonical_json(dict(node.spec.get("settings", ()))),
        node=node.id,
    )


def filled(row: Row, attempt: Attempt | None, export: Attempt | None = None) -> Row:
    """Return a row with what came of an attempt; None: there was none yet. `export`: of the model that it ran, for `score_of`."""
    if attempt is None:
        return row
    if attempt.result is None:
        return replace(row, status=attempt.status, reason=attempt.error)
    r = attempt.result
    if "energy_terms" not in r:
        raise LedgerError(
            f"{attempt.label}: measured by a version that did not keep what its energy rests on;"
            " run the study again with --fresh"
        )
    # an untrained model has no score, and is not verified on data
    measured = score_of(r, None if export is None else export.result) or {}
    verified = r.get("verify", {})
    token = r.get("token") or {"energy_pj": {}}
    return replace(
        row,
        status=attempt.status,
        reason=attempt.error,
        metric=measured.get("metric"),
        score=measured.get("value"),
        correct=measured.get("correct"),
        total=measured.get("total"),
        energy_pj_low=r["energy_pj"]["low"],
        energy_pj=r["energy_pj"]["nominal"],
        energy_pj_high=r["energy_pj"]["high"],
        latency_cycles_cold=r["latency_cycles"]["cold"],
        latency_cycles_steady=r["latency_cycles"]["steady"],
        latency_s_cold=r["latency_s"]["cold"],
        latency_s_steady=r["latency_s"]["steady"],
        energy_pj_per_token_low=token["energy_pj"].get("low"),
        energy_pj_per_token=token["energy_pj"].get("nominal"),
        energy_pj_per_token_high=token["energy_pj"].get("high"),
        latency_s_per_token=token.get("latency_s"),
        tokens=r.get("tokens"),
        weight_bytes=r["weight_bytes"],
        peak_activation_bytes=r["peak_activation_bytes"],
        area_um2=r["area_um2"],
        unequal_tensors=verified.get("unequal_tensors"),
        compared_tensors=verified.get("compared_tensors"),
        verified_samples=verified.get("samples"),
        model_sha256=r["hashes"]["model"],
        machine_sha256=r["hashes"]["machine"],
        share_assumed_frac=r["share_assumed_frac"],
        side_array_cycles_frac=r["side_arrays"]["cycles_frac"],
        side_array_energy_frac=r["side_arrays"]["energy_frac"],
        components_pj=r["energy_by_component_pj"],
        energy_terms=r["energy_terms"],
        energy_terms_per_token=token.get("energy_terms", ()),
        not_modelled=tuple(r["not_modelled"]),
    )


def score_of(
    evaluation: Mapping[str, Any], export: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return the score of a model: that of its integer graph on all held-out rows, where the machine computes the same.

    A machine runs the first `samples` of those rows, and verification compares every tensor of them. Where one differs,
    the score is that of what the machine computed, on the rows that it ran.

    Args:
        evaluation: result of a node that ran and verified the model.
        export: that of the node that made it; None where it is not known.

    Returns:
        `metric`, `value`, of an accuracy `correct`, and `total`; None of an untrained model.
    """
    own: Mapping[str, Any] | None = evaluation["accuracy"]
    if own is None or export is None or evaluation["verify"]["unequal_tensors"]:
        return own
    graph: Mapping[str, Any] = export["rungs"]["measured"]["graph"]
    return graph


def _trained(student: str, seed: int, result: Mapping[str, Any]) -> Trained:
    test = result["test"]
    return Trained(
        student,
        seed,
        test["correct"],
        test["total"],
        test["metric"],
        test["value"],
        sum(result["bytes"].values()),
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
    if len(rows) == 1:  # thousands of points of hardware alone
        low, nominal, high = (getattr(rows[0], column) for column in columns)
        return (
            None if low is None or nominal is None or high is None else Interval(low, nominal, high)
        )
    values = [[getattr(row, column) for row in rows] for column in columns]
    if any(v is None for column in values for v in column):
        return None
    return Interval(*(math.fsum(column) / len(rows) for column in values))
