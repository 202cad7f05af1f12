"""How codes lie in files: packed bytes, rows on byte boundaries, pad bits 0 and checked on load.

An array [..., K] becomes uint8 [R, row_bytes]: R is the product of the leading axes, the last axis is
the packing axis (for weights the reduction axis). Encodings:

| encoding  | types                 | bytes of a row | element k                                        |
|-----------|-----------------------|----------------|--------------------------------------------------|
| `bits`    | BIPOLAR, UNIPOLAR     | ceil(K/8)      | bit k mod 8 of byte k div 8; BIPOLAR +1 is 1     |
| `planes`  | TERNARY               | 2 * ceil(K/8)  | the plane of +1 as `bits`, then the plane of -1  |
| `trits`   | TERNARY               | ceil(K/5)      | digit k mod 5 of byte k div 5 in base 3, t + 1   |
| `nibbles` | INTn, UINTn, n <= 4   | ceil(K/2)      | low half of the byte first, two's complement     |
| `bytesN`  | INTn, UINTn, n > 4    | N * K          | two's complement, little-endian; N is 1 to 8     |

`default_encoding` holds every code of a type (`trits` for TERNARY, whole bytes as wide as the type). `pack` looks at
the array: it keeps one slice of an axis along which nothing changes, and takes the fewest bytes that hold what is
there, for a 64-bit bias that uses 43 bits six. Codes in memory are int8 up to 8 bits (uint8 for UINT8), else int64.
Source: docs/arithmetic.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import DataType, int_, uint

Codes = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_TRIT_WEIGHTS = 3 ** np.arange(5)
_WIDTH_BYTES = {f"bytes{n}": n for n in range(1, 9)}
_ELEMENTS_PER_BYTE = {"bits": 8, "planes": 8, "trits": 5, "nibbles": 2}
ENCODINGS = (*_ELEMENTS_PER_BYTE, *_WIDTH_BYTES)
MOST_REPEATED = 1 << 26
"""Elements of an array of which a file holds only one slice: it could name any shape."""


@dataclass(frozen=True)
class Packed:
    """An array as it lies in a file."""

    data: Bytes
    """[bytes]"""
    encoding: str
    stored: tuple[int, ...]
    """the array's shape, with 1 for every axis of which one slice stands for all"""


def memory_dtype(dtype: DataType) -> np.dtype[Any]:
    """Return the numpy type that holds the codes of a number type: int8, uint8 or int64."""
    if dtype.bits > 8:
        return np.dtype(np.int64)
    return np.dtype(np.int8) if dtype.qmax <= 127 else np.dtype(np.uint8)


def encodings_for(dtype: DataType) -> tuple[str, ...]:
    """Return the encodings of a number type: the default one, which holds every code of it, first.

    Whole bytes narrower than the type hold some of its codes; they come widest first.

    Raises:
        ValueError: the type is wider than an int64 can hold.
    """
    if dtype.kind in ("bipolar", "unipolar"):
        return ("bits",)
    if dtype.kind == "ternary":
        return ("trits", "planes")
    if dtype.qmax >= 1 << 63:
        raise ValueError(f"{dtype.name} is too wide: codes are held in int64, use at most UINT63")
    if dtype.bits <= 4:
        return ("nibbles",)
    return tuple(name for name, n in reversed(_WIDTH_BYTES.items()) if 8 * (n - 1) < dtype.bits)


def default_encoding(dtype: DataType) -> str:
    """Return the smallest encoding that holds every code of a number type."""
    return encodings_for(dtype)[0]


def pack(array: Codes, dtype: DataType) -> Packed:
    """Pack an array in the fewest bytes, without its repetitions.

    Raises:
        ValueError: a code does not belong to the type.
    """
    kept = array
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = kept.take([0], axis)
            if (kept == first).all():
                kept = first
    encoding = _narrowest(kept, dtype)
    return Packed(encode(kept, dtype, encoding).reshape(-1), encoding, kept.shape)


def unpack(packed: Packed, dtype: DataType, shape: tuple[int, ...]) -> Codes:
    """Return the array of this shape that was packed, in the type that `memory_dtype` names.

    Raises:
        ValueError: the data does not decode (`decode`), or the stored shape is not the array's with some axes 1.
    """
    codes = decode(packed.data, dtype, packed.stored, packed.encoding)
    if packed.stored == shape:
        return codes
    if len(packed.stored) != len(shape) or any(
        kept not in (1, size) for kept, size in zip(packed.stored, shape, strict=True)
    ):
        raise ValueError(f"{list(packed.stored)} cannot be repeated to {list(shape)}")
    if prod(shape) > MOST_REPEATED:
        raise ValueError(f"{list(shape)} is more than {MOST_REPEATED:,} repeated elements")
    return np.broadcast_to(codes, shape).copy()


