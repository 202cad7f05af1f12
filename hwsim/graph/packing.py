"""How codes lie in files: packed bytes, rows on byte boundaries, pad bits 0 and checked on load.

An array [..., K] becomes uint8 [R, row_bytes]: R is the product of the leading axes, the last axis is
the packing axis (for weights the reduction axis). Encodings:

| encoding  | types                  | bytes of a row | element k                                        |
|-----------|------------------------|----------------|--------------------------------------------------|
| `bits`    | BIPOLAR, UNIPOLAR      | ceil(K/8)      | bit k mod 8 of byte k div 8; BIPOLAR +1 is 1     |
| `planes`  | TERNARY                | 2 * ceil(K/8)  | the plane of +1 as `bits`, then the plane of -1  |
| `trits`   | TERNARY                | ceil(K/5)      | digit k mod 5 of byte k div 5 in base 3, t + 1   |
| `nibbles` | INTn, UINTn, n <= 4    | ceil(K/2)      | low half of the byte first, two's complement     |
| `bytes1`  | INTn, UINTn, n <= 8    | K              | two's complement                                 |
| `bytes2`  | INTn, UINTn, n <= 16   | 2K             | two's complement, little-endian                  |
| `bytes4`  | INTn, UINTn, n <= 32   | 4K             | two's complement, little-endian                  |
| `bytes8`  | INTn, n <= 64, UINTn, n <= 63 | 8K      | two's complement, little-endian                  |

`default_encoding` picks the smallest (`trits` for TERNARY). Codes in memory are int8 up to 8 bits
(uint8 for UINT8), else int64. Source: docs/arithmetic.md, section 1.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import DataType

Codes = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

ENCODINGS = ("bits", "planes", "trits", "nibbles", "bytes1", "bytes2", "bytes4", "bytes8")

_TRIT_WEIGHTS = 3 ** np.arange(5)
_WIDTH_BYTES = {"bytes1": 1, "bytes2": 2, "bytes4": 4, "bytes8": 8}
_ELEMENTS_PER_BYTE = {"bits": 8, "planes": 8, "trits": 5, "nibbles": 2}


def memory_dtype(dtype: DataType) -> np.dtype[Any]:
    """Return the numpy type that holds the codes of a number type: int8, uint8 or int64."""
    if dtype.bits > 8:
        return np.dtype(np.int64)
    return np.dtype(np.int8) if dtype.qmax <= 127 else np.dtype(np.uint8)


def encodings_for(dtype: DataType) -> tuple[str, ...]:
    """Return the encodings that can hold a number type, the default one first.

    Raises:
        ValueError: the type is wider than an int64 can hold.
    """
    if dtype.kind in ("bipolar", "unipolar"):
        return ("bits",)
    if dtype.kind == "ternary":
        return ("trits", "planes")
    if dtype.qmax >= 1 << 63:
        raise ValueError(f"{dtype.name} is too wide: codes are held in int64, use at most UINT63")
    nibbles = ("nibbles",) if dtype.bits <= 4 else ()
    return nibbles + tuple(name for name, b in _WIDTH_BYTES.items() if dtype.bits <= 8 * b)


def default_encoding(dtype: DataType) -> str:
    """Return the smallest encoding of a number type."""
    return encodings_for(dtype)[0]


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
    stored = np.ascontiguousarray(flat.astype(_stored_dtype(dtype, name)))
    return stored.view(np.uint8).reshape(rows, _row_bytes(name, k))


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
        codes = raw.view(_stored_dtype(dtype, name))
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
    """Return the little-endian numpy type of a whole-byte encoding."""
    return np.dtype(f"<{'i' if dtype.is_signed else 'u'}{_WIDTH_BYTES[encoding]}")


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
