"""`python -m studies.report DIR`: write figures, table and the self-contained report of a study again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.errors import BitwrightError, MissingExtra
from hwsim.report.figure import Painter, render_files
from studies.fault_curves import FAULTS_FILE, fault_curves, fault_rows, faults_figure, write_faults
from studies.figures import render_inline, study_figures
from studies.plan import write_atomically
from studies.table import Point, Results, load_results, write_csv
from studies.tables import accuracy_table, machine_table, rung_table, size_table, verify_table
from studies.text import answer, listed

REPORT_FILE = "report.html"
CSV_FILE = "results.csv"
FIGURES_FOLDER = "figures"

CAPTIONS: Mapping[str, tuple[str, str]] = {
    "front_energy": (
        "Accuracy against energy",
        "Colour: how the student was trained. Shape: the machine. Vertical bars: 95 % t interval of the mean over "
        "seeds. Horizontal bars: 5–95 % band of the energy over joint draws of its unit energies. The step line "
        "joins the front: at a given energy no measured mean lies above it. Points whose whole bars are beaten by "
        "another point are faint. Hover or focus a mark for its numbers.",
    ),
    "front_latency": (
        "Accuracy against latency",
        "As the figure before, with the steady latency of one inference. Latencies are exact within the machine "
        "model and have no bar.",
    ),
    "energy_by_component": (
        "Where the energy goes",
        "Nominal energy of one inference by component of the machine, mean over seeds: shares as lengths, the total "
        "beside each bar. Hover or focus a part for its joules.",
    ),
    FAULTS_FILE: (
        "Accuracy against bit errors",
        "Every stored bit of one place flips by itself with the rate below. Lines: the mean over draws and seeds. Bands: "
        "the lowest and the highest of them. Dotted: without errors, on the same samples. `faults.csv` holds every draw, "
        "`faults.json` the curves with the 95 % t intervals of their means, which are about the models that were trained.",
    ),
}


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A figure as the template shows it."""

    heading: str
    svg: str
    caption: str


def build_report(folder: Path) -> Path:
    """Write `report.html`, `results.csv` and `figures/` of a study folder; return the report's path.

    Raises:
        CheckpointError: no study was run there.
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    results = load_results(folder)
    points = results.points()
    study = results.plan.study
    teacher = [t.value for t in results.trained if t.student == results.teacher]
    figures = study_figures(
        points,
        study["objectives"] if results.trains else (),
        results.students,
        results.machines,
        math.fsum(teacher) / len(teacher) if teacher else None,
    )
    curves = fault_curves(results.plan, results.attempts)
    if curves:
        figures[FAULTS_FILE] = faults_figure(curves, results.students)
        rows = fault_rows(results.plan, results.attempts)
        write_faults(folder / FAULTS_FILE, rows, curves)
    write_csv(folder / CSV_FILE, results.rows)
    (folder / FIGURES_FOLDER).mkdir(exist_ok=True)
    for name, painter in figures.items():
        render_files(painter, folder / FIGURES_FOLDER / name)
    path = folder / REPORT_FILE
    write_atomically(path, render_html(results, points, figures))
    return path


def render_html(results: Results, points: list[Point], figures: Mapping[str, Painter]) -> str:
    """Return the report as one HTML text that loads nothing."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtra("jinja2", "report") from None
    template = files("studies").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    blocks = [
        FigureBlock(
            CAPTIONS[name][0],
            Markup(render_inline(painter, name, CAPTIONS[name][0])),
            CAPTIONS[name][1],
        )
        for name, painter in figures.items()
    ]
    return environment.from_string(template).render(
        study=results.plan.study,
        date=datetime.now(UTC).strftime("%-d %B %Y"),
        answer=answer(results),
        problems=problems(results),
        figures=blocks,
        tables=[machine_table(results, points)]
        if not results.trains
        else [
            accuracy_table(results),
            machine_table(results, points),
            rung_table(results),
            size_table(results),
            verify_table(results),
        ],
        not_modelled=not_modelled(results),
        provenance=provenance(results),
        hashes=hashes(results),
        reproduce=reproduce(results),
    )


