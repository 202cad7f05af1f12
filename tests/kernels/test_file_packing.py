"""File encodings: sizes, hand-written bytes, round trips, and every kind of damage refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.graph import dtype as types
from hwsim.graph.packing import (
    ENCODINGS,
    Packed,
    decode,
    default_encoding,
    encode,
    encoded_bytes,
    encodings_for,
    pack,
    unpack,
)

SETTINGS = settings(derandomize=True, deadline=None, max_examples=150)
NAMES = (
    "BIPOLAR", "UNIPOLAR", "TERNARY", "INT2", "INT3N", "INT4", "UINT1", "UINT4", "INT5", "INT8",
    "INT8N", "UINT7", "UINT8", "INT9", "INT16", "UINT16", "UINT17", "INT24", "INT32", "UINT32",
    "INT33", "INT64", "UINT63",
)  # fmt: skip


def legal_codes(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if dtype.kind == "bipolar":
        codes = rng.choice([-1, 1], size=shape)
    else:
        codes = rng.integers(dtype.qmin, dtype.qmax, shape, endpoint=True, dtype=np.int64)
        ends = np.array([dtype.qmin, dtype.qmax])[: codes.size]
        codes.ravel()[: ends.size] = ends
    return codes


def held_by(dtype, encoding):
    """The integers of an encoding's width: of its type where it holds all codes of that."""
    if not encoding.startswith("bytes"):
        return dtype
    bits = min(dtype.bits, 8 * int(encoding[-1]))
    return types.int_(bits, dtype.narrow) if dtype.is_signed else types.uint(bits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (9,), (0, 7), (3, 0), (2, 8), (3, 65), (2, 3, 11)]
)
def test_every_type_round_trips_in_every_encoding(name, shape):
    dtype = types.parse(name)
    for encoding in encodings_for(dtype):
        codes = legal_codes(held_by(dtype, encoding), shape, 1)
        data = encode(codes, dtype, encoding)
        assert data.dtype == np.uint8
        assert data.size == encoded_bytes(dtype, shape, encoding)
        back = decode(data, dtype, shape, encoding)
        np.testing.assert_array_equal(back, codes)
        assert back.shape == shape
        assert back.dtype == (
            np.int64 if dtype.bits > 8 else np.uint8 if name == "UINT8" else np.int8
        )
        # Files hand the bytes back flat.
        np.testing.assert_array_equal(decode(data.ravel(), dtype, shape, encoding), codes)


@SETTINGS
@given(
    name=st.sampled_from(NAMES),
    shape=st.lists(st.integers(0, 12), max_size=3).map(tuple),
    seed=st.integers(0, 1000),
)
def test_the_default_encoding_round_trips(name, shape, seed):
    dtype = types.parse(name)
    codes = legal_codes(dtype, shape, seed)
    np.testing.assert_array_equal(decode(encode(codes, dtype), dtype, shape), codes)


def test_every_documented_encoding_is_used_by_some_type():
    assert {e for name in NAMES for e in encodings_for(types.parse(name))} == set(ENCODINGS)


@pytest.mark.parametrize(
    ("name", "encoding", "codes", "expected"),
    [
        ("BIPOLAR", "bits", [[1, -1, -1, 1, 1, 1, 1, 1, -1, 1]], [[0b11111001, 0b10]]),
        ("UNIPOLAR", "bits", [[1, 0, 0], [0, 1, 1]], [[0b001], [0b110]]),
        ("TERNARY", "planes", [[1, -1, 0, 1]], [[0b1001, 0b0010]]),
        ("TERNARY", "trits", [[-1, 0, 1, 1, -1, 1]], [[0 + 3 + 18 + 54 + 0, 2 + 3 + 9 + 27 + 81]]),
        ("TERNARY", "trits", [[1, 1, 1, 1, 1]], [[242]]),
        ("INT4", "nibbles", [[-8, 7, -1]], [[0x78, 0x0F]]),
        ("INT8", "bytes1", [[-128, 127]], [[0x80, 0x7F]]),
        ("UINT17", "bytes3", [[65536]], [[0, 0, 1]]),
        ("INT64", "bytes3", [[-2, 1 << 22]], [[0xFE, 0xFF, 0xFF, 0, 0, 0x40]]),
        ("INT64", "bytes7", [[-(1 << 55)]], [[0, 0, 0, 0, 0, 0, 0x80]]),
        ("UINT63", "bytes5", [[(1 << 40) - 1]], [[0xFF] * 5]),
        ("INT16", "bytes2", [[-2, 258]], [[0xFE, 0xFF, 0x02, 0x01]]),
    ],
)
def test_bytes_are_what_the_table_says(name, encoding, codes, expected):
    assert encode(np.array(codes), types.parse(name), encoding).tolist() == expected


