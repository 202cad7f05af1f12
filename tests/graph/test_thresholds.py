"""Thresholds against the exact quantiser, for every accumulator value of a 16-bit range and every trap.

The quantiser in exact rationals is the truth: clamp(floor((f(y) + shift)/alpha + 1/2)), y = scale*acc +
bias, f the identity or the ReLU; bipolar: sign(y + shift), sign(0) = +1.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import reference
from hwsim.graph.derive import Affine, threshold_constants
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, uint
from hwsim.student import quantize

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)
FORMATS = [BIPOLAR, UNIPOLAR, TERNARY]
BOUND = 1 << 15


def exact_codes(
    acc: range, scale: float, bias: float, alpha: float, shift: float, relu: bool, dtype: DataType
) -> npt.NDArray[np.int64]:
    """The quantiser in rationals, element by element; all denominators are brought to one first."""
    s, b, a, t = (Fraction(v) for v in (scale, bias, alpha, shift))
    one = math.lcm(*(v.denominator for v in (s, b, a, t)))
    si, bi, ai, ti = (int(v * one) for v in (s, b, a, t))
    out = []
    for x in acc:
        y = si * x + bi
        moved = (max(y, 0) if relu else y) + ti
        if dtype.kind == "bipolar":
            out.append(1 if moved >= 0 else -1)
        else:
            out.append(min(max((2 * moved + ai) // (2 * ai), dtype.qmin), dtype.qmax))
    return np.array(out)


def by_thresholds(
    acc: npt.NDArray[np.int64], levels: npt.NDArray[np.int64], direction: npt.NDArray[np.int64], dtype: DataType
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Codes of accumulators [.., C] through the reference's operator."""
    result: npt.NDArray[np.int64] = reference.threshold(
        torch.from_numpy(acc), torch.from_numpy(levels), torch.from_numpy(direction), dtype
    ).numpy()
    return result


def codes_of(
    acc: range, scale: float, bias: float, alpha: float, shift: float, relu: bool, dtype: DataType, bound: int
) -> npt.NDArray[np.int64]:  # fmt: skip
    affine = Affine(np.array([scale]), np.array([bias]))
    levels, direction = threshold_constants(affine, alpha, np.array([shift]), relu, dtype, bound)
    return by_thresholds(np.array(acc)[:, None], levels, direction, dtype)[:, 0]


# scale, bias, alpha, shift: ordinary, negative scale, ties at every step, nothing reached, all reached
PARAMETERS = [
    (1e-4, 0.031, 0.7, -0.02),
    (-3.3e-5, 0.4, 0.25, 0.11),
    (2.0**-10, 0.0, 2.0**-3, 0.0),
    (-(2.0**-10), 2.0**-11, 2.0**-3, -(2.0**-5)),
    (1e-6, -5.0, 1.0, 0.0),
    (1e-6, 5.0, 1.0, 0.0),
    (7.123e-5, -0.6180339887, 1.4142135623, 0.5772156649),
]


