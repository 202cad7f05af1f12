"""A finished study as one small result file, and its section of the page of results."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwsim.errors import CheckpointError
from hwsim.metrics import without_answers
from studies.curves import families, metric_of
from studies.fault_curves import fault_curves, faults_section
from studies.host import describe_host
from studies.ledger import FILE_NAME, FINAL, Attempt, read, view
from studies.plan import Plan, load_plan
from studies.record_front import collect_front, front_lines
from studies.row import score_of
from studies.statistics import (
    adjusted_p_values,
    comparisons_text,
    paired_effect,
)
from studies.table import load_results

SCHEMA = "studies/study_result/1"
DESCRIBED = ("name", "recipe_set", "teacher", "layers", "control", "train")


def collect_study(folder: Path) -> dict[str, Any]:
    """Return what a study found: its front and, of a student and a seed, test results, curves, rungs, unequal tensors.

    Raises:
        CheckpointError: nothing was run there, or something of it is not finished.
    """
    plan = load_plan(folder)
    attempts = view(read(folder / FILE_NAME))
    done = {key for key, attempt in attempts.items() if attempt.status in FINAL}
    missing = [node.label for node in plan.nodes if node.id not in done]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(plan.nodes)} nodes are not finished, first {missing[0]}:"
            " run the sweep again"
        )
    study = plan.study
    revisions = {attempts[n.id].volatile.get("git_revision") for n in plan.nodes}
    trained = {} if study["task"] is None else _trained(plan, attempts)
    results = load_results(folder)
    return {
        "schema": SCHEMA,
        "name": study["name"],
        "question": study["question"],
        "date": datetime.now(UTC).date().isoformat(),
        "git_revisions": sorted(r for r in revisions if r),
        "host": describe_host(),
        "task": study["task"],
        "seeds": study["seeds"],
        "samples": study.get("samples"),
        "students": [],
        "machines": len(results.machines),
        **collect_front(results),
        **trained,
    }


def _trained(plan: Plan, attempts: Mapping[str, Attempt]) -> dict[str, Any]:
    """Return `students` with a cell a seed, and the curves of bit errors where there are any."""
    study = plan.study
    found: dict[str, dict[str, Any]] = {}
    for node in plan.nodes:
        if node.kind == "fault":
            continue
        result = attempts[node.id].result
        if node.kind == "train" and result is not None and result["test"] is None:
            continue  # was only compared with others of its length, by a search
        seed = str(node.tags["seed"])
        cell = found.setdefault(str(node.tags["student"]), {}).setdefault(seed, {"machines": {}})
        if result is None:
            cell["machines"][str(node.tags["machine"])] = {"refused": attempts[node.id].error}
        elif node.kind == "train":
            cell |= {key: result[key] for key in ("curve", "steps", "kept_step")}
            cell["test"] = without_answers(result["test"])
        elif node.kind == "export":
            cell["rungs"] = {k: result["rungs"][k] for k in ("holds", "failures")}
            cell["export_bytes"] = sum(result["bytes"].values())
        else:
            cell["machines"][str(node.tags["machine"])] = {
                "accuracy": without_answers(
                    score_of(result, attempts[node.parents[0]].result) or {}
                ),
                "energy_pj": result["energy_pj"]["nominal"],
                "unequal_tensors": result["verify"]["unequal_tensors"],
                "compared_tensors": result["verify"]["compared_tensors"],
            }
    parts = (study["teacher"], *study["students"])
    curves = fault_curves(plan, attempts)
    return {
        "students": [
            {key: part[key] for key in DESCRIBED if part.get(key)}
            | {"recipe": part["recipe"]["name"], "by_seed": found[part["name"]]}
            for part in parts
        ],
    } | (_bit_errors(study, curves) if curves else {})


def _bit_errors(study: Mapping[str, Any], curves: list[dict[str, Any]]) -> dict[str, Any]:
    return {"faults": study["faults"], "machine": study["machines"][0], "fault_curves": curves}


def study_section(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a study's section, in Markdown."""
    answered = front_lines(result) if result.get("front") else []
    if result["students"]:
        return [*_students_section(result), *answered]
    lines = [
        f"## {result['name']}",
        "",
        f"{result['question']} {result['points']} combinations of {result['machines']} machines, costed without training;"
        f" {result['refused']} refused. Revision `{', '.join(r[:12] for r in result['git_revisions'])}`, {result['date']},"
        f" {result['host']['processor']}.",
        "",
    ]
    return [*lines, *answered]


