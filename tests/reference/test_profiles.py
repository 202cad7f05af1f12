"""Accumulators that are too narrow: the reference, the arrays and plain Python integers agree.

The third implementation here works on one pair of rows at a time, in unlimited integers, and writes BIPOLAR
bits and their read-out correction anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import reference
from hwsim.arch.component import ArrayComponent
from hwsim.config.load import load_machine
from hwsim.errors import OverflowRefused
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint
from hwsim.graph.numeric import NumericProfile, Overflow, matmul_bound, weight_bound

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
TYPES = [
    BIPOLAR,
    UNIPOLAR,
    TERNARY,
    int_(2),
    int_(4),
    int_(8),
    uint(3),
    uint(8),
    int_(8, narrow=True),
]
RULES: tuple[Overflow, ...] = ("error", "wrap", "clamp")
WEIGHT_RULES: tuple[Overflow, ...] = ("wrap", "clamp")


def plain_dot(
    a: Sequence[int], w: Sequence[int], a_type: DataType, w_type: DataType, profile: NumericProfile
) -> int:
    """One element as the array accumulates it; OverflowError with the value under the rule `error`."""
    args = (profile.lanes, profile.accumulator_bits, profile.overflow)
    if not profile.bit_serial:
        return int(plain.chunked_dot(a, w, *args))
    a_bits = [(x + 1) // 2 for x in a] if a_type == BIPOLAR else list(a)
    w_bits = [(x + 1) // 2 for x in w] if w_type == BIPOLAR else list(w)
    acc: int = plain.chunked_bit_serial_dot(
        a_bits, w_bits, a_type.bits, w_type.bits,
        a_type.is_signed and a_type != BIPOLAR, w_type.is_signed and w_type != BIPOLAR, *args,
    )  # fmt: skip
    # x = 2b - 1: the machine holds sum b*c and corrects what it reads
    if a_type == BIPOLAR and w_type == BIPOLAR:
        return 4 * acc - 2 * sum(a_bits) - 2 * sum(w_bits) + len(a)
    if a_type == BIPOLAR:
        return 2 * acc - sum(w)
    return 2 * acc - sum(a) if w_type == BIPOLAR else acc


@dataclass
class Problem:
    """A small product: codes [M, K] and [N, K], and how to accumulate them."""

    a: list[list[int]]
    w: list[list[int]]
    a_type: DataType
    w_type: DataType
    profile: NumericProfile

    def through_reference(self) -> list[list[int]]:
        a, w = (torch.tensor(x, dtype=torch.int64) for x in (self.a, self.w))
        out: list[list[int]] = reference.contract_profile(
            a, w, self.a_type, self.w_type, self.profile, "operator acc"
        ).tolist()
        return out

    def plainly(self) -> list[list[int]]:
        types = (self.a_type, self.w_type)
        return [[plain_dot(x, y, *types, self.profile) for y in self.w] for x in self.a]

    def exactly(self) -> list[list[int]]:
        out: list[list[int]] = plain.matmul(self.a, self.w)
        return out


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    m, n, k = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    a_type, w_type = draw(st.sampled_from(TYPES)), draw(st.sampled_from(TYPES))

    def codes(dtype: DataType, rows: int) -> list[list[int]]:
        # the ends of a range overflow soonest: half of the codes are drawn from them
        one = st.one_of(st.sampled_from([dtype.qmin, dtype.qmax]), st.sampled_from(dtype.levels))
        return draw(st.lists(st.lists(one, min_size=k, max_size=k), min_size=rows, max_size=rows))

    profile = NumericProfile(
        draw(st.integers(2, 12)), draw(st.sampled_from(RULES)), draw(st.integers(1, 9)), draw(st.booleans())
    )  # fmt: skip
    return Problem(codes(a_type, m), codes(w_type, n), a_type, w_type, profile)


@SETTINGS
@given(problems())
def test_reference_accumulates_like_plain_integers(problem: Problem) -> None:
    try:
        want = problem.plainly()
    except OverflowError:
        with pytest.raises(OverflowRefused, match="operator acc: accumulator element"):
            problem.through_reference()
    else:
        assert problem.through_reference() == want


@SETTINGS
@given(problems())
def test_a_wide_accumulator_is_exact_in_any_order(problem: Problem) -> None:
    wide = NumericProfile(32, "error", problem.profile.lanes, problem.profile.bit_serial)
    problem.profile = wide
    assert problem.through_reference() == problem.exactly()


@SETTINGS
@given(problems())
def test_where_the_static_bound_fits_no_rule_ever_acts(problem: Problem) -> None:
    weights = np.array(problem.w)
    bound = weight_bound(weights, problem.a_type)
    by_type = matmul_bound(weights.shape[1], problem.a_type, problem.w_type)
    largest = max(abs(v) for row in problem.exactly() for v in row)
    assert largest <= bound <= by_type
    profile = NumericProfile(bound.bit_length() + 1, "error", problem.profile.lanes)
    assert profile.fits(bound)
    problem.profile = profile
    assert problem.through_reference() == problem.exactly()


@SETTINGS
@given(problems(), st.integers(1, 20))
def test_wrapping_does_not_depend_on_the_order(problem: Problem, lanes: int) -> None:
    results = []
    for width in (problem.profile.lanes, lanes):
        problem.profile = NumericProfile(problem.profile.accumulator_bits, "wrap", width)
        results.append(problem.through_reference())
    assert results[0] == results[1]


def test_the_refusal_names_operator_element_value_and_bits() -> None:
    # chunks of two: 127*127*2 = 32258 fits 16 bits, the next chunk makes 64516, which needs 17
    a = [[0, 0, 0, 0], [127, 127, 127, 127]]
    w = [[1, 1, 1, 1], [127, 127, 127, 127]]
    problem = Problem(a, w, int_(8), int_(8), NumericProfile(16, "error", 2))
    with pytest.raises(OverflowRefused) as error:
        problem.through_reference()
    text = str(error.value)
    assert text.startswith(
        "operator acc: accumulator element [1, 1] reached 64516, which needs 17 bits"
    )
    assert "the array has 16" in text


@pytest.mark.parametrize(
    ("rule", "result"),
    # +7 +7 -7 with 4 bits (-8..7): 14 wraps to -2, then -9 to 7; clamped 7, then 0
    [("wrap", 7), ("clamp", 0)],
)
def test_wrap_and_clamp_by_hand(rule: Overflow, result: int) -> None:
    problem = Problem([[1, 1, 1]], [[7, 7, -7]], UNIPOLAR, int_(4), NumericProfile(4, rule, 1))
    assert problem.through_reference() == [[result]]
    problem.profile = NumericProfile(4, rule, 3)  # one chunk: the sum 7 is exact
    assert problem.through_reference() == [[7]]


def test_bit_serial_order_by_hand() -> None:
    # -1 is 1111 in INT4: planes +1, +2, +4, -8 of weight against the one plane of UNIPOLAR
    problem = Problem([[1]], [[-1]], UNIPOLAR, int_(4), NumericProfile(4, "clamp", 1, True))
    assert problem.through_reference() == [[-1]]  # 1, 3, 7, -1: just fits
    problem.profile = NumericProfile(3, "clamp", 1, True)
    assert problem.through_reference() == [[-4]]  # 1, 3, 7 -> 3, 3 - 8 -> -4
    problem.profile = NumericProfile(3, "error", 1, True)
    with pytest.raises(OverflowRefused, match="reached 7, which needs 4 bits"):
        problem.through_reference()


def test_bipolar_read_out_by_hand() -> None:
    # stored bits 1,0,1 and 1,1,0: one common one; 4*1 - 2*2 - 2*2 + 3 = -1 = 1 - 1 - 1
    problem = Problem(
        [[1, -1, 1]], [[1, 1, -1]], BIPOLAR, BIPOLAR, NumericProfile(4, "error", 3, True)
    )
    assert problem.through_reference() == [[-1]]


# -- the arrays of the machines

ARRAYS = {
    "xnor_edge": [(BIPOLAR, BIPOLAR), (UNIPOLAR, BIPOLAR)],
    "ternary_edge": [(int_(8), TERNARY), (uint(8), TERNARY), (int_(8), BIPOLAR), (TERNARY, TERNARY)],
    "bitserial_edge": [
        (BIPOLAR, BIPOLAR), (UNIPOLAR, BIPOLAR), (BIPOLAR, int_(4)), (int_(4), BIPOLAR), (BIPOLAR, TERNARY),
        (TERNARY, BIPOLAR), (TERNARY, TERNARY), (uint(8), TERNARY), (int_(8), int_(8)), (uint(8), BIPOLAR),
    ],
    "int8_edge": [(int_(8), int_(8)), (uint(8), int_(8, narrow=True)), (BIPOLAR, BIPOLAR), (UNIPOLAR, TERNARY)],
}  # fmt: skip
PAIRS = [(machine, a, w) for machine, pairs in ARRAYS.items() for a, w in pairs]


@cache
def array_of(machine: str, bits: int, rule: str) -> ArrayComponent:
    changes = (f"arrays.main.accumulator_bits={bits}", f"arrays.main.overflow={rule}")
    return load_machine(machine, changes).arrays["main"]


def drawn(dtype: DataType, shape: tuple[int, int], seed: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Random codes as they lie in memory; the first row is the largest code throughout, the second the smallest."""
    codes = np.random.default_rng(seed).choice(np.array(dtype.levels), shape)
    codes[0], codes[1] = dtype.qmax, dtype.qmin
    return codes.astype(np.uint8 if dtype.qmax > 127 else np.int8)


