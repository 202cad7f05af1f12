"""Integer layer norm: plain Python integers on every family of rows, and its distance to real numbers."""

import math

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.graph.derive import layer_norm_fraction
from hwsim.kernels import vector

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)


def family(name, n, bits, seed=0):
    """One row of n codes of `bits` bits."""
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1) - 1
    if name == "one_hot":
        row = np.zeros(n, np.int64)
        row[seed % n] = top
    elif name == "constant":
        row = np.full(n, -top // 3)
    elif name == "lowest":
        row = np.full(n, -top - 1)
    elif name == "outlier":
        row = rng.integers(-3, 4, n)
        row[n // 2] = -top - 1
    elif name == "full_scale":
        row = np.where(np.arange(n) % 2, top, -top - 1)
    elif name == "ramp":
        row = np.arange(n) - n // 2
    else:
        spread = {"narrow": 2, "middle": max(2, top // 100), "wide": top}[name]
        row = rng.integers(-spread, spread + 1, n)
    return np.clip(row, -top - 1, top).astype(np.int32)


FAMILIES = (
    "narrow", "middle", "wide", "one_hot", "constant", "lowest", "outlier", "full_scale", "ramp",
)  # fmt: skip


def normalise(row, e):
    """The kernel's n_i: G = 2, Q = 1 turn the output stage into the identity."""
    x = row.reshape(1, -1)
    out = np.empty(x.shape, np.int64)
    n = row.size
    g, b = np.full(n, 2, np.int64), np.zeros(n, np.int64)
    vector.layer_norm_rows_i64(x, g, b, e, layer_norm_fraction(n), 1, 0, -(2**62), 2**62, out)
    return out[0]


def affine(n, seed):
    """G and B up to their bounds, and Q of a typical export."""
    rng = np.random.default_rng(seed)
    return rng.integers(-(2**28), 2**28 + 1, n), rng.integers(1 - 2**62, 2**62, n), 43


def run(rows, g, b, e, q, zp, qmin, qmax, out_type):
    out = np.full(rows.shape, 99, out_type)
    f = layer_norm_fraction(rows.shape[1])
    vector.layer_norm_rows_i64(rows, g, b, e, f, q, zp, qmin, qmax, out)
    assert out.dtype == out_type
    return out.tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_length_up_to_129_equals_plain_integers(name):
    for n in range(1, 130):
        row = family(name, n, 16, seed=n)
        g, b, q = affine(n, n)
        f = layer_norm_fraction(n)
        for e in (0, 1, 1000 * n):
            got = run(row.reshape(1, n), g, b, e, q, 3, -128, 127, np.int8)
            assert got == [
                plain.layer_norm(row.tolist(), g.tolist(), b.tolist(), e, f, q, 3, -128, 127)
            ]
            assert normalise(row, e).tolist() == plain.layer_norm_normal(row.tolist(), e, f)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("n", "bits"), [(384, 16), (768, 16), (65535, 16), (4095, 20), (255, 24)])
def test_long_rows_at_the_build_time_bounds_equal_plain_integers(name, n, bits):
    row = family(name, n, bits, seed=7)
    assert normalise(row, 5).tolist() == plain.layer_norm_normal(
        row.tolist(), 5, layer_norm_fraction(n)
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("n", "bits"), [(1, 16), (2, 16), (64, 16), (768, 16), (65535, 16), (255, 24)]
)
def test_the_normalised_value_is_within_twice_its_last_bit_of_real_numbers(name, n, bits):
    row = family(name, n, bits, seed=3)
    values = [int(v) for v in row]
    total = sum(values)
    variance = max(1, n * sum(v * v for v in values) - total * total + 5)
    exact = np.array([(n * v - total) / math.sqrt(variance) for v in values])
    error = np.abs(normalise(row, 5) / 2 ** layer_norm_fraction(n) - exact)
    # the last bit of n; R is within 2^-29.4 of 2^(61)/sqrt(V << 2k), which counts for large values
    allowed = 2.0 ** -layer_norm_fraction(n) + 2.0**-29 * np.abs(exact)
    assert (error <= allowed).all(), f"error {error.max()} at {exact[error.argmax()]}"


@SETTINGS
@given(
    rows=st.integers(1, 40).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-(2**23), 2**23 - 1), min_size=n, max_size=n),
            min_size=1,
            max_size=3,
        )
    ),
    e=st.integers(0, 2**40),
    q=st.integers(1, 62),
    seed=st.integers(0, 50),
    zp=st.integers(-100, 100),
    bits=st.sampled_from([8, 16, 24]),
)
def test_random_rows_of_24_bits_equal_plain_integers(rows, e, q, seed, zp, bits):
    g, b, _ = affine(len(rows[0]), seed)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    f = layer_norm_fraction(len(rows[0]))
    got = run(np.array(rows, np.int32), g, b, e, q, zp, low, high, np.int32)
    assert got == [
        plain.layer_norm(row, g.tolist(), b.tolist(), e, f, q, zp, low, high) for row in rows
    ]


def test_rows_do_not_influence_each_other_and_empty_shapes_are_legal():
    rows = np.stack([family(name, 33, 16, seed=1) for name in FAMILIES])
    g, b, q = affine(33, 1)
    together = run(rows, g, b, 9, q, 0, -128, 127, np.int8)
    apart = [run(row.reshape(1, -1), g, b, 9, q, 0, -128, 127, np.int8)[0] for row in rows]
    assert together == apart
    assert run(rows[:0], g, b, 9, q, 0, -128, 127, np.int8) == []


def test_unsigned_output_takes_the_zero_point_before_the_clamp():
    row = np.array([[-100, 0, 100]], np.int32)
    g, b = np.full(3, 1 << 20), np.zeros(3, np.int64)
    got = run(row, g, b, 0, 41, 128, 0, 255, np.uint8)
    assert got == [plain.layer_norm([-100, 0, 100], g.tolist(), [0] * 3, 0, 27, 41, 128, 0, 255)]
    assert 0 < got[0][0] < 128 < got[0][2] < 255


def squares_around(roots):
    return [r * r + d for r in roots for d in (-1, 0, 1) if 0 <= r * r + d < 2**62]


@pytest.mark.parametrize(
    "value",
    [0, 1, 2**62 - 1, *squares_around([2, 2**26 + 1, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1])],
)
def test_isqrt_is_exact_where_a_float_root_is_not(value):
    assert vector.isqrt_i64(value) == math.isqrt(value)


@SETTINGS
@given(value=st.integers(2**60, 2**62 - 1))
def test_isqrt_is_exact_over_the_range_that_the_layer_norm_uses(value):
    assert vector.isqrt_i64(value) == math.isqrt(value)


@pytest.mark.parametrize("bits", range(63))
def test_bit_length_is_exact_at_powers_of_two(bits):
    """log2(2^62 - 1) rounds up to 62.0 in float64: an integer operation does not."""
    for value in (2**bits - 1, 2**bits, 2**bits + 1):
        assert vector.bit_length_i64(value) == value.bit_length()
