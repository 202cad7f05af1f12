"""Cutting a dimension into tiles and blocks, and the bits that codes take where they are stored."""

from __future__ import annotations

from functools import lru_cache

from hwsim.arch.work import ceil_div, parts
from hwsim.graph.dtype import DataType

__all__ = [
    "MOST_SIZES",
    "WORD_BITS",
    "code_bits",
    "parts",
    "row_bits",
    "stored_bytes",
    "tile_sizes",
]

WORD_BITS = 64
"""Rows of codes start on a word in every memory (docs/arithmetic.md, section 1)."""


MOST_SIZES = 12
"""Tile sizes kept of one dimension: with three dimensions and two orders a few thousand candidates."""


@lru_cache(maxsize=4096)
def tile_sizes(dimension: int, block: int) -> tuple[int, ...]:
    """List the tile sizes of a dimension, largest first.

    A tile is the dimension cut in j equal parts, rounded up to whole blocks of the array; only the
    distinct ceilings are kept, and of more than `MOST_SIZES` an even choice by rank, both ends included.
    The largest is cut down to the dimension itself.

    >>> tile_sizes(20, 8), tile_sizes(6, 4), tile_sizes(3, 4)
    ((20, 16, 8), (6, 4), (3,))
    """
    sizes: list[int] = []
    for j in range(1, ceil_div(dimension, block) + 1):
        size = min(dimension, ceil_div(ceil_div(dimension, j), block) * block)
        if not sizes or size != sizes[-1]:
            sizes.append(size)
    if len(sizes) > MOST_SIZES:
        last = len(sizes) - 1
        sizes = [sizes[i * last // (MOST_SIZES - 1)] for i in range(MOST_SIZES)]
    return tuple(sizes)


def code_bits(dtype: DataType, codes: int) -> int:
    """Return the bits of `codes` neighbouring codes: 1 bipolar or unipolar, 2 ternary, n for n bits."""
    return codes * dtype.bits


def row_bits(dtype: DataType, codes: int) -> int:
    """Return the bits of one stored row: its codes and the padding to whole words."""
    return ceil_div(code_bits(dtype, codes), WORD_BITS) * WORD_BITS


def stored_bytes(dtype: DataType, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor in memory: the last axis is a row that starts on a word."""
    rows = 1
    for d in shape[:-1]:
        rows *= d
    return rows * row_bits(dtype, shape[-1] if shape else 1) // 8
