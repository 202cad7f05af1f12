"""Cutting dimensions, and stored sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch.component import ceil_div
from hwsim.graph.dtype import parse
from hwsim.mapping.tile import MOST_SIZES, code_bits, parts, row_bits, stored_bytes, tile_sizes

DIMENSION = st.integers(1, 60_000)
BLOCK = st.integers(1, 64)
QUIET = settings(derandomize=True, deadline=None, max_examples=100)


@QUIET
@given(DIMENSION, BLOCK)
def test_parts_make_up_the_whole(total: int, part: int) -> None:
    cut = parts(total, part)
    assert sum(size * times for size, times in cut) == total
    assert all(0 < size <= part and times > 0 for size, times in cut)


@QUIET
@given(DIMENSION, BLOCK)
def test_tile_sizes_are_whole_blocks_from_the_dimension_down_to_one_block(
    dimension: int, block: int
) -> None:
    sizes = tile_sizes(dimension, block)
    assert sizes[0] == dimension
    assert sizes[-1] == min(block, dimension)
    assert list(sizes) == sorted(set(sizes), reverse=True)
    assert all(size % block == 0 for size in sizes[1:])
    assert len(sizes) <= MOST_SIZES


@QUIET
@given(st.integers(1, 80), st.integers(1, 8))
def test_small_dimensions_keep_every_distinct_ceiling(dimension: int, block: int) -> None:
    equal = {ceil_div(dimension, j) for j in range(1, ceil_div(dimension, block) + 1)}
    wanted = {min(dimension, ceil_div(size, block) * block) for size in equal}
    got = set(tile_sizes(dimension, block))
    assert got == wanted if len(wanted) <= MOST_SIZES else got < wanted


@pytest.mark.parametrize(
    ("dtype", "codes", "bits", "stored"),
    [
        ("BIPOLAR", 65, 65, 128),
        ("UNIPOLAR", 64, 64, 64),
        ("TERNARY", 20, 40, 64),
        ("INT8", 20, 160, 192),
        ("UINT17", 4, 68, 128),
        ("INT32", 5, 160, 192),
    ],
)
def test_codes_take_their_bits_and_rows_start_on_words(
    dtype: str, codes: int, bits: int, stored: int
) -> None:
    assert code_bits(parse(dtype), codes) == bits
    assert row_bits(parse(dtype), codes) == stored
    assert stored_bytes(parse(dtype), (2, 3, codes)) == 6 * stored // 8