def in_reference(
    array: ArrayComponent, a: Any, w: Any, a_type: DataType, w_type: DataType
) -> np.ndarray[Any, np.dtype[np.int64]]:
    out: np.ndarray[Any, np.dtype[np.int64]] = reference.contract_profile(
        torch.from_numpy(a.astype(np.int64)), torch.from_numpy(w.astype(np.int64)), a_type, w_type,
        array.profile(a_type, w_type), "gemm",
    ).numpy()  # fmt: skip
    return out


@pytest.mark.parametrize("bits", [4, 6, 10])
@pytest.mark.parametrize("rule", WEIGHT_RULES)
@pytest.mark.parametrize(("machine", "a_type", "w_type"), PAIRS, ids=str)
def test_every_array_accumulates_like_the_reference(
    machine: str, a_type: DataType, w_type: DataType, rule: Overflow, bits: int
) -> None:
    array = array_of(machine, bits, rule)
    changed = False
    for k in (1, 64, 65, 600):
        a, w = drawn(a_type, (4, k), k), drawn(w_type, (5, k), k + 1)
        got = array.gemm(a, w, a_type, w_type)
        np.testing.assert_array_equal(got, in_reference(array, a, w, a_type, w_type))
        changed |= bool((got != a.astype(np.int64) @ w.astype(np.int64).T).any())
    assert changed  # the rule really acted


