"""`python -m studies.report DIR`: write figures, table and the self-contained report of a study again."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hwsim.errors import BitwrightError, MissingExtra
from studies.collector import collector_paused
from studies.columns import all_columns, result_records
from studies.cost_tables import MANY, cost_tables
from studies.fault_curves import (
    FAULT_COLUMNS,
    FAULTS_FILE,
    fault_curves,
    fault_rows,
    faults_figure,
    write_faults,
)
from studies.figures import StudyFigure, study_figures
from studies.front import Front, front_of
from studies.front_tables import equal_score_table, front_table, share_table
from studies.latex import latex_tables
from studies.machine_tables import machine_tables
from studies.page import page_json
from studies.plan import write_atomically
from studies.provenance import hashes, provenance, reproduce
from studies.quantities import Judged, judge
from studies.row import write_csv
from studies.sql import write_parquet
from studies.table import Results, load_results
from studies.tables import (
    Table,
    method_table,
    rung_table,
    score_table,
    size_table,
    verify_table,
)
from studies.text import answer, listed

REPORT_FILE = "report.html"
CSV_FILE = "results.csv"
PARQUET_FILE = "results.parquet"
TABLE_FILE = "table.tex"
FIGURES_FOLDER = "figures"
MOST_HASHES = 200
MOST_NAMES = 12
RUNGS_PAGE = "docs/verify.md, 'When a rung of the export fails',"
FAULTS_CAPTION = (
    "Every stored bit of one place flips by itself with the rate below. Lines: the mean over draws and seeds. Bands: "
    "the lowest and the highest of them. Dotted: without errors, on the same samples. `figures/faults.csv` holds every draw, "
    "`faults.json` the curves with the 95 % t intervals of their means, which are about the models that were trained."
)


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A figure as the template shows it."""

    heading: str
    svg: str
    caption: str
    is_front: bool
    """the interactive front shows it, too; it stays for print and for pages without scripts"""


@collector_paused()
def build_report(folder: Path) -> Path:
    """Write `report.html`, `results.csv`, `results.parquet`, `table.tex` and `figures/` of a study folder; return the report's path.

    Raises:
        CheckpointError: no study was run there.
        MissingExtra: matplotlib, jinja2 or duckdb is not installed.
    """
    results = load_results(folder)
    judged = judge(results)
    teacher = [t.score for t in results.trained if t.student == results.teacher]
    figures = study_figures(judged, math.fsum(teacher) / len(teacher) if teacher else None)
    curves = fault_curves(results.plan, results.attempts)
    if curves:
        drawn = fault_rows(results.plan, results.attempts)
        write_faults(folder / FAULTS_FILE, curves)
        figures[FAULTS_FILE] = StudyFigure(
            f"{results.metric.title} against bit errors",
            FAULTS_CAPTION,
            faults_figure(curves, results.students),
            FAULT_COLUMNS,
            [[getattr(row, name) for name in FAULT_COLUMNS] for row in drawn],
        )
    write_csv(folder / CSV_FILE, results.rows)
    write_parquet(folder / PARQUET_FILE, result_records(results), all_columns())
    write_atomically(folder / TABLE_FILE, latex_tables(judged))
    (folder / FIGURES_FOLDER).mkdir(exist_ok=True)
    blocks = [
        FigureBlock(
            figure.heading,
            figure.write(folder / FIGURES_FOLDER / name),
            figure.caption,
            figure.is_front,
        )
        for name, figure in figures.items()
    ]
    path = folder / REPORT_FILE
    write_atomically(path, render_html(judged, blocks))
    return path


def render_html(judged: Judged, figures: Sequence[FigureBlock]) -> str:
    """Return the report as one HTML text that loads nothing."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtra("jinja2", "report") from None
    environment = Environment(
        loader=PackageLoader("studies"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results = judged.results
    front = front_of(results, list(judged.points))
    known = hashes(results)
    return environment.get_template("report.html.j2").render(
        study=results.plan.study,
        date=datetime.now(UTC).strftime("%-d %B %Y"),
        answer=answer(results, judged.points, front),
        problems=problems(results),
        data=Markup(page_json(judged)) if judged.points else "",
        figures=figures,
        tables=tables(judged, front),
        many=MANY,
        not_modelled=not_modelled(results),
        provenance=provenance(results),
        hashes=known[:MOST_HASHES],
        more_hashes=max(0, len(known) - MOST_HASHES),
        reproduce=reproduce(results),
    )


def tables(judged: Judged, front: Front) -> list[Table]:
    """Return the tables of a report in their order; of hardware alone there are costs and nothing else."""
    results = judged.results
    fronts = [front_table(front), share_table(front)] if front.points else []
    machines = machine_tables(judged)
    if not results.trains:
        return [*fronts, *machines, *cost_tables(judged)]
    if fronts and front.metric is not None:
        fronts.insert(1, equal_score_table(front, front.metric))
    methods = method_table(results)
    return [
        score_table(results),
        *([] if methods is None else [methods]),
        *fronts,
        *machines,
        *cost_tables(judged),
        rung_table(results),
        size_table(results),
        verify_table(results),
    ]


def problems(results: Results) -> list[str]:
    """Return what a reader must know before believing the figures: unequal tensors, failures, gaps."""
    found = [
        f"{row.student} seed {row.seed} on {row.machine}: {row.unequal_tensors} tensors differ from the reference"
        for row in results.rows
        if row.unequal_tensors
    ]
    found += [
        f"{export.student} seed {export.seed}: {failure}; {RUNGS_PAGE} says what that means"
        for export in results.exported
        for failure in export.rungs["failures"]
    ]
    found += [f"{a.label} failed: {a.error}" for a in results.failures]
    missing = sum(row.status == "missing" for row in results.rows)
    if missing:
        found.append(f"{missing} of {len(results.rows)} rows are not there yet")
    by_model: dict[tuple[str, int], set[float]] = {}
    for row in results.rows:
        if row.score is not None:
            by_model.setdefault((row.student, row.seed), set()).add(row.score)
    found += [
        f"{student} seed {seed}: machines disagree on the {results.metric.name} of one model"
        for (student, seed), values in by_model.items()
        if len(values) > 1
    ]
    return found


def not_modelled(results: Results) -> dict[str, str]:
    """Map each thing that is left out to the machines that leave it out; empty where all do."""
    said: dict[str, dict[str, None]] = {}  # a dict keeps the machines' order
    measured = {r.machine for r in results.rows if r.status == "ok"}
    for row in results.rows:
        for item in row.not_modelled:
            said.setdefault(item, {})[row.machine] = None
    return {k: "" if len(v) == len(measured) else _some(list(v)) for k, v in said.items()}


def _some(names: Sequence[str]) -> str:
    """List names, of very many the first."""
    if len(names) <= MOST_NAMES:
        return listed(names)
    return listed([*names[:MOST_NAMES], f"{len(names) - MOST_NAMES:,} more"])


def main(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="a study's folder (the sweep's --out)")
    ],
) -> None:
    """Write the report, the CSV and the figures of a study folder again, from its ledger alone."""
    try:
        print(build_report(folder))
    except BitwrightError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
