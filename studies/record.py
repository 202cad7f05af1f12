"""`python -m studies.record`: keep a real run as a small result file, and draw the documents' tables from those.

`add` verifies an export on machines, measures it there and writes one JSON file with everything that the
numbers come from; `study` does so with a finished study; `library` verifies models on every machine; `tables` rewrites `docs/results.md` from the files in `studies/results/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli.errors import run_app
from hwsim.errors import CheckpointError
from hwsim.metrics import without_answers
from hwsim.provenance import source_revision
from hwsim.report.figure import render_files
from hwsim.report.table import bytes_text
from studies.bench import SCHEMA as BENCH_SCHEMA
from studies.bench import bench_section
from studies.crosstool.page import SCHEMA as CROSSTOOL_SCHEMA
from studies.crosstool.page import record_section
from studies.curves import curves_figure, families
from studies.fault_curves import faults_figure, faults_file
from studies.host import describe_host
from studies.plan import write_atomically
from studies.record_library import SCHEMA as LIBRARY_SCHEMA
from studies.record_library import collect_library, library_section
from studies.record_study import SCHEMA as STUDY_SCHEMA
from studies.record_study import collect_study, curves_file, study_section
from studies.text import joules, percent, si

SCHEMA = "studies/result/1"
RESULTS_FOLDER = Path("studies/results")
RESULTS_PAGE = Path("docs/results.md")
FLOAT_WEIGHTS = "model.safetensors"

app = typer.Typer(
    help="Result files of real runs, and the tables drawn from them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def add(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of `python -m qat train`.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Its export.")],
    machines: Annotated[
        list[str], typer.Option("--machine", help="Where to run it; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The result file.")],
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Verify on the first N; accuracy is always of all."),
    ] = None,
    notes: Annotated[
        list[str] | None,
        typer.Option("--note", help="What a reader must know of this run; may be repeated."),
    ] = None,
) -> None:
    """Verify and measure an export on machines, and write the result file."""
    result = collect(run, model, machines, samples) | {"notes": notes or []}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(result, indent=1) + "\n")
    typer.echo(f"{out}: {line_of(result)}")


@app.command()
def study(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of a finished `python -m studies.sweep`."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The result file.")],
) -> None:
    """Write the result file of a finished study."""
    result = collect_study(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(result, indent=1) + "\n")
    typer.echo(f"{out}: {result['points']} points, {len(result['front'])} on the front")


@app.command()
def library(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Export folders.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The result file.")],
    samples: Annotated[int, typer.Option(min=1, help="Verify on the first N of each.")] = 2,
) -> None:
    """Verify models on every machine that comes with the package, and write the result file."""
    result = collect_library(models, samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.dumps(result, indent=1) + "\n")
    unequal = sum(row.get("unequal", 0) for row in result["rows"])
    typer.echo(f"{out}: {len(result['rows'])} pairs, {unequal} unequal tensors")


@app.command()
def tables(
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = RESULTS_FOLDER,
    page: Annotated[Path, typer.Option(help="The document to rewrite.")] = RESULTS_PAGE,
) -> None:
    """Rewrite the page of results, and the curves beside it, from the result files."""
    found = load_results(results)
    for result in found:
        if result["schema"] == STUDY_SCHEMA and families(result["students"]):
            drawing = page.parent / curves_file(result["name"])
            drawing.parent.mkdir(parents=True, exist_ok=True)
            render_files(curves_figure(result), drawing, ["svg"])
        if result.get("fault_curves"):
            names = [student["name"] for student in result["students"][1:]]
            drawing = page.parent / faults_file(result["name"])
            drawing.parent.mkdir(parents=True, exist_ok=True)
            render_files(faults_figure(result["fault_curves"], names), drawing, ["svg"])
    write_atomically(page, results_page(found))
    typer.echo(f"{page}: rewritten")


def collect(
    run: Path, model: Path, machines: Sequence[str], samples: int | None = None
) -> dict[str, Any]:
    """Return everything that is known of a trained and exported model, measured now where it can be.

    Args:
        run: folder of the training.
        model: folder of its export.
        machines: names or files.
        samples: tensors are compared on the first N samples, on all for None; accuracies are always of all.
    """
    import hwsim.api
    from hwsim.graph.serialize import load
    from qat.checkpoint import read_run_file

    config = read_run_file(run).config
    exported = load(model)
    on: dict[str, Any] = {}
    for name in machines:
        verification = hwsim.api.verify(exported, name, samples=samples)
        measured = hwsim.api.run(exported, name).to_json()
        on[name] = {
            "unequal_tensors": len(verification.unequal),
            "tensors": verification.tensors,
            "elements": verification.elements,
            "samples": verification.samples,
            **{key: measured[key] for key in MEASURED},
        }
    record = {
        key: value for key, value in exported.record.items() if key not in ("a1", "saturated_share")
    }
    record["a1_operators"] = len(exported.record["a1"])
    record["measured"] = {of: without_answers(m) for of, m in record["measured"].items()}
    teacher = Path(config.teacher) if config.teacher else None
    return {
        "schema": SCHEMA,
        "name": config.name,
        "date": datetime.now(UTC).date().isoformat(),
        "git_revision": source_revision(),
        "host": describe_host(),
        # the folder's name says which run it was; where it lay is of no use to anybody else
        "config": config.model_dump(mode="json", by_alias=True)
        | {"teacher": None if teacher is None else teacher.name},
        "teacher": _trained(teacher) if teacher is not None and teacher.is_dir() else None,
        "student": _trained(run),
        "rungs": record,
        "machines": on,
        "bytes": {
            "float32": (run / FLOAT_WEIGHTS).stat().st_size,
            "export": dict(exported.file_bytes),
        },
        "hashes": {"model": exported.sha256},
    }


MEASURED = (
    "accuracy",
    "sequence_length",
    "latency_cycles",
    "latency_s",
    "energy_pj",
    "share_assumed_frac",
    "hashes",
)


def _trained(run: Path) -> dict[str, Any]:
    from qat.checkpoint import read_json
    from qat.result import RESULT_FILE

    result = read_json(run / RESULT_FILE)
    return result | {"tests": {of: without_answers(m) for of, m in result["tests"].items()}}


# -- the page


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Read all result files of a folder, in order of name.

    Raises:
        CheckpointError: a file is damaged or of another schema.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as fault:
            raise CheckpointError(f"{path}: damaged: {fault}") from None
        if result.get("schema") not in SECTIONS:
            raise CheckpointError(
                f"{path}: schema must be one of {', '.join(SECTIONS)}, is {result.get('schema')!r}"
            )
        found.append(result)
    return found


def line_of(result: Mapping[str, Any]) -> str:
    """One line: the metric of every stage, and whether all tensors are equal."""
    stages = ", ".join(f"{stage} {value}" for stage, value in stage_values(result).items())
    unequal = sum(m["unequal_tensors"] for m in result["machines"].values())
    return f"{stages}; {unequal} unequal tensors on {len(result['machines'])} machines"


def stage_values(result: Mapping[str, Any]) -> dict[str, str]:
    """The task's metric at every rung: teacher, student, static student, integer graph, machine."""
    metric = result["student"]["metric"]
    values: dict[str, str] = {}
    if result["teacher"] is not None:
        values["teacher"] = _value(metric, _test(result["teacher"])[metric])
    values["student"] = _value(metric, _test(result["student"])[metric])
    measured = result["rungs"]["measured"]
    values["static student"] = _value(metric, measured["static"]["value"])
    values["integer graph"] = _value(metric, measured["graph"]["value"])
    machines = {_value(metric, m["accuracy"]["value"]) for m in result["machines"].values()}
    values["machine"] = " / ".join(sorted(machines))
    return values