def _students_section(result: Mapping[str, Any]) -> list[str]:
    names = {s["name"]: s for s in result["students"]}
    metric = metric_of(result["students"])
    seeds = len(result["seeds"])
    lines = [
        f"## {result['name']}",
        "",
        f"{result['question']} {seeds} seeds; a student shares teacher, split and data order with its control."
        f" Revision `{', '.join(r[:12] for r in result['git_revisions'])}`, {result['date']},"
        f" {result['host']['processor']}.",
        "",
        f"| Student | recipe | steps | {metric.name} on the machine, mean (95 % t interval) | against its control, {metric.difference_unit} |",
        "|---|---|---|---|---|",
    ]
    values = {name: _values(student) for name, student in names.items()}
    effects = {
        name: paired_effect(metric.gains(values[name]), metric.gains(values[student["control"]]))
        for name, student in names.items()
        if student.get("control") and values[name] and values[student["control"]]
    }
    adjusted = dict(zip(effects, adjusted_p_values(list(effects.values())), strict=True))
    for name, student in names.items():
        steps = next(iter(student["by_seed"].values()))["steps"]
        start = f"| {name} | `{student['recipe']}` | {steps} |"
        if not values[name]:
            lines.append(f"{start} refused by every machine | |")
            continue
        mean = metric.mean(values[name].values())
        against = ""
        if name in effects:
            effect, p_value = effects[name].difference, adjusted[name]
            found = "? to ?"
            if effect.low is not None and effect.high is not None:
                found = " to ".join(metric.difference_ends(effect.low, effect.high))
            found += "" if p_value is None else f", p {p_value:.2g}"
            against = f"{metric.difference(effect.mean)} ({found}) on {student['control']}"
        interval = "no interval: one seed"
        if mean.low is not None and mean.high is not None:
            interval = f"{metric.text(mean.low)} to {metric.text(mean.high)}"
        lines.append(f"{start} {metric.text(mean.mean)} ({interval}) | {against} |")
    note = comparisons_text(list(effects.values()))
    lines += ["", note] if note else []
    cells = [cell for s in result["students"] for cell in s["by_seed"].values()]
    machines = [m for cell in cells for m in cell["machines"].values() if "refused" not in m]
    failed = [cell for cell in cells if not cell.get("rungs", {"holds": True})["holds"]]
    exported = sum("rungs" in cell for cell in cells)
    lines += [
        "",
        f"{sum(m['unequal_tensors'] for m in machines)} unequal tensors in {len(machines)} runs on machines; rungs A1 to A3"
        f" hold on {exported - len(failed)} of {exported} exports.",
        "",
    ]
    if families(result["students"]):
        lines += [
            f"{metric.title} on the carve-out while they train, mean and range of the seeds:",
            "",
            f"![Training curves of {result['name']}]({curves_file(result['name'])}.svg)",
            "",
        ]
    if result.get("fault_curves"):
        lines += faults_section(result)
    return lines


def curves_file(name: str) -> str:
    """Where a study's curves lie beside the page of results, without the ending."""
    return f"img/curves_{name}"


def _values(student: Mapping[str, Any]) -> dict[int, float]:
    """Score a seed: on the first machine that runs it (all compute the same), in float32 for the teacher."""
    values = {}
    for seed, cell in student["by_seed"].items():
        ran = [m for m in cell["machines"].values() if "refused" not in m]
        if ran:
            values[int(seed)] = ran[0]["accuracy"]["value"]
        elif not cell["machines"]:
            values[int(seed)] = cell["test"]["value"]
    return values
