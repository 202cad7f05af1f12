"""Every matrix product against plain Python integers: word borders, empty shapes, extreme operands."""

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_samples import DEPTHS, FILLS, LEVELS, ROWS, codes

from hwsim.kernels import gemm, pack

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)
BITS = {"bipolar": 2, "unipolar": 1, "ternary": 2, "int4": 4, "int8": 8, "uint8": 8, "int16": 16}
UNSIGNED = ("unipolar", "uint8")


def product(kernel, a_kind, w_kind, a, w):
    """Run one kernel on codes; `out` starts with rubbish that the kernel must overwrite."""
    out = np.full((a.shape[0], w.shape[0]), -123456789, np.int32)
    if kernel == "xnor":
        gemm.xnor_popcount_gemm_u64(pack.packed_bipolar(a), pack.packed_bipolar(w), a.shape[1], out)
    elif kernel == "and":
        gemm.and_popcount_gemm_u64(pack.packed_unipolar(a), pack.packed_bipolar(w), out)
    elif kernel == "ternary":
        gemm.ternary_gemm_i32(a, *pack.packed_ternary(w), out)
    elif kernel == "bit_serial":
        gemm.bit_serial_gemm_u64(
            pack.packed_planes(a, BITS[a_kind]),
            pack.packed_planes(w, BITS[w_kind]),
            a_kind not in UNSIGNED,
            w_kind not in UNSIGNED,
            out,
        )
    else:
        gemm.int_gemm_i32(a, w, out)
    assert out.dtype == np.int32
    return out


CASES = [
    ("xnor", "bipolar", "bipolar"),
    ("and", "unipolar", "bipolar"),
    ("ternary", "int8", "ternary"),
    ("ternary", "uint8", "ternary"),
    ("ternary", "ternary", "ternary"),
    ("ternary", "int8", "bipolar"),
    ("int", "int8", "int8"),
    ("int", "uint8", "int8"),
    ("int", "int16", "int8"),
    ("int", "unipolar", "ternary"),
    ("bit_serial", "int8", "int8"),
    ("bit_serial", "uint8", "int4"),
    ("bit_serial", "int8", "ternary"),
    ("bit_serial", "unipolar", "bipolar"),
    ("bit_serial", "uint8", "uint8"),
]
PAIRS = pytest.mark.parametrize(("kernel", "a_kind", "w_kind"), CASES)


@PAIRS
@pytest.mark.parametrize("depth", DEPTHS)
def test_product_equals_plain_integers_at_word_borders(kernel, a_kind, w_kind, depth):
    for rows, columns in ROWS:
        a = codes(a_kind, (rows, depth), seed=depth)
        w = codes(w_kind, (columns, depth), seed=depth + 1)
        got = product(kernel, a_kind, w_kind, a, w)
        assert got.shape == (rows, columns)
        assert got.tolist() == plain.matmul(a.tolist(), w.tolist())


@PAIRS
def test_product_is_exact_at_the_extremes_of_both_ranges(kernel, a_kind, w_kind):
    for a_fill in FILLS:
        for w_fill in FILLS:
            a = codes(a_kind, (2, 130), 1, a_fill)
            w = codes(w_kind, (9, 130), 2, w_fill)
            assert product(kernel, a_kind, w_kind, a, w).tolist() == plain.matmul(
                a.tolist(), w.tolist()
            )


@PAIRS
@SETTINGS
@given(data=st.data())
def test_product_equals_plain_integers_on_random_codes(kernel, a_kind, w_kind, data):
    rows, columns = data.draw(st.integers(0, 10)), data.draw(st.integers(0, 4))
    depth = data.draw(st.integers(0, 70))
    draw = lambda kind, n: np.array(  # noqa: E731
        data.draw(
            st.lists(
                st.lists(st.sampled_from(LEVELS[kind]), min_size=depth, max_size=depth),
                min_size=n,
                max_size=n,
            )
        ),
        dtype=codes(kind, (1,), 0).dtype,
    ).reshape(n, depth)
    a, w = draw(a_kind, rows), draw(w_kind, columns)
    assert product(kernel, a_kind, w_kind, a, w).tolist() == plain.matmul(a.tolist(), w.tolist())


def test_kernels_agree_with_each_other_where_formats_overlap():
    """BIPOLAR codes are also TERNARY and INT8 codes: four kernels, one result."""
    a = codes("bipolar", (17, 257), 3)
    w = codes("bipolar", (33, 257), 4)
    results = [
        product(kernel, "bipolar", "bipolar", a, w)
        for kernel in ("xnor", "ternary", "int", "bit_serial")
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_int_product_is_right_when_the_sum_nearly_fills_32_bits():
    """INT16 x INT8, 511 products of -32768 * -128: 2143289344 of at most 2147483647."""
    a = np.full((1, 511), -32768, np.int32)
    w = np.full((1, 511), -128, np.int8)
    assert product("int", "int16", "int8", a, w).tolist() == [[511 * 32768 * 128]]


def test_pad_bits_contribute_nothing_and_a_set_pad_bit_would_show():
    """K = 65 leaves 63 pad bits; setting one by hand must change the result, or this test is blind."""
    a, w = codes("bipolar", (1, 65), 5), codes("bipolar", (1, 65), 6)
    expected = plain.matmul(a.tolist(), w.tolist())
    packed = pack.packed_bipolar(a)
    out = np.empty((1, 1), np.int32)
    gemm.xnor_popcount_gemm_u64(packed, pack.packed_bipolar(w), 65, out)
    assert out.tolist() == expected
    packed[0, 1] |= np.uint64(1 << 63)
    gemm.xnor_popcount_gemm_u64(packed, pack.packed_bipolar(w), 65, out)
    assert out.tolist() == [[expected[0][0] - 2]]