def encoded_bytes(dtype: DataType, shape: tuple[int, ...], encoding: str | None = None) -> int:
    """Return the size in bytes of an encoded array of this shape.

    Raises:
        ValueError: the encoding cannot hold the type.
    """
    rows, k = _rows(shape)
    return rows * _row_bytes(_checked_encoding(dtype, encoding), k)


def encode(codes: Codes, dtype: DataType, encoding: str | None = None) -> Bytes:
    """Pack codes [..., K] into uint8 [R, row_bytes].

    Raises:
        ValueError: a code does not belong to the type, or the encoding cannot hold it.
    """
    name = _checked_encoding(dtype, encoding)
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, not {codes.dtype}")
    _check_codes(codes, dtype)
    rows, k = _rows(codes.shape)
    flat = codes.reshape(rows, k)
    if name == "bits":
        return np.packbits(flat > 0, axis=1, bitorder="little")
    if name == "planes":
        planes = [np.packbits(sign, axis=1, bitorder="little") for sign in (flat > 0, flat < 0)]
        return np.concatenate(planes, axis=1)
    if name == "trits":
        width = _row_bytes(name, k)
        digits = np.ones((rows, 5 * width), np.int64)  # the pad trit 0 is digit 1
        digits[:, :k] = flat + 1
        return (digits.reshape(rows, width, 5) @ _TRIT_WEIGHTS).astype(np.uint8)
    if name == "nibbles":
        halves = np.zeros((rows, 2 * _row_bytes(name, k)), np.uint8)
        halves[:, :k] = flat.astype(np.int64) & 15
        return halves[:, 0::2] | halves[:, 1::2] << np.uint8(4)
    width, stored = _WIDTH_BYTES[name], _stored_dtype(dtype, name)
    _check_width(flat, dtype, name)
    raw = np.ascontiguousarray(flat.astype(stored)).view(np.uint8)
    return raw.reshape(rows, k, stored.itemsize)[:, :, :width].reshape(rows, k * width)


