"""Which of the reasons of docs/crosstool.md explains a difference of more than 5 %: each letter by its arithmetic.

`?` stands for a difference that none of them explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

NEAR = 0.05
"""what need not be explained"""
UNEXPLAINED = "?"
WORTH = {"cycles": "cycles", "energy": "energy_pj"}
"""what a mapping chosen for a goal is worth"""
WORDS = ("activation_words", "weight_words", "output_words")

Row = Mapping[str, Any]


def corners(row: Row, goal: str) -> tuple[float | None, ...]:
    """Return cycles or pJ of: our mapping and theirs in our model, then both in their model."""
    cell = row["goals"][goal]
    names = ("ours", "theirs_in_ours", "ours_in_theirs", "theirs")
    return tuple(None if cell[n] is None else cell[n][WORTH[goal]] for n in names)


def reasons(row: Row, goal: str) -> list[str]:
    """Return the letters of the page that explain a row's differences of more than 5 %."""
    cell, key = row["goals"][goal], WORTH[goal]

    def is_far(new: str, old: str) -> bool:
        a, b = cell[new], cell[old]
        return a is not None and b is not None and _is_far(a[key], b[key])

    models = [("ours_in_theirs", "ours"), ("theirs", "theirs_in_ours")]
    if cell["ours_in_theirs"] is None and cell["theirs_in_ours"] is None:
        models.append(("theirs", "ours"))
    choices = [("theirs_in_ours", "ours"), ("theirs", "ours_in_theirs")]
    found = {_model_reason(row, goal, cell[a], cell[b]) for a, b in models if is_far(a, b)}
    found |= {_choice_reason(cell[a], cell[b], goal) for a, b in choices if is_far(a, b)}
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
    words = theirs["bus_cycles"] / ours["bus_cycles"]
    worth = theirs[WORTH[goal]] / ours[WORTH[goal]]
    return "D" if abs(worth - words) < NEAR else UNEXPLAINED


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


def systolic_reasons(row: Row) -> list[str]:
    """Return the letters that explain a row: each needs SCALE-Sim's number in closed form."""
    found = []
    for key, letter in (("compute", "E"), ("total", "F")):
        if _is_far(row["theirs"][key], row["ours"][key]):
            same = row["theirs"][key] == row["closed_form"][key] and not row["theirs"]["stalls"]
            found.append(letter if same else UNEXPLAINED)
    return found


def word_reasons(row: Row) -> list[str]:
    """Return the letter that explains the words of an array in SCALE-Sim: it needs all of them in closed form."""
    if not any(_is_far(row["theirs"][key], row["ours"][key]) for key in WORDS):
        return []
    same = all(row["theirs"][key] == row["closed_form"][key] for key in WORDS)
    return ["G" if same else UNEXPLAINED]


def ratio(new: float | None, old: float | None) -> float | None:
    """Return by how much a figure is more than another, None where one is missing."""
    return None if new is None or old is None else new / old - 1


def _is_far(new: float | None, old: float | None) -> bool:
    more = ratio(new, old)
    return more is not None and abs(more) > NEAR
