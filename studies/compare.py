"""`python -m studies.compare A B`: two studies side by side, where they have a student and a machine in common.

Differences are B - A, ratios B / A. Scores are paired by seed; costs are nominal, means over the same seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli.errors import run_app
from hwsim.errors import ConfigError
from studies.ledger import FINAL
from studies.markdown import markdown_table
from studies.metric import METRICS, Metric
from studies.paired import ONE_SEED, gain_effect
from studies.plan import write_atomically
from studies.row import EVALUATIONS, Row
from studies.statistics import Effect
from studies.table import Results, load_results
from studies.text import joules, si

SCHEMA = "studies/comparison/2"
Key = tuple[str, str]
"""student and machine"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Mean:
    """What one study has of a student on a machine: means over the seeds that are compared."""

    score: float | None
    """by the task's metric; None in a study that measures hardware alone"""
    energy_pj: float
    latency_s: float
    """steady"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A student on a machine that both studies finished."""

    student: str
    machine: str
    seeds: tuple[int, ...]
    """what both have; if none, the means are of all seeds that each has, and there is no effect"""
    a: Mean
    b: Mean
    score: Effect | None
    """B - A, paired by seed, in gains (`studies.metric`): positive where B is better"""
    energy_ratio: float
    latency_ratio: float
    identical_models: int
    """at how many of the seeds both exported the same bytes"""
    same_machine: bool
    """whether the resolved machine files are equal"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two studies side by side, in the order of the first."""

    a: str
    b: str
    metric: str
    pairs: tuple[Pair, ...]
    only_a: Mapping[str, str]
    """`student on machine` that A finished alone -> what came of it in B"""
    only_b: Mapping[str, str]
    notes: tuple[str, ...]
    """what differs although its name is the same"""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, with the schema's name."""
        return {"schema": SCHEMA, **asdict(self)}


def compare_studies(a: Results, b: Results) -> Comparison:
    """Set two studies side by side.

    Raises:
        ConfigError: their scores are not of the same question: another task, metric, number of test rows
            or schema of exports; names all of it at once.
    """
    faults = _obstacles(a, b)
    if faults:
        raise ConfigError([f"{a.folder} and {b.folder} cannot be compared: {f}" for f in faults])
    found_a, found_b = _finished(a), _finished(b)
    return Comparison(
        str(a.folder),
        str(b.folder),
        a.metric.key,
        tuple(
            _pair(a.metric, key, found_a[key], found_b[key]) for key in found_a if key in found_b
        ),
        _alone(found_a, found_b, b),
        _alone(found_b, found_a, a),
        tuple(_notes(a, b)),
    )


def _obstacles(a: Results, b: Results) -> list[str]:
    """Return what makes two scores incomparable."""
    task_a, task_b = (r.plan.study["task"] or {} for r in (a, b))  # hardware alone has no task
    keys = [key for key in {**task_a, **task_b} if task_a.get(key) != task_b.get(key)]
    found = [f"task.{key} is {task_a.get(key)!r} and {task_b.get(key)!r}" for key in keys]
    for what, of_a, of_b in (
        ("metric", {t.metric for t in a.trained}, {t.metric for t in b.trained}),
        ("number of test rows", _totals(a), _totals(b)),
        ("schema of exports", _made(a, "graph_schema"), _made(b, "graph_schema")),
    ):
        # what nothing is known of is no obstacle, but noted
        if of_a and of_b and of_a != of_b:
            found.append(f"{what} is {_listed(of_a)} and {_listed(of_b)}")
    return found


def _totals(results: Results) -> set[int]:
    return {row.total for row in results.rows if row.total is not None}


def _made(results: Results, key: str) -> set[str]:
    """Return what the attempts at evaluations say they were made with."""
    done = (a for a in results.attempts.values() if a.kind in EVALUATIONS and a.status in FINAL)
    values = ({**a.volatile.get("environment", {}), **a.volatile}.get(key) for a in done)
    return {str(value) for value in values if value is not None}


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))


def _finished(results: Results) -> dict[Key, dict[int, Row]]:
    """Return the rows with numbers, by seed."""
    found: dict[Key, dict[int, Row]] = {}
    for row in results.rows:
        if row.status == "ok":
            found.setdefault((row.student, row.machine), {})[row.seed] = row
    return found


def _pair(metric: Metric, key: Key, a: Mapping[int, Row], b: Mapping[int, Row]) -> Pair:
    seeds = tuple(sorted(a.keys() & b.keys()))
    mean_a = _mean([a[s] for s in seeds or a])
    mean_b = _mean([b[s] for s in seeds or b])
    effect = gain_effect(metric, b, a)
    return Pair(
        *key,
        seeds,
        mean_a,
        mean_b,
        effect,
        mean_b.energy_pj / mean_a.energy_pj,
        mean_b.latency_s / mean_a.latency_s,
        sum(a[s].model_sha256 == b[s].model_sha256 for s in seeds),
        {r.machine_sha256 for r in a.values()} == {r.machine_sha256 for r in b.values()},
    )