def _test(result: Mapping[str, Any]) -> Mapping[str, Any]:
    first: Mapping[str, Any] = next(iter(result["tests"].values()))
    return first


def _value(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == "perplexity" else percent(value)


def results_page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of results in Markdown."""
    lines = [
        "# Results of real runs",
        "",
        "Generated by `python -m studies.record tables` from the files in `studies/results/`: do not edit. Each file",
        "holds its configuration, seed, revision, machine and date. What chose steps and ranges is a",
        "seeded carve-out of the training set. The held-out part is read after training: by the student, by the export's",
        "rungs, and on every machine. Notes say what else a reader must know.",
        "",
    ]
    for result in results:
        lines += SECTIONS[result["schema"]](result)
    return "\n".join(lines).rstrip() + "\n"


def _section(result: Mapping[str, Any]) -> list[str]:
    student, rungs, sizes = result["student"], result["rungs"], result["bytes"]
    stages = stage_values(result)
    interval = rungs["measured"]["graph"].get("wilson_95")
    bits = rungs["a2_identical_bits"]
    identical = "" if bits is None else f", samples with every 1-bit code identical {percent(bits)}"
    held = "hold" if rungs["holds"] else "do not all hold: " + "; ".join(rungs["failures"])
    packed = sizes["export"]["weights.safetensors"] + sizes["export"]["graph.json"]
    lines = [
        f"## {result['name']}",
        "",
        f"Recipe `{student['recipe']}` on {student['task']}, seed {student['seed']}, {student['steps']} steps"
        f" (kept {student['kept_step']}), {student['wall_s'] / 60:.0f} minutes; revision"
        f" `{(result['git_revision'] or 'unknown')[:12]}`, {result['date']}, {result['host']['processor']}.",
        "",
        f"| {student['metric']} on {rungs['measured']['graph']['total']} | "
        + " | ".join(stages)
        + " |",
        "|---|" + "---|" * len(stages),
        "| | " + " | ".join(stages.values()) + " |",
        "",
    ]
    if interval:
        lines += [
            f"95 % Wilson interval of the integer graph: {percent(interval[0])} to {percent(interval[1])}.",
            "",
        ]
    if len(student["tests"]) > 1:
        lines += [_other_parts(result), ""]
    lines += [
        f"Rungs A1 to A3 {held}. A1 compared {rungs['a1_operators']} operators on {rungs['operator_samples']} samples;"
        f" A2 agreement {percent(rungs['a2_agreement'])}{identical}; A3 agreement {percent(rungs['a3_agreement'])}.",
        "",
        f"On disk: float32 {bytes_text(sizes['float32'])}; integer graph and packed weights {bytes_text(packed)}"
        f" ({sizes['float32'] / packed:.1f} times less).",
        "",
        "| Machine | unequal tensors | samples | latency, steady | energy (5–95 %) | on assumed figures |",
        "|---|---|---|---|---|---|",
    ]
    for name, m in result["machines"].items():
        energy = m["energy_pj"]
        lines.append(
            f"| {name} | {m['unequal_tensors']} of {m['tensors']} | {m['samples']}"
            f" | {si(m['latency_s']['steady'], 's')} | {joules(energy['nominal'])}"
            f" ({joules(energy['low'])}–{joules(energy['high'])}) | {percent(m['share_assumed_frac'])} |"
        )
    lines += ["", *(f"Note: {note}" for note in result.get("notes", ()))]
    return [*lines, ""]


def _other_parts(result: Mapping[str, Any]) -> str:
    """The metric on the further test parts, texts of other distributions for a language model: teacher's and student's."""
    student, metric = result["student"], result["student"]["metric"]
    runs = [run for run in (result["teacher"], student) if run is not None]
    found = [
        f"{part} " + " / ".join(_value(metric, run["tests"][part][metric]) for run in runs)
        for part in list(student["tests"])[1:]
    ]
    who = "teacher / student" if len(runs) > 1 else "student"
    return f"On further parts ({who}, in float32 fake quantisation): {'; '.join(found)}."


SECTIONS = {
    SCHEMA: _section,
    STUDY_SCHEMA: study_section,
    BENCH_SCHEMA: bench_section,
    CROSSTOOL_SCHEMA: record_section,
    LIBRARY_SCHEMA: library_section,
}
"""what each kind of result file looks like on the page"""


def main() -> None:
    """Entry point of `python -m studies.record`."""
    run_app(app, "python -m studies.record")


if __name__ == "__main__":
    main()