def problems(results: Results) -> list[str]:
    """Return what a reader must know before believing the figures: unequal tensors, failures, gaps."""
    found = [
        f"{row.student} seed {row.seed} on {row.machine}: {row.unequal_tensors} tensors differ from the reference"
        for row in results.rows
        if row.unequal_tensors
    ]
    found += [
        f"{export.student} seed {export.seed}: {failure}"
        for export in results.exported
        for failure in export.rungs["failures"]
    ]
    found += [f"{a.label} failed: {a.error}" for a in results.failures]
    samples = results.plan.study.get("samples")
    if samples is not None:
        found.append(
            f"students were run on the first {samples} test samples at most, teachers on all of them: "
            "their accuracies are not of the same samples"
        )
    missing = sum(row.status == "missing" for row in results.rows)
    if missing:
        found.append(f"{missing} of {len(results.rows)} rows are not there yet")
    by_model: dict[tuple[str, int], set[float]] = {}
    for row in results.rows:
        if row.accuracy is not None:
            by_model.setdefault((row.student, row.seed), set()).add(row.accuracy)
    found += [
        f"{student} seed {seed}: machines disagree on the accuracy of one model"
        for (student, seed), values in by_model.items()
        if len(values) > 1
    ]
    return found


def not_modelled(results: Results) -> dict[str, str]:
    """Map each thing that is left out to the machines that leave it out; empty where all do."""
    said: dict[str, list[str]] = {}
    measured = list(dict.fromkeys(r.machine for r in results.rows if r.status == "ok"))
    for row in results.rows:
        for item in row.not_modelled:
            names = said.setdefault(item, [])
            if row.machine not in names:
                names.append(row.machine)
    return {k: "" if len(v) == len(measured) else listed(v) for k, v in said.items()}


def provenance(results: Results) -> list[tuple[str, str]]:
    """Return where and with what the rows were made."""
    attempts = [a for a in results.attempts.values() if a.status != "failed"]
    volatile = [a.volatile for a in attempts]

    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(sorted({str(v) for v in values if v})) or "unknown"

    dates = sorted(str(v["date"]) for v in volatile)
    seconds = math.fsum(float(v["seconds"]) for v in volatile)
    study = results.plan.study
    return [
        ("Study", f"{study['name']}, SHA-256 {results.plan.study_sha256[:16]}…"),
        *_training_provenance(study),
        ("Made", f"{dates[0]} to {dates[-1]}" if dates else "nothing yet"),
        ("Compute", f"{seconds:,.0f} s of nodes in {len(attempts)} finished nodes"),
        ("Hosts", distinct(v["host"] for v in volatile)),
        ("Git revisions", distinct(v["git_revision"] for v in volatile)),
        ("Ledger", "ledger.jsonl beside this report holds every attempt with its spec"),
    ]


def _training_provenance(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    if study["task"] is None:
        return [("Models", "not trained: random weights, costs alone")]
    seeds = listed([str(s) for s in study["seeds"]])
    return [
        ("Task", str(study["task"].get("name") or study["task"].get("label"))),
        ("Seeds", f"{seeds} (paired: data, teacher and order are shared)"),
    ]


def hashes(results: Results) -> list[tuple[str, str]]:
    """Return the hashes that tie the rows to their models and machines."""
    models = {(r.student, r.seed): r.model_sha256 for r in results.rows if r.model_sha256}
    machines = {r.machine: r.machine_sha256 for r in results.rows if r.machine_sha256}
    return [
        *((f"{student}, seed {seed}", str(h)) for (student, seed), h in models.items()),
        *((name, str(h)) for name, h in machines.items()),
    ]


def reproduce(results: Results) -> str:
    """Return the commands that make this study again from nothing."""
    revision = next(
        (
            a.volatile["git_revision"]
            for a in results.attempts.values()
            if a.volatile["git_revision"]
        ),
        None,
    )
    invocation = str(results.plan.invocation)
    lines = [f"git checkout {str(revision).removesuffix('-dirty')}"] if revision else []
    if revision and str(revision).endswith("-dirty"):
        lines.append("# and the changes that were not committed when this was made")
    return "\n".join((*lines, "make setup", f".venv/bin/{invocation}"))


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
