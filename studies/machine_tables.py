"""The report's tables of the machines: what each is, and what each student costs and saves on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studies.cost_tables import MANY
from studies.criteria import ENERGY_TERMS, scores_by_seed
from studies.iso_accuracy import cost_ratio, gain_difference
from studies.paired import ONE_SEED
from studies.quantities import Judged
from studies.table import Point, Results
from studies.tables import NOTHING, Cell, Line, Table, difference_cell
from studies.text import COST_NAMES, SPACE, cost_text, ratio_band, score_text, times


def machine_tables(judged: Judged) -> list[Table]:
    """Return the tables that there is something for: of few machines what they are, of several students what they save."""
    return [t for t in (facts_table(judged.results), saving_table(judged)) if t is not None]


def facts_table(results: Results) -> Table | None:
    """What each machine is; None of very many, or of a ledger that was written before rows said so."""
    known = {} if len(results.machines) > MANY else facts_by_machine(results)
    if not known:
        return None
    text = "The main figures of each machine; its file has the rest."
    unknowns = {f["dram"]["unknown"] for f in known.values()}
    if len(unknowns) > 1:
        text += (
            " Off-chip memories of different kinds have energies of different sources, and are drawn independently: where much"
            " of the energy is off-chip, machines compare no better than these figures do."
        )
    notes = [f"{name}: {note}." for name, f in known.items() for note in f["notes"]]
    table = Table(
        "What the machines are",
        " ".join([text, *notes]),
        ["Machine", "clock", "arrays", "memories", "off-chip", "pJ a bit off-chip"],
    )
    for name, found in known.items():
        value, low, high = found["dram"]["pj_per_bit"]
        memories = [f"{n}: {count / 1024:,.0f} KiB" for n, count in found["memories_bytes"].items()]
        cells = [
            Cell(name),
            Cell(f"{found['clock_hz'] / 1e6:g}{SPACE}MHz"),
            _listed(found["arrays"]),
            _listed(memories),
            Cell(f"{found['dram']['bytes_per_s'] / 1e9:g}{SPACE}GB/s"),
            Cell(f"{value:g}", f"{low:g} to {high:g}"),
        ]
        table.rows.append(Line(cells))
    return table


def _listed(parts: Sequence[str]) -> Cell:
    return Cell(parts[0], "; ".join(parts[1:]))


def facts_by_machine(results: Results) -> dict[str, Mapping[str, Any]]:
    """Return machine -> its facts, as the evaluations left them (`hwsim.report.facts`)."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in results.rows:
        attempt = results.attempts.get(row.node)
        if attempt is not None and attempt.result is not None and "machine" in attempt.result:
            found.setdefault(row.machine, attempt.result["machine"])
    return {machine: found[machine] for machine in results.machines if machine in found}


def saving_table(judged: Judged) -> Table | None:
    """What each student costs on a machine against the first student there; None where no machine ran two, or of very many."""
    results = judged.results
    if len(judged.points) > MANY:
        return None
    by_machine: dict[str, list[Point]] = {}
    for point in sorted(judged.points, key=lambda p: results.students.index(p.student)):
        by_machine.setdefault(point.machine, []).append(point)
    several = {machine: points for machine, points in by_machine.items() if len(points) > 1}
    if not several:
        return None
    objectives = [o for o in judged.objectives if all(o in p.costs for p in judged.points)]
    text = "Against the first student that the machine runs: how many times less each costs"
    if results.trains:
        text += (
            f", and its {results.metric.name} less that one's, in {results.metric.difference_words}, with its 95 % interval: of the"
            f" differences paired by seed; {ONE_SEED}"
        )
    table = Table(
        "What each student saves on a machine",
        f"{text}.",
        [
            "Machine, student" if results.trains else "Machine, model",
            *([results.metric.name, "difference"] if results.trains else []),
            *(head for name in objectives for head in (COST_NAMES[name], "times less")),
        ],
    )
    for machine, points in several.items():
        for point in points:
            table.rows.append(Line(_saving_cells(machine, point, points[0], objectives)))
    return table


def _saving_cells(
    machine: str, point: Point, first: Point, objectives: Sequence[str]
) -> list[Cell]:
    cells = [Cell(f"{machine}, {point.student}")]
    if point.score is not None:
        common = scores_by_seed(point).keys() & scores_by_seed(first).keys()
        against = point is not first and common
        difference = (
            difference_cell(point.metric, gain_difference(point, first)) if against else NOTHING
        )
        cells += [Cell(score_text(point.metric, point.score)), difference]
    for name in objectives:
        cells.append(Cell(cost_text(name, point.cost(name))))
        if point is first:
            cells.append(NOTHING)
            continue
        ratio = cost_ratio(first, point, name)
        cells.append(Cell(times(ratio.nominal), ratio_band(ratio) if name in ENERGY_TERMS else ""))
    return cells
