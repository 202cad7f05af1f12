"""Number types: ranges, levels and canonical names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, parse, uint


@pytest.mark.parametrize(
    ("name", "qmin", "qmax", "bits", "step"),
    [
        ("BIPOLAR", -1, 1, 1, 2),
        ("UNIPOLAR", 0, 1, 1, 1),
        ("TERNARY", -1, 1, 2, 1),
        ("INT2", -2, 1, 2, 1),
        ("INT2N", -1, 1, 2, 1),
        ("INT8", -128, 127, 8, 1),
        ("INT8N", -127, 127, 8, 1),
        ("UINT8", 0, 255, 8, 1),
        ("UINT17", 0, 131071, 17, 1),
        ("INT32", -(2**31), 2**31 - 1, 32, 1),
        ("INT64", -(2**63), 2**63 - 1, 64, 1),
    ],
)
def test_range_of_a_type(name: str, qmin: int, qmax: int, bits: int, step: int) -> None:
    dtype = parse(name)
    assert (dtype.qmin, dtype.qmax, dtype.bits, dtype.step) == (qmin, qmax, bits, step)
    assert dtype.is_signed == (qmin < 0)
    assert dtype.max_abs == max(-qmin, qmax)
    assert str(dtype) == dtype.name == name


@pytest.mark.parametrize(
    ("dtype", "levels"),
    [
        (BIPOLAR, (-1, 1)),
        (UNIPOLAR, (0, 1)),
        (TERNARY, (-1, 0, 1)),
        (int_(2), (-2, -1, 0, 1)),
        (int_(2, narrow=True), (-1, 0, 1)),
        (uint(2), (0, 1, 2, 3)),
    ],
)
def test_levels_are_all_codes_in_order(dtype: DataType, levels: tuple[int, ...]) -> None:
    assert dtype.levels == levels


def test_wide_types_do_not_list_their_levels() -> None:
    with pytest.raises(ValueError, match="INT9 has too many codes"):
        _ = int_(9).levels


@given(st.sampled_from(["int", "uint"]), st.integers(1, 64), st.booleans())
def test_a_name_reads_back_as_the_same_type(kind: str, bits: int, narrow: bool) -> None:
    dtype = uint(bits) if kind == "uint" else int_(bits, narrow)
    assert parse(dtype.name) == dtype


@pytest.mark.parametrize(
    "name", ["", "int8", "INT", "INT0", "INT08", "INT65", "UINT8N", "INT8 ", "BINARY", "INT8NN"]
)
def test_a_name_that_is_no_type_is_refused_with_the_valid_forms(name: str) -> None:
    with pytest.raises(ValueError, match="BIPOLAR, UNIPOLAR, TERNARY, INTn, INTnN or UINTn") as e:
        parse(name)
    assert repr(name) in str(e.value)
