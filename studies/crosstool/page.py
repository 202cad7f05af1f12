"""The tables of docs/crosstool.md, and which of the page's reasons explains a difference of more than 5 %."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from hwsim.errors import CheckpointError
from studies.text import SPACE

SCHEMA = "studies/crosstool/1"
BEGIN = "<!-- tables: begin, written by `python -m studies.crosstool tables` -->"
END = "<!-- tables: end -->"
NEAR = 0.05
"""what need not be explained"""
UNEXPLAINED = "?"
NOTHING = "–"
PJ_PER_NJ = 1e3
WORTH = {"cycles": "cycles", "energy": "energy_pj"}

Row = Mapping[str, Any]


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
    pair = [
        row["goals"][goal][side][key]
        for row in record["zigzag"]
        if row["product"]["name"] == "attention"
        for goal, key in WORTH.items()
        for side in ("ours", "theirs")
    ]
    found = (
        f" ZigZag's mapper: {_signed(pair[1] / pair[0] - 1)} cycles, {_signed(pair[3] / pair[2] - 1)} energy"
        " on a 128 x 768 x 768 product."
        if pair
        else ""
    )
    return [
        f"## {record['name']}",
        "",
        f"`python -m studies.crosstool run`: our products on other tools; revision"
        f" `{(record['git_revision'] or 'unknown')[:12]}`, {record['date']}, {record['host']['processor']}.{found}"
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
        model = [_ratio(forth, ours), _ratio(theirs, back)]
        choice = [_ratio(back, ours), _ratio(theirs, forth)]
        p = row["product"]
        lines.append(
            [
                p["name"],
                f"{p['m']} x {p['n']} x {p['k']}",
                *(_worth(x, goal) for x in (ours, back, forth, theirs)),
                *("; ".join(map(_signed, pair)) for pair in (model, choice)),
                "".join(reasons(row, goal)) or NOTHING,
            ]
        )
    return _table(head, lines)


def corners(row: Row, goal: str) -> tuple[float | None, ...]:
    """Return cycles or pJ of: our mapping and theirs in our model, then both in their model."""
    cell = row["goals"][goal]
    names = ("ours", "theirs_in_ours", "ours_in_theirs", "theirs")
    return tuple(None if cell[n] is None else cell[n][WORTH[goal]] for n in names)


def reasons(row: Row, goal: str) -> list[str]:
    """Return the letters of the page that explain a row's differences of more than 5 %, checked by their arithmetic.

    `?` stands for a difference that none of them explains.
    """
    ours, back, forth, theirs = corners(row, goal)
    cell = row["goals"][goal]
    found = set()
    pairs = [(forth, ours, "ours"), (theirs, back, "theirs_in_ours")]
    if back is None and forth is None:
        pairs.append((theirs, ours, "ours"))
    for new, old, name in pairs:
        if _is_far(new, old):
            answer = cell["theirs"] if new == theirs else cell["ours_in_theirs"]
            found.add(_model_reason(row, goal, answer, cell[name]))
    for new, old, names in (
        (back, ours, ("theirs_in_ours", "ours")),
        (theirs, forth, ("theirs", "ours_in_theirs")),
    ):
        if _is_far(new, old):
            found.add(_choice_reason(cell[names[0]], cell[names[1]], goal))
    return sorted(found)


def _model_reason(row: Row, goal: str, theirs: Row, ours: Row) -> str:
    """A: one port counted twice over, in closed form. B: words that are cut off or padded, by their price."""
    if goal == "cycles":
        return "A" if theirs["cycles"] == row["resident_cycles"] else UNEXPLAINED
    words = ours["bus_cycles"] - theirs["bus_cycles"]
    left = ours["energy_pj"] - theirs["energy_pj"] - words * row["dram_word_pj"]
    return "B" if abs(left) < 0.005 * ours["energy_pj"] else UNEXPLAINED


def _choice_reason(theirs: Row, ours: Row, goal: str) -> str:
    """C: one tile, nothing overlaps. D: more words from DRAM, in the proportion of the difference."""
    if "compute_cycles" in theirs and theirs["bus_cycles"] == ours["bus_cycles"]:
        alone = theirs["compute_cycles"] + theirs["bus_cycles"]
        return "C" if theirs["cycles"] == alone else UNEXPLAINED
    more = theirs["bus_cycles"] / ours["bus_cycles"]
    ratio = theirs[WORTH[goal]] / ours[WORTH[goal]]
    return "D" if abs(ratio - more) < NEAR else UNEXPLAINED


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
                "".join(part_reasons(row)) or NOTHING,
            ]
        )
    return _table(head, lines)


def part_reasons(row: Row) -> list[str]:
    """Return the letters that explain differences of the array's cycles and of the words from DRAM.

    H: tiles that are no whole blocks, by their count. B: padding, in closed form. D: the mapping, whose cycles differ alike.
    """
    ours, theirs = row["goals"]["cycles"]["ours"], row["goals"]["cycles"]["theirs"]
    found = []
    if _is_far(theirs["ideal"], ours["compute_cycles"]):
        sizes = [row["product"][axis] for axis in "mnk"]
        blocks = prod(
            sum(-(-min(tile, size - at) // part) for at in range(0, size, tile))
            for size, tile, part in zip(sizes, ours["tile"], row["array"], strict=True)
        )
        found.append("H" if blocks == ours["compute_cycles"] else UNEXPLAINED)
    if _is_far(theirs["bus_cycles"], ours["bus_cycles"]):
        words = {"padded": ours["bus_cycles"], "packed": theirs["bus_cycles"]}
        if words == row["resident_words"]:
            found.append("B")
        else:
            alike = theirs["bus_cycles"] / ours["bus_cycles"] - theirs["cycles"] / ours["cycles"]
            found.append("D" if abs(alike) < NEAR else UNEXPLAINED)
    return found


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
                    "".join(systolic_reasons(row)) or NOTHING,
                ]
            )
    return _table(head, lines)


def systolic_reasons(row: Row) -> list[str]:
    """Return the letters that explain a row: each needs SCALE-Sim's number in closed form."""
    found = []
    for key, letter in (("compute", "E"), ("total", "F")):
        if _is_far(row["theirs"][key], row["ours"][key]):
            same = row["theirs"][key] == row["closed_form"][key] and not row["theirs"]["stalls"]
            found.append(letter if same else UNEXPLAINED)
    return found


def _words(machines: Row) -> list[str]:
    keys = ("activation_words", "weight_words", "output_words")
    head = ["array", "product"]
    head += [f"{key.partition('_')[0]}{part}" for key in keys for part in (", ours", ", theirs")]
    lines = []
    for name, machine in machines.items():
        for row in machine["rows"]:
            both = [f"{row[side][key]:,}" for key in keys for side in ("ours", "theirs")]
            far = any(_is_far(row["theirs"][key], row["ours"][key]) for key in keys)
            same = all(row["theirs"][key] == row["closed_form"][key] for key in keys)
            why = ("G" if same else UNEXPLAINED) if far else NOTHING
            lines.append([name, row["product"]["name"], *both, why])
    return _table([*head, "why"], lines)


# -- cells ----------------------------------------------------------------------------------------


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _ratio(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new / old - 1


def _is_far(new: float | None, old: float | None) -> bool:
    ratio = _ratio(new, old)
    return ratio is not None and abs(ratio) > NEAR


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
