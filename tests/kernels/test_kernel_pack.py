"""Packing into words: which bit is which, pad bits 0, and back again."""

import numpy as np
import pytest
from kernel_samples import DEPTHS, FILLS, codes

from hwsim.kernels import pack
from hwsim.kernels.popcount import popcount_u64


def words_of(bits_of_rows):
    """Plain words of rows of bits: element k is bit k mod 64 of word k div 64."""
    return [
        [sum(bit << i for i, bit in enumerate(row[w : w + 64])) for w in range(0, len(row), 64)]
        for row in bits_of_rows
    ]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("fill", FILLS)
def test_one_bit_codes_pack_to_the_documented_bits(depth, fill):
    bipolar = codes("bipolar", (3, depth), depth, fill)
    packed = pack.packed_bipolar(bipolar)
    assert packed.dtype == np.uint64
    assert packed.shape == (3, pack.words(depth))
    assert packed.tolist() == words_of([[int(c == 1) for c in row] for row in bipolar.tolist()])
    unipolar = codes("unipolar", (3, depth), depth, fill)
    assert pack.packed_unipolar(unipolar).tolist() == words_of(unipolar.tolist())


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("fill", FILLS)
def test_ternary_codes_pack_to_two_planes(depth, fill):
    ternary = codes("ternary", (2, depth), depth, fill)
    plus, minus = pack.packed_ternary(ternary)
    assert plus.tolist() == words_of([[int(c == 1) for c in row] for row in ternary.tolist()])
    assert minus.tolist() == words_of([[int(c == -1) for c in row] for row in ternary.tolist()])
    assert not (plus & minus).any()


@pytest.mark.parametrize("depth", DEPTHS)
def test_integer_codes_pack_to_two_s_complement_planes(depth):
    wide = codes("int16", (2, depth), depth)
    planes = pack.packed_planes(wide, 16)
    assert planes.shape == (16, 2, pack.words(depth))
    for i in range(16):
        assert planes[i].tolist() == words_of(
            [[(c % 65536) // 2**i % 2 for c in row] for row in wide.tolist()]
        )


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_unpacking_gives_the_codes_back(depth, rows):
    bipolar = codes("bipolar", (rows, depth), 1)
    out = np.full((rows, depth), 99, np.int8)
    pack.unpack_bipolar_u64(pack.packed_bipolar(bipolar), out)
    np.testing.assert_array_equal(out, bipolar)
    unipolar = codes("unipolar", (rows, depth), 2)
    pack.unpack_unipolar_u64(pack.packed_unipolar(unipolar), out)
    np.testing.assert_array_equal(out, unipolar)
    ternary = codes("ternary", (rows, depth), 3)
    pack.unpack_ternary_u64(*pack.packed_ternary(ternary), out)
    np.testing.assert_array_equal(out, ternary)
    for kind, bits, signed in (("int8", 8, True), ("uint8", 8, False), ("int16", 16, True)):
        integers = codes(kind, (rows, depth), 4)
        wide = np.full((rows, depth), 99, np.int32)
        pack.unpack_planes_u64(pack.packed_planes(integers, bits), signed, wide)
        np.testing.assert_array_equal(wide, integers)


def test_wrappers_accept_strided_codes():
    strided = codes("ternary", (70, 6), 5).T
    plus, minus = pack.packed_ternary(strided)
    out = np.empty(strided.shape, np.int8)
    pack.unpack_ternary_u64(plus, minus, out)
    np.testing.assert_array_equal(out, strided)


def test_words_counts_64_bit_words():
    assert [pack.words(k) for k in (0, 1, 63, 64, 65, 128, 129)] == [0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("word", [0, 1, 1 << 63, (1 << 64) - 1, 0x5555555555555555])
def test_plain_popcount_counts_bits(word):
    assert popcount_u64(np.uint64(word)) == bin(word).count("1")
