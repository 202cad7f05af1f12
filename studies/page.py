"""The data of the report's interactive front: every point once, as columns, and as many points' operators as fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from studies.operators import NODES_FOLDER, Names, compact, evaluated, read_operators, short
from studies.plan import Node
from studies.quantities import STANDING_TEXT, Judged
from studies.stack import components_pj
from studies.table import Point
from studies.trial import MODEL_FOLDER

DETAIL_BYTES = 2_500_000
"""what the operators of all points together may take of a page"""
DETAIL_POINTS = 1_000
"""points whose operators are read for it"""


def page_json(judged: Judged) -> str:
    """Return `page_data` as JSON that may stand inside a `script` element."""
    text = json.dumps(page_data(judged), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")  # "</script>" in a name would end the element


def page_data(judged: Judged) -> dict[str, Any]:
    """Return what the page draws from. Of every list below `points`, the n-th entry is the n-th point's."""
    results, points = judged.results, judged.points
    study = results.plan.study
    nodes = evaluated(results)
    behind = [nodes[p.student, p.machine] for p in points]
    machines = {p.machine: (p, node) for p, node in zip(points, behind, strict=True)}
    places = {name: i for i, name in enumerate(machines)}
    exports = results.plan.by_id
    families, students = judged.families, results.students
    names = Names()
    return {
        "students": [
            {"name": part["name"], "recipe": part["recipe"]["name"]}
            for part in study["students"] or study["untrained"]
        ],
        "families": families,
        "machines": [
            {
                "name": name,
                "family": families.index(point.rows[0].family),
                "settings": [[key, _value(value)] for key, value in node.spec["settings"]],
                "options": _options(node),
            }
            for name, (point, node) in machines.items()
        ],
        "axes": judged.axes[0],
        "objectives": judged.objectives,
        "trains": results.trains,
        "quantities": [
            {
                "key": q.key,
                "name": q.name,
                "unit": q.unit,
                "axis": q.axis,
                "factor": q.factor,
                "more_is_better": q.more_is_better,
                "log": q.log,
                **_columns([q.read(p) for p in points]),
            }
            for q in judged.quantities.values()
            if any(q.read(p) is not None for p in points)
        ],
        "constraints": study["constraints"],
        "standing_text": judged.standing_text,
        "points": {
            "student": [students.index(p.student) for p in points],
            "machine": [places[p.machine] for p in points],
            "seeds": [len(p.rows) for p in points],
            "standing": {
                objective: [list(STANDING_TEXT).index(s) for s in standings]
                for objective, standings in judged.standings.items()
            },
            "infeasible": {str(i): p.infeasible for i, p in enumerate(points) if p.infeasible},
            "assumed": [short(p.rows[0].share_assumed_frac) for p in points],
            "model": [names.at(_model(exports[node.parents[0]])) for node in behind],
        },
        "components": _components(points),
        "details": _details(judged, behind, names),
        "has_nodes": (results.folder / NODES_FOLDER).is_dir(),
        "names": names.texts,
    }


def _columns(bars: Sequence[Any]) -> dict[str, Any]:
    """Return nominal values; the ends of the error bars where some have a length."""
    columns = {"value": [None if b is None else short(b.nominal) for b in bars]}
    if any(b is not None and b.low < b.high for b in bars):
        columns["low"] = [None if b is None else short(b.low) for b in bars]
        columns["high"] = [None if b is None else short(b.high) for b in bars]
    return columns


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _options(node: Node) -> str:
    """Return the part of a `hwsim` command that names a node's machine."""
    words = ["--machine", str(node.spec["machine"])]
    for key, value in node.spec["settings"]:
        words += ["--set", f"{key}={_value(value)}"]
    if node.spec["mapping"] == "energy":
        words += ["--objective", "energy"]
    return shlex.join(words)


def _model(export: Node) -> str:
    """Return where an export lies, below the study's folder."""
    return f"{NODES_FOLDER}/{export.folder_name}/{MODEL_FOLDER}"


def _components(points: Sequence[Point]) -> dict[str, Any]:
    """Return the names of all components of all machines, and each point's pJ as [name, pJ, name, pJ ...]."""
    names = Names()
    values = []
    for point in points:
        values.append(
            [
                x
                for n, pj in components_pj(point).items()
                if pj
                for x in (names.at(n), short(pj, ".4g"))
            ]
        )
    return {"names": names.texts, "pj": values}


def _details(judged: Judged, nodes: Sequence[Node], names: Names) -> dict[str, Any]:
    """Return the operators of points, those of the front first, until `DETAIL_POINTS` or `DETAIL_BYTES` are used up; None where there are none to read."""
    found: dict[str, Any] = {}
    if not (judged.results.folder / NODES_FOLDER).is_dir():
        return found
    used = 0
    for index in _by_standing(judged)[:DETAIL_POINTS]:
        data = read_operators(judged.results.folder, nodes[index])
        if data is None:
            found[str(index)] = None
            continue
        detail = compact(data, names)
        used += len(json.dumps(detail, separators=(",", ":")))
        if used > DETAIL_BYTES:
            break
        found[str(index)] = detail
    return found


def _by_standing(judged: Judged) -> list[int]:
    ranks = {standing: rank for rank, standing in enumerate(STANDING_TEXT)}
    best = [min(ranks[s] for s in each) for each in zip(*judged.standings.values(), strict=True)]
    return sorted(range(len(best)), key=lambda i: best[i])