@pytest.mark.parametrize(
    ("name", "size"),
    [("BIPOLAR", 3 * 9), ("TERNARY", 3 * 13), ("INT4", 3 * 33), ("INT8", 3 * 65), ("UINT17", 585)],
)
def test_default_sizes_of_three_rows_of_65(name, size):
    assert encoded_bytes(types.parse(name), (3, 65)) == size


@pytest.mark.parametrize("name", NAMES)
def test_the_default_encoding_is_the_smallest_that_holds_every_code(name):
    dtype = types.parse(name)
    ends = np.array([dtype.qmin, dtype.qmax])
    default, *others = encodings_for(dtype)
    assert default_encoding(dtype) == default
    size = encode(ends, dtype).size
    for other in others:
        if other == "planes":
            assert encode(ends, dtype, other).size >= size
        else:
            with pytest.raises(ValueError, match=f"{other} holds"):
                encode(ends, dtype, other)


# -- an array without its repetitions, in the fewest bytes


@pytest.mark.parametrize(
    ("name", "codes", "encoding", "stored", "data"),
    [
        ("UINT31", [5] * 768, "bytes1", (1,), [5]),  # one multiplier for all channels
        ("INT16", [[1, -2]] * 512, "bytes1", (1, 2), [1, 254]),  # one row for all positions
        ("INT16", [[7, 7, 7], [9, 9, 9]], "bytes1", (2, 1), [7, 9]),
        ("INT64", np.zeros((3, 2), int), "bytes1", (1, 1), [0]),
        ("BIPOLAR", [[1, -1], [1, -1]], "bits", (1, 2), [1]),
        ("TERNARY", [[1, -1], [1, 0]], "trits", (2, 2), [2 + 0 + 9 + 27 + 81, 2 + 3 + 9 + 27 + 81]),
        ("INT4", [1, 2], "nibbles", (2,), [0x21]),
        ("INT64", [0, 127, -128], "bytes1", (3,), [0, 127, 128]),
        ("INT64", [0, 128], "bytes2", (2,), [0, 0, 128, 0]),
        ("INT64", [0, -129], "bytes2", (2,), [0, 0, 0x7F, 0xFF]),
        ("UINT17", [0, 255], "bytes1", (2,), [0, 255]),
        ("UINT17", [0, 256], "bytes2", (2,), [0, 0, 0, 1]),
        ("INT64", [0, 1 << 47], "bytes7", (2,), [0] * 7 + [0] * 5 + [0x80, 0]),
    ],
)
def test_packed_by_hand(name, codes, encoding, stored, data):
    dtype, codes = types.parse(name), np.array(codes)
    packed = pack(codes, dtype)
    assert (packed.encoding, packed.stored, packed.data.tolist()) == (encoding, stored, data)
    back = unpack(packed, dtype, codes.shape)
    np.testing.assert_array_equal(back, codes)
    back += 0  # a whole array of its own, not a view of one row


@SETTINGS
@given(
    name=st.sampled_from(NAMES),
    sizes=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=3),
    width=st.integers(1, 64),
    seed=st.integers(0, 1000),
)
def test_whatever_is_packed_comes_back(name, sizes, width, seed):
    """Arrays of any width in a wide type, repeated along any axes."""
    dtype = types.parse(name)
    narrow = dtype
    if dtype.kind in ("int", "uint") and width < dtype.bits:
        narrow = types.int_(width) if dtype.is_signed else types.uint(width)
    base = legal_codes(narrow, tuple(1 if repeated else n for n, repeated in sizes), seed)
    codes = np.broadcast_to(base, tuple(n for n, _ in sizes))
    packed = pack(codes, dtype)
    np.testing.assert_array_equal(unpack(packed, dtype, codes.shape), codes)
    assert packed.data.size <= encoded_bytes(dtype, codes.shape)


def test_an_array_of_another_shape_is_not_repeated():
    packed = Packed(np.array([1, 2], np.uint8), "bytes1", (2,))
    assert unpack(packed, types.int_(8), (2,)).tolist() == [1, 2]
    for shape in [(4,), (2, 2), ()]:
        with pytest.raises(ValueError, match=r"\[2\] cannot be repeated to"):
            unpack(packed, types.int_(8), shape)


