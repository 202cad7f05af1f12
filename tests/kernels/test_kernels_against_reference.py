"""The compiled kernels and the PyTorch reference share no arithmetic: here they must agree bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_samples import DEPTHS, codes

from hwsim import reference
from hwsim.errors import OverflowRefused
from hwsim.graph import dtype as types
from hwsim.graph.numeric import NumericProfile
from hwsim.kernels import chunked_gemm, gemm, pack, requant, vector

SETTINGS = settings(derandomize=True, deadline=None, max_examples=60)
RULES = {"error": 0, "wrap": 1, "clamp": 2}


def tensor(array):
    return torch.from_numpy(np.asarray(array, np.int64).copy())


def equal(kernel_result, reference_result):
    np.testing.assert_array_equal(kernel_result, reference_result.numpy())


@pytest.mark.parametrize("depth", DEPTHS)
def test_products(depth):
    bipolar, ternary = codes("bipolar", (5, depth), 1), codes("ternary", (9, depth), 2)
    binary, unipolar = codes("bipolar", (9, depth), 3), codes("unipolar", (5, depth), 4)
    bytes_, small = codes("uint8", (5, depth), 5), codes("int8", (9, depth), 6)
    out = np.empty((5, 9), np.int32)
    gemm.xnor_popcount_gemm_u64(
        pack.packed_bipolar(bipolar), pack.packed_bipolar(binary), depth, out
    )
    equal(out, reference.contract(tensor(bipolar), tensor(binary)))
    gemm.and_popcount_gemm_u64(pack.packed_unipolar(unipolar), pack.packed_bipolar(binary), out)
    equal(out, reference.contract(tensor(unipolar), tensor(binary)))
    gemm.ternary_gemm_i32(bytes_, *pack.packed_ternary(ternary), out)
    equal(out, reference.contract(tensor(bytes_), tensor(ternary)))
    gemm.int_gemm_i32(bytes_, small, out)
    expected = reference.contract(tensor(bytes_), tensor(small))
    equal(out, expected)
    gemm.bit_serial_gemm_u64(
        pack.packed_planes(bytes_, 8), pack.packed_planes(small, 8), False, True, out
    )
    equal(out, expected)


@pytest.mark.parametrize("overflow", ["wrap", "clamp"])
@pytest.mark.parametrize("acc_bits", [6, 12, 20])
@pytest.mark.parametrize("lanes", [1, 16, 100])
def test_products_with_a_numeric_profile(overflow, acc_bits, lanes):
    a, w = codes("uint8", (3, 70), 1), codes("int8", (4, 70), 2)
    out, fault = np.empty((3, 4), np.int64), np.empty(4, np.int64)
    types_ = (types.uint(8), types.int_(8))
    profile = NumericProfile(acc_bits, overflow, lanes)
    chunked_gemm.chunked_gemm_i64(a, w, lanes, acc_bits, RULES[overflow], out, fault)
    equal(out, reference.contract_profile(tensor(a), tensor(w), *types_, profile, "here"))
    profile = NumericProfile(acc_bits, overflow, lanes, bit_serial=True)
    chunked_gemm.chunked_bit_serial_gemm_i64(
        a, w, 8, 8, False, True, lanes, acc_bits, RULES[overflow], out, fault
    )
    equal(out, reference.contract_profile(tensor(a), tensor(w), *types_, profile, "here"))


@SETTINGS
@given(seed=st.integers(0, 10_000), acc_bits=st.integers(8, 18), lanes=st.integers(1, 40))
def test_both_refuse_the_same_products(seed, acc_bits, lanes):
    a, w = codes("int8", (2, 30), seed), codes("int8", (2, 30), seed + 1)
    out, fault = np.empty((2, 2), np.int64), np.empty(4, np.int64)
    chunked_gemm.chunked_gemm_i64(a, w, lanes, acc_bits, RULES["error"], out, fault)
    profile = NumericProfile(acc_bits, "error", lanes)
    arguments = (tensor(a), tensor(w), types.int_(8), types.int_(8), profile, "here")
    if fault[0]:
        with pytest.raises(OverflowRefused):
            reference.contract_profile(*arguments)
    else:
        equal(out, reference.contract_profile(*arguments))


@SETTINGS
@given(seed=st.integers(0, 10_000), per_channel=st.booleans(), zp=st.integers(-20, 20))
def test_requant(seed, per_channel, zp):
    rng = np.random.default_rng(seed)
    size = 6 if per_channel else 1
    x = rng.integers(-(2**31), 2**31, (7, 6)).astype(np.int32)
    m = rng.integers(2**30, 2**31, size)
    s = rng.integers(1, 62, size)
    b = rng.integers(-(2**61), 2**61, size)
    out = np.empty(x.shape, np.int8)
    requant.requant_rows_i64(x, m, s, b, zp, -128, 127, out)
    parameters = [tensor(v) for v in (m, s, b)]
    equal(out, reference.requant(tensor(x), *parameters, zp, types.int_(8)))


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    per_channel=st.booleans(),
    name=st.sampled_from(["BIPOLAR", "UNIPOLAR", "TERNARY", "INT4", "UINT2"]),
)
def test_threshold(seed, per_channel, name):
    dtype = types.parse(name)
    rng = np.random.default_rng(seed)
    size = 5 if per_channel else 1
    x = rng.integers(-30, 31, (8, 5)).astype(np.int32)
    levels = np.sort(rng.integers(-31, 32, (size, (dtype.qmax - dtype.qmin) // dtype.step)), axis=1)
    direction = rng.choice([-1, 1], size)
    out = np.empty(x.shape, np.int8)
    requant.threshold_rows_i64(x, levels, direction, dtype.qmin, dtype.step, out)
    equal(out, reference.threshold(tensor(x), tensor(levels), tensor(direction), dtype))


@SETTINGS
@given(seed=st.integers(0, 10_000), s0=st.integers(0, 30), s1=st.integers(0, 30))
def test_add_of_a_constant_that_repeats_over_the_batch(seed, s0, s1):
    rng = np.random.default_rng(seed)
    a = rng.integers(-(2**15), 2**15, (3, 4, 5)).astype(np.int32)
    addend = rng.integers(-(2**15), 2**15, (4, 5))
    m = rng.integers(0, 2**31, 2)
    out = np.empty((12, 5), np.int32)
    vector.add_rows_i64(
        a.reshape(12, 5), addend, int(m[0]), s0, int(m[1]), s1, -(2**15), 2**15 - 1, out
    )
    shifts = tensor([s0, s1])
    expected = reference.add(tensor(a), tensor(addend), tensor(m), shifts, types.int_(16))
    equal(out.reshape(3, 4, 5), expected)


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 200),
    spread=st.sampled_from([1, 30, 3000, 32767]),
    e=st.integers(0, 10**6),
)
def test_layer_norm(seed, n, spread, e):
    rng = np.random.default_rng(seed)
    x = rng.integers(-spread, spread + 1, (4, n)).astype(np.int32)
    g, b = rng.integers(-(2**28), 2**28 + 1, n), rng.integers(-(2**50), 2**50, n)
    out = np.empty(x.shape, np.int8)
    vector.layer_norm_rows_i64(x, g, b, e, 27, 49, 2, -128, 127, out)
    equal(out, reference.layer_norm(tensor(x), tensor(g), tensor(b), e, 27, 49, 2, types.int_(8)))


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    masked=st.booleans(),
    causal=st.booleans(),
    spread=st.sampled_from([0, 10, 500, 2**31 - 1]),
    heads=st.sampled_from([1, 2]),
    mode=st.sampled_from(["direct", "exp2"]),
)
def test_softmax(seed, masked, causal, spread, heads, mode):
    rng = np.random.default_rng(seed)
    keys = int(rng.integers(1, 20))
    spread = min(spread, 500) if mode == "direct" else spread
    x = rng.integers(-spread, spread + 1, (3, 2, keys, keys)).astype(np.int32)
    lengths = rng.integers(0, keys + 1, 3)
    m, s = rng.integers(2**30, 2**31, heads), rng.integers(24, 40, heads)
    if mode == "direct":
        table = rng.integers(0, 2**24, (heads, 501))
        table[:, 0] = 2**24
        options = ([table, 1], ("direct", 1, None, None))
    else:
        entries = [int(2 ** (20 - i / n) + 0.5) for n in (64, 4096) for i in range(64)]
        table = np.repeat([entries], heads, axis=0)
        options = ([table, m, s], ("exp2", 0, tensor(m), tensor(s)))
    mask = reference.key_mask(
        torch.Size(x.shape), torch.from_numpy(lengths) if masked else None, causal
    )
    e = reference.exponentials(tensor(x), mask, tensor(table), *options[1])
    out = np.empty(x.shape, np.int32)
    kernel = {"direct": vector.softmax_direct_rows, "exp2": vector.softmax_exp2_rows}[mode]
    kernel(x, lengths, masked, causal, *options[0], out)
    equal(out, reference.softmax(e))
    binary = {
        "direct": vector.softmax_binary_direct_rows,
        "exp2": vector.softmax_binary_exp2_rows,
    }[mode]
    level = int(rng.integers(1, 2**24))
    bits = np.empty(x.shape, np.int8)
    binary(x, lengths, masked, causal, *options[0], level, bits)
    equal(bits, reference.softmax_binary(e, level))


def test_softmax_of_a_row_whose_exponentials_are_all_zero_is_zero():
    """Only a damaged table does this; kernel and reference still have to agree."""
    x = np.zeros((1, 1, 2, 3), np.int32)
    table = np.zeros((1, 1), np.int64)
    for kernel, out in (
        (vector.softmax_direct_rows, np.full(x.shape, 9, np.int32)),
        (vector.softmax_binary_direct_rows, np.full(x.shape, 9, np.int8)),
    ):
        level = [5] if out.dtype == np.int8 else []
        kernel(x, np.zeros(1, np.int64), False, False, table, 0, *level, out)
        assert not out.any()
