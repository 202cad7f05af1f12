"""Why two results differ: operator by operator and part by part, with the band of the energies' ratio."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwsim.engine.energy import PARTS, Ledger
from hwsim.engine.ratio import Ratio, ratio
from hwsim.errors import DataError
from hwsim.report.result import SCHEMA_VERSION as RESULT_VERSION
from hwsim.report.result import require_comparable

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = "hwsim/diff/1"
Key = Literal["cycles", "energy"]


@dataclass(frozen=True)
class Side:
    """A result (as `Result.to_json` makes it), and its priced counts where it was just computed."""

    name: str
    result: Mapping[str, Any]
    ledger: Ledger | None = None

    @property
    def clock_hz(self) -> int:
        """The machine's clock."""
        return int(self.result["clock_hz"])


@dataclass(frozen=True)
class Row:
    """Cycles and pJ of both sides of one operator, or of all of a kind. `s` are the seconds of the cycles."""

    name: str
    kind: str
    operators: int
    cycles: tuple[int, int]
    s: tuple[float, float]
    pj: tuple[float, float]

    def difference(self, key: Key) -> float:
        """Return how much more the second side takes: seconds or pJ."""
        first, second = self.s if key == "cycles" else self.pj
        return second - first

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, pairs as [first, second]."""
        return {
            "name": self.name,
            "kind": self.kind,
            "operators": self.operators,
            "cycles": list(self.cycles),
            "latency_s": list(self.s),
            "energy_pj": list(self.pj),
        }


@dataclass(frozen=True)
class Difference:
    """What `hwsim diff` shows: totals, kinds, operators and parts of two steady inferences of one model.

    `operators` and `kinds` have the largest difference first. `ratio` is the second energy over the first, with the
    band of joint draws and what moves it most; None for files, which hold no counts with prices, and where a
    side has no energy.
    """

    model: str
    key: Key
    sides: tuple[Side, Side]
    total: Row
    kinds: tuple[Row, ...]
    operators: tuple[Row, ...]
    parts: Mapping[str, tuple[float, float]]
    ratio: Ratio | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "scenario": "steady",
            "sorted_by": self.key,
            "sides": [
                {"name": s.name, "clock_hz": s.clock_hz, "hashes": dict(s.result["hashes"])}
                for s in self.sides
            ],
            "total": self.total.to_json(),
            "kinds": [row.to_json() for row in self.kinds],
            "operators": [row.to_json() for row in self.operators],
            "energy_by_part_pj": {name: list(pair) for name, pair in self.parts.items()},
            "energy_ratio": None if self.ratio is None else self.ratio.to_json(),
        }

    def render(self, console: Console) -> None:
        """Print totals, parts, kinds and the operators that differ most."""
        from hwsim.report.diff_table import print_difference

        print_difference(self, console)


def read_result(path: Path) -> Side:
    """Read a result that `hwsim run --json` wrote.

    Raises:
        DataError: it is no such file, or one of another version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be a result of `hwsim run --json`: {error}") from None
    version = result.get("schema_version") if isinstance(result, dict) else None
    if version != RESULT_VERSION:
        raise DataError(
            f"{path}: must be a result of `hwsim run --json` ({RESULT_VERSION}), not {version or 'other data'}"
        )
    if "energy_by_part_pj" not in result:
        raise DataError(
            f"{path}: must be a result of `hwsim run --json` with energy_by_part_pj; run it again"
        )
    return Side(f"{result['machine']} ({path.name})", result)


def diff(first: Side, second: Side, key: Key = "cycles") -> Difference:
    """Compare two results of one model: two machines, or one machine before and after a change of the code.

    Args:
        first: what is compared with.
        second: what is compared.
        key: what the rows are sorted by.

    Raises:
        ResultMismatch: the models, lengths or draws differ, or both machine and code do.
    """
    a, b = first.result, second.result
    about = "machine" if a["hashes"]["machine"] != b["hashes"]["machine"] else "code"
    require_comparable(a, b, may_differ=(about,))
    rows = _operators(first, second)
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    parts = {
        name: (_part(a, name), _part(b, name))
        for name in PARTS
        if name in a["energy_by_part_pj"] or name in b["energy_by_part_pj"]
    }
    energies = (a["energy_pj"]["nominal"], b["energy_pj"]["nominal"])
    found = None
    if first.ledger is not None and second.ledger is not None and min(energies) > 0:
        found = ratio(second.ledger, first.ledger)
    total = _sum("total", "", rows)
    return Difference(
        model=str(a["model"]),
        key=key,
        sides=(first, second),
        total=Row("total", "", len(rows), total.cycles, total.s, energies),
        kinds=_sorted((_sum(kind, kind, same) for kind, same in kinds.items()), key),
        operators=_sorted(rows, key),
        parts=parts,
        ratio=found,
    )


def _operators(first: Side, second: Side) -> list[Row]:
    """Pair the operators of both sides by name; views, which cost nothing, are left out."""
    sides = [{o["node"]: o for o in s.result["operators"]} for s in (first, second)]
    clocks = first.clock_hz, second.clock_hz
    rows = []
    for name in dict.fromkeys((*sides[0], *sides[1])):
        pair = [side.get(name) for side in sides]
        there = next(o for o in pair if o is not None)
        if there["unit"] == "view":
            continue
        cycles = [0 if o is None else int(o["cycles"]) for o in pair]
        energy = [0.0 if o is None else float(o["energy_pj"]["nominal"]) for o in pair]
        rows.append(
            Row(
                name,
                there["op"],
                1,
                (cycles[0], cycles[1]),
                (cycles[0] / clocks[0], cycles[1] / clocks[1]),
                (energy[0], energy[1]),
            )
        )
    return rows


def _sum(name: str, kind: str, rows: list[Row]) -> Row:
    return Row(
        name,
        kind,
        len(rows),
        (sum(r.cycles[0] for r in rows), sum(r.cycles[1] for r in rows)),
        (sum(r.s[0] for r in rows), sum(r.s[1] for r in rows)),
        (sum(r.pj[0] for r in rows), sum(r.pj[1] for r in rows)),
    )


def _sorted(rows: Iterable[Row], key: Key) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda r: (-abs(r.difference(key)), r.name)))


def _part(result: Mapping[str, Any], name: str) -> float:
    band = result["energy_by_part_pj"].get(name)
    return 0.0 if band is None else float(band["nominal"])
