"""Requantisation and thresholds against plain Python integers, with parameters at the proven bounds."""

import numpy as np
import plain
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwsim.kernels.requant import requant_rows_i64, threshold_rows_i64

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def requant(x, m, s, b, zp, qmin, qmax, x_type=np.int64, out_type=np.int32):
    rows = np.array(x, x_type)
    out = np.full(rows.shape, 111, out_type)
    as_int64 = [np.array(v, np.int64) for v in (m, s, b)]
    requant_rows_i64(rows, *as_int64, zp, qmin, qmax, out)
    return out


def plain_requant(x, m, s, b, zp, qmin, qmax):
    pick = lambda v, c: v[c if len(v) > 1 else 0]  # noqa: E731
    return [
        [
            plain.requant(value, pick(m, c), pick(s, c), pick(b, c), zp, qmin, qmax)
            for c, value in enumerate(row)
        ]
        for row in x
    ]


def test_a_damaged_shift_of_63():
    """No model has it, a memory with bit errors does: half is 2^62, not its negative."""
    x, m, b = [[3, -3]], [2**30], [-(2**62)]
    assert requant(x, m, [63], b, 0, -8, 7).tolist() == [[0, -1]]
    assert plain_requant(x, m, [63], b, 0, -8, 7) == [[0, -1]]


@SETTINGS
@given(data=st.data())
def test_requant_equals_plain_integers_within_the_static_bound(data):
    channels = data.draw(st.integers(1, 5))
    per_channel = lambda element: data.draw(  # noqa: E731
        st.one_of(
            st.lists(element, min_size=1, max_size=1),
            st.lists(element, min_size=channels, max_size=channels),
        )
    )
    x = data.draw(
        st.lists(
            st.lists(st.integers(INT32_MIN, INT32_MAX), min_size=channels, max_size=channels),
            min_size=1,
            max_size=3,
        )
    )
    m = per_channel(st.one_of(st.just(0), st.integers(2**30, 2**31 - 1), st.integers(1, 2**31 - 1)))
    s = per_channel(st.integers(1, 62))
    b = per_channel(st.integers(-(2**62) + 1, 2**62 - 1))
    worst = max(max(map(abs, row)) for row in x) * max(m) + max(map(abs, b)) + 2 ** (max(s) - 1)
    assume(worst < 2**63)
    zp, bits = data.draw(st.integers(-128, 255)), data.draw(st.sampled_from([2, 8, 16, 24, 32]))
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    got = requant(x, m, s, b, zp, qmin, qmax)
    assert got.tolist() == plain_requant(x, m, s, b, zp, qmin, qmax)


def test_requant_at_the_very_edge_of_int64():
    """max|x| * M + B + 2^(S-1) = 2^63 - 1 exactly, and its negative counterpart -2^63."""
    m, s = 2**31 - 1, 31
    b = 2**63 - 1 - 2 ** (s - 1) - INT32_MAX * m
    assert INT32_MAX * m + b + 2 ** (s - 1) == 2**63 - 1
    args = ([m], [s], [b], 0, INT32_MIN, INT32_MAX)
    assert requant([[INT32_MAX]], *args).tolist() == plain_requant([[INT32_MAX]], *args)
    b = -(2**63) - 2 ** (s - 1) - INT32_MIN * m
    args = ([m], [s], [b], 0, INT32_MIN, INT32_MAX)
    assert requant([[INT32_MIN]], *args).tolist() == plain_requant([[INT32_MIN]], *args)


def test_requant_rounds_halves_towards_plus_infinity():
    x = [[-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]]
    got = requant(x, [1], [1], [0], 0, -100, 100)
    assert got.tolist() == [[-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]]


def test_requant_shift_of_zero_rounds_nothing():
    assert requant([[-7, 0, 9]], [3], [0], [1], 0, -100, 100).tolist() == [[-20, 1, 28]]


