"""The tables of costs: every student on every machine, or of many the front, the extremes and the refusals."""

from __future__ import annotations

from collections.abc import Sequence

from studies.pareto import Standing
from studies.quantities import Judged, Quantity
from studies.row import Row
from studies.table import Point, Results
from studies.tables import NOTHING, Cell, Line, Table
from studies.text import joules, listed, percent, si, tokens_text

REFUSAL_LINES = 3
"""how many lines of a refusal's reason a table shows; the CSV has them all"""
MANY = 60
"""lines of a table that people read"""

COLUMNS_TEXT = (
    "Energy: steady, nominal value and the 5–95 % band of joint draws of the unit "
    "energies. Cold: weights come from where the machine keeps them at rest; steady: weights that fit stay on "
    "chip, the others come in with every inference. Shared unit: the share of energy and cycles of the arrays beside the main one, which run what its "
    "formats exclude. Assumed: the share of the joules that rests on unit energies without a source. A dot "
    "marks the points on the front, a hollow one those that break a constraint; area is that of the chip's parts, "
    "where the machine's file gives all of them."
)
RUN_INFERENCE = (
    "An inference is one test row alone, of sequences the longest{tokens}; hwsim run --cost and "
    "hwsim diff take the longest that the model was built for, which may be longer and then costs more, or what --length says. "
    "Exported models lie in nodes/export-…/model."
)
BUILT_INFERENCE = "An inference is one input alone, of sequences the longest that the model was built for{tokens}."


def cost_tables(judged: Judged) -> list[Table]:
    """Cost of every student on every machine; of many, that of the front and the extremes, and the refusals by reason."""
    results = judged.results
    if len(results.students) * len(results.machines) <= MANY:
        return [machine_table(judged)]
    refused = [r for r in results.rows if r.status != "ok"]
    return [front_table(judged), *([_refusals(refused)] if refused else [])]


def machine_table(judged: Judged) -> Table:
    """Cost of every student on every machine, refusals with their reason."""
    results = judged.results
    by_key = {(p.student, p.machine): p for p in judged.points}
    standing = dict(zip(by_key, judged.standing, strict=True))
    table = Table(
        "Machines",
        f"{_inference(results)} {COLUMNS_TEXT}",
        _head(results),
    )
    for student in results.students:
        for machine in results.machines:
            point = by_key.get((student, machine))
            if point is None:
                table.rows.append(_unmeasured(results, student, machine, len(table.head)))
                continue
            table.rows.append(_point_line(results, point, standing[student, machine]))
    return table


def front_table(judged: Judged) -> Table:
    """Costs of the front's points, the cheapest first, and of the points that are the best in one thing."""
    results = judged.results
    front = judged.front()
    first = judged.quantities[judged.objectives[0]].name.lower()
    text = f"The points on the front, by rising {first}, then those that are the best of all in one thing."
    if len(front) > MANY:
        text += f" Of {len(front):,} points on the front the first {MANY} are here."
    table = Table(
        "Front and extremes",
        f"{text} results.csv has every row. {_inference(results)} {COLUMNS_TEXT}",
        _head(results),
    )
    best: dict[int, list[str]] = {}
    shown = {id(p): p for p in front[:MANY]}
    for quantity in judged.quantities.values():
        able = [p for p in judged.points if quantity.read(p) is not None and not p.infeasible]
        if able:
            point = min(able, key=lambda p: _worth(quantity, p))
            word = "most" if quantity.more_is_better else "least"
            best.setdefault(id(point), []).append(f"{word} {quantity.name.lower()}")
            shown.setdefault(id(point), point)
    standing = {id(p): s for p, s in zip(judged.points, judged.standing, strict=True)}
    for key, point in shown.items():
        line = _point_line(results, point, standing[key])
        named = Cell(line.cells[0].text, listed(best.get(key, [])))
        table.rows.append(Line([named, *line.cells[1:]], line.mark))
    return table


def _worth(quantity: Quantity, point: Point) -> float:
    bar = quantity.read(point)
    assert bar is not None
    return -bar.nominal if quantity.more_is_better else bar.nominal


