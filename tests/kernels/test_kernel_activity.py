"""The switching kernel against an interpreter that steps a register of single bits cycle by cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels.activity import SUMS, operand_switching

ROWS, LANES, BITS = 3, 4, 5
SIZES = (0, 1, LANES - 1, LANES, LANES + 1)


class BitRegister:
    """Bits by (row, lane, bit), all 0 at first; every cycle counts the ones."""

    def __init__(self, rows: int, lanes: int, bits: int) -> None:
        places = [(r, l, b) for r in range(rows) for l in range(lanes) for b in range(bits)]  # noqa: E741
        self.value = dict.fromkeys(places, 0)
        self.high = dict.fromkeys(places, 0)
        self.flips = dict.fromkeys(places, 0)
        self.sums = dict.fromkeys(SUMS, 0)
        self.cycles = 0

    def step(self, patterns: Any, is_weight: bool, block: tuple[int, int], others: int, pass_bits: int,
             planes: tuple[int, int], occupied: Any, interval: int) -> None:  # fmt: skip
        rows, depth = patterns.shape
        own = range(0, rows, block[0])
        m_blocks, n_blocks = (range(others), own) if is_weight else (own, range(others))
        before: Any = None
        for i in m_blocks:
            for n_index, j in enumerate(n_blocks):
                for k_index, k in enumerate(range(0, depth, block[1])):
                    if not occupied[n_index][k_index]:
                        continue
                    for w_plane in range(planes[1]):
                        for a_plane in range(planes[0]):
                            key = (j, k, w_plane) if is_weight else (i, k, a_plane)
                            if key != before:
                                self.load(patterns, key, block, pass_bits)
                            before = key
                            self.sums["beats"] += 1
                            self.wait(interval)

    def load(self, patterns: Any, key: tuple[int, int, int], block: tuple[int, int], pass_bits: int) -> None:  # fmt: skip
        row0, k0, plane = key
        for r, row in enumerate(patterns[row0 : row0 + block[0]].tolist()):
            for l, code in enumerate(row[k0 : k0 + block[1]]):  # noqa: E741
                self.sums["loaded_codes"] += 1
                self.sums["loaded_clear"] += code == 0
                for b in range(pass_bits):
                    bit = int(f"{code:040b}"[::-1][plane * pass_bits + b])
                    self.sums["loaded_bits"] += 1
                    self.sums["loaded_ones"] += bit
                    if bit != self.value[r, l, b]:
                        self.flips[r, l, b] += 1
                        self.sums["toggles"] += 1
                    self.value[r, l, b] = bit

    def wait(self, cycles: int) -> None:
        for place, bit in self.value.items():
            self.high[place] += bit * cycles
        self.cycles += cycles


class KernelRegister:
    def __init__(self, rows: int, lanes: int, bits: int) -> None:
        self.held = np.zeros((rows, lanes), np.uint32)
        self.since = np.zeros((rows, lanes), np.int64)
        self.high = np.zeros((rows, lanes, bits), np.int64)
        self.flips = np.zeros((rows, lanes, bits), np.int64)
        self.sums = np.zeros(len(SUMS), np.int64)
        self.cycles = 0

    def step(self, patterns: Any, is_weight: bool, block: tuple[int, int], others: int, pass_bits: int,
             planes: tuple[int, int], occupied: Any, interval: int, run: Any = operand_switching) -> None:  # fmt: skip
        self.cycles = run(
            patterns, is_weight, block, others, pass_bits, planes, occupied, interval, self.cycles,
            self.held, self.since, self.high, self.flips, self.sums,
        )  # fmt: skip


def assert_equal(kernel: KernelRegister, plain: BitRegister) -> None:
    assert kernel.cycles == plain.cycles
    assert dict(zip(SUMS, kernel.sums.tolist(), strict=True)) == plain.sums
    for (r, l, b), bit in plain.value.items():  # noqa: E741
        assert kernel.held[r, l] >> b & 1 == bit
        assert kernel.flips[r, l, b] == plain.flips[r, l, b]
        held_for = kernel.cycles - kernel.since[r, l]
        assert kernel.high[r, l, b] + bit * held_for == plain.high[r, l, b]


def a_step(random: np.random.Generator, rows: int, depth: int, others: int, is_weight: bool,
           block: tuple[int, int], pass_bits: int, planes: tuple[int, int], skip: bool) -> tuple[Any, ...]:  # fmt: skip
    whole = pass_bits * planes[1 if is_weight else 0]
    patterns = random.integers(0, 1 << whole, (rows, depth)).astype(np.uint32)
    n_blocks = -(-rows // block[0]) if is_weight else others
    grid = (n_blocks, -(-depth // block[1]))
    occupied = random.random(grid) < 0.5 if skip else np.ones(grid, np.bool_)
    interval = int(random.integers(1, 4))
    return patterns, is_weight, block, others, pass_bits, planes, occupied, interval


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, ROWS + 1])
@pytest.mark.parametrize("is_weight", [False, True])
def test_edge_shapes(rows, depth, is_weight):
    """Steps of one register after each other: what one leaves behind counts in the next."""
    random = np.random.default_rng(rows * 100 + depth * 10 + is_weight)
    kernel, plain = KernelRegister(ROWS, LANES, BITS), BitRegister(ROWS, LANES, BITS)
    for planes, pass_bits in (((1, 1), BITS), ((3, 2), 1), ((1, 1), 2)):
        step = a_step(random, rows, depth, 2, is_weight, (ROWS, LANES), pass_bits, planes, False)
        kernel.step(*step)
        plain.step(*step)
    assert_equal(kernel, plain)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(
        st.tuples(
            st.integers(0, 8), st.integers(0, 9), st.integers(1, 3), st.booleans(),
            st.tuples(st.integers(1, ROWS), st.integers(1, LANES)), st.sampled_from([((1, 1), 5), ((4, 2), 1), ((1, 2), 3)]),
            st.booleans(),
        ),
        min_size=1, max_size=3,
    ),
)  # fmt: skip
def test_any_sequence_of_steps(seed, steps):
    random = np.random.default_rng(seed)
    kernel, plain = KernelRegister(ROWS, LANES, BITS), BitRegister(ROWS, LANES, BITS)
    for rows, depth, others, is_weight, block, (planes, pass_bits), skip in steps:
        step = a_step(random, rows, depth, others, is_weight, block, pass_bits, planes, skip)
        kernel.step(*step)
        plain.step(*step)
    assert_equal(kernel, plain)


def test_compiled_and_interpreted_agree():
    random = np.random.default_rng(1)
    step = a_step(random, 7, 9, 2, True, (ROWS, LANES), 1, (2, 3), True)
    compiled, interpreted = KernelRegister(ROWS, LANES, BITS), KernelRegister(ROWS, LANES, BITS)
    compiled.step(*step)
    interpreted.step(*step, run=operand_switching.py_func)
    assert compiled.sums.tolist() == interpreted.sums.tolist()
    assert np.array_equal(compiled.high, interpreted.high)
    assert np.array_equal(compiled.held, interpreted.held)


def test_random_data_flips_half_of_what_is_loaded():
    random = np.random.default_rng(2)
    register = KernelRegister(ROWS, LANES, BITS)
    register.step(*a_step(random, 3000, 8, 1, False, (ROWS, LANES), BITS, (1, 1), False))
    sums = dict(zip(SUMS, register.sums.tolist(), strict=True))
    assert sums["loaded_bits"] == 3000 * 8 * BITS
    assert abs(sums["toggles"] / sums["loaded_bits"] - 0.5) < 0.01
