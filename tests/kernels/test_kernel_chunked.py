"""Products with the accumulator of a machine: width, overflow rule, chunking and plane order."""

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_samples import codes

from hwsim.kernels import chunked_gemm

RULES = {
    "error": chunked_gemm.RULE_ERROR,
    "wrap": chunked_gemm.RULE_WRAP,
    "clamp": chunked_gemm.RULE_CLAMP,
}
SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)


def run_plain_array(a, w, lanes, acc_bits, rule):
    out = np.full((a.shape[0], w.shape[0]), -99, np.int64)
    fault = np.full(4, 77, np.int64)
    chunked_gemm.chunked_gemm_i64(a, w, lanes, acc_bits, RULES[rule], out, fault)
    assert out.dtype == np.int64
    return out, fault.tolist()


def run_bit_serial(a, w, bits, signed, lanes, acc_bits, rule):
    out = np.full((a.shape[0], w.shape[0]), -99, np.int64)
    fault = np.full(4, 77, np.int64)
    chunked_gemm.chunked_bit_serial_gemm_i64(
        a, w, *bits, *signed, lanes, acc_bits, RULES[rule], out, fault
    )
    return out, fault.tolist()


def expected(dot, a, w):
    """(results, fault) of a dot function over all elements, stopping at the first overflow."""
    results = []
    for m, x in enumerate(a.tolist()):
        for n, y in enumerate(w.tolist()):
            try:
                results.append(dot(x, y))
            except OverflowError as error:
                return results, [1, m, n, error.args[0]]
    return results, [0, 0, 0, 0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("acc_bits", [2, 8, 13, 32])
@pytest.mark.parametrize("lanes", [1, 7, 64, 500])
@pytest.mark.parametrize("depth", [0, 1, 65, 129])
def test_chunked_product_follows_the_rule(rule, acc_bits, lanes, depth):
    a, w = codes("int8", (3, depth), 1).astype(np.int32), codes("int8", (2, depth), 2)
    out, fault = run_plain_array(a, w.astype(np.int32), lanes, acc_bits, rule)
    results, expected_fault = expected(
        lambda x, y: plain.chunked_dot(x, y, lanes, acc_bits, rule), a, w
    )
    assert fault == expected_fault
    assert out.ravel()[: len(results)].tolist() == results
    assert (out.ravel()[len(results) :] == -99).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("a_kind", "w_kind", "bits", "signed"),
    [
        ("int8", "int4", (8, 4), (True, True)),
        ("uint8", "int8", (8, 8), (False, True)),
        ("int4", "ternary", (4, 2), (True, True)),
        ("unipolar", "unipolar", (1, 1), (False, False)),
    ],
)
@pytest.mark.parametrize("acc_bits", [4, 14, 32])
def test_chunked_bit_serial_product_follows_plane_order(
    rule, a_kind, w_kind, bits, signed, acc_bits
):
    for lanes, depth in ((8, 65), (64, 64), (64, 0), (16, 1)):
        a, w = codes(a_kind, (2, depth), 3), codes(w_kind, (3, depth), 4)
        out, fault = run_bit_serial(a, w, bits, signed, lanes, acc_bits, rule)
        results, expected_fault = expected(
            lambda x, y, lanes=lanes: plain.chunked_bit_serial_dot(
                x, y, *bits, *signed, lanes, acc_bits, rule
            ),
            a,
            w,
        )
        assert fault == expected_fault
        assert out.ravel()[: len(results)].tolist() == results


@SETTINGS
@given(
    a=st.lists(st.integers(-128, 127), min_size=1, max_size=40),
    seed=st.integers(0, 1000),
    lanes=st.integers(1, 12),
    acc_bits=st.integers(2, 20),
    rule=st.sampled_from(sorted(RULES)),
)
def test_random_profiles_equal_plain_integers(a, seed, lanes, acc_bits, rule):
    w = codes("int8", (1, len(a)), seed).astype(np.int32)
    row = np.array([a], np.int32)
    out, fault = run_plain_array(row, w, lanes, acc_bits, rule)
    results, expected_fault = expected(
        lambda x, y: plain.chunked_dot(x, y, lanes, acc_bits, rule), row, w
    )
    assert (out.ravel()[: len(results)].tolist(), fault) == (results, expected_fault)


def test_the_adder_tree_is_exact_and_only_the_update_overflows():
    """100 - 100 within one chunk never leaves 4 bits; in chunks of one product it does."""
    a, w = np.array([[100, -100]], np.int32), np.ones((1, 2), np.int32)
    assert run_plain_array(a, w, 2, 4, "error") == (np.array([[0]]), [0, 0, 0, 0])
    assert run_plain_array(a, w, 1, 4, "error")[1] == [1, 0, 0, 100]
    assert run_plain_array(a, w, 1, 4, "clamp")[0].tolist() == [[-8]]
    assert run_plain_array(a, w, 1, 4, "wrap")[0].tolist() == [[0]]


def test_wrap_does_not_depend_on_the_order_but_clamp_does():
    a = np.array([[7, 7, -7, -7]], np.int32)
    w = np.ones((1, 4), np.int32)
    reversed_a = np.ascontiguousarray(a[:, ::-1])
    assert run_plain_array(a, w, 1, 4, "wrap")[0] == run_plain_array(reversed_a, w, 1, 4, "wrap")[0]
    assert run_plain_array(a, w, 1, 4, "clamp")[0].tolist() == [[-7]]
    assert run_plain_array(reversed_a, w, 1, 4, "clamp")[0].tolist() == [[6]]
