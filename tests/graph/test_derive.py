"""Stored integers against exact rational arithmetic: M, S, B, layer norm, softmax, tables, embedding."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import GraphError
from hwsim.graph import derive
from hwsim.graph.derive import Affine
from hwsim.graph.dtype import BIPOLAR, int_, uint

SETTINGS = settings(derandomize=True, deadline=None, max_examples=300)
HALF = Fraction(1, 2)
positive = st.floats(min_value=2.0**-120, max_value=2.0**60, allow_subnormal=False)


def affine(scale: list[float], bias: list[float]) -> Affine:
    return Affine(np.array(scale), np.array(bias))


# -- M and S


@SETTINGS
@given(st.floats(min_value=2.0**-31, max_value=2.0**29, exclude_max=True))
def test_multiplier_is_normalised_and_nearest(ratio: float) -> None:
    m, s = derive.multiplier(ratio, "here")
    assert 1 <= s <= 62
    assert 1 << 30 <= m < 1 << 31
    assert abs(Fraction(m, 1 << s) - Fraction(ratio)) * (1 << 31) <= Fraction(ratio)


@SETTINGS
@given(st.floats(min_value=2.0**-62, max_value=2.0**-31, exclude_max=True))
def test_small_ratios_lose_bits_of_m_at_the_largest_shift(ratio: float) -> None:
    m, s = derive.multiplier(ratio, "here")
    assert s == 62 or (m, s) == (1 << 30, 61)  # a ratio just below 2^-31 may round up to it
    # two roundings: to 31 bits, then to the grid of 2^-62
    assert abs(Fraction(m, 1 << s) - Fraction(ratio)) <= Fraction(1, 1 << 63) + Fraction(ratio) / (
        1 << 31
    )


@SETTINGS
@given(positive)
def test_a_multiplier_is_in_range_or_refused(ratio: float) -> None:
    try:
        m, s = derive.multiplier(ratio, "here")
    except GraphError:
        assert ratio < 2.0**-62 or ratio >= 2.0**30 - 1
    else:
        assert 0 < m < 1 << 31
        assert 1 <= s <= 62
        assert s == 62 or m >= 1 << 30


def test_a_mantissa_that_rounds_up_to_2_to_the_b_carries_into_the_exponent() -> None:
    # 1 - 2^-40 = 0.1111..b: M would be round(2^31 - 2^-9) = 2^31, which has 32 bits
    assert derive.multiplier(1 - 2.0**-40, "here") == (1 << 30, 30)
    assert derive.multiplier(1.0, "here") == (1 << 30, 30)
    # one step of M lower it does not carry
    assert derive.multiplier(1 - 2.0**-31, "here") == ((1 << 31) - 1, 31)


def test_limits_of_the_shift() -> None:
    assert derive.multiplier(0.0, "here") == (0, 1)
    assert derive.multiplier(2.0**29, "here") == (1 << 30, 1)
    assert derive.multiplier(2.0**-62, "here") == (1, 62)
    assert derive.multiplier(2.0**-63, "here") == (1, 62)  # half a unit rounds up
    for ratio in (2.0**30, 2.0**-64, 5e-324):
        with pytest.raises(GraphError, match=r"block\.fc: .* does not fit a 31-bit multiplier"):
            derive.multiplier(ratio, "block.fc")
    # the carry can push S below 1
    with pytest.raises(GraphError, match="does not fit"):
        derive.multiplier(2.0**30 * (1 - 2.0**-40), "here")


@pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf, -math.inf])
def test_a_ratio_must_be_finite_and_not_negative(ratio: float) -> None:
    with pytest.raises(GraphError, match="here: a scale ratio must be finite and not negative"):
        derive.multiplier(ratio, "here")


def test_narrower_multipliers() -> None:
    assert derive.multiplier(0.75, "here", bits=16) == (0xC000, 16)
    # 1/3 = 0.6667 * 2^-1: floor(2/3 * 65536 + 1/2) = 43691, S = 16 + 1
    assert derive.multiplier(1 / 3, "here", bits=16) == (43691, 17)


# -- requant


@SETTINGS
@given(
    st.floats(min_value=1e-6, max_value=1e-2),
    st.floats(min_value=1e-3, max_value=10),
    st.floats(min_value=-10, max_value=10),
    st.integers(-(2**20), 2**20),
)
def test_requant_constants_give_the_rounded_real_value(
    s_in: float, s_out: float, bias: float, acc: int
) -> None:
    m, s, b = (
        int(v[0]) for v in derive.requant_constants(affine([s_in], [bias]), s_out, 2**20, "x")
    )
    got = (acc * m + b + (1 << (s - 1))) >> s
    real = (Fraction(s_in) * acc + Fraction(bias)) / Fraction(s_out)
    # M is off by 2^-31 of the ratio, which itself is a float64 quotient; B by half a unit of 2^-S
    slack = abs(Fraction(s_in) * acc / Fraction(s_out)) * Fraction(1, 1 << 30) + Fraction(1, 1 << s)
    assert abs(got - real) <= HALF + slack
    if (
        abs((real + HALF) - round(real + HALF)) > slack
    ):  # no tie within the error: exactly the rounding
        assert got == math.floor(real + HALF)


def test_requant_constants_by_hand() -> None:
    # r = 0.25 -> M = 2^30, S = 32;  B = bias/s_out * 2^32 = (3/2) * 2^32
    m, s, b = derive.requant_constants(affine([0.5], [3.0]), 2.0, 1000, "here")
    assert (m.tolist(), s.tolist(), b.tolist()) == ([1 << 30], [32], [3 << 31])
    # a channel each: r = 1 -> (2^30, 30), r = 3 -> 0.75 * 2^2 -> M = 0.75 * 2^31, S = 29; r = 0 -> (0, 1)
    m, s, b = derive.requant_constants(affine([1.0, 3.0, 0.0], [0.0, -1.0, 2.5]), 1.0, 1000, "here")
    assert m.tolist() == [1 << 30, 3 << 29, 0]
    assert s.tolist() == [30, 29, 1]
    assert b.tolist() == [0, -(1 << 29), 5]


def test_the_bias_keeps_its_full_precision() -> None:
    # a bias of 0.3 of an accumulator step would vanish if it were rounded to the accumulator's scale
    _, s, b = derive.requant_constants(affine([1e-4], [0.3e-4]), 1e-2, 1000, "here")
    assert b[0] == math.floor(Fraction(0.3e-4) / Fraction(1e-2) * (1 << int(s[0])) + HALF)
    assert b[0] > 0


def test_a_negative_slope_is_refused() -> None:
    with pytest.raises(GraphError, match="not negative"):
        derive.requant_constants(affine([-1.0], [0.0]), 1.0, 10, "here")


def test_refuses_what_could_leave_int64_and_accepts_the_last_value_that_cannot() -> None:
    # r = 1: M = 2^30, S = 30, B = 0. Largest bound with bound * 2^30 + 2^29 < 2^63 is 2^33 - 1.
    derive.requant_constants(affine([1.0], [0.0]), 1.0, (1 << 33) - 1, "here")
    with pytest.raises(
        GraphError, match=r"enc\.0: requant could leave int64.*2\^30|enc\.0: requant"
    ):
        derive.requant_constants(affine([1.0], [0.0]), 1.0, 1 << 33, "enc.0")
    # the bias counts: |B| = 2^32 * 2^30
    derive.requant_constants(affine([1.0], [2.0**32]), 1.0, (1 << 32) - 1, "here")
    with pytest.raises(GraphError, match="could leave int64"):
        derive.requant_constants(affine([1.0], [-(2.0**32)]), 1.0, 1 << 32, "here")
    # and one channel of many is enough
    with pytest.raises(GraphError, match="could leave int64"):
        derive.requant_constants(affine([1.0, 1.0], [0.0, 2.0**33]), 1.0, 10, "here")


@SETTINGS
@given(positive, positive, st.floats(-1e9, 1e9), st.integers(1, 2**32))
def test_what_is_not_refused_stays_inside_int64(
    s_in: float, s_out: float, bias: float, bound: int
) -> None:
    try:
        m, s, b = derive.requant_constants(affine([s_in], [bias]), s_out, bound, "here")
    except GraphError:
        return
    for acc in (-bound, bound):
        assert abs(acc * int(m[0]) + int(b[0])) + (1 << (int(s[0]) - 1)) < 1 << 63


# -- add


def test_a_ratio_of_exactly_1_is_elided() -> None:
    m, s = derive.add_factors([0.5, 0.25], 0.5, "here")
    assert (m.tolist(), s.tolist()) == ([1, 1 << 30], [0, 31])


# -- layer norm


def test_layer_norm_constants_by_hand() -> None:
    # N = 4, s_x = 1/2, eps = 1/64: E = floor(16/64 / (1/4) + 1/2) = 1
    # max|gamma|/s_y = 2/0.25 = 8, log2 = 3: Q = 27 + 28 - 3 = 52, G = gamma/s_y * 2^25, B = beta/s_y * 2^52
    c = derive.layer_norm_constants(
        np.array([2.0, -1.0, 0.0, 0.5]), np.array([0.0, 0.25, -1.0, 0.0]), 1 / 64, int_(16), 0.5, 0.25, "ln"
    )  # fmt: skip
    assert (c.e, c.f, c.q) == (1, 27, 52)
    assert c.g.tolist() == [8 << 25, -4 << 25, 0, 2 << 25]
    assert c.b.tolist() == [0, 1 << 52, -4 << 52, 0]


@pytest.mark.parametrize(
    ("largest", "q"), [(1.0, 55), (1.0000001, 54), (0.5, 56), (0.75, 55), (2.0**-20, 62)]
)
def test_q_uses_an_exact_logarithm_and_is_clamped(largest: float, q: int) -> None:
    c = derive.layer_norm_constants(
        np.array([largest, 0.0]), np.zeros(2), 1e-5, int_(16), 1.0, 1.0, "ln"
    )
    assert c.q == q
    assert abs(int(c.g[0])) <= 1 << 28


def test_a_gamma_of_zeros() -> None:
    c = derive.layer_norm_constants(np.zeros(3), np.ones(3), 1e-5, int_(16), 1.0, 1.0, "ln")
    assert (c.g.tolist(), c.q, c.b.tolist()) == ([0, 0, 0], 55, [1 << 55] * 3)


@pytest.mark.parametrize(("beta", "q"), [(64.0, 55), (65.0, 54), (-(2.0**16), 45), (2.0**60, 1)])
def test_a_beta_far_above_gamma_takes_bits_from_g(beta: float, q: int) -> None:
    c = derive.layer_norm_constants(
        np.array([1.0, 0.5]), np.array([0.0, beta]), 1e-5, int_(16), 1.0, 1.0, "ln"
    )
    assert c.q == q
    assert c.b.tolist() == [0, int(beta) << q]
    assert abs(int(c.b[1])) < 1 << 62
    if q >= c.f:
        assert c.g.tolist() == [1 << (q - c.f), 1 << (q - c.f - 1)]


@pytest.mark.parametrize(("channels", "f"), [(1, 27), (4096, 27), (4097, 26), (65535, 25)])
def test_long_rows_have_fewer_fraction_bits(channels: int, f: int) -> None:
    assert derive.layer_norm_fraction(channels) == f
    assert channels * 4**f <= 4**derive.LAYER_NORM_NORMAL_BITS


@pytest.mark.parametrize(("bits", "n"), [(16, 65535), (20, 4095), (24, 255)])
def test_longest_rows_of_a_residual_format(bits: int, n: int) -> None:
    def constants(length: int) -> derive.LayerNormConstants:
        ones, zeros = np.ones(length), np.zeros(length)
        return derive.layer_norm_constants(ones, zeros, 1e-12, int_(bits), 1.0, 1e-3, "enc.ln")

    constants(n)
    with pytest.raises(
        GraphError, match=rf"enc\.ln: a layer norm over {n + 1} channels of INT{bits}"
    ):
        constants(n + 1)


def test_an_epsilon_that_leaves_the_integers_is_refused() -> None:
    with pytest.raises(GraphError, match="does not fit 64-bit"):
        derive.layer_norm_constants(np.ones(4), np.zeros(4), 1.0, int_(16), 2.0**-30, 1.0, "ln")


@pytest.mark.parametrize(
    ("gamma", "beta", "says"),
    [
        (1.0, 2.0**61, "beta does not fit"),  # Q is clamped to 1: 2^62
        (2.0**55, 0.0, "gamma does not fit"),  # Q is clamped to 1: G = 2^55 * 2^-26 = 2^29
        (math.nan, 0.0, "must be finite"),
        (1.0, math.inf, "must be finite"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(gamma: float, beta: float, says: str) -> None:
    with pytest.raises(GraphError, match=f"enc.ln: .*{says}"):
        derive.layer_norm_constants(
            np.array([gamma, gamma]), np.array([0.0, beta]), 1e-5, int_(16), 1.0, 1.0, "enc.ln"
        )


# -- softmax


def test_direct_table_has_an_entry_for_every_difference() -> None:
    scale = math.log(2) / 2  # a difference of 2 halves the exponential
    table = derive.softmax_direct_table(scale, 8, 0)
    assert table.shape == (1, 9)
    assert table[0, ::2].tolist() == [1 << 24, 1 << 23, 1 << 22, 1 << 21, 1 << 20]
    # bipolar: differences are even, entry i stands for 2i
    assert derive.softmax_direct_table(scale, 8, 1)[0].tolist() == table[0, ::2].tolist()


def test_exp2_tables_are_correctly_rounded_powers() -> None:
    table = derive.softmax_exp2_table()
    assert table.shape == (1, 128)
    assert table[0, [0, 64]].tolist() == [1 << 20, 1 << 20]
    for start, steps in ((0, 64), (64, 4096)):
        for i, got in enumerate(table[0, start : start + 64].tolist()):
            # got = floor(2^(20 - i/steps) + 1/2)  <=>  (got - 1/2)^steps <= 2^(20 steps - i) < (got + 1/2)^steps
            power = 2 ** (21 * steps - i)
            assert (2 * got - 1) ** steps <= power < (2 * got + 1) ** steps


@pytest.mark.parametrize(
    ("alpha", "level"),
    [(1.0, 1 << 23), (2.0, 1 << 24), (2.0**-23, 1), (1e-9, 1), (0.3, 2_516_583), (2.1, (1 << 24) + 1), (1e9, (1 << 24) + 1)],
)  # fmt: skip
def test_level_of_a_binary_map(alpha: float, level: int) -> None:
    # 0.15 * 2^24 = 2516582.4, upwards
    assert derive.binary_softmax_level(alpha) == level


@SETTINGS
@given(st.floats(1e-4, 8), st.lists(st.integers(0, 1 << 24), min_size=1, max_size=6))
def test_level_decides_like_the_probability(alpha: float, e: list[int]) -> None:
    e = [*e, 1 << 24]  # the row's maximum
    level, z = derive.binary_softmax_level(alpha), sum(e)
    for value in e:
        p = Fraction(value, z)
        got = (value << 24) >= level * z
        assert level * z < 1 << 63
        if abs(p - Fraction(alpha) / 2) > Fraction(1, 1 << 24):
            assert got == (p >= Fraction(alpha) / 2)


# -- tables


def test_unary_table_holds_the_exact_output_of_every_code() -> None:
    table = derive.unary_table(np.tanh, int_(8), 0.05, int_(8), 1 / 127)
    assert table.shape == (256,)
    for code, got in zip(range(-128, 128), table.tolist(), strict=True):
        assert got == math.floor(math.tanh(code * 0.05) * 127 + 0.5)


def test_a_tables_sign_has_no_third_level() -> None:
    table = derive.unary_table(lambda x: x * 0.1, int_(4), 1.0, BIPOLAR, 1.0)
    assert table.tolist() == [-1] * 8 + [1] * 8


def test_unary_table_clamps_and_rounds_ties_up() -> None:
    table = derive.unary_table(lambda x: x, int_(4), 1.0, uint(2), 2.0)
    #       codes -8..-1 -> 0; 0, 1, 2, ..., 7: /2 = 0, .5, 1, 1.5, 2, 2.5, 3, 3.5 -> 3 at most
    assert table.tolist() == [0] * 8 + [0, 1, 1, 2, 2, 3, 3, 3]


# -- embedding


@SETTINGS
@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=8), st.floats(1e-6, 1e-2))
def test_embedding_factors_share_one_shift(scales: list[float], out_scale: float) -> None:
    m, s = derive.embedding_factors(np.array(scales), out_scale, "emb")
    assert 1 <= s <= 62
    assert 1 << 30 <= m.max() < 1 << 31
    for got, scale in zip(m.tolist(), scales, strict=True):
        # one float64 division stands before the rounding
        exact = Fraction(scale) / Fraction(out_scale)
        assert abs(Fraction(got) - exact * (1 << s)) <= HALF + exact * (1 << s) / (1 << 52)


def test_embedding_factors_by_hand() -> None:
    # the largest ratio 4 = 0.5 * 2^3: M = 2^30, S = 31 - 3 = 28; ratio 1 -> 2^28; 0 -> 0
    m, s = derive.embedding_factors(np.array([0.25, 1.0, 0.0]), 0.25, "emb")
    assert (m.tolist(), s) == ([1 << 28, 1 << 30, 0], 28)
