"""The bits of a code where it enters an array or leaves the vector unit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import BIPOLAR, DataType

Encoding = Literal["sign_bit", "twos_complement", "unsigned", "plus_minus"]
"""`sign_bit`: +1 is 1 and -1 is 0. `plus_minus`: bit 0 is set for +1, bit 1 for -1."""
Patterns = npt.NDArray[np.uint32]


def encoding_of(dtype: DataType) -> Encoding:
    """Return how the codes of a type are stored: ternary ones in two's complement.

    >>> encoding_of(BIPOLAR), encoding_of(DataType("int", 8))
    ('sign_bit', 'twos_complement')
    """
    if dtype == BIPOLAR:
        return "sign_bit"
    return "twos_complement" if dtype.is_signed else "unsigned"


def bit_patterns(codes: npt.NDArray[Any], dtype: DataType, encoding: Encoding) -> Patterns:
    """Return the bits of codes of at most 32 bits as unsigned integers, uint32 of the codes' shape.

    >>> bit_patterns(np.array([-1, 0, 1]), DataType("ternary", 2), "twos_complement").tolist()
    [3, 0, 1]
    >>> bit_patterns(np.array([-1, 0, 1]), DataType("ternary", 2), "plus_minus").tolist()
    [2, 0, 1]
    """
    wide = np.asarray(codes, np.int64)
    if encoding == "sign_bit":
        wide = (wide + 1) >> 1
    elif encoding == "plus_minus":
        wide = (wide > 0) + 2 * (wide < 0)
    return np.asarray(wide & ((1 << dtype.bits) - 1), np.uint32)
