"""What is to be done and how long such work took so far: the text of `--dry-run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from studies.ledger import FILE_NAME, FINAL, LedgerError, read
from studies.plan import Node, NodeKind, Plan

LAST_LEDGERS = 5
"""so many of the ledgers beside a study's own are asked, the newest first"""


@dataclass(frozen=True, slots=True)
class Known:
    """How long finished nodes of one kind took; of trainings also how long for each row that they read."""

    seconds: Sequence[float]
    where: str
    seconds_a_row: Sequence[float] = ()

    def text(self, count: int, rows: int | None = None) -> str:
        """Say how long as many more would take, one after the other; trainings by the rows that they read, where that is known."""
        if rows is None or not self.seconds_a_row:
            total, of = count * median(self.seconds), f"{len(self.seconds)}"
        else:
            total, of = rows * median(self.seconds_a_row), f"{len(self.seconds_a_row)}, row by row,"
        return f"about {duration(total)} one after the other (median of {of} in {self.where})"


def known_seconds(folder: Path) -> dict[str, Known]:
    """Return what is known of each kind of node: from a study's own ledger, else from the newest beside it."""
    beside = [p for p in folder.parent.glob(f"*/{FILE_NAME}") if p.parent != folder]
    beside.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    known: dict[str, Known] = {}
    for path in (folder / FILE_NAME, *beside[:LAST_LEDGERS]):
        found: dict[str, list[float]] = {}
        a_row: list[float] = []
        try:
            attempts = read(path)
        except LedgerError:
            continue  # a damaged ledger of another study is no matter of this one
        for attempt in attempts:
            if attempt.status in FINAL and "seconds" in attempt.volatile:
                seconds = attempt.volatile["seconds"]
                found.setdefault(attempt.kind, []).append(seconds)
                if rows := rows_trained(attempt.spec):
                    a_row.append(seconds / rows)
        for kind, took in found.items():
            rows_of = a_row if kind == "train" else ()
            known.setdefault(kind, Known(took, str(path.parent), rows_of))
    return known


def rows_trained(spec: Mapping[str, Any]) -> int | None:
    """Return how many rows a training reads in all; None where its length is in epochs, or of another kind of node."""
    train = spec.get("run", {}).get("train", {})
    steps = train.get("steps")
    return None if steps is None else int(steps * train["batch_size"] * train.get("accumulate", 1))


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def expected(left: Mapping[NodeKind, int], folder: Path, rows: int | None = None) -> list[str]:
    """Return a line for each kind of node that is to be run: how long, or that nothing is known yet.

    Args:
        left: how many of each kind.
        folder: of the study.
        rows: that the trainings read in all; None where it is not known.
    """
    known = known_seconds(folder)
    return [
        f"  {kind:9} {known[kind].text(count, rows if kind == 'train' else None)}"
        if kind in known
        else f"  {kind:9} not known before the first of its kind has run"
        for kind, count in left.items()
        if count
    ]


def describe(plan: Plan, folder: Path) -> str:
    """Say what a plan consists of, what of it is finished, what is shared, and how long the rest may take."""
    finished = {a.id for a in read(folder / FILE_NAME) if a.status in FINAL}
    todo = [node for node in plan.nodes if node.id not in finished]
    total = Counter(node.kind for node in plan.nodes)
    left = Counter(node.kind for node in todo)
    lines = [f"study {plan.study['name']} in {folder}"]
    lines += [f"  {kind:9} {count:4} nodes, {left[kind]} to do" for kind, count in total.items()]
    lines += [f"  shared:   {text}" for text in shared(plan.nodes)]
    if todo:
        rows = [rows_trained(node.spec) for node in todo if node.kind == "train"]
        in_all = None if None in rows else sum(n or 0 for n in rows)
        lines += ["time of what is to do", *expected(left, folder, in_all), "to do"]
    lines += [f"    {node.label}{_untrained(node)}" for node in todo]
    return "\n".join(lines)


def _untrained(node: Node) -> str:
    """Say of a model that is taken as it is, or quantised alone, that its node trains nothing."""
    return " (measured, not trained)" if rows_trained(node.spec) == 0 else ""


def shared(nodes: Sequence[Node]) -> list[str]:
    """Say of which kinds of nodes one serves several of another kind."""
    kinds = {node.id: node.kind for node in nodes}
    served: dict[tuple[NodeKind, NodeKind], Counter[str]] = {}
    for node in nodes:
        for parent in node.parents:
            served.setdefault((kinds[parent], node.kind), Counter())[parent] += 1
    return [
        f"each of {len(counts)} {above} serves {_span(counts.values())} {below}"
        for (above, below), counts in served.items()
        if max(counts.values()) > 1
    ]


def _span(counts: Iterable[int]) -> str:
    values = sorted(set(counts))
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