@pytest.mark.parametrize("bits", [4, 10])
@pytest.mark.parametrize(("machine", "a_type", "w_type"), PAIRS, ids=str)
def test_array_and_reference_refuse_the_same_products(
    machine: str, a_type: DataType, w_type: DataType, bits: int
) -> None:
    array = array_of(machine, bits, "error")
    refused = 0
    for k in (1, 5, 64, 600):
        a, w = drawn(a_type, (3, k), k), drawn(w_type, (3, k), k + 1)
        for row in range(3):
            one = a[row : row + 1]
            try:
                want = in_reference(array, one, w, a_type, w_type)
            except OverflowRefused:
                refused += 1
                with pytest.raises(OverflowRefused, match=f"accumulator_bits {bits}"):
                    array.gemm(one, w, a_type, w_type)
            else:
                np.testing.assert_array_equal(array.gemm(one, w, a_type, w_type), want)
    assert refused


@pytest.mark.parametrize(("machine", "a_type", "w_type"), PAIRS, ids=str)
def test_the_static_bound_is_sound(machine: str, a_type: DataType, w_type: DataType) -> None:
    a, w = drawn(a_type, (3, 130), 1), drawn(w_type, (3, 130), 2)
    bound = array_of(machine, 10, "error").static_bound(w, 130, a_type, w_type)
    array = array_of(machine, bound.bit_length() + 1, "error")
    assert array.profile(a_type, w_type).fits(bound)
    # the chunked arithmetic itself, not the fast path, must get through as well
    np.testing.assert_array_equal(
        in_reference(array, a, w, a_type, w_type), a.astype(np.int64) @ w.astype(np.int64).T
    )
    assert not array_of(machine, bound.bit_length(), "error").profile(a_type, w_type).fits(bound)