@pytest.mark.parametrize(
    ("name", "encoding", "shape", "data", "message"),
    [
        ("BIPOLAR", "bits", (1, 3), [0b1000], "pad bit"),
        ("UNIPOLAR", "bits", (2, 9), [0, 0, 0, 2], "pad bit"),
        ("TERNARY", "planes", (1, 3), [0b1000, 0], "pad bit"),
        ("TERNARY", "planes", (1, 3), [0, 0b1000], "pad bit"),
        ("TERNARY", "planes", (1, 3), [0b10, 0b11], "both"),
        ("TERNARY", "trits", (1, 5), [243], "at most 242, found 243"),
        ("TERNARY", "trits", (1, 4), [121 + 81], "pad trit"),
        ("TERNARY", "trits", (1, 4), [121 - 81], "pad trit"),
        ("INT4", "nibbles", (1, 1), [0x10], "pad half"),
        ("INT3", "nibbles", (1, 1), [0x04], r"-4\.\.3, found 4"),
        ("UINT2", "nibbles", (1, 2), [0x42], r"0\.\.3, found 4"),
        ("INT8N", "bytes1", (1, 1), [0x80], r"-127\.\.127, found -128"),
        ("UINT17", "bytes3", (1, 1), [0, 0, 2], r"0\.\.131071, found 131072"),
        ("INT33", "bytes5", (1, 1), [0, 0, 0, 0, 2], "found 8589934592"),
        ("INT64", "bytes6", (1, 2), [0] * 11, "takes 12 bytes, found 11"),
        ("UINT63", "bytes8", (1, 1), [0] * 7 + [0x80], "found 9223372036854775808"),
        ("INT8", "bytes1", (2, 2), [0] * 5, "takes 4 bytes, found 5"),
        ("BIPOLAR", "bits", (2, 9), [0] * 3, "takes 4 bytes, found 3"),
    ],
)
def test_damage_is_refused(name, encoding, shape, data, message):
    with pytest.raises(ValueError, match=message):
        decode(np.array(data, np.uint8), types.parse(name), shape, encoding)


@pytest.mark.parametrize(
    ("name", "codes", "message"),
    [
        ("BIPOLAR", [1, 0, -1], "found 0"),
        ("BIPOLAR", [1, 2], "found 2"),
        ("UNIPOLAR", [-1], "found -1"),
        ("TERNARY", [2], "found 2"),
        ("INT4", [8], "found 8"),
        ("INT8N", [-128], "found -128"),
        ("INT8", [1.0], "integers, not float64"),
    ],
)
def test_codes_of_another_type_are_not_encoded(name, codes, message):
    with pytest.raises(ValueError, match=message):
        encode(np.array(codes), types.parse(name))


def test_an_encoding_that_cannot_hold_the_type_is_refused():
    with pytest.raises(ValueError, match="TERNARY is encoded as trits or planes, not 'bits'"):
        encoded_bytes(types.TERNARY, (1, 5), "bits")
    with pytest.raises(ValueError, match="INT16 is encoded as bytes2 or bytes1, not 'bytes3'"):
        encode(np.zeros((1, 2), np.int64), types.int_(16), "bytes3")
    with pytest.raises(ValueError, match="too wide"):
        default_encoding(types.uint(64))


def test_codes_that_a_narrow_encoding_does_not_hold_are_refused():
    with pytest.raises(ValueError, match=r"bytes1 holds -128\.\.127, found 128"):
        encode(np.array([[0, 128]]), types.int_(16), "bytes1")
    with pytest.raises(ValueError, match=r"bytes2 holds 0\.\.65535, found 65536"):
        encode(np.array([[0, 65536]]), types.uint(31), "bytes2")


def test_encoding_takes_strided_and_unsigned_arrays():
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16).T
    data = encode(codes, types.uint(8))
    np.testing.assert_array_equal(decode(data, types.uint(8), (16, 16)), codes)


def test_decoding_reads_a_read_only_buffer():
    codes = legal_codes(types.int_(16), (3, 5), 2)
    stored = np.frombuffer(encode(codes, types.int_(16)).tobytes(), np.uint8)
    np.testing.assert_array_equal(decode(stored, types.int_(16), (3, 5)), codes)
