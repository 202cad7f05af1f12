"""Add, table and embedding against plain Python integers."""

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels import vector

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)
CODE = st.one_of(st.integers(-(2**23), 2**23 - 1), st.sampled_from([-(2**31), 2**31 - 1, 0]))


@SETTINGS
@given(
    a=st.lists(st.lists(CODE, min_size=3, max_size=3), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    repeat=st.integers(1, 6),
    m0=st.integers(0, 2**31 - 1),
    m1=st.integers(0, 2**31 - 1),
    s0=st.integers(0, 62),
    s1=st.integers(0, 62),
    bits=st.sampled_from([8, 16, 24]),
)
def test_add_equals_plain_integers(a, seed, repeat, m0, m1, s0, s1, bits):
    rows = np.array(a, np.int32)
    b = np.random.default_rng(seed).integers(-(2**31), 2**31, (min(repeat, len(a)), 3))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    out = np.full(rows.shape, 5, np.int32)
    vector.add_rows_i64(rows, b, m0, s0, m1, s1, low, high, out)
    expected = [
        [
            plain.add(x, y, m0, s0, m1, s1, low, high)
            for x, y in zip(row, b[r % len(b)].tolist(), strict=True)
        ]
        for r, row in enumerate(a)
    ]
    assert out.tolist() == expected


def test_add_does_not_clamp_between_the_two_terms():
    """200 - 100 lies within INT8 although 200 does not."""
    a, b = np.array([[200]], np.int32), np.array([[-100]], np.int32)
    out = np.empty((1, 1), np.int8)
    vector.add_rows_i64(a, b, 1, 0, 1, 0, -128, 127, out)
    assert out.tolist() == [[100]]


def test_add_factor_of_exactly_one_keeps_the_codes():
    a = np.array([[-32768, 32767, -1]], np.int32)
    out = np.empty((1, 3), np.int32)
    vector.add_rows_i64(a, np.zeros((1, 3), np.int32), 1, 0, 1, 0, -32768, 32767, out)
    assert out.tolist() == a.tolist()


@pytest.mark.parametrize("s", [1, 2, 31, 62])
@pytest.mark.parametrize("x", [-(2**61), -3, -2, -1, 0, 1, 2, 3, 2**61])
def test_rshr_rounds_half_up_and_shift_zero_is_identity(x, s):
    assert vector.rshr_i64(x, s) == plain.rshr(x, s)
    assert vector.rshr_i64(x, 0) == x


@pytest.mark.parametrize(
    ("qmin", "qmax", "x_type"), [(-128, 127, np.int8), (0, 255, np.uint8), (-2048, 2047, np.int32)]
)
def test_table_looks_up_every_code(qmin, qmax, x_type):
    table = np.random.default_rng(1).integers(-128, 128, qmax - qmin + 1).astype(np.int8)
    x = np.arange(qmin, qmax + 1).astype(x_type)
    out = np.empty(x.shape, np.int8)
    vector.table_lookup(x, qmin, table, out)
    np.testing.assert_array_equal(out, table)


@pytest.mark.parametrize("code", [-129, 128])
def test_table_refuses_a_code_without_entry(code):
    with pytest.raises(IndexError, match="outside the table"):
        vector.table_lookup(
            np.array([code], np.int32), -128, np.zeros(256, np.int8), np.empty(1, np.int8)
        )


@pytest.mark.parametrize("s", [0, 1, 20, 40])
def test_embedding_equals_plain_integers(s):
    rng = np.random.default_rng(s)
    weight = rng.integers(-1, 2, (7, 5)).astype(np.int8)
    m = rng.integers(0, 2**31 if s >= 20 else 2**20, 7)
    ids = np.array([6, 0, 0, 3], np.int64)
    out = np.full((4, 5), 9, np.int32)
    vector.embedding_rows(ids, weight, m, s, out)
    assert out.dtype == np.int32
    assert out.tolist() == plain.embedding(ids.tolist(), weight.tolist(), m.tolist(), s)


@pytest.mark.parametrize("token", [-1, 7])
def test_embedding_refuses_an_unknown_id(token):
    with pytest.raises(IndexError, match="token id"):
        vector.embedding_rows(
            np.array([token]),
            np.zeros((7, 5), np.int8),
            np.ones(7, np.int64),
            1,
            np.empty((1, 5), np.int32),
        )


def test_empty_operands_are_legal():
    empty = np.zeros((0, 4), np.int32)
    vector.add_rows_i64(empty, empty, 1, 0, 1, 0, 0, 1, np.empty((0, 4), np.int8))
    vector.table_lookup(np.zeros(0, np.int8), 0, np.zeros(1, np.int8), np.empty(0, np.int8))
    weight, m = np.zeros((3, 0), np.int8), np.ones(3, np.int64)
    vector.embedding_rows(np.zeros(2, np.int64), weight, m, 1, np.empty((2, 0), np.int32))
