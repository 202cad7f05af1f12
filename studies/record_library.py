"""Every machine of the library against the reference: which tensors of which models it computed, and that all are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwsim.config.load import list_machines
from hwsim.errors import CapacityError, GraphError, OverflowRefused
from hwsim.provenance import source_revision
from studies.host import describe_host

SCHEMA = "studies/library/1"
COLUMNS = 6
"""models of one table"""
REFUSALS = (GraphError, CapacityError, OverflowRefused)


def collect_library(models: Sequence[Path], samples: int) -> dict[str, Any]:
    """Verify models on every machine that comes with the package, the host computing what a machine lacks.

    Args:
        models: export folders, known by their names.
        samples: the first N of each.
    """
    from hwsim.graph.serialize import load

    rows = []
    loaded = [load(path) for path in models]
    for published in (False, True):
        for machine, _ in list_machines(published=published):
            rows += [
                {"machine": machine, "published": published, "model": m.name}
                | _verified(m, machine, samples)
                for m in loaded
            ]
    return {
        "schema": SCHEMA,
        "name": "library",
        "date": datetime.now(UTC).date().isoformat(),
        "git_revision": source_revision(),
        "host": describe_host(),
        "samples": samples,
        "models": {m.name: m.sha256 for m in loaded},
        "rows": rows,
    }


def _verified(model: Any, machine: str, samples: int) -> dict[str, Any]:
    import hwsim.api

    try:
        found = hwsim.api.verify(model, machine, samples=samples, host=True)
    except REFUSALS as error:
        return {"refused": str(error)}
    ops = {node.name: node.op for node in model.graph.nodes}
    row: dict[str, Any] = {
        "machine_sha256": found.machine_sha256,
        "tensors": found.tensors,
        "elements": found.elements,
        "unequal": len(found.unequal),
        "on_host": dict(sorted(Counter(ops[node] for node in found.host).items())),
    }
    if found.decode is not None:
        row["decode"] = {
            "tokens": found.decode.tokens,
            "tensors": found.decode.tensors,
            "unequal": len(found.decode.unequal),
        }
    return row


def library_section(record: Mapping[str, Any]) -> list[str]:
    """Return the lines of a record's section of the page of results, in Markdown."""
    models = list(record["models"])
    cells: dict[str, dict[str, str]] = {}
    for row in record["rows"]:
        cells.setdefault(row["machine"], {})[row["model"]] = _cell(row)
    return [
        "## library",
        "",
        f"`python -m studies.record library`: every tensor that a machine computes against the reference, on {record['samples']} samples"
        f" a model; revision `{(record['git_revision'] or 'unknown')[:12]}`, {record['date']}, {record['host']['processor']}.",
        "",
        "A cell is unequal of compared tensors; `+ N host`: so many operators that the machine has no unit for were the"
        " reference's own and are not among the tensors; `decoded`: unequal of the tensors of 32 tokens through the key-value cache;"
        " `none`: the machine multiplies none of the model's products.",
        "",
        *(
            line
            for first in range(0, len(models), COLUMNS)
            for line in _table(cells, models[first : first + COLUMNS])
        ),
    ]


def _table(cells: Mapping[str, Mapping[str, str]], models: Sequence[str]) -> list[str]:
    return [
        "| machine | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
        *(
            f"| {machine} | " + " | ".join(row.get(m, "–") for m in models) + " |"
            for machine, row in cells.items()
        ),
        "",
    ]


def _cell(row: Mapping[str, Any]) -> str:
    if "refused" in row:
        return "none" if "cannot run this graph" in row["refused"] else "refused"
    text = f"{row['unequal']} of {row['tensors']}"
    on_host = sum(row["on_host"].values())
    if on_host:
        text += f" + {on_host} host"
    if "decode" in row:
        text += f"; decoded {row['decode']['unequal']} of {row['decode']['tensors']}"
    return text
