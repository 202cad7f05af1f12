"""The tables of docs/crosstool.md."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.errors import CheckpointError
from studies.crosstool.reasons import (
    WORDS,
    WORTH,
    Row,
    corners,
    part_reasons,
    ratio,
    reasons,
    systolic_reasons,
    word_reasons,
)
from studies.text import SPACE

SCHEMA = "studies/crosstool/1"
BEGIN = "<!-- tables: begin, written by `python -m studies.crosstool tables` -->"
END = "<!-- tables: end -->"
NOTHING = "–"
PJ_PER_NJ = 1e3


def page_with_tables(page: str, record: Row) -> str:
    """Return the page with its tables replaced.

    Raises:
        CheckpointError: the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CheckpointError(f"the page must have the lines {BEGIN} and {END}")
    return "\n".join([before + BEGIN, "", *tables(record), "", END + after])


def tables(record: Row) -> list[str]:
    """Return the lines of all tables."""
    versions = ", ".join(v["pinned"][0].replace("==", " ") for v in record["versions"].values())
    systolic = record["scalesim"]
    times = [_seconds(row) for row in record["zigzag"]]
    return [
        f"{versions}; revision `{(record['git_revision'] or 'unknown')[:12]}`, {record['date']},"
        f" {record['host']['processor']}.",
        "",
        "### ZigZag: cycles of the mappings chosen for cycles",
        "",
        *_crossed(record["zigzag"], "cycles"),
        "",
        "### ZigZag: energy in nJ of the mappings chosen for energy",
        "",
        *_crossed(record["zigzag"], "energy"),
        "",
        "### ZigZag: the array alone, and the link to DRAM (mappings chosen for cycles)",
        "",
        *_parts(record["zigzag"]),
        "",
        "### SCALE-Sim: the array alone, and the whole",
        "",
        *_systolic(systolic),
        "",
        "### SCALE-Sim: words that enter and leave the array",
        "",
        *_words(systolic),
        "",
        "### Wall time, theirs over ours, in the same run",
        "",
        *_table(["product", "ZigZag, for cycles", "for energy"], times),
        "",
        "SCALE-Sim, all products of a table in one process, its start included: "
        + ", ".join(
            f"{name} {_times(s['seconds']['theirs'] / s['seconds']['ours'])}"
            for name, s in systolic.items()
        )
        + ".",
    ]


def record_section(record: Row) -> list[str]:
    """Return the lines of a record's section of the page of results, in Markdown."""
    (row,) = (r for r in record["zigzag"] if r["product"]["name"] == "attention")
    more = []
    for goal in WORTH:
        _, _, forth, theirs = corners(row, goal)
        more.append(f"{_signed(ratio(theirs, forth))} {goal}")
    return [
        f"## {record['name']}",
        "",
        f"`python -m studies.crosstool run`: the same products and machines in other tools; revision"
        f" `{(record['git_revision'] or 'unknown')[:12]}`, {record['date']}, {record['host']['processor']}."
        f" ZigZag's mapping of a 128 x 768 x 768 product against ours, both in ZigZag's model: {', '.join(more)}."
        " Tables and reasons: [crosstool.md](crosstool.md).",
        "",
    ]


# -- ZigZag ---------------------------------------------------------------------------------------


def _crossed(rows: Sequence[Row], goal: str) -> list[str]:
    head = ["product", "M x N x K", "our mapping, our model", "their mapping, our model"]
    head += ["our mapping, their model", "their mapping, their model"]
    head += ["their model (on ours; theirs)", "their mapping (in ours; theirs)", "why"]
    lines = []
    for row in rows:
        ours, back, forth, theirs = corners(row, goal)
        model = [ratio(forth, ours), ratio(theirs, back)]
        choice = [ratio(back, ours), ratio(theirs, forth)]
        p = row["product"]
        lines.append(
            [
                p["name"],
                f"{p['m']} x {p['n']} x {p['k']}",
                *(_worth(x, goal) for x in (ours, back, forth, theirs)),
                *("; ".join(map(_signed, pair)) for pair in (model, choice)),
                _letters(reasons(row, goal)),
            ]
        )
    return _table(head, lines)


def _parts(rows: Sequence[Row]) -> list[str]:
    head = ["product", "array, ours", "array, theirs", "stall", "first loads", "last stores", "sum"]
    head += ["DRAM words, ours", "DRAM words, theirs", "in closed form", "why"]
    lines = []
    for row in rows:
        ours, theirs = row["goals"]["cycles"]["ours"], row["goals"]["cycles"]["theirs"]
        resident = theirs["cycles"] == row["resident_cycles"]
        counts = (
            ours["compute_cycles"],
            *(theirs[k] for k in ("ideal", "stall", "onload", "offload", "cycles")),
            ours["bus_cycles"],
            theirs["bus_cycles"],
        )
        closed = f"{row['resident_cycles']:,}" if resident else NOTHING
        lines.append(
            [
                row["product"]["name"],
                *(f"{n:,}" for n in counts),
                closed,
                _letters(part_reasons(row)),
            ]
        )
    return _table(head, lines)


def _seconds(row: Row) -> list[str]:
    ratios = [
        row["goals"][g]["seconds"]["theirs"] / row["goals"][g]["seconds"]["ours"] for g in WORTH
    ]
    return [row["product"]["name"], *map(_times, ratios)]


# -- SCALE-Sim ------------------------------------------------------------------------------------


def _systolic(machines: Row) -> list[str]:
    head = ["array", "product", "alone, ours", "theirs", "difference"]
    head += ["the whole, ours", "theirs", "difference", "why"]
    lines = []
    for name, machine in machines.items():
        for row in machine["rows"]:
            ours, theirs = row["ours"], row["theirs"]
            lines.append(
                [
                    name,
                    row["product"]["name"],
                    *_pair(ours["compute"], theirs["compute"]),
                    *_pair(ours["total"], theirs["total"]),
                    _letters(systolic_reasons(row)),
                ]
            )
    return _table(head, lines)


def _words(machines: Row) -> list[str]:
    head = ["array", "product"]
    head += [f"{key.partition('_')[0]}{part}" for key in WORDS for part in (", ours", ", theirs")]
    lines = []
    for name, machine in machines.items():
        for row in machine["rows"]:
            both = [f"{row[side][key]:,}" for key in WORDS for side in ("ours", "theirs")]
            lines.append([name, row["product"]["name"], *both, _letters(word_reasons(row))])
    return _table([*head, "why"], lines)


# -- cells ----------------------------------------------------------------------------------------


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _letters(found: Sequence[str]) -> str:
    return "".join(found) or NOTHING


def _pair(ours: float, theirs: float) -> list[str]:
    return [f"{ours:,}", f"{theirs:,}", _signed(theirs / ours - 1)]


def _signed(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{100 * ratio:+.1f}{SPACE}%"


def _worth(value: float | None, goal: str) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if goal == "cycles" else f"{value / PJ_PER_NJ:,.1f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:,.0f}"
