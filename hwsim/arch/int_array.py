"""Integer array: one small multiplier a lane. Also the shared dot-product unit of the edge machines."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from hwsim.arch.component import ArrayComponent, ArraySpec, Codes
from hwsim.graph.dtype import DataType
from hwsim.registry import register


class IntArraySpec(ArraySpec):
    """Description of an integer array."""

    kind: Literal["int"]
    """`int`"""


@register("array", "int")
class IntArray(ArrayComponent):
    """Multiplies operands of at most 8 bits each."""

    spec_class: ClassVar[type[ArraySpec]] = IntArraySpec

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation.bits <= 8 and weight.bits <= 8:
            return None
        return "must be at most 8 bits x at most 8 bits on an int array"

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        from hwsim.kernels import gemm

        out = np.empty((a.shape[0], w.shape[0]), np.int32)
        gemm.int_gemm_i32(_stored(a, a_dtype), _stored(w, w_dtype), out)
        return out


def _stored(codes: Codes, dtype: DataType) -> Codes:
    """Return the codes in the one-byte type that holds them in memory."""
    return np.ascontiguousarray(codes, np.uint8 if dtype.qmax > 127 else np.int8)
