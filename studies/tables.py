"""The tables of the report: which numbers stand in which cell, and what the text above them says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from hwsim.metrics import wilson_interval
from studies.statistics import (
    Estimate,
    adjusted_p_values,
    comparisons_text,
    mean_interval,
    paired_effect,
)
from studies.table import Point, Results, Row
from studies.text import joules, percent, percent_range, si

REFUSAL_LINES = 3
"""how many lines of a refusal's reason the table shows; the CSV has them all"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: a value, a small line below it, a CSS class."""

    text: str
    small: str = ""
    kind: str = ""
    span: int = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table, with the CSS class that marks it."""

    cells: Sequence[Cell]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its heading and the sentence that explains it."""

    heading: str
    text: str
    head: Sequence[str]
    rows: list[Line] = field(default_factory=list)


NOTHING = Cell("–")


def accuracy_table(results: Results) -> Table:
    """Accuracy of every training, teacher first; students as their integer graph gave it on a machine."""
    seeds = [int(s) for s in results.plan.study["seeds"]]
    table = Table(
        "Accuracy",
        "Students: the integer graph as the machine executed it. Below each value its 95 % Wilson interval (the "
        "test set's size); beside it the mean over seeds with its 95 % t interval (the training's luck) and the "
        "difference to the float32 teachers of the same seeds, in percentage points.",
        ["Model", *(f"seed {s}" for s in seeds), "mean", "to teacher"],
    )
    teacher = {t.seed: t.value for t in results.trained if t.student == results.teacher}
    counts = {t.seed: (t.correct, t.total) for t in results.trained if t.student == results.teacher}
    cells = [_accuracy_cell(*counts.get(s, (None, None)), teacher.get(s)) for s in seeds]
    table.rows.append(
        Line(
            [Cell(f"{results.teacher} (teacher)"), *cells, _mean_cell(teacher.values()), NOTHING],
            "teacher",
        )
    )
    found = {student: _rows_by_seed(results, student) for student in results.students}
    values = {
        student: {s: r.accuracy for s, r in rows.items() if r.accuracy is not None}
        for student, rows in found.items()
    }
    effects = {s: paired_effect(v, teacher) for s, v in values.items() if v.keys() & teacher.keys()}
    adjusted = dict(zip(effects, adjusted_p_values(list(effects.values())), strict=True))
    for student, rows in found.items():
        cells = [
            _accuracy_cell(rows[s].correct, rows[s].total, rows[s].accuracy)
            if s in rows
            else NOTHING
            for s in seeds
        ]
        difference = NOTHING
        if student in effects:
            difference = points_cell(effects[student].difference, adjusted[student])
        mean = _mean_cell(values[student].values())
        table.rows.append(Line([Cell(student), *cells, mean, difference]))
    note = comparisons_text(list(effects.values()))
    return replace(table, text=f"{table.text} {note}".rstrip())


def _rows_by_seed(results: Results, student: str) -> dict[int, Row]:
    """Return a row with an accuracy of each seed; machines agree on it."""
    found: dict[int, Row] = {}
    for row in results.rows:
        if row.student == student and row.accuracy is not None:
            found.setdefault(row.seed, row)
    return found


def _accuracy_cell(correct: int | None, total: int | None, value: float | None) -> Cell:
    if value is None:
        return NOTHING
    if correct is None or not total:
        return Cell(percent(value))
    return Cell(percent(value), percent_range(*wilson_interval(correct, total)))


def _mean_cell(values: Iterable[float]) -> Cell:
    numbers = list(values)
    if not numbers:
        return NOTHING
    estimate = mean_interval(numbers, bounds=(0.0, 1.0))
    if estimate.low is None or estimate.high is None:
        return Cell(percent(estimate.mean), "one seed")
    return Cell(percent(estimate.mean), percent_range(estimate.low, estimate.high))


def points_cell(difference: Estimate, p_value: float | None = None) -> Cell:
    """Return a difference of accuracies in percentage points, below it its interval."""
    text = f"{100 * difference.mean:+.1f}"
    if difference.low is None or difference.high is None:
        return Cell(text, "one pair")
    interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return Cell(text, interval if p_value is None else f"{interval}, p {p_value:.2g}")


def machine_table(results: Results, points: Sequence[Point]) -> Table:
    """Cost of every student on every machine, refusals with their reason."""
    objective = str(results.plan.study["objectives"][0])
    standing = {(p.student, p.machine): s for p, s in results.judged(points, objective)}
    by_key = {(p.student, p.machine): p for p in points}
    table = Table(
        "Machines",
        "An inference is one sample alone. Energy: nominal value and the 5–95 % band of joint draws of the unit "
        "energies. Cold: weights come from where the machine keeps them at rest; steady: resident weights are on "
        "chip. Shared unit: the share of energy and cycles of the arrays beside the main one, which run what its "
        "formats exclude. Assumed: the share of the joules that rests on unit energies without a source. A dot "
        "marks the points on the front; area is that of the chip's parts, where the machine's file "
        "gives all of them.",
        [
            "Student, machine",
            "accuracy",
            "energy",
            "latency steady",
            "latency cold",
            "weights",
            "peak activations",
            "shared unit",
            "assumed",
            "area",
        ],
    )
    for student in results.students:
        for machine in results.machines:
            point = by_key.get((student, machine))
            if point is None:
                table.rows.append(_unmeasured(results, student, machine, len(table.head)))
                continue
            row = point.rows[0]
            band = point.energy_pj
            table.rows.append(
                Line(
                    [
                        Cell(f"{student}, {machine}"),
                        NOTHING if point.accuracy is None else Cell(percent(point.accuracy.mean)),
                        Cell(joules(band.nominal), f"{joules(band.low)} to {joules(band.high)}"),
                        _latency_cell(row.latency_s_steady, row.latency_cycles_steady),
                        _latency_cell(row.latency_s_cold, row.latency_cycles_cold),
                        _bytes_cell(row.weight_bytes),
                        _bytes_cell(row.peak_activation_bytes),
                        _share_cell(row),
                        NOTHING
                        if row.share_assumed_frac is None
                        else Cell(percent(row.share_assumed_frac)),
                        NOTHING if row.area_um2 is None else Cell(f"{row.area_um2 / 1e6:.3f} mm²"),
                    ],
                    "front" if standing[student, machine] == "front" else "",
                )
            )
    return table


