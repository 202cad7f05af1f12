"""The tables of the report: which numbers stand in which cell, and what the text above them says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from studies.metric import Metric
from studies.paired import ONE_SEED, Tested, gain_effect
from studies.row import Row
from studies.statistics import (
    Estimate,
    adjusted_p_values,
    comparisons_text,
    share_interval,
)
from studies.table import Results, Trained
from studies.text import percent


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
MOST_COLUMNS = 12
"""machines that have a column each in the table of verification"""
VERIFY_COUNTS = ("machines", "ok", "with unequal tensors", "refused", "failed or missing")


def score_table(results: Results) -> Table:
    """Score of every training, teacher first; students as their integer graph gave it on a machine."""
    metric = results.metric
    seeds = [int(s) for s in results.plan.study["seeds"]]
    of_rows = f"; {ONE_SEED}" if len(seeds) == 1 and metric.key == "accuracy" else ""
    counted = "Below each value its 95 % Wilson interval (the test set's size); beside it"
    table = Table(
        metric.title,
        f"{_scored(results)} {counted if metric.key == 'accuracy' else 'Beside the values'} "
        "the mean over seeds with its 95 % t interval (the training's luck) and the "
        f"difference to the float32 teachers of the same seeds, in {metric.difference_words}{of_rows}.",
        ["Model", *(f"seed {s}" for s in seeds), "mean", "to teacher"],
    )
    teacher = {t.seed: t for t in results.trained if t.student == results.teacher}
    cells = [_score_cell(metric, teacher.get(s)) for s in seeds]
    table.rows.append(
        Line(
            [
                Cell(f"{results.teacher} (teacher)"),
                *cells,
                _mean_cell(metric, _one_a_model(results, teacher)),
                NOTHING,
            ],
            "teacher",
        )
    )
    found = {student: rows_by_seed(results, student) for student in results.students}
    against_teacher = {s: gain_effect(metric, rows, teacher) for s, rows in found.items()}
    effects = {s: effect for s, effect in against_teacher.items() if effect is not None}
    adjusted = dict(zip(effects, adjusted_p_values(list(effects.values())), strict=True))
    for student, rows in found.items():
        cells = [_score_cell(metric, rows.get(s)) for s in seeds]
        difference = NOTHING
        if student in effects:
            difference = difference_cell(metric, effects[student].difference, adjusted[student])
        mean = _mean_cell(metric, scores_of(rows))
        table.rows.append(Line([Cell(student), *cells, mean, difference]))
    note = comparisons_text(list(effects.values()))
    return replace(table, text=f"{table.text} {note}".rstrip())


def _one_a_model(results: Results, teacher: Mapping[int, Trained]) -> list[float]:
    """Return the teachers' scores, one a model: a checkpoint that is taken as it is is the same one for every seed."""
    scores = [trained.score for trained in teacher.values()]
    length = results.plan.study["teacher"].get("train", {})
    return scores[:1] if length.get("steps") == 0 else scores


def _scored(results: Results) -> str:
    """Say what the scores of students are of: `studies.row.score_of`."""
    samples = results.plan.study.get("samples")
    if samples is None:
        return "Students: the integer graph as the machine executed it."
    return (
        f"Students: the integer graph on all test rows; each machine ran the first {samples} of them and, where nothing is"
        " said to differ, computed every tensor as the graph does."
    )


def _score_cell(metric: Metric, tested: Tested | None) -> Cell:
    if tested is None or tested.score is None:
        return NOTHING
    if tested.correct is None or not tested.total:
        return Cell(metric.text(tested.score))
    interval = share_interval(tested.correct, tested.total)
    return Cell(metric.text(tested.score), metric.range_text(*interval))


def _mean_cell(metric: Metric, values: Iterable[float]) -> Cell:
    numbers = list(values)
    if not numbers:
        return NOTHING
    estimate = metric.mean(numbers)
    if estimate.low is None or estimate.high is None:
        return Cell(metric.text(estimate.mean), "one seed")
    return Cell(metric.text(estimate.mean), metric.range_text(estimate.low, estimate.high))


def difference_cell(metric: Metric, difference: Estimate, p_value: float | None = None) -> Cell:
    """Return a difference of gains as one of scores, below it its interval."""
    text = metric.difference(difference.mean)
    if difference.low is None or difference.high is None:
        return Cell(text, "one pair")
    interval = " to ".join(metric.difference_ends(difference.low, difference.high))
    return Cell(text, interval if p_value is None else f"{interval}, p {p_value:.2g}")


