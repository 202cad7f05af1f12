"""What a sweep says last: its first rows, what its report warns of, and what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from studies.columns import all_columns, result_records
from studies.plan import Node
from studies.query import SHOWN, Format, text_of
from studies.report import problems
from studies.table import load_results

MOST_LINES = 20


def last_word(folder: Path) -> str:
    """Return the first rows of a study's results as a table, then what its report warns of.

    Raises:
        CheckpointError: no study was run there.
    """
    results = load_results(folder)
    records = result_records(results)
    shown = [column for column in all_columns() if column.name in SHOWN]
    lines = text_of(records[:MOST_LINES], shown, Format.TABLE).splitlines()
    if len(records) > MOST_LINES:
        lines.append(
            f"{MOST_LINES} of {len(records):,} rows; the others: python -m studies.query {folder}"
        )
    found = problems(results)
    lines += [f"the report warns: {text.partition(chr(10))[0]}" for text in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        lines.append(f"and of {len(found) - MOST_LINES:,} more")
    return "\n".join(lines)


def failure_lines(
    folder: Path, unfinished: Sequence[Node], failed: Mapping[str, Sequence[Node]]
) -> Iterator[str]:
    """Yield a line for each node that failed, with its folder, and one for all that wait for it.

    Args:
        folder: the study's.
        unfinished: the nodes without a result.
        failed: what `blocked_by` made of them.
    """
    nodes = {node.id: node for node in unfinished}
    for id_, waiting in failed.items():
        node = nodes[id_]
        yield f"failed: {node.label}  {folder / 'nodes' / node.folder_name}"
        if waiting:
            wait = "node waits" if len(waiting) == 1 else "nodes wait"
            yield f"{len(waiting)} further {wait} for {node.label}"