def _unmeasured(results: Results, student: str, machine: str, columns: int) -> Line:
    rows = [r for r in results.rows if (r.student, r.machine) == (student, machine)]
    status = rows[0].status if rows else "missing"
    reason = next((r.reason for r in rows if r.reason), "not run")
    lines = reason.splitlines()
    shown = " ".join(line.strip() for line in lines[:REFUSAL_LINES])
    if len(lines) > REFUSAL_LINES:
        shown += f" … and {len(lines) - REFUSAL_LINES} more"
    kind = "wrap" if status == "refused" else "wrap bad"
    return Line([Cell(f"{student}, {machine}"), Cell(status, shown, kind, columns - 1)])


def _latency_cell(seconds: float | None, cycles: int | None) -> Cell:
    if seconds is None or cycles is None:
        return NOTHING
    return Cell(si(seconds, "s"), f"{cycles:,} cycles")


def _share_cell(row: Row) -> Cell:
    if row.side_array_energy_frac is None or row.side_array_cycles_frac is None:
        return NOTHING
    return Cell(
        percent(row.side_array_energy_frac), f"{percent(row.side_array_cycles_frac)} of cycles"
    )


def _bytes_cell(count: int | None) -> Cell:
    return NOTHING if count is None else Cell(f"{count / 1024:.1f} KiB", f"{count:,} B")


def size_table(results: Results) -> Table:
    """Bytes on disk of every export against its teacher's float32 weights."""
    table = Table(
        "Bytes on disk",
        "As the file system has them. Float32: the teacher's weights file. Export: graph and packed weights, which "
        "is all that an inference needs; the folder also holds the processor and the labelled samples.",
        [
            "Export",
            "float32",
            "weights.safetensors",
            "graph.json",
            "export",
            "float32 : export",
            "whole folder",
        ],
    )
    floats = {t.seed: t.float_bytes for t in results.trained if t.student == results.teacher}
    for export in results.exported:
        float32 = floats.get(export.seed)
        sizes = [export.file_bytes.get(n) for n in ("weights.safetensors", "graph.json")]
        ratio = f"{float32 / export.model_bytes:.1f}" if float32 and export.model_bytes else "–"
        counts = [float32, *sizes, export.model_bytes]
        table.rows.append(
            Line(
                [
                    Cell(f"{export.student}, seed {export.seed}"),
                    *(NOTHING if c is None else Cell(f"{c:,}") for c in counts),
                    Cell(ratio),
                    Cell(f"{sum(export.file_bytes.values()):,}"),
                ]
            )
        )
    return table


def rung_table(results: Results) -> Table:
    """What each step from the trained student to the integer graph changed on the test set."""
    table = Table(
        "From student to integer graph",
        "Test metric of the trained student (fake-quantised floating point), of the static student (ranges frozen "
        "by calibration) and of the integer graph. Rung A1 compares every operator on the static student's own "
        "codes; A2 is the agreement of predictions with the static student, below it the share of samples whose "
        "1-bit codes are all identical; A3 is the agreement with the trained student.",
        [
            "Student, seed",
            "student",
            "static student",
            "integer graph",
            "A2",
            "A3",
            "rungs A1 to A3",
        ],
    )
    for export in results.exported:
        rungs = export.rungs
        identical = rungs["a2_identical_bits"]
        failures = len(rungs["failures"])
        table.rows.append(
            Line(
                [
                    Cell(f"{export.student}, seed {export.seed}"),
                    *(
                        Cell(percent(rungs["measured"][n]["value"]))
                        for n in ("student", "static", "graph")
                    ),
                    Cell(
                        percent(rungs["a2_agreement"]),
                        "" if identical is None else f"{percent(identical)} identical",
                    ),
                    Cell(percent(rungs["a3_agreement"])),
                    Cell(f"{failures} fail", kind="bad") if failures else Cell("hold", kind="good"),
                ]
            )
        )
    return table


def verify_table(results: Results) -> Table:
    """Verification of every row: how many tensors differ from the reference (none may)."""
    table = Table(
        "Verification",
        "Every tensor of the integer graph, accumulators included, compared for equality between the PyTorch "
        "reference and the machine's packed kernels.",
        ["Student, seed", *results.machines],
    )
    cells: dict[tuple[str, int], dict[str, Row]] = {}
    for row in results.rows:
        cells.setdefault((row.student, row.seed), {})[row.machine] = row
    for (student, seed), found in cells.items():
        table.rows.append(
            Line(
                [
                    Cell(f"{student}, seed {seed}"),
                    *(_verify_cell(found[m]) if m in found else NOTHING for m in results.machines),
                ]
            )
        )
    return table


def _verify_cell(row: Row) -> Cell:
    if row.status != "ok":
        return Cell(row.status, kind="" if row.status == "refused" else "bad")
    unequal = row.unequal_tensors
    detail = f"of {row.compared_tensors}, {row.verified_samples} samples"
    return Cell(f"{unequal} unequal", detail, "bad" if unequal else "good")
