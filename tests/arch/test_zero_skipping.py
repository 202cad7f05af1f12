"""Empty beats: cycles and counts of random sparse weights against plain loops, and a whole graph."""

from __future__ import annotations

from collections import Counter

import naive
import numpy as np
import pytest

from hwsim.arch.component import ArrayComponent
from hwsim.arch.zero_skipping import occupied_blocks, skipping_cycles, skipping_work
from hwsim.config.load import load_machine
from hwsim.engine.cost import cost
from hwsim.errors import ConfigError
from hwsim.graph.dtype import TERNARY, int_
from hwsim.graph.ir import Constant, Node, QuantGraph, Tensor

INT8 = int_(8)
TERNARY_TOY = [
    "arrays.main.kind=ternary",
    "arrays.main.formats=[{activation: INT8, weight: TERNARY}]",
]
SKIPPING = [*TERNARY_TOY, "arrays.main.zero_skipping=true"]


def toy(overrides: list[str]) -> ArrayComponent:
    return load_machine("toy", overrides).arrays["main"]


def walk(s: object, m: int, weight: np.ndarray) -> tuple[int, Counter[str]]:
    """Go through all beats and leave out those whose weights are all zero."""
    counts: Counter[str] = Counter()
    beats = 0
    held_a: object = None
    held_w: object = None
    n, k = weight.shape
    for rows in naive.cut(m, 4):
        for cols in naive.cut(n, 4):
            for lanes in naive.cut(k, 8):
                if not any(weight[j, x] for j in cols for x in lanes):
                    continue
                beats += 1
                if held_a != (rows, lanes):
                    held_a = (rows, lanes)
                    naive.fetch(counts, "activation", len(rows) * len(lanes) * 8)
                if held_w != (cols, lanes):
                    held_w = (cols, lanes)
                    naive.fetch(counts, "weight", len(cols) * len(lanes) * 2)
                for _ in rows:
                    for _ in cols:
                        counts["accumulator_updates"] += 1
                        for _ in lanes:
                            counts["lane_ops"] += 1
    return beats, counts


def sparse(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw ternary weights of which few are not zero, so that many blocks are empty."""
    return rng.integers(-1, 2, (n, k)) * (rng.random((n, k)) < rng.choice([0.0, 0.01, 0.05, 0.5]))


def test_cycles_and_counts_are_those_of_plain_loops() -> None:
    array, rng = toy(SKIPPING), np.random.default_rng(3)
    skipped = 0
    for _ in range(200):
        m, n, k = (int(x) for x in rng.integers(1, (14, 14, 40)))
        weight = sparse(rng, n, k)
        grid = occupied_blocks(weight, 4, 8)
        beats, counts = walk(array.spec, m, weight)
        assert skipping_cycles(array, m, n, k, INT8, TERNARY, grid) == beats
        assert naive.tally(skipping_work(array, m, n, k, INT8, TERNARY, grid)) == +counts
        skipped += array.beats(m, n, k, INT8, TERNARY) - beats
    assert skipped > 200


def test_with_nothing_empty_nothing_changes() -> None:
    array, rng = toy(SKIPPING), np.random.default_rng(4)
    for _ in range(100):
        m, n, k = (int(x) for x in rng.integers(1, (14, 14, 40)))
        grid = occupied_blocks(np.ones((n, k)), 4, 8)
        shape = (m, n, k, INT8, TERNARY)
        assert skipping_cycles(array, *shape, grid) == array.cycles(*shape)
        assert naive.tally(skipping_work(array, *shape, grid)) == naive.tally(array.work(*shape))


def graph(weight: np.ndarray) -> QuantGraph:
    n, k = weight.shape
    tensors = [Tensor("x", INT8, (10, k)), Tensor("y", int_(32), (10, n))]
    return QuantGraph(
        nodes=(Node("y", "linear", ("x",), {"weight": "w"}),),
        tensors={t.name: t for t in tensors},
        constants={"w": Constant("w", TERNARY, weight.astype(np.int8))},
        inputs=("x",),
        outputs=("y",),
    )


def test_a_graph_takes_the_beats_that_are_left() -> None:
    weight = sparse(np.random.default_rng(5), 48, 96)
    weight[:20] = 0
    dense, machine = load_machine("toy", TERNARY_TOY), load_machine("toy", SKIPPING)
    before, after = cost(graph(weight), dense).steady, cost(graph(weight), machine).steady
    row = after.operators[0]
    occupied = int(occupied_blocks(weight, 4, 8).sum())
    assert 0 < occupied < 12 * 12
    assert row.compute_cycles == 3 * occupied  # 10 rows are 3 blocks of 4
    assert before.operators[0].compute_cycles == 3 * 12 * 12
    assert after.cycles < before.cycles
    assert after.ledger.total.nominal < before.ledger.total.nominal
    assert 0 < row.utilisation_frac <= 1
    full = np.ones_like(weight)
    assert cost(graph(full), machine).to_json() == cost(graph(full), dense).to_json()


def test_other_kinds_refuse_to_skip() -> None:
    with pytest.raises(ConfigError, match="zero_skipping: must be false on an array of kind int"):
        load_machine("toy", ["arrays.main.zero_skipping=true"])
