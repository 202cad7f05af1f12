"""Ternary array: each lane adds, subtracts or ignores an activation; there is no multiplier."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwsim.arch.component import ArrayComponent, ArraySpec, Codes
from hwsim.arch.encoding import Encoding
from hwsim.graph.dtype import BIPOLAR, TERNARY, DataType
from hwsim.registry import register


class TernaryArraySpec(ArraySpec):
    """Description of a ternary array."""

    kind: Literal["ternary"]
    """`ternary`"""


@register("array", "ternary")
class TernaryArray(ArrayComponent):
    """Multiplies activations of at most 8 bits by TERNARY or BIPOLAR weights: plus part - minus part."""

    spec_class = TernaryArraySpec
    skips_zeros = True

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation.bits <= 8 and weight in (TERNARY, BIPOLAR):
            return None
        return "must be at most 8 bits x TERNARY or BIPOLAR on a ternary array"

    def encodings(self, a: DataType, w: DataType) -> tuple[Encoding, Encoding]:
        """Return as what bits an activation and a weight enter: ternary weights as plus and minus."""
        own, other = super().encodings(a, w)
        return own, "plus_minus" if w == TERNARY else other

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        from hwsim.kernels import gemm, pack

        out = np.empty((a.shape[0], w.shape[0]), np.int32)
        plus, minus = pack.packed_ternary(w)
        narrow = np.uint8 if a_dtype.qmax > 127 else np.int8
        gemm.ternary_gemm_i32(np.ascontiguousarray(a, narrow), plus, minus, out)
        return out
