"""From a study folder to rows and points: what figures, report and CSV show.

A row is one student of one seed on one machine. A point is a student on a machine over all seeds.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from studies.draws import EnergyTerm
from studies.ledger import FILE_NAME, FINAL, Attempt, LedgerError, read, view
from studies.pareto import Interval, Standing, standings
from studies.plan import Plan, load_plan
from studies.statistics import Estimate, mean_interval

MODEL_FILES = ("graph.json", "weights.safetensors")
"""what an export needs to run; the labelled samples and the processor lie beside them"""


@dataclass(frozen=True, slots=True)
class Row:
    """One student of one seed on one machine. The fields up to `reason` are the declared result columns:
    serial and parallel runs, and two computers, must agree on them."""

    student: str
    seed: int
    machine: str
    status: str
    """ok, refused, failed, or missing (not run yet)"""
    accuracy: float | None = None
    correct: int | None = None
    total: int | None = None
    energy_pj_low: float | None = None
    energy_pj: float | None = None
    energy_pj_high: float | None = None
    latency_cycles_cold: int | None = None
    latency_cycles_steady: int | None = None
    latency_s_cold: float | None = None
    latency_s_steady: float | None = None
    weight_bytes: int | None = None
    peak_activation_bytes: int | None = None
    area_um2: float | None = None
    unequal_tensors: int | None = None
    compared_tensors: int | None = None
    verified_samples: int | None = None
    model_sha256: str | None = None
    machine_sha256: str | None = None
    share_assumed_frac: float | None = None
    """share of the joules that rests on unit energies without a source"""
    side_array_cycles_frac: float | None = None
    side_array_energy_frac: float | None = None
    """shares of the arrays after the machine's first: what the main array's formats exclude"""
    reason: str | None = None
    components_pj: Mapping[str, float] = field(default_factory=dict)
    energy_terms: Sequence[EnergyTerm] = ()
    """what the energy is drawn from, jointly with that of every other row (`studies.draws`)"""
    not_modelled: tuple[str, ...] = ()


COLUMNS = tuple(
    f.name for f in fields(Row) if f.name not in ("components_pj", "energy_terms", "not_modelled")
)


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
    """A student on a machine: mean accuracy over seeds with its t interval, costs with their 5-95 % band.

    Costs depend on shapes and formats, not on trained values, up to how many thresholds a layer has; the
    ends of the band are the means over seeds of the rows' ends.
    """

    student: str
    machine: str
    rows: tuple[Row, ...]
    accuracy: Estimate
    energy_pj: Interval
    latency_s: Interval
    """steady; exact within the model, so without a band"""

    @property
    def accuracy_bar(self) -> Interval:
        """The accuracy with its error bar; a single seed has none."""
        a = self.accuracy
        low = a.mean if a.low is None else a.low
        high = a.mean if a.high is None else a.high
        return Interval(low, a.mean, high)

    def cost(self, objective: str) -> Interval:
        """Return the cost that an objective of the study names."""
        return {"energy_pj": self.energy_pj, "latency_s": self.latency_s}[objective]


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
    def teacher(self) -> str:
        """Name of the float32 teacher."""
        return str(self.plan.study["teacher"]["name"])

    @property
    def students(self) -> list[str]:
        """Names of the students in the study's order."""
        return [str(s["name"]) for s in self.plan.study["students"]]

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


def judged(points: Sequence[Point], objective: str) -> list[tuple[Point, Standing]]:
    """Return each point with its standing on the front of accuracy against one cost."""
    costs = [p.cost(objective) for p in points]
    return list(zip(points, standings([p.accuracy_bar for p in points], costs), strict=True))


def load_results(folder: Path) -> Results:
    """Read a study folder: the plan says what belongs to the study, the ledger what came of it.

    Raises:
        CheckpointError: no study was run there.
        LedgerError: the ledger is damaged, or its rows are those of an older version.
    """
    plan = load_plan(folder)
    ids = plan.by_id
    attempts = {k: a for k, a in view(read(folder / FILE_NAME)).items() if k in ids}
    rows: list[Row] = []
    trained: list[Trained] = []
    exported: list[Exported] = []
    for node in plan.nodes:
        attempt = attempts.get(node.id)
        done = attempt if attempt is not None and attempt.status in FINAL else None
        student, seed = str(node.tags["student"]), int(node.tags["seed"])
        if node.kind == "evaluate":
            rows.append(_row(student, seed, str(node.tags["machine"]), attempt))
        elif done is not None and done.result is not None:
            if node.kind == "train":
                trained.append(_trained(student, seed, done.result))
            else:
                exported.append(Exported(student, seed, done.result["bytes"], done.result["rungs"]))
    return Results(folder, plan, attempts, tuple(rows), tuple(trained), tuple(exported))


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the declared result columns, units in their names, one line a row."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)


def _row(student: str, seed: int, machine: str, attempt: Attempt | None) -> Row:
    if attempt is None:
        return Row(student, seed, machine, "missing")
    if attempt.result is None:
        return Row(student, seed, machine, attempt.status, reason=attempt.error)
    r = attempt.result
    if "energy_terms" not in r:
        raise LedgerError(
            f"{attempt.label}: measured by a version that did not keep what its energy rests on;"
            " run the study again with --fresh"
        )
    return Row(
        student,
        seed,
        machine,
        attempt.status,
        accuracy=r["accuracy"]["value"],
        correct=r["accuracy"]["correct"],
        total=r["accuracy"]["total"],
        energy_pj_low=r["energy_pj"]["low"],
        energy_pj=r["energy_pj"]["nominal"],
        energy_pj_high=r["energy_pj"]["high"],
        latency_cycles_cold=r["latency_cycles"]["cold"],
        latency_cycles_steady=r["latency_cycles"]["steady"],
        latency_s_cold=r["latency_s"]["cold"],
        latency_s_steady=r["latency_s"]["steady"],
        weight_bytes=r["weight_bytes"],
        peak_activation_bytes=r["peak_activation_bytes"],
        area_um2=r["area_um2"],
        unequal_tensors=r["verify"]["unequal_tensors"],
        compared_tensors=r["verify"]["compared_tensors"],
        verified_samples=r["verify"]["samples"],
        model_sha256=r["hashes"]["model"],
        machine_sha256=r["hashes"]["machine"],
        share_assumed_frac=r["share_assumed_frac"],
        side_array_cycles_frac=r["side_arrays"]["cycles_frac"],
        side_array_energy_frac=r["side_arrays"]["energy_frac"],
        components_pj=r["energy_by_component_pj"],
        energy_terms=r["energy_terms"],
        not_modelled=tuple(r["not_modelled"]),
    )


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


def _mean(values: Iterable[float | None]) -> float:
    numbers = [v for v in values if v is not None]
    return math.fsum(numbers) / len(numbers)


def _point(student: str, machine: str, rows: Sequence[Row]) -> Point:
    latency_s = _mean(r.latency_s_steady for r in rows)
    return Point(
        student,
        machine,
        tuple(rows),
        mean_interval([r.accuracy for r in rows if r.accuracy is not None], bounds=(0.0, 1.0)),
        Interval(
            _mean(r.energy_pj_low for r in rows),
            _mean(r.energy_pj for r in rows),
            _mean(r.energy_pj_high for r in rows),
        ),
        Interval(latency_s, latency_s, latency_s),
    )
