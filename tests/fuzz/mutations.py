"""Seeded mutations of texts and of JSON values, from a flipped byte to a number that nobody has memory for."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

NASTY = (
    "-1", "0", "1", "-0.0", "1e999", ".nan", ".inf", "3.5", "true", "null", "~", "''", '" "', "[]", "{}", "[1, 2]",
    "{a: 1}", "1000000000000000000000000000000", "9223372036854775807", "2147483648", "1_000", "0x10", "1e3", "0.1",
    "2KiB", "1e30KiB", "-3KiB", "INT8", "INT99", "BIPOLAR", "ternary", "*nowhere", "&here 3", "!!python/name:os.system",
    "!!int x", "2020-01-01", "on", "\u00e9\u4e2d\U0001f600", "x" * 3000, "|", ">", "- -", "? x", "%", "@", "`", "'", '"', "{", "[",
)  # fmt: skip
"""Scalars that a person or a program might put where another belongs, and some that break the syntax."""

JSON_NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 3.5, 1e300, 2**31, 2**63, 10**30, "", "x", "INT8", "INT999", "T", [], {}, [0], [-1], [2**40, 2**40],
    [1, 2, 3], {"a": 1}, ["T", "T"], "linear", "softmax",
)  # fmt: skip


def mutate_text(text: str, rng: random.Random) -> tuple[str, int | None]:
    """Return a changed text, and the line (from 1) of the change if just one scalar was replaced."""
    lines = text.split("\n")
    kind = rng.choice(
        ("scalar",) * 6 + ("key", "line", "line", "indent", "byte", "byte", "cut", "nest")
    )
    if kind == "scalar":
        places = [
            i for i, line in enumerate(lines) if re.match(r"\s*(- )?\w+: *[^\s{\[&*|>#]", line)
        ]
        at = rng.choice(places)
        head, _, _ = lines[at].partition(":")
        lines[at] = f"{head}: {rng.choice(NASTY)}"
        return "\n".join(lines), at + 1
    at = rng.randrange(len(lines))
    if kind == "key":
        lines[at] = re.sub(
            r"\w+(?=:)", rng.choice(("kind", "name", "rows", "x", "1", "'a b'")), lines[at], count=1
        )
    elif kind == "line":
        action = rng.choice(("delete", "repeat", "swap", "insert"))
        if action == "delete":
            del lines[at]
        elif action == "repeat":
            lines.insert(at, lines[at])
        elif action == "swap":
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines.insert(
                at,
                rng.choice(
                    ("", "\t", "---", "...", "x: 1", "  y: 2", "- 3", "# \x00", "<<: *a", "%YAML 9")
                ),
            )
    elif kind == "indent":
        lines[at] = (
            rng.choice((" ", "   ", "\t")) + lines[at] if rng.random() < 0.5 else lines[at].lstrip()
        )
    elif kind == "byte":
        raw = list("\n".join(lines))
        for _ in range(rng.randint(1, 4)):
            i = rng.randrange(len(raw))
            raw[i] = rng.choice(
                (
                    "",
                    raw[i] * 2,
                    chr(rng.randrange(1, 0x250)),
                    rng.choice("{}[]:,&*#?|-<>=!%@'\"\\\t\n "),
                )
            )
        return "".join(raw), None
    elif kind == "cut":
        return text[: rng.randrange(len(text))], None
    else:
        depth = rng.choice((3, 50, 3000))
        lines[at] = f"deep: {'[' * depth}{']' * depth}"
    return "\n".join(lines), None


def mutate_json(data: Any, rng: random.Random) -> Any:
    """Return a copy with one to three values replaced, removed, repeated or renamed."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        holder, key = _place(data, rng)
        if holder is None:
            return rng.choice(JSON_NASTY)
        action = rng.choice(("replace", "replace", "replace", "remove", "rename", "near"))
        value = holder[key]
        if action == "near" and isinstance(value, int) and not isinstance(value, bool):
            holder[key] = value + rng.choice((-1, 1, 7, -value, value))
        elif action == "remove":
            del holder[key]
        elif action == "rename" and isinstance(holder, dict):
            holder[str(key) + rng.choice(("x", " ", "\u00e9"))] = holder.pop(key)
        else:
            holder[key] = rng.choice(JSON_NASTY)
    return data


def _place(data: Any, rng: random.Random) -> tuple[Any, Any]:
    """Walk down at random; return a list or mapping and a position in it."""
    holder, key = None, None
    here = data
    while isinstance(here, dict | list) and here:
        holder, key = (
            here,
            rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here)),
        )
        here = here[key]
        if rng.random() < 0.15:
            break
    return holder, key


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flip, cut, lengthen or overwrite bytes; the front, where headers are, twice as often."""
    changed = bytearray(raw)
    action = rng.choice(("flip", "flip", "cut", "longer", "zeros"))
    if action == "cut":
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    if action == "longer":
        return bytes(changed) + rng.randbytes(rng.randint(1, 100))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(len(changed), 400) if rng.random() < 0.5 else len(changed))
        changed[at] = 0 if action == "zeros" else changed[at] ^ (1 << rng.randrange(8))
    return bytes(changed)
