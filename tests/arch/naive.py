"""What each datapath does, with plain loops: one word, one lane, one cell at a time. Shares no code with hwsim."""

from __future__ import annotations

from collections import Counter
from typing import Any

Tally = Counter[str]
Part = tuple[int, ...]


def cut(total: int, part: int) -> list[Part]:
    """Return the positions of each part."""
    return [tuple(range(total))[i : i + part] for i in range(0, total, part)]


def up(a: int, b: int) -> int:
    """Divide, rounding up, by counting."""
    count = 0
    while a > 0:
        a -= b
        count += 1
    return count


def fetch(tally: Tally, operand: str, bits: int, registers: int | None = None) -> None:
    """Note one fetch of an operand, and the register bits that it writes."""
    tally[f"{operand} reads of {bits} bits"] += 1
    tally[f"{operand} register_bits"] += bits if registers is None else registers


def tally(work: Any) -> Tally:
    """Write an array's counts of a compute step down as these loops do."""
    found: Tally = Counter(dict(work.own))
    found["lane_ops"] += work.lane_ops
    found["accumulator_updates"] += work.accumulator_updates
    for operand, fetches in (("activation", work.activation), ("weight", work.weight)):
        found[f"{operand} register_bits"] += fetches.register_bits
        for bits, times in fetches.reads:
            found[f"{operand} reads of {bits} bits"] += times
    return +found


def held_weights(s: Any, shape: Part, bits: Part, load: Any) -> tuple[int, Tally]:
    """Weights are loaded block by block, and all rows go by. `load(c, l)` is the cycles of a block."""
    (m, n, k), (a_bits, w_bits), tally = shape, bits, Counter()
    now = ready = 0  # cycle at which the array is free; cycle at which a shadow block is loaded
    before = 0  # cycle at which the array began with the block before
    interval = max(
        1, up(min(s.rows, m) * min(s.lanes, k) * a_bits, s.activation_port_bits_per_cycle)
    )
    row = None
    for first, (cols, lanes) in enumerate((c, x) for c in cut(n, s.cols) for x in cut(k, s.lanes)):
        if not m:
            break
        takes = load(len(cols), len(lanes))
        ready = (before if s.weight_shadow and first else now) + takes
        now = before = max(now, ready)
        fetch(tally, "weight", len(cols) * len(lanes) * w_bits)
        for rows in cut(m, s.rows):
            if row != (rows, lanes):
                row = (rows, lanes)
                fetch(tally, "activation", len(rows) * len(lanes) * a_bits)
            now += interval
            for _ in rows:
                for _ in cols:
                    tally["accumulator_updates"] += 1
                    for _ in lanes:
                        tally["lane_ops"] += 1
    return now, tally


def tables(s: Any, shape: Part, bits: Part, planes: int) -> tuple[int, Tally]:
    """Tables are built for a block of activations, then looked up by every block of columns and plane."""
    (m, n, k), (a_bits, w_bits), tally = shape, bits, Counter()
    now = before = 0
    is_first = True
    plane_bits = up(w_bits, planes)
    interval = max(
        1, up(min(s.cols, n) * min(s.lanes, k) * plane_bits, s.weight_port_bits_per_cycle)
    )
    entries = (2 if s.index == "bits" else 3) ** s.group
    have: object = None
    weights: object = None
    for rows in cut(m, s.rows):
        for cols in cut(n, s.cols):
            for lanes in cut(k, s.lanes):
                groups = cut(len(lanes), s.group)
                if have != (rows, lanes):
                    have = (rows, lanes)
                    fetch(tally, "activation", len(rows) * len(lanes) * a_bits)
                    made = 0
                    for _ in rows:
                        for _ in groups:
                            made += 1
                            tally["table_entry"] += entries
                    building = up(made, s.builders) * up(entries, s.build_rate)
                    entering = up(len(rows) * len(lanes) * a_bits, s.activation_port_bits_per_cycle)
                    begin = before if s.table_shadow and not is_first else now
                    now = before = max(now, begin + max(building, entering))
                    is_first = False
                for plane in range(planes):
                    if weights != (cols, lanes, plane):
                        weights = (cols, lanes, plane)
                        fetch(tally, "weight", len(cols) * len(lanes) * plane_bits)
                    now += interval
                    for _ in rows:
                        for _ in cols:
                            for _ in groups:
                                tally["lane_ops"] += 1
                for _ in rows:
                    for _ in cols:
                        tally["accumulator_updates"] += 1
    return now, tally