@pytest.mark.parametrize("dtype", [*FORMATS, int_(2), uint(2)], ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_every_value_of_a_16_bit_range(
    parameters: tuple[float, float, float, float], relu: bool, dtype: DataType
) -> None:
    scale, bias, alpha, shift = parameters
    everything = range(-BOUND, BOUND + 1)
    got = codes_of(everything, scale, bias, alpha, shift, relu, dtype, BOUND)
    np.testing.assert_array_equal(got, exact_codes(everything, *parameters, relu, dtype))

    # float64, in the student's order of operations, agrees wherever the value is no near-tie
    y = torch.arange(-BOUND, BOUND + 1, dtype=torch.float64) * scale + bias
    y = y.relu() if relu else y
    one = torch.tensor([1.0], dtype=torch.float64)
    in_float = quantize(y, alpha * one, shift * one, dtype).numpy().astype(np.int64)
    edges = (
        [0.0] if dtype is BIPOLAR else [(c + 0.5) * alpha for c in range(dtype.qmin, dtype.qmax)]
    )
    distance = np.min([np.abs((y + shift).numpy() - e) for e in edges], axis=0)
    clear = distance > 1e-12
    np.testing.assert_array_equal(got[clear], in_float[clear])
    assert clear.mean() > 0.99 or relu  # a ReLU puts half the range on one value


@SETTINGS
@given(
    st.floats(-1e-2, 1e-2), st.floats(-2, 2), st.floats(1e-3, 2), st.floats(-1, 1), st.booleans(),
    st.sampled_from([*FORMATS, int_(2), uint(2), int_(4)]), st.integers(1, 300),
)  # fmt: skip
def test_any_parameters(
    scale: float, bias: float, alpha: float, shift: float, relu: bool, dtype: DataType, bound: int
) -> None:
    acc = range(-bound, bound + 1)
    got = codes_of(acc, scale, bias, alpha, shift, relu, dtype, bound)
    np.testing.assert_array_equal(got, exact_codes(acc, scale, bias, alpha, shift, relu, dtype))


@SETTINGS
@given(
    st.integers(-40, 40).filter(bool), st.integers(-40, 40), st.integers(1, 40), st.integers(-40, 40),
    st.sampled_from(FORMATS), st.booleans(),
)  # fmt: skip
def test_exact_ties_go_up(
    scale: int, bias: int, alpha: int, shift: int, dtype: DataType, relu: bool
) -> None:
    # small multiples of 2^-8 meet their edges exactly, again and again
    unit = 2.0**-8
    parameters = (scale * unit, bias * unit, 2 * alpha * unit, shift * unit)
    acc = range(-64, 65)
    got = codes_of(acc, *parameters, relu, dtype, 64)
    np.testing.assert_array_equal(got, exact_codes(acc, *parameters, relu, dtype))


def constants(
    scale: float, bias: float, alpha: float, shift: float, relu: bool, dtype: DataType
) -> tuple[list[int], int]:
    """Thresholds and direction of one channel in a static range of +-100."""
    levels, direction = threshold_constants(
        Affine(np.array([scale]), np.array([bias])), alpha, np.array([shift]), relu, dtype, 100
    )
    return levels[0].tolist(), int(direction[0])


class TestTraps:
    """One channel, made by hand, for each thing that can go wrong; the static range is -100..100."""

    def test_bipolar_counts_zero_as_plus_one(self) -> None:
        # sign(acc/2 - 5) changes where acc = 10, and is +1 there
        assert constants(0.5, -5.0, 1.0, 0.0, False, BIPOLAR) == ([10], 1)
        # a non-integer crossing 10.5 rounds up
        assert constants(0.5, -5.25, 1.0, 0.0, False, BIPOLAR) == ([11], 1)
        # the shift adds to the bias: acc/2 - 5 + 3 >= 0 from 4 on
        assert constants(0.5, -5.0, 1.0, 3.0, False, BIPOLAR) == ([4], 1)

    def test_bipolar_does_not_depend_on_alpha(self) -> None:
        assert constants(0.5, -5.0, 1e-3, 0.0, False, BIPOLAR) == ([10], 1)

    def test_unipolar_changes_at_half_alpha_inclusive(self) -> None:
        # acc/4 >= 3/2 from 6 on; exactly 6 is a tie, which goes up
        assert constants(0.25, 0.0, 3.0, 0.0, False, UNIPOLAR) == ([6], 1)
        assert constants(0.25, -(2.0**-40), 3.0, 0.0, False, UNIPOLAR) == ([7], 1)

    def test_ternary_has_two_thresholds(self) -> None:
        # code 0 from -alpha/2 = -1 (acc -4) on, code 1 from +1 (acc 4) on
        assert constants(0.25, 0.0, 2.0, 0.0, False, TERNARY) == ([-4, 4], 1)

    def test_a_negative_scale_turns_the_comparison(self) -> None:
        # 5 - acc/2 >= 0 up to acc = 10, inclusive
        assert constants(-0.5, 5.0, 1.0, 0.0, False, BIPOLAR) == ([10], -1)
        # ternary: code >= 0 where -acc/4 >= -1, acc <= 4; code 1 where acc <= -4
        assert constants(-0.25, 0.0, 2.0, 0.0, False, TERNARY) == ([4, -4], -1)

    def test_a_scale_of_zero_is_a_constant(self) -> None:
        assert constants(0.0, 0.0, 1.0, 0.0, False, BIPOLAR) == ([-100], 1)  # always +1
        assert constants(0.0, -1e-300, 1.0, 0.0, False, BIPOLAR) == ([101], 1)  # never
        assert constants(0.0, 0.5, 1.0, 0.0, False, UNIPOLAR) == ([-100], 1)  # a tie, up
        assert constants(0.0, 0.2, 1.0, 0.0, False, TERNARY) == ([-100, 101], 1)  # always 0

    def test_a_level_that_is_never_reached(self) -> None:
        assert constants(0.01, 0.0, 4.0, 0.0, False, UNIPOLAR) == ([101], 1)
        assert constants(-0.01, 0.0, 4.0, 0.0, False, UNIPOLAR) == ([-101], -1)
        # reached by the very last value
        assert constants(0.01, 0.0, 2.0, -(2.0**-60), False, UNIPOLAR)[0] in ([100], [101])
        assert constants(0.25, 0.0, 50.0, 0.0, False, UNIPOLAR) == ([100], 1)

    def test_a_level_that_is_always_reached_is_clamped_to_the_range(self) -> None:
        assert constants(0.01, 50.0, 4.0, 0.0, False, UNIPOLAR) == ([-100], 1)
        assert constants(-0.01, 50.0, 4.0, 0.0, False, UNIPOLAR) == ([100], -1)

    def test_a_relu_with_a_shift_of_half_alpha_is_always_one(self) -> None:
        assert constants(0.5, -9.0, 2.0, 1.0, True, UNIPOLAR) == ([-100], 1)
        assert constants(-0.5, -9.0, 2.0, 1.0, True, UNIPOLAR) == ([100], -1)

    def test_a_relu_with_a_smaller_shift_vanishes_into_the_threshold(self) -> None:
        # acc/2 - 9 + 1/2 >= 1 from 19 on, with and without the ReLU
        with_relu = constants(0.5, -9.0, 2.0, 0.5, True, UNIPOLAR)
        assert with_relu == constants(0.5, -9.0, 2.0, 0.5, False, UNIPOLAR) == ([19], 1)

    def test_a_relu_before_a_sign(self) -> None:
        # max(y, 0) + shift >= 0 always for shift >= 0; for shift < 0 where y >= -shift
        assert constants(0.5, 0.0, 1.0, 0.0, True, BIPOLAR) == ([-100], 1)
        assert constants(0.5, 0.0, 1.0, -2.0, True, BIPOLAR) == ([4], 1)

    def test_a_relu_before_ternary_codes_has_no_negative_code(self) -> None:
        assert constants(0.5, 0.0, 2.0, 0.0, True, TERNARY) == ([-100, 2], 1)

    def test_a_near_tie_is_decided_on_the_stored_floats(self) -> None:
        # alpha/2 / scale is 16777217 exactly; float32 would round it to 16777216
        scale, alpha = 2.0**-12, 2 * 16_777_217 * 2.0**-12
        levels, _ = threshold_constants(
            Affine(np.array([scale]), np.zeros(1)), alpha, np.zeros(1), False, UNIPOLAR, 1 << 30
        )
        assert levels.tolist() == [[16_777_217]]

    def test_stored_tenths_are_not_tenths(self) -> None:
        # float64 says 0.1 * 3 > 0.3, so (0.3 - 0.1*3)/... would be a negative residue; exactly, the stored
        # 0.3 is below three times the stored 0.1, so acc = 3 reaches 0.3
        assert Fraction(0.1) * 3 > Fraction(0.3)
        assert constants(0.1, 0.0, 0.6, 0.0, False, UNIPOLAR) == ([3], 1)
        # the stored 0.7 is below seven times the stored 0.1, though float64 rounds 0.1 * 7 up to 0.7000000000000001
        assert Fraction(0.1) * 7 > Fraction(0.7)
        assert constants(0.1, -0.7, 1.0, 0.0, False, BIPOLAR) == ([7], 1)
        # and three times the stored 0.3 is below the stored 0.9: acc = 3 does not reach it
        assert Fraction(0.3) * 3 < Fraction(0.9)
        assert constants(0.3, -0.9, 1.0, 0.0, False, BIPOLAR) == ([4], 1)


def test_channels_keep_their_own_thresholds_and_directions() -> None:
    affine = Affine(np.array([0.5, -0.5, 0.0]), np.array([-5.0, 5.0, -1.0]))
    levels, direction = threshold_constants(affine, 1.0, np.zeros(1), False, BIPOLAR, 100)
    assert levels.tolist() == [[10], [10], [101]]
    assert direction.tolist() == [1, -1, 1]
    acc = np.array([[9, 9, 100], [10, 10, -100], [11, 11, 0]])
    assert by_thresholds(acc, levels, direction, BIPOLAR).tolist() == [
        [-1, 1, -1],
        [1, 1, -1],
        [1, -1, -1],
    ]


def test_a_shift_a_channel_with_one_scale() -> None:
    affine = Affine(np.array([0.5]), np.zeros(1))
    levels, direction = threshold_constants(affine, 1.0, np.array([0.0, -2.0]), False, BIPOLAR, 100)
    assert levels.tolist() == [[0], [4]]
    assert direction.tolist() == [1, 1]


def test_equal_channels_are_stored_once() -> None:
    affine = Affine(np.array([0.5, 0.5, 0.5]), np.array([-5.0, -4.9, -5.0]))
    # -5 and -4.9 both change at 10: acc/2 >= 4.9 from 9.8 on
    levels, direction = threshold_constants(affine, 1.0, np.zeros(1), False, BIPOLAR, 100)
    assert (levels.tolist(), direction.tolist()) == ([[10]], [1])


def test_the_popcount_form_of_a_threshold() -> None:
    # on an XNOR array acc = K - 2p >= T iff p <= floor((K - T)/2)
    for k in range(1, 9):
        for t in range(-k, k + 2):
            for p in range(k + 1):
                assert (k - 2 * p >= t) == (p <= (k - t) // 2)