def method_table(results: Results) -> Table | None:
    """Each student that has a control, with their paired difference; None where no student has one."""
    controlled = [s for s in results.plan.study["students"] if s.get("control")]
    if not controlled:
        return None
    metric = results.metric
    table = Table(
        "Methods",
        f"A student against its control, which differs from it in the one thing that is asked about. Difference of {metric.name} in "
        f"{metric.difference_words}: mean of the paired differences over common seeds with its 95 % t interval; {ONE_SEED}. Below six pairs "
        "there is no p-value: it would say nothing that the interval does not. P-values are adjusted for the number of "
        "differences (Holm 1979), intervals are not.",
        ["Student", "recipe", "control", metric.name, "of the control", "difference", "pairs", "p"],
    )
    found = [
        (rows_by_seed(results, p["name"]), rows_by_seed(results, p["control"])) for p in controlled
    ]
    effects = [gain_effect(metric, ours, theirs) for ours, theirs in found]
    adjusted = iter(adjusted_p_values([e for e in effects if e is not None]))
    for part, (ours, theirs), effect in zip(controlled, found, effects, strict=True):
        cells = [Cell(part["recipe"]["name"], kind="left"), Cell(part["control"], kind="left")]
        means = [_mean_cell(metric, scores_of(each)) for each in (ours, theirs)]
        against = [NOTHING, NOTHING, NOTHING]
        if effect is not None:
            p_value = next(adjusted)
            p = NOTHING if p_value is None else Cell(f"{p_value:.2g}")
            against = [difference_cell(metric, effect.difference), Cell(str(len(effect.seeds))), p]
        table.rows.append(Line([Cell(part["name"]), *cells, *means, *against]))
    return table


def rows_by_seed(results: Results, student: str) -> dict[int, Row]:
    """Return a student's row with a score of each seed, of the first machine that ran it: all machines compute the same."""
    found: dict[int, Row] = {}
    for row in results.rows:
        if row.student == student and row.score is not None:
            found.setdefault(row.seed, row)
    return found


def scores_of(rows: Mapping[int, Row]) -> list[float]:
    """Return the scores of rows by seed."""
    return [row.score for row in rows.values() if row.score is not None]


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
    metric = results.metric
    for export in results.exported:
        rungs = export.rungs
        identical = rungs["a2_identical_bits"]
        failures = len(rungs["failures"])
        table.rows.append(
            Line(
                [
                    Cell(f"{export.student}, seed {export.seed}"),
                    *(
                        Cell(metric.text(rungs["measured"][n]["value"]))
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
    many = len(results.machines) > MOST_COLUMNS
    table = Table(
        "Verification",
        "Every tensor of the integer graph, accumulators included, compared for equality between the PyTorch "
        "reference and the machine's packed kernels.",
        ["Student, seed", *(VERIFY_COUNTS if many else results.machines)],
    )
    cells: dict[tuple[str, int], dict[str, Row]] = {}
    for row in results.rows:
        cells.setdefault((row.student, row.seed), {})[row.machine] = row
    for (student, seed), found in cells.items():
        if many:
            shown = _verify_counts(found.values())
        else:
            shown = [_verify_cell(found[m]) if m in found else NOTHING for m in results.machines]
        table.rows.append(Line([Cell(f"{student}, seed {seed}"), *shown]))
    return table


def _verify_counts(rows: Collection[Row]) -> list[Cell]:
    status = Counter(row.status for row in rows)
    unequal = sum(bool(row.unequal_tensors) for row in rows)
    lost = status["failed"] + status["missing"]
    return [
        Cell(f"{len(rows):,}"),
        Cell(f"{status['ok']:,}"),
        Cell(f"{unequal:,}", kind="bad" if unequal else "good"),
        Cell(f"{status['refused']:,}"),
        Cell(f"{lost:,}", kind="bad" if lost else ""),
    ]


def _verify_cell(row: Row) -> Cell:
    if row.status != "ok":
        return Cell(row.status, kind="" if row.status == "refused" else "bad")
    unequal = row.unequal_tensors
    detail = f"of {row.compared_tensors}, {row.verified_samples} samples"
    return Cell(f"{unequal} unequal", detail, "bad" if unequal else "good")
