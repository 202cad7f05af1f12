"""Predictions beside what was published: errors, classes, and a summary of those that prove something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from hwsim.arch.machine import Machine
from hwsim.arch.machine_checks import quantities
from hwsim.arch.targets import ENERGY_METRICS, PEAK, ValidationTargetSpec
from hwsim.config.load import (
    find_machine,
    load_machine,
    load_workload,
    machine_files,
    machines_folder,
)
from hwsim.validation.lock import LOCK_NAME, Lock
from hwsim.validation.predict import Measure, Prediction, fj_per_op, measure, naive
from hwsim.workload import Workload

if TYPE_CHECKING:
    from rich.console import Console

Class = Literal["arithmetic", "calibrated", "underdetermined", "predicted"]
WIDEST_BAND = 2.0
"""a 5-95 % band with a larger ratio of its ends says too little to be right or wrong"""


@dataclass(frozen=True)
class Row:
    """A target and our answer. Errors are (ours - published) / published."""

    machine: str
    target: str
    group: str
    """who published the figure"""
    workload: str
    metric: str
    published: float
    ours: float
    low: float
    high: float
    error: float
    first: float
    """the first prediction that was written down"""
    first_error: float
    changed: bool
    """what the model says now is not in the list of predictions"""
    naive: float | None
    naive_error: float | None
    standing: Class
    why: str
    share_by_provenance: dict[str, float]
    source: str
    note: str


@dataclass(frozen=True)
class Validation:
    """All rows, in the order of machines and of targets in their files."""

    rows: tuple[Row, ...]

    @property
    def changed(self) -> tuple[Row, ...]:
        """Rows whose prediction is another than the last one written down."""
        return tuple(r for r in self.rows if r.changed)

    def summary(self) -> dict[str, Any]:
        """Return the median |error| of the predicted class: ours now, ours at first, and the baseline's.

        A group of authors with many figures outweighs the others in the median of all;
        `median_error_of_groups` is the median of one median a group.
        """
        predicted = [r for r in self.rows if r.standing == "predicted"]
        groups = {r.group for r in predicted}
        both = [r for r in predicted if r.naive_error is not None]
        return {
            "predicted": len(predicted),
            "groups": len(groups),
            "median_error": _median([r.error for r in predicted]),
            "median_first_error": _median([r.first_error for r in predicted]),
            "median_error_of_groups": _median(
                [median(abs(r.error) for r in predicted if r.group == g) for g in groups]
            ),
            "with_baseline": len(both),
            "median_error_with_baseline": _median([r.error for r in both]),
            "median_naive_error": _median(
                [r.naive_error for r in both if r.naive_error is not None]
            ),
            "nearer_than_baseline": sum(
                abs(r.error) < abs(r.naive_error) for r in both if r.naive_error is not None
            ),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {"rows": [asdict(r) for r in self.rows], "summary": self.summary()}

    def render(self, console: Console) -> None:
        """Print the table and the summary."""
        from hwsim.report.validation import print_validation

        print_validation(self, console)


def validate(names: Sequence[str] = (), *, record: bool = False) -> Validation:
    """Hold machines against their published figures.

    A prediction that is not in the list yet is written there before its target is looked at.

    Args:
        names: shipped machines' names or YAML files; all shipped machines when empty.
        record: write down predictions that have changed, too.

    Raises:
        ConfigError: a file is wrong, or there is none.
        DataError: the list of predictions is damaged or cannot be written.
    """
    files = [find_machine(name) for name in names] if names else machine_files()
    return Validation(tuple(row for path in files for row in _machine_rows(path, record)))


def _machine_rows(path: Path, record: bool) -> list[Row]:
    machine = load_machine(path)
    lock = Lock(_lock_folder(path) / LOCK_NAME)
    rows = []
    measures: dict[tuple[object, ...], Measure] = {}  # a run answers every metric asked of it
    for target in machine.spec.validation:
        workload = None if target.workload == PEAK else _workload(target.workload, path.parent)
        run = (target.workload, target.mode, target.operating_point, *target.engines)
        if run not in measures:
            measures[run] = measure(machine, target, workload)
        prediction = measures[run].predict(target)
        before = lock.of(machine.name, target)
        agrees = bool(before) and before[-1].agrees(prediction)
        if not before or (record and not agrees):
            lock.append(machine, target, workload, prediction)
            agrees = True
        first = lock.of(machine.name, target)[0].value
        rows.append(_row(machine, target, workload, prediction, first, changed=not agrees))
    return rows


def _lock_folder(path: Path) -> Path:
    """Return the folder of the list: one for all shipped machines, else beside the file."""
    shipped = machines_folder()
    return shipped if path.is_relative_to(shipped) else path.parent


def _workload(name: str, folder: Path) -> Workload:
    beside = folder / name
    return load_workload(beside if beside.is_file() else name)


def _row(
    machine: Machine,
    target: ValidationTargetSpec,
    workload: Workload | None,
    prediction: Prediction,
    first: float,
    *,
    changed: bool,
) -> Row:
    by_name = {t.name: t for t in machine.spec.validation}
    peak = None if target.baseline is None else by_name[target.baseline]
    baseline = naive(
        machine, target, workload, None if peak is None else fj_per_op(peak.value, peak.metric)
    )
    standing, why = classify(machine, target, workload, prediction)
    return Row(
        machine=machine.name,
        target=target.name,
        group=target.group or machine.name,
        workload=target.workload,
        metric=target.metric,
        published=target.value,
        ours=prediction.value,
        low=prediction.low,
        high=prediction.high,
        error=prediction.value / target.value - 1,
        first=first,
        first_error=first / target.value - 1,
        changed=changed,
        naive=baseline,
        naive_error=None if baseline is None else baseline / target.value - 1,
        standing=standing,
        why=why,
        share_by_provenance=prediction.share_by_provenance,
        source=target.source,
        note=target.note,
    )


def classify(
    machine: Machine,
    target: ValidationTargetSpec,
    workload: Workload | None,
    prediction: Prediction,
) -> tuple[Class, str]:
    """Return how much a match proves, and why; only `predicted` counts.

    It is derived, never claimed: `arithmetic` if the figure follows from the machine's parameters,
    `calibrated` if it set one of the machine's constants, `underdetermined` if an input has no source or
    the band is too wide, else `predicted`.
    """
    if target.metric == "gops":
        return "arithmetic", "follows from size and clock"
    if target.follows_from is not None:
        return "arithmetic", target.follows_from
    set_by_it = [
        ".".join(map(str, path))
        for path, quantity in quantities(machine.spec)
        if quantity.calibrated_by == target.name
    ]
    if set_by_it:
        return "calibrated", f"it set {', '.join(set_by_it)}"
    unknown = [*target.unknown, *([] if workload is None else workload.spec.unknown)]
    if unknown:
        return "underdetermined", f"no source for {'; '.join(unknown)}"
    if target.metric in ENERGY_METRICS and prediction.band_ratio > WIDEST_BAND:
        return "underdetermined", f"the 5-95 % band spans a factor of {prediction.band_ratio:.1f}"
    return "predicted", "every input has a source, and none is this figure"


def _median(errors: Sequence[float]) -> float | None:
    return median(abs(e) for e in errors) if errors else None
