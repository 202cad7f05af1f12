"""Where a point's time and energy go, operator by operator: what its node left behind, small enough for a page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.ledger import FINAL
from studies.plan import Node
from studies.table import Results
from studies.trial import OPERATORS_JSON

NODES_FOLDER = "nodes"
_LAYER = re.compile(r"^(.*?\.\d+)(?:\.|$)")
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
OUTSIDE = "outside of the layers"
SUMS = ("cycles", "compute_cycles", "energy_pj", "macs", "dram_bytes")
MEMORY = (
    "weight_bytes",
    "resident_bytes",
    "peak_activation_bytes",
    "peak_activation_on_chip_bytes",
)


@dataclass
class Names:
    """Texts that many points share, each stored once; `at` gives a text's place."""

    texts: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def at(self, text: str) -> int:
        """Return where a text stands."""
        place = self.places.setdefault(text, len(self.texts))
        if place == len(self.texts):
            self.texts.append(text)
        return place


def evaluated(results: Results) -> dict[tuple[str, str], Node]:
    """Return the node behind each point, (student, machine) -> that of its first finished seed."""
    found: dict[tuple[str, str], Node] = {}
    for node in results.plan.nodes:
        attempt = results.attempts.get(node.id)
        if node.kind in ("evaluate", "cost") and attempt is not None and attempt.status == FINAL[0]:
            found.setdefault((str(node.tags["student"]), str(node.tags["machine"])), node)
    return found


def read_operators(folder: Path, node: Node) -> dict[str, Any] | None:
    """Read what a node left of its operators; None if it left none, or its folder was not moved along."""
    path = folder / NODES_FOLDER / node.folder_name / OPERATORS_JSON
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def compact(data: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return an inference's operators, equal ones of several layers together, and its memory.

    Args:
        data: content of `operators.json`.
        names: where texts go.

    Returns:
        `rows`, each [name, op, unit, binding, count, *SUMS] with sums over `count` operators; `layers`, each [name,
        cycles, energy_pj]; `memory`, as `MEMORY`; `streamed`, names of weights; `spills`, each [tensor, bytes, written,
        read, energy_pj]; `roofs`, each [label, MAC a cycle]; `bus`, bytes a cycle of the DRAM. Folders of studies that were run before
        products were counted have no roofs.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    layers: dict[str, list[float]] = {}
    for o in data["operators"]:
        key = (_NUMBER.sub("*", o["node"]), o["op"], o["unit"], o["binding"], o["cycles"], o["compute_cycles"], o.get("dram_bytes"))  # fmt: skip
        groups.setdefault(key, []).append(o)
        layer = _LAYER.match(o["node"])
        sums = layers.setdefault(layer[1] if layer else OUTSIDE, [0, 0.0])
        sums[0] += o["cycles"]
        sums[1] += o["energy_pj"]
    memory = data["memory"]
    return {
        "rows": [
            [
                names.at(key[0] if len(found) > 1 else found[0]["node"]),
                *(names.at(text) for text in key[1:4]),
                len(found),
                *(short(sum(o.get(name, 0) for o in found)) for name in SUMS),
            ]
            for key, found in groups.items()
        ],
        "layers": [[names.at(k), short(c), short(e)] for k, (c, e) in layers.items()],
        "memory": [memory[name] for name in MEMORY],
        "streamed": [names.at(name) for name in memory["streamed"]],
        "spills": [
            [names.at(tensor), s["bytes"], s["written_bytes"], s["read_bytes"], short(s["energy_pj"]["nominal"])]
            for tensor, s in memory["spills"].items()
        ],
        "roofs": [[names.at(r["label"]), r["macs_per_cycle"]] for r in data.get("roofs", ())],
        "bus": data.get("dram_bytes_per_cycle"),
    }  # fmt: skip


def short(value: float | None, digits: str = ".6g") -> float | int | None:
    """Return a number with as few digits as a format says: more of them are bytes of a page that no one reads."""
    if value is None or isinstance(value, int):
        return value
    rounded = float(format(value, digits))
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