def decode(
    data: Bytes, dtype: DataType, shape: tuple[int, ...], encoding: str | None = None
) -> Codes:
    """Unpack what `encode` made to codes of this shape, in the type that `memory_dtype` names.

    Raises:
        ValueError: wrong size, a pad bit that is not 0, an invalid trit byte or plane pair, or a code
            that does not belong to the type.
    """
    name = _checked_encoding(dtype, encoding)
    rows, k = _rows(shape)
    width = _row_bytes(name, k)
    if data.dtype != np.uint8:
        raise ValueError(f"encoded data must be uint8, not {data.dtype}")
    if data.size != rows * width:
        raise ValueError(
            f"{dtype.name} {list(shape)} as {name} takes {rows * width} bytes, found {data.size}"
        )
    raw = np.ascontiguousarray(data).reshape(rows, width)
    if name == "bits":
        bits = _unpacked_bits(raw, k)
        codes = 2 * bits - 1 if dtype.kind == "bipolar" else bits
    elif name == "planes":
        plus, minus = (_unpacked_bits(plane, k) for plane in np.split(raw, 2, axis=1))
        if np.any(plus & minus):
            raise ValueError("a ternary element is marked both +1 and -1: the data is damaged")
        codes = plus - minus
    elif name == "trits":
        codes = _unpacked_trits(raw, k)
    elif name == "nibbles":
        codes = _unpacked_nibbles(raw, k, dtype)
    else:
        codes = _unpacked_bytes(raw, k, dtype, name)
    _check_codes(codes, dtype)
    return codes.astype(memory_dtype(dtype)).reshape(shape)


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Split a shape into (rows, elements of a row); a scalar is one row of one element."""
    return (prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def _row_bytes(encoding: str, k: int) -> int:
    """Return the bytes of one row of k elements."""
    if encoding in _WIDTH_BYTES:
        return k * _WIDTH_BYTES[encoding]
    per_byte = _ELEMENTS_PER_BYTE[encoding]
    return (k + per_byte - 1) // per_byte * (2 if encoding == "planes" else 1)


def _stored_dtype(dtype: DataType, encoding: str) -> np.dtype[Any]:
    """Return the little-endian numpy type of a whole-byte encoding: the next one for 3, 5, 6 and 7 bytes."""
    size = 1 << (_WIDTH_BYTES[encoding] - 1).bit_length()
    return np.dtype(f"<{'i' if dtype.is_signed else 'u'}{size}")


def _narrowest(codes: Codes, dtype: DataType) -> str:
    """Return the encoding of fewest bytes that holds these codes; the default one where they are no codes of the type."""
    names = encodings_for(dtype)
    if names[0] not in _WIDTH_BYTES or codes.size == 0:
        return names[0]
    bits = max(int(codes.max()), -int(codes.min()) - 1, 0).bit_length() + dtype.is_signed
    return next((name for name in reversed(names) if 8 * _WIDTH_BYTES[name] >= bits), names[0])


def _checked_encoding(dtype: DataType, encoding: str | None) -> str:
    """Return the encoding to use, after checking that it can hold the type."""
    legal = encodings_for(dtype)
    if encoding is None:
        return legal[0]
    if encoding not in legal:
        raise ValueError(f"{dtype.name} is encoded as {' or '.join(legal)}, not {encoding!r}")
    return encoding


def _check_codes(codes: Codes, dtype: DataType) -> None:
    """Refuse codes that the type does not have."""
    if codes.size == 0:
        return
    low, high = int(codes.min()), int(codes.max())
    if low < dtype.qmin or high > dtype.qmax:
        worst = low if low < dtype.qmin else high
        raise ValueError(f"{dtype.name} codes lie in {dtype.qmin}..{dtype.qmax}, found {worst}")
    if dtype.kind == "bipolar" and np.any(codes == 0):
        raise ValueError("BIPOLAR codes are -1 and +1, found 0")


def _check_width(codes: Codes, dtype: DataType, encoding: str) -> None:
    """Refuse codes of the type that an encoding narrower than it does not hold."""
    bits = 8 * _WIDTH_BYTES[encoding]
    if bits < dtype.bits and codes.size:
        held = int_(bits) if dtype.is_signed else uint(bits)
        low, high = int(codes.min()), int(codes.max())
        if low < held.qmin or high > held.qmax:
            worst = low if low < held.qmin else high
            raise ValueError(f"{encoding} holds {held.qmin}..{held.qmax}, found {worst}")


def _unpacked_bits(raw: Bytes, k: int) -> Codes:
    """Return the bits of each row as int8 [R, k], after checking the pad bits."""
    bits = np.unpackbits(raw, axis=1, bitorder="little").view(np.int8)
    if np.any(bits[:, k:]):
        raise ValueError("a pad bit behind the last element of a row is not 0: the data is damaged")
    return bits[:, :k]


def _unpacked_trits(raw: Bytes, k: int) -> Codes:
    """Return the trits of each row as int8 [R, k], after checking bytes and pad trits."""
    if np.any(raw >= 243):
        raise ValueError(f"a byte of five trits is at most 242, found {int(raw.max())}")
    digits = raw[:, :, None] // _TRIT_WEIGHTS.astype(np.uint8) % 3
    trits = digits.reshape(raw.shape[0], 5 * raw.shape[1]).astype(np.int8) - np.int8(1)
    if np.any(trits[:, k:]):
        raise ValueError(
            "a pad trit behind the last element of a row is not 0: the data is damaged"
        )
    return trits[:, :k]


def _unpacked_nibbles(raw: Bytes, k: int, dtype: DataType) -> Codes:
    """Return the half bytes of each row as int8 [R, k], after checking the pad half."""
    halves = np.empty((raw.shape[0], 2 * raw.shape[1]), np.int8)
    halves[:, 0::2] = raw & 15
    halves[:, 1::2] = raw >> 4
    if np.any(halves[:, k:]):
        raise ValueError("a pad half byte at the end of a row is not 0: the data is damaged")
    codes = halves[:, :k]
    return np.where(codes >= 8, codes - 16, codes) if dtype.is_signed else codes


def _unpacked_bytes(raw: Bytes, k: int, dtype: DataType, encoding: str) -> Codes:
    """Return the numbers of each row as [R, k], their sign continued where the numpy type is wider."""
    width, stored = _WIDTH_BYTES[encoding], _stored_dtype(dtype, encoding)
    if width == stored.itemsize:
        return raw.view(stored)
    wide = np.zeros((raw.shape[0], k, stored.itemsize), np.uint8)
    wide[:, :, stored.itemsize - width :] = raw.reshape(raw.shape[0], k, width)
    # the number is in the upper bytes: an arithmetic shift brings it down with its sign
    return wide.view(stored).reshape(raw.shape[0], k) >> (8 * (stored.itemsize - width))