def _refusals(rows: Sequence[Row]) -> Table:
    """Rows without a result, those with one reason together."""
    table = Table(
        "Without a result",
        "Machines that cannot run a model say what they lack; that is an answer. Failed and missing rows are none.",
        ["Reason", "status", "rows", "for example"],
    )
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.status, row.reason or "not run"), []).append(row)
    most = sorted(alike.items(), key=lambda item: -len(item[1]))
    for (status, reason), found in most[:MANY]:
        kind = "" if status == "refused" else "bad"
        example = f"{found[0].student} on {found[0].machine}"
        cells = [Cell(_first_lines(reason)), Cell(status, kind=kind), Cell(f"{len(found):,}")]
        table.rows.append(Line([*cells, Cell(example, kind="left")], "words"))
    return table


def _inference(results: Results) -> str:
    """Say whose costs the table has: without training no data runs."""
    tokens = tokens_text(results)
    text = RUN_INFERENCE if results.trains else BUILT_INFERENCE
    return text.format(tokens=f" ({tokens})" if tokens else "")


def _head(results: Results) -> list[str]:
    """Return the columns; models that are not trained have no score, and those that are not decoded no costs of a token."""
    return [
        "Student, machine" if results.trains else "Model, machine",
        *([results.metric.name] if results.trains else []),
        "energy",
        "energy cold",
        "latency steady",
        "latency cold",
        *(["energy a token", "latency a token"] if _decodes(results) else []),
        "weights",
        "peak activations",
        "shared unit",
        "assumed",
        "area",
    ]


def _point_line(results: Results, point: Point, standing: Standing) -> Line:
    row = point.rows[0]
    mean = NOTHING if point.score is None else Cell(point.metric.text(point.score.mean))
    token = [_energy_cell(point, "energy_pj_per_token"), _time_cell(row.latency_s_per_token)]
    return Line(
        [
            Cell(f"{point.student}, {point.machine}", point.infeasible or ""),
            *([mean] if results.trains else []),
            _energy_cell(point, "energy_pj"),
            _cold_cell(row),
            _latency_cell(row.latency_s_steady, row.latency_cycles_steady),
            _latency_cell(row.latency_s_cold, row.latency_cycles_cold),
            *(token if _decodes(results) else []),
            _bytes_cell(row.weight_bytes),
            _bytes_cell(row.peak_activation_bytes),
            _share_cell(row),
            NOTHING if row.share_assumed_frac is None else Cell(percent(row.share_assumed_frac)),
            NOTHING if row.area_um2 is None else Cell(f"{row.area_um2 / 1e6:.3f} mm²"),
        ],
        standing if standing in ("front", "infeasible") else "",
    )


def _unmeasured(results: Results, student: str, machine: str, columns: int) -> Line:
    rows = [r for r in results.rows if (r.student, r.machine) == (student, machine)]
    status = rows[0].status if rows else "missing"
    reason = next((r.reason for r in rows if r.reason), "not run")
    shown = _first_lines(reason)
    kind = "wrap" if status == "refused" else "wrap bad"
    return Line([Cell(f"{student}, {machine}"), Cell(status, shown, kind, columns - 1)])


def _first_lines(reason: str) -> str:
    lines = reason.splitlines()
    shown = " ".join(line.strip() for line in lines[:REFUSAL_LINES])
    more = len(lines) - REFUSAL_LINES
    return f"{shown} … and {more} more" if more > 0 else shown


def _decodes(results: Results) -> bool:
    return results.plan.study.get("decode") is not None


def _energy_cell(point: Point, name: str) -> Cell:
    band = point.costs.get(name)
    if band is None:
        return NOTHING
    return Cell(joules(band.nominal), f"{joules(band.low)} to {joules(band.high)}")


def _cold_cell(row: Row) -> Cell:
    low, nominal, high = row.energy_pj_cold_low, row.energy_pj_cold, row.energy_pj_cold_high
    if low is None or nominal is None or high is None:
        return NOTHING
    return Cell(joules(nominal), f"{joules(low)} to {joules(high)}")


def _time_cell(seconds: float | None) -> Cell:
    return NOTHING if seconds is None else Cell(si(seconds, "s"))


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
