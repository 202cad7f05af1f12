"""Which rows a model got right, packed into text and back."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.errors import DataError
from hwsim.metrics import pack_right, unpack_right


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 872])
def test_what_is_packed_comes_back(rows: int) -> None:
    right = np.random.default_rng(rows).random(rows) < 0.7
    text = pack_right(right)
    assert len(text) == 2 * -(-rows // 8)
    np.testing.assert_array_equal(unpack_right(text, rows), right)


def test_the_first_row_is_the_highest_bit() -> None:
    assert pack_right(np.array([True] + [False] * 8)) == "8000"


def test_a_text_of_another_number_of_rows_is_refused() -> None:
    with pytest.raises(DataError, match="2 bytes of right and wrong answers do not hold 17 rows"):
        unpack_right("ffff", 17)