def step_cycles(s: Any, a_edge: int, w_edge: int) -> int:
    """Return the cycles of a step whose edges take so many bits."""
    a_port, w_port = s.activation_port_bits_per_cycle, s.weight_port_bits_per_cycle
    return max(1, up(a_edge, a_port), up(w_edge, w_port))


def output_fold(rows: Part, cols: Part, chunks: list[Part], bits: Part) -> tuple[int, Tally]:
    """Clock cells that hold accumulators: activations move right, weights move down, results leave downwards."""
    tally: Tally = Counter()
    (r, c, t), (a_bits, w_bits) = (len(rows), len(cols), len(chunks)), bits
    for chunk in chunks:
        fetch(tally, "activation", r * len(chunk) * a_bits, 0)
        fetch(tally, "weight", c * len(chunk) * w_bits, 0)
    right: dict[Part, int] = {}  # cell -> index of the chunk in its register
    down: dict[Part, int] = {}
    clock = done = 0
    while done < r * c * t:
        new_right = {(i, j + 1): x for (i, j), x in right.items() if j + 1 < c}
        new_down = {(i + 1, j): x for (i, j), x in down.items() if i + 1 < r}
        new_right |= {(i, 0): clock - i for i in range(r) if 0 <= clock - i < t}
        new_down |= {(0, j): clock - j for j in range(c) if 0 <= clock - j < t}
        right, down = new_right, new_down
        for x in right.values():
            tally["activation register_bits"] += len(chunks[x]) * a_bits
        for x in down.values():
            tally["weight register_bits"] += len(chunks[x]) * w_bits
        for cell, x in right.items():
            assert down[cell] == x  # the operands of one product meet
            tally["accumulator_updates"] += 1
            tally["lane_ops"] += len(chunks[x])
            done += 1
        clock += 1
    return clock + r, tally  # a row of results leaves in each of r steps


def weight_fold(m: int, cols: Part, cells: list[Part], bits: Part) -> tuple[int, Tally]:
    """Clock cells that hold weights: they sink to their row first, then activations move right, sums down."""
    tally: Tally = Counter()
    (r, c), (a_bits, w_bits) = (len(cells), len(cols)), bits
    column: list[int | None] = [None] * r
    clock = 0
    for entering in reversed(range(r)):  # the lowest row's weights enter first
        column = [entering, *column[:-1]]
        fetch(tally, "weight", c * len(cells[entering]) * w_bits, 0)
        for row in column:
            if row is not None:
                tally["weight register_bits"] += c * len(cells[row]) * w_bits
        clock += 1
    assert column == list(range(r))
    depth = sum(len(cell) for cell in cells)
    right: dict[Part, int] = {}  # cell -> row of M in its register
    finished = start = 0
    while finished < m * c:
        new = {(i, j + 1): x for (i, j), x in right.items() if j + 1 < c}
        new |= {(i, 0): start - i for i in range(r) if 0 <= start - i < m}
        right = new
        for (i, j), _ in right.items():
            tally["activation register_bits"] += len(cells[i]) * a_bits
            tally["lane_ops"] += len(cells[i])
            if i == r - 1:
                assert j < c
                tally["accumulator_updates"] += 1
                finished += 1
        start += 1
    for _ in range(m):
        fetch(tally, "activation", depth * a_bits, 0)
    return clock + start, tally


def systolic(s: Any, shape: Part, bits: Part) -> tuple[int, Tally]:
    """All folds of a systolic array, one after the other or overlapping."""
    (m, n, k), (a_bits, w_bits), total = shape, bits, Counter()
    steps = [0]
    cells = cut(k, s.lanes)
    width = min(s.cols, n) * min(s.lanes, k) * w_bits
    if 0 in shape:
        return 0, total
    if s.kind == "systolic_output":
        streams = len(cells)
        cycles = step_cycles(s, min(s.rows, m) * min(s.lanes, k) * a_bits, width)
        folds = [output_fold(i, j, cells, bits) for i in cut(m, s.rows) for j in cut(n, s.cols)]
    else:
        streams = m
        cycles = step_cycles(s, min(s.rows * s.lanes, k) * a_bits, width)
        held = [[cells[i] for i in group] for group in cut(len(cells), s.rows)]
        folds = [weight_fold(m, j, group, bits) for j in cut(n, s.cols) for group in held]
    for index, (length, tally) in enumerate(folds):
        steps.append(streams if s.overlap_folds and index else length)
        total.update(tally)
    return sum(steps) * cycles, total
