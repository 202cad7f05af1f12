"""Packing of codes into 64-bit words for the popcount kernels, and back.

Element k of a row is bit `k mod 64` of word `k div 64`; every row starts on a word and the pad bits
behind the last element are 0 (docs/arithmetic.md, section 1). Codes are [R, K] with K the reduction
axis. The kernels do not check codes; files are checked by `hwsim.graph.packing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Codes = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]

WORD_BITS = 64


def words(k: int) -> int:
    """Return the number of 64-bit words that hold `k` one-bit elements."""
    return (k + WORD_BITS - 1) // WORD_BITS


@njit(cache=True, nogil=True, error_model="numpy")
def pack_bipolar_u64(codes: Codes, out: Words) -> None:
    """Pack codes in {-1, +1}, int8 [R, K], to out u64 [R, ceil(K/64)]; +1 is bit 1."""
    for r in range(codes.shape[0]):
        for w in range(out.shape[1]):
            chunk = codes[r, w * 64 : w * 64 + 64]
            word = np.uint64(0)
            for i in range(chunk.shape[0]):
                word |= np.uint64(chunk[i] > 0) << np.uint64(i)
            out[r, w] = word


@njit(cache=True, nogil=True, error_model="numpy")
def unpack_bipolar_u64(packed: Words, out: Codes) -> None:
    """Unpack words u64 [R, ceil(K/64)] to codes in {-1, +1}, out int8 [R, K]."""
    for r in range(out.shape[0]):
        for w in range(packed.shape[1]):
            chunk = out[r, w * 64 : w * 64 + 64]
            word = packed[r, w]
            for i in range(chunk.shape[0]):
                bit = np.int64((word >> np.uint64(i)) & np.uint64(1))
                chunk[i] = np.int8(2 * bit - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def pack_unipolar_u64(codes: Codes, out: Words) -> None:
    """Pack codes in {0, 1}, int8 [R, K], to out u64 [R, ceil(K/64)]; the bit is the code."""
    for r in range(codes.shape[0]):
        for w in range(out.shape[1]):
            chunk = codes[r, w * 64 : w * 64 + 64]
            word = np.uint64(0)
            for i in range(chunk.shape[0]):
                word |= np.uint64(chunk[i] != 0) << np.uint64(i)
            out[r, w] = word


@njit(cache=True, nogil=True, error_model="numpy")
def unpack_unipolar_u64(packed: Words, out: Codes) -> None:
    """Unpack words u64 [R, ceil(K/64)] to codes in {0, 1}, out int8 [R, K]."""
    for r in range(out.shape[0]):
        for w in range(packed.shape[1]):
            chunk = out[r, w * 64 : w * 64 + 64]
            word = packed[r, w]
            for i in range(chunk.shape[0]):
                chunk[i] = np.int8((word >> np.uint64(i)) & np.uint64(1))


@njit(cache=True, nogil=True, error_model="numpy")
def pack_ternary_u64(codes: Codes, plus: Words, minus: Words) -> None:
    """Pack codes in {-1, 0, +1}, int8 [R, K], to the planes of +1 and of -1, u64 [R, ceil(K/64)]."""
    for r in range(codes.shape[0]):
        for w in range(plus.shape[1]):
            chunk = codes[r, w * 64 : w * 64 + 64]
            plus_word = np.uint64(0)
            minus_word = np.uint64(0)
            for i in range(chunk.shape[0]):
                plus_word |= np.uint64(chunk[i] > 0) << np.uint64(i)
                minus_word |= np.uint64(chunk[i] < 0) << np.uint64(i)
            plus[r, w] = plus_word
            minus[r, w] = minus_word


@njit(cache=True, nogil=True, error_model="numpy")
def unpack_ternary_u64(plus: Words, minus: Words, out: Codes) -> None:
    """Unpack the planes of +1 and -1, u64 [R, ceil(K/64)], to codes, out int8 [R, K]."""
    for r in range(out.shape[0]):
        for w in range(plus.shape[1]):
            chunk = out[r, w * 64 : w * 64 + 64]
            plus_word = plus[r, w]
            minus_word = minus[r, w]
            for i in range(chunk.shape[0]):
                up = np.int64((plus_word >> np.uint64(i)) & np.uint64(1))
                down = np.int64((minus_word >> np.uint64(i)) & np.uint64(1))
                chunk[i] = np.int8(up - down)


@njit(cache=True, nogil=True, error_model="numpy")
def pack_planes_u64(codes: Codes, planes: Words) -> None:
    """Pack integer codes [R, K] to their two's-complement bit-planes, u64 [bits, R, ceil(K/64)].

    Plane 0 is the least significant bit. Unsigned codes are packed alike: the top plane then counts
    positive, which the reader of the planes must know.
    """
    for p in range(planes.shape[0]):
        for r in range(codes.shape[0]):
            for w in range(planes.shape[2]):
                chunk = codes[r, w * 64 : w * 64 + 64]
                word = np.uint64(0)
                for i in range(chunk.shape[0]):
                    bit = (np.int64(chunk[i]) >> np.int64(p)) & np.int64(1)
                    word |= np.uint64(bit) << np.uint64(i)
                planes[p, r, w] = word


@njit(cache=True, nogil=True, error_model="numpy")
def unpack_planes_u64(planes: Words, signed: bool, out: Codes) -> None:
    """Unpack bit-planes u64 [bits, R, ceil(K/64)] to codes, out int32 [R, K]; signed: top negative."""
    bits = planes.shape[0]
    rows, k = out.shape
    for r in range(rows):
        for i in range(k):
            code = np.int64(0)
            for p in range(bits):
                bit = np.int64((planes[p, r, i // 64] >> np.uint64(i % 64)) & np.uint64(1))
                weight = np.int64(1) << np.int64(p)
                code += -weight * bit if signed and p == bits - 1 else weight * bit
            out[r, i] = np.int32(code)


def packed_bipolar(codes: Codes) -> Words:
    """Return codes in {-1, +1} [R, K] as words u64 [R, ceil(K/64)]."""
    out = np.empty((codes.shape[0], words(codes.shape[1])), np.uint64)
    pack_bipolar_u64(np.ascontiguousarray(codes), out)
    return out


def packed_unipolar(codes: Codes) -> Words:
    """Return codes in {0, 1} [R, K] as words u64 [R, ceil(K/64)]."""
    out = np.empty((codes.shape[0], words(codes.shape[1])), np.uint64)
    pack_unipolar_u64(np.ascontiguousarray(codes), out)
    return out


def packed_ternary(codes: Codes) -> tuple[Words, Words]:
    """Return codes in {-1, 0, +1} [R, K] as the planes (plus, minus), each u64 [R, ceil(K/64)]."""
    plus = np.empty((codes.shape[0], words(codes.shape[1])), np.uint64)
    minus = np.empty_like(plus)
    pack_ternary_u64(np.ascontiguousarray(codes), plus, minus)
    return plus, minus


def packed_planes(codes: Codes, bits: int) -> Words:
    """Return integer codes [R, K] as two's-complement planes u64 [bits, R, ceil(K/64)]."""
    planes = np.empty((bits, codes.shape[0], words(codes.shape[1])), np.uint64)
    pack_planes_u64(np.ascontiguousarray(codes), planes)
    return planes