@pytest.mark.parametrize(
    ("qmin", "qmax", "out_type"),
    [(-128, 127, np.int8), (0, 255, np.uint8), (-32768, 32767, np.int32), (-8, 7, np.int8)],
)
@pytest.mark.parametrize("x_type", [np.int32, np.int64])
def test_requant_clamps_into_every_output_type(qmin, qmax, out_type, x_type):
    x = [[INT32_MIN, -300, -1, 0, 1, 300, INT32_MAX]]
    got = requant(x, [1 << 30], [30], [0], 5, qmin, qmax, x_type, out_type)
    assert got.dtype == out_type
    assert got.tolist() == plain_requant(x, [1 << 30], [30], [0], 5, qmin, qmax)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_rows_are_legal(shape):
    x = np.zeros(shape, np.int32)
    assert requant(x, [1], [1], [0], 0, -1, 1).shape == shape
    out = np.empty(shape, np.int8)
    threshold_rows_i64(x, np.zeros((1, 1), np.int64), np.ones(1, np.int8), -1, 2, out)


def threshold(x, levels, direction, qmin, step, direction_type=np.int8, out_type=np.int8):
    rows = np.array(x, np.int32)
    out = np.full(rows.shape, 111, out_type)
    threshold_rows_i64(
        rows, np.array(levels, np.int64), np.array(direction, direction_type), qmin, step, out
    )
    assert out.dtype == out_type
    return out.tolist()


@SETTINGS
@given(data=st.data())
def test_threshold_equals_plain_integers_in_both_directions(data):
    channels = data.draw(st.integers(1, 4))
    count = data.draw(st.sampled_from([1, 2, 3, 15]))
    small = st.integers(-20, 20)
    bound = st.one_of(small, st.sampled_from([INT32_MIN, INT32_MAX + 1, -(2**63), 2**63 - 1]))
    table = lambda rows: data.draw(  # noqa: E731
        st.lists(
            st.lists(bound, min_size=count, max_size=count).map(sorted),
            min_size=rows,
            max_size=rows,
        )
    )
    levels = table(data.draw(st.sampled_from([1, channels])))
    size = data.draw(st.sampled_from([1, channels]))
    direction = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=size, max_size=size))
    value = st.one_of(small, st.sampled_from([INT32_MIN, INT32_MAX]))
    x = data.draw(
        st.lists(st.lists(value, min_size=channels, max_size=channels), min_size=1, max_size=3)
    )
    qmin, step = data.draw(st.sampled_from([(-1, 2), (0, 1), (-1, 1), (-8, 1)]))
    pick = lambda v, c: v[c if len(v) > 1 else 0]  # noqa: E731
    expected = [
        [
            plain.threshold(v, pick(levels, c), pick(direction, c), qmin, step)
            for c, v in enumerate(row)
        ]
        for row in x
    ]
    assert threshold(x, levels, direction, qmin, step) == expected


def test_threshold_is_inclusive_on_both_sides():
    """T <= x upwards and x <= T downwards: x = T counts in both."""
    assert threshold([[4, 5, 6]], [[5]], [1], -1, 2) == [[-1, 1, 1]]
    assert threshold([[4, 5, 6]], [[5]], [-1], -1, 2) == [[1, 1, -1]]


@pytest.mark.parametrize("direction_type", [np.int8, np.int64])
def test_threshold_bounds_outside_the_range_make_constant_channels(direction_type):
    """-A: always reached; A + 1: never (and the other way round for the reversed channels)."""
    a = 100
    x = [[-a, -a, -a, -a], [a, a, a, a]]
    levels = [[-a], [a + 1], [a], [-a - 1]]
    got = threshold(x, levels, [1, 1, -1, -1], 0, 1, direction_type)
    assert got == [[1, 0, 1, 0], [1, 0, 1, 0]]


def test_threshold_without_levels_is_constant():
    assert threshold([[7, -7]], np.zeros((1, 0)), [1], -1, 2) == [[-1, -1]]
