"""The end of a report: where its rows come from, and the commands that make them again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from studies.plan import Plan
from studies.table import Results
from studies.text import listed


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
        ("Task", _task(study["task"])),
        ("Seeds", f"{seeds} (paired: data, teacher and order are shared)"),
    ]


def _task(task: Mapping[str, Any]) -> str:
    """Name a task; a table of the user's by its files and columns."""
    if "text" not in task:
        return str(task["name"])
    return f"table {task['train']} / {task['dev']}, {', '.join(task['text'])} -> {task['label']}"


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
    own = own_files(results.plan)
    lines = [f"git checkout {str(revision).removesuffix('-dirty')}"] if revision else []
    if revision and str(revision).endswith("-dirty"):
        lines.append("# and the changes that were not committed when this was made")
    lines.append("make setup")
    if own:
        lines.append(f"# the study's own files are not in the repository; put them here: {own}")
    return "\n".join((*lines, f".venv/bin/{invocation}"))


def own_files(plan: Plan) -> str:
    """Return what a study reads that does not come with the package: its YAML files, its table, its checkpoint."""
    study = plan.study
    table = study["task"] or {}
    named = [
        *(word for word in shlex.split(plan.invocation) if "=" not in word),
        *(str(node.spec.get("machine")) for node in plan.nodes),
    ]
    files = [name for name in named if name.endswith((".yaml", ".yml"))]
    files += [table[part] for part in ("train", "dev") if "text" in table]
    checkpoint = ((study["teacher"] or {}).get("model") or {}).get("checkpoint")
    if checkpoint not in (None, "minilm"):
        files.append(f"the checkpoint {checkpoint}")
    return ", ".join(dict.fromkeys(files))
