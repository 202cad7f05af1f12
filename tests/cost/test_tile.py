"""Cutting dimensions, and stored sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_space import sizes

from hwsim.graph.dtype import parse
from hwsim.mapping.tile import code_bits, parts, row_bits, stored_bytes, tile_sizes

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
@given(st.integers(1, 600), BLOCK)
def test_a_larger_block_never_has_fewer_sizes(dimension: int, block: int) -> None:
    found = tile_sizes(dimension, block)
    assert found[0] == dimension
    assert found[-1] == 1
    assert list(found) == sorted(set(found), reverse=True)
    assert set(found) <= set(tile_sizes(dimension, block + 1))


@QUIET
@given(st.integers(1, 80), st.integers(1, 8), st.integers(1, 8))
def test_tile_sizes_are_the_distinct_ceilings(dimension: int, block: int, least: int) -> None:
    least = min(block, least)
    assert set(tile_sizes(dimension, block, least)) == sizes(dimension, block, least)


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
