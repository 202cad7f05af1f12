"""Integer softmax: both exponentials, both outputs, every mask, and the distance to real numbers."""

import math

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels import softmax

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
EXP2_TABLE = [math.floor(2 ** (20 - i / n) + 0.5) for n in (64, 4096) for i in range(64)]
MASKS = [(False, False), (True, False), (False, True), (True, True)]
"""(masked, causal)"""
HEADS, BATCH = 2, 3


def direct_table(entries, scale, g=0):
    return [math.floor(2**24 * math.exp(-(i << g) * scale) + 0.5) for i in range(entries)]


def multiplier(factor, bits=31):
    """(M, S) of a factor, as an export would derive them."""
    mantissa, exponent = math.frexp(factor)
    return math.floor(mantissa * 2**bits + 0.5), bits - exponent


def run(kernel, x, lengths, masked, causal, *parameters, out_type=np.int32):
    out = np.full(x.shape, 77, out_type)
    kernel(x, np.array(lengths, np.int64), masked, causal, *parameters, out)
    assert out.dtype == out_type
    return out.tolist()


def plain_rows(x, lengths, masked, causal, row):
    """`row(scores, keys, head)` over every row of x [B, H, T, S]."""
    return [
        [
            [
                row(
                    scores,
                    plain.visible(len(scores), t, lengths[b] if masked else None, causal),
                    h,
                )
                for t, scores in enumerate(head)
            ]
            for h, head in enumerate(sample)
        ]
        for b, sample in enumerate(x.tolist())
    ]


def scores(length, spread, seed, queries=None):
    rng = np.random.default_rng(seed)
    shape = (BATCH, HEADS, queries or length, length)
    return rng.integers(-spread, spread + 1, shape).astype(np.int32)


@pytest.mark.parametrize(("masked", "causal"), MASKS)
@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("table_heads", [1, HEADS])
def test_direct_mode_equals_plain_integers(masked, causal, length, table_heads):
    tables = [direct_table(129, 0.03 * (h + 1), g=1) for h in range(table_heads)]
    table = np.array(tables, np.int64)
    x = 2 * scores(length, 64, length)  # bipolar operands: every difference is even

    def e(h):
        return lambda v: plain.exponentials_direct(v, tables[h % table_heads], 1)

    for lengths in ([0, 1, length], [length, max(0, length - 1), length + 5]):
        mask = (x, lengths, masked, causal)
        got = run(softmax.softmax_direct_rows, *mask, table, 1)
        assert got == plain_rows(*mask, lambda s, keys, h: plain.softmax_row(s, keys, e(h)))
        for level in (1, 2**21, 2**24):
            bits = run(softmax.softmax_binary_direct_rows, *mask, table, 1, level, out_type=np.int8)
            assert bits == plain_rows(
                *mask,
                lambda s, keys, h, v=level: plain.softmax_binary_row(s, keys, e(h), v),
            )


@pytest.mark.parametrize(("masked", "causal"), MASKS)
@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("heads", [1, HEADS])
@pytest.mark.parametrize("spread", [0, 3, 1000, 2**31 - 1])
def test_exp2_mode_equals_plain_integers(masked, causal, length, heads, spread):
    factors = [multiplier(2.0**12 * 0.007 * (h + 1)) for h in range(heads)]
    m = np.array([f[0] for f in factors], np.int64)
    s = np.array([f[1] for f in factors], np.int64)
    table = np.array([EXP2_TABLE] * heads, np.int64)
    x = scores(length, spread, length + 1)

    def e(h):
        return lambda v: plain.exponentials_exp2(v, EXP2_TABLE, *factors[h % heads])

    for lengths in ([0, 1, length], [length, max(0, length - 1), length + 5]):
        mask = (x, lengths, masked, causal)
        got = run(softmax.softmax_exp2_rows, *mask, table, m, s)
        assert got == plain_rows(*mask, lambda v, keys, h: plain.softmax_row(v, keys, e(h)))
        for level in (1, 2**21, 2**24):
            bits = run(
                softmax.softmax_binary_exp2_rows, *mask, table, m, s, level, out_type=np.int8
            )
            assert bits == plain_rows(
                *mask,
                lambda v, keys, h, z=level: plain.softmax_binary_row(v, keys, e(h), z),
            )


@SETTINGS
@given(
    row=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=24),
    length=st.integers(-1, 26),
    exponent=st.integers(-16, 7),
)
def test_random_rows_equal_plain_integers(row, length, exponent):
    m, s = multiplier(1.37 * 2.0**exponent)
    x = np.array(row, np.int32).reshape(1, 1, 1, -1)
    got = run(
        softmax.softmax_exp2_rows,
        x,
        [length],
        True,
        False,
        np.array([EXP2_TABLE], np.int64),
        np.array([m]),
        np.array([s]),
    )
    keys = plain.visible(len(row), 0, length, False)
    e = lambda v: plain.exponentials_exp2(v, EXP2_TABLE, m, s)  # noqa: E731
    assert got == [[[plain.softmax_row(row, keys, e)]]]