def _mean(rows: Sequence[Row]) -> Mean:
    def over(name: str) -> float:
        return math.fsum(getattr(row, name) for row in rows) / len(rows)

    measured = all(row.score is not None for row in rows)
    score = over("score") if measured else None
    return Mean(score, over("energy_pj"), over("latency_s_steady"))


def _alone(
    mine: Mapping[Key, object], theirs: Mapping[Key, object], other: Results
) -> dict[str, str]:
    """Return what one study finished and the other did not, with what came of it there."""
    came: dict[Key, list[str]] = {}
    for row in other.rows:
        came.setdefault((row.student, row.machine), []).append(row.status)
    return {
        " on ".join(key): _listed(set(came.get(key, ["not asked"])))
        for key in mine
        if key not in theirs
    }


def _notes(a: Results, b: Results) -> list[str]:
    """Say what has the same name and is not the same, and what cannot be known."""
    found = []
    students_b = {s["name"]: s for s in b.plan.study["students"]}
    for student in a.plan.study["students"]:
        other = students_b.get(student["name"], student)
        keys = [k for k in {**student, **other} if student.get(k) != other.get(k)]
        if keys:
            found.append(f"student '{student['name']}' differs in {', '.join(keys)}")
    if a.plan.study.get("teacher") != b.plan.study.get("teacher"):
        found.append("the teachers differ")
    hashes_a, hashes_b = (r.plan.study.get("machine_sha256", {}) for r in (a, b))
    found += [
        f"machine '{name}' is not the same: {sha256[:12]} in A, {hashes_b[name][:12]} in B"
        for name, sha256 in hashes_a.items()
        if hashes_b.get(name, sha256) != sha256
    ]
    sources_a, sources_b = _made(a, "sources_sha256"), _made(b, "sources_sha256")
    if sources_a and sources_b and sources_a != sources_b:
        found.append("the evaluations were made by different versions of hwsim")
    for name, results in (("A", a), ("B", b)):
        if _finished(results) and not _made(results, "graph_schema"):
            found.append(f"{name} does not say which schema its exports have")
    return found


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown that reads as well on a terminal."""
    metric = METRICS[comparison.metric]
    head = ["student", "machine", "seeds", f"{metric.name} A", f"{metric.name} B"]
    head.append(f"B - A, {metric.difference_unit}")
    head += ["energy A", "energy B", "B / A", "latency A", "latency B", "B / A", "same model"]
    lines = [f"A: {comparison.a}  ", f"B: {comparison.b}", ""]
    if comparison.pairs:
        lines += [*markdown_table(head, [_line(metric, pair) for pair in comparison.pairs]), ""]
        lines.append(
            f"Differences are paired by seed, with their 95 % t interval; {ONE_SEED}. Costs are nominal means over the same seeds."
        )
    else:
        lines.append("No student on a machine is finished in both.")
    for name, found in (("A", comparison.only_a), ("B", comparison.only_b)):
        if found:
            other = "B" if name == "A" else "A"
            lines += ["", f"Only in {name}:", ""]
            lines += [f"- {key} (in {other}: {what})" for key, what in found.items()]
    if comparison.notes:
        lines += ["", "Not the same, or not known:", "", *(f"- {n}" for n in comparison.notes)]
    return "\n".join(lines) + "\n"


def _line(metric: Metric, pair: Pair) -> list[Any]:
    difference = "" if pair.seeds else "no common seed"
    if pair.score is not None:
        d = pair.score.difference
        difference = metric.difference(d.mean)
        if d.low is not None and d.high is not None:
            difference += f" ({' to '.join(metric.difference_ends(d.low, d.high))})"
    return [
        pair.student,
        pair.machine if pair.same_machine else f"{pair.machine} (differs)",
        len(pair.seeds),
        *("" if m.score is None else metric.text(m.score) for m in (pair.a, pair.b)),
        difference,
        joules(pair.a.energy_pj),
        joules(pair.b.energy_pj),
        f"{pair.energy_ratio:.3f}",
        si(pair.a.latency_s, "s"),
        si(pair.b.latency_s, "s"),
        f"{pair.latency_ratio:.3f}",
        f"{pair.identical_models} of {len(pair.seeds)}",
    ]


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a study.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of another.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the Markdown here, too.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON here.")
    ] = None,
) -> None:
    """Compare two studies: differences are B - A, ratios B / A."""
    comparison = compare_studies(load_results(a), load_results(b))
    text = markdown(comparison)
    typer.echo(text, nl=False)
    if out is not None:
        write_atomically(out, text)
    if json_file is not None:
        write_atomically(json_file, json.dumps(comparison.to_json(), indent=1) + "\n")


def main() -> None:
    """Entry point of `python -m studies.compare`."""
    run_app(app, "python -m studies.compare")


if __name__ == "__main__":
    main()
