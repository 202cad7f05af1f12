"""Cutting a dimension into tiles and blocks, and the bits that codes take where they are stored."""

from __future__ import annotations

from functools import lru_cache

from hwsim.arch.work import ceil_div, parts
from hwsim.graph.dtype import DataType

__all__ = [
    "WORD_BITS",
    "code_bits",
    "parts",
    "row_bits",
    "stored_bytes",
    "tile_sizes",
]

WORD_BITS = 64
"""Rows of codes start on a word in every memory (docs/arithmetic.md, section 1)."""


@lru_cache(maxsize=4096)
def tile_sizes(dimension: int, block: int, least: int = 1) -> tuple[int, ...]:
    """List the tile sizes of a dimension, largest first.

    A tile is the dimension cut in j equal parts, rounded up to whole blocks of any size from `least` to
    `block`; only the distinct ceilings are kept. The largest is cut down to the dimension itself. So a
    larger block never has fewer sizes to choose from.

    >>> tile_sizes(20, 8, least=8), tile_sizes(6, 4, least=4), tile_sizes(6, 4)
    ((20, 16, 8), (6, 4), (6, 4, 3, 2, 1))
    """
    equal, size = [], dimension
    while size:  # the next smaller ceiling belongs to the first j that reaches below this one
        equal.append(size)
        size = 0 if size == 1 else ceil_div(dimension, (dimension - 1) // (size - 1) + 1)
    rounded = {
        min(dimension, ceil_div(size, b) * b)
        for b in range(min(least, dimension), min(block, dimension) + 1)
        for size in equal
    }
    return tuple(sorted(rounded, reverse=True))


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
