"""XNOR-popcount array: one gate and one popcount input a lane."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwsim.arch.component import ArrayComponent, ArraySpec, Codes
from hwsim.graph.dtype import BIPOLAR, UNIPOLAR, DataType
from hwsim.registry import register


class XnorArraySpec(ArraySpec):
    """Description of an XNOR-popcount array."""

    kind: Literal["xnor_popcount"]
    """`xnor_popcount`"""


@register("array", "xnor_popcount")
class XnorArray(ArrayComponent):
    """Multiplies BIPOLAR by BIPOLAR (K - 2 popcount(a XOR w)) and UNIPOLAR by BIPOLAR (AND form)."""

    spec_class = XnorArraySpec

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation in (BIPOLAR, UNIPOLAR) and weight == BIPOLAR:
            return None
        return "must be BIPOLAR x BIPOLAR or UNIPOLAR x BIPOLAR on an xnor_popcount array"

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        from hwsim.kernels import gemm, pack

        out = np.empty((a.shape[0], w.shape[0]), np.int32)
        w_packed = pack.packed_bipolar(w)
        if a_dtype == UNIPOLAR:
            gemm.and_popcount_gemm_u64(pack.packed_unipolar(a), w_packed, out)
        else:
            gemm.xnor_popcount_gemm_u64(pack.packed_bipolar(a), w_packed, a.shape[1], out)
        return out