def test_the_maximum_is_taken_over_unmasked_keys_only():
    """A huge masked score must neither win the maximum nor trip the table's range."""
    x = np.array([5, 5, 1_000_000], np.int32).reshape(1, 1, 1, 3)
    table = np.array([direct_table(11, 0.5)], np.int64)
    assert run(softmax.softmax_direct_rows, x, [2], True, False, table, 0) == [
        [[[32768, 32768, 0]]]
    ]


@pytest.mark.parametrize("length", [0, -3])
def test_a_row_without_keys_gives_zeros(length):
    x = scores(4, 5, 1)
    table = np.array([direct_table(11, 0.5)], np.int64)
    got = run(softmax.softmax_direct_rows, x, [length] * BATCH, True, False, table, 0)
    assert np.count_nonzero(got) == 0
    bits = run(
        softmax.softmax_binary_direct_rows,
        x, [length] * BATCH, True, False, table, 0, 1, out_type=np.int8,
    )  # fmt: skip
    assert np.count_nonzero(bits) == 0


def test_lengths_are_not_read_without_masks():
    x = scores(4, 5, 1)
    table = np.array([direct_table(11, 0.5)], np.int64)
    full = run(softmax.softmax_direct_rows, x, [4] * BATCH, True, False, table, 0)
    assert run(softmax.softmax_direct_rows, x, [], False, False, table, 0) == full


def test_exponentials_end_where_the_contract_says():
    """t >> 12 = 21 still rounds to 1 for a full entry, 22 is 0; t saturates at 2^17 - 1."""
    x = np.array([0, -21 * 4096, -22 * 4096, -(2**30)], np.int32).reshape(1, 1, 1, 4)
    e = np.zeros(4, np.int64)
    table = np.array(EXP2_TABLE, np.int64)
    total = softmax._exp2_exponentials(x[0, 0, 0], 4, table, 1, 0, e)
    assert e.tolist() == [2**20, 1, 0, 0]
    assert total == 2**20 + 1


def test_the_address_saturates_at_the_end_of_the_table():
    x = np.array([0, 40], np.int32).reshape(1, 1, 1, 2)
    clipped = np.array([40 - 10, 40], np.int32).reshape(1, 1, 1, 2)  # entries 0..10
    table = np.array([direct_table(11, 0.5)], np.int64)
    wide = run(softmax.softmax_direct_rows, x, [], False, False, table, 0)
    assert wide == run(softmax.softmax_direct_rows, clipped, [], False, False, table, 0)


@pytest.mark.parametrize(("masked", "causal"), MASKS)
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9])
def test_mask_rows_fills_behind_the_keys_that_count(length, masked, causal):
    lengths = [length, max(length - 3, 0), 1]
    x = scores(length, 5, 4)
    got = x.copy()
    softmax.mask_rows(got, np.array(lengths, np.int64), masked, causal, 77)
    want = plain_rows(
        x,
        lengths,
        masked,
        causal,
        lambda row, keys, _: [v if s in keys else 77 for s, v in enumerate(row)],
    )
    assert got.tolist() == want


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (1, 0, 3, 3), (1, 2, 0, 3), (1, 2, 3, 0)])
def test_empty_shapes_are_legal(shape):
    table = np.array([direct_table(11, 0.5)], np.int64)
    x = np.zeros(shape, np.int32)
    got = run(softmax.softmax_direct_rows, x, [0] * shape[0], True, False, table, 0)
    assert np.array(got).size == 0


def real_softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("length", [1, 2, 17, 200, 2048])
@pytest.mark.parametrize("scale", [0.0005, 0.01, 0.3])
def test_direct_mode_is_near_the_real_softmax(length, scale):
    """Half a unit of Q0.16, plus half a unit of 2^-24 for e_j and for each term of Z (Z >= 1)."""
    x = scores(length, 1000, 2, queries=4)
    table = np.array([direct_table(2001, scale)], np.int64)
    got = np.array(run(softmax.softmax_direct_rows, x, [], False, False, table, 0)) / 65536
    error = np.abs(got - real_softmax(x * scale)).max()
    assert error <= 2.0**-17 + (length + 1) * 2.0**-25 + 2.0**-30


@pytest.mark.parametrize("length", [1, 2, 17, 200, 2048])
@pytest.mark.parametrize("scale", [0.00002, 0.0005, 0.01])
def test_exp2_mode_is_near_the_real_softmax(length, scale):
    """Within 1.4e-5 of the exact softmax of its own t; t is within 2^-13 of an octave, 8.5e-5 of each e."""
    x = scores(length, 20000, 3, queries=4)
    m, s = multiplier(scale * math.log2(math.e) * 4096)
    table = np.array([EXP2_TABLE], np.int64)
    parameters = (table, np.array([m]), np.array([s]))
    got = np.array(run(softmax.softmax_exp2_rows, x, [], False, False, *parameters)) / 65536
    delta = x.max(axis=-1, keepdims=True).astype(np.int64) - x
    t = np.minimum((delta * m + (1 << (s - 1))) >> s, 131071)
    own = real_softmax(-t / 4096 * math.log(2))
    assert np.abs(got - own).max() <= 1.4e-5
    assert np.abs(got - real_softmax(x * scale)).max() <= 4.3e-5 + 1.4e-5
