"""Bit-serial array: one AND-popcount a lane, one pass for every pair of bit planes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import (
    OVERFLOW_RULES,
    ArrayComponent,
    ArraySpec,
    Codes,
)
from hwsim.graph.dtype import BIPOLAR, DataType
from hwsim.graph.numeric import NumericProfile
from hwsim.registry import register


class BitSerialArraySpec(ArraySpec):
    """Description of a bit-serial array."""

    kind: Literal["bit_serial"]
    """`bit_serial`"""


@register("array", "bit_serial")
class BitSerialArray(ArrayComponent):
    """Multiplies any formats of at most 16 bits, plane by plane.

    A BIPOLAR operand is one plane of bits b with value 2b - 1; TERNARY is two's complement in two.
    """

    spec_class = BitSerialArraySpec

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation.bits <= 16 and weight.bits <= 16:
            return None
        return "must be at most 16 bits x at most 16 bits on a bit_serial array"

    def profile(self, a: DataType, w: DataType) -> NumericProfile:
        """Return the numeric profile, with one accumulator update for every pair of planes."""
        return NumericProfile(
            self.spec.accumulator_bits, self.spec.overflow, self.spec.lanes, bit_serial=True
        )

    def passes(self, a: DataType, w: DataType) -> int:
        """Count the passes: one for every pair of bit planes."""
        return a.bits * w.bits

    def operand_bits(self, a: DataType, w: DataType) -> tuple[int, int]:
        """Return the bits that enter in one pass: one of each operand."""
        return 1, 1

    def static_bound(self, weight: Codes | None, k: int, a: DataType, w: DataType) -> int:
        """Return K (2^wb - 1) (2^ab - 1): partial sums of single planes can exceed the final one."""
        return k * ((1 << w.bits) - 1) * ((1 << a.bits) - 1)

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        from hwsim.kernels import gemm, pack

        out = np.empty((a.shape[0], w.shape[0]), np.int32)
        a_bits, w_bits = stored_bits(a, a_dtype), stored_bits(w, w_dtype)
        gemm.bit_serial_gemm_u64(
            pack.packed_planes(a_bits, a_dtype.bits),
            pack.packed_planes(w_bits, w_dtype.bits),
            top_plane_negative(a_dtype),
            top_plane_negative(w_dtype),
            out,
        )
        return _signed_sums(out, a_bits, w_bits, a_dtype, w_dtype)

    def accumulators(
        self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType, *, where: str
    ) -> Codes:
        """Return what the accumulators hold before they are read out, sums of stored bits: [M, N]."""
        out = np.empty((a.shape[0], w.shape[0]), np.int64)
        fault = np.zeros(4, np.int64)
        self._run_planes(
            stored_bits(a, a_dtype), stored_bits(w, w_dtype), a_dtype, w_dtype, out, fault
        )
        if fault[0]:
            self._refuse(fault, where, self.static_bound(None, a.shape[1], a_dtype, w_dtype))
        return out

    def _run_profiled(
        self,
        a: Codes,
        w: Codes,
        a_dtype: DataType,
        w_dtype: DataType,
        out: npt.NDArray[np.int64],
        fault: npt.NDArray[np.int64],
    ) -> None:
        a_bits, w_bits = stored_bits(a, a_dtype), stored_bits(w, w_dtype)
        self._run_planes(a_bits, w_bits, a_dtype, w_dtype, out, fault)
        # The accumulator holds sums of stored bits; BIPOLAR is corrected where it is read out.
        out[...] = _signed_sums(out, a_bits, w_bits, a_dtype, w_dtype)

    def _run_planes(
        self,
        a_bits: npt.NDArray[np.int32],
        w_bits: npt.NDArray[np.int32],
        a_dtype: DataType,
        w_dtype: DataType,
        out: npt.NDArray[np.int64],
        fault: npt.NDArray[np.int64],
    ) -> None:
        from hwsim.kernels.chunked_gemm import chunked_bit_serial_gemm_i64

        chunked_bit_serial_gemm_i64(
            a_bits,
            w_bits,
            a_dtype.bits,
            w_dtype.bits,
            top_plane_negative(a_dtype),
            top_plane_negative(w_dtype),
            self.spec.lanes,
            self.spec.accumulator_bits,
            OVERFLOW_RULES[self.spec.overflow],
            out,
            fault,
        )


def _signed_sums(
    sums: Codes,
    a_bits: npt.NDArray[np.int32],
    w_bits: npt.NDArray[np.int32],
    a_dtype: DataType,
    w_dtype: DataType,
) -> Codes:
    """Turn products of stored bits into products of codes: [M, N] of the same integer type.

    A BIPOLAR operand x is stored as b = (x + 1) / 2, so sum x*y = 2 * sum b*y - sum y. With both
    operands BIPOLAR this is 4 * sum b*c - 2 * sum b - 2 * sum c + K.
    """
    if a_dtype == BIPOLAR:
        sums = 2 * sums - w_bits.sum(axis=1, dtype=sums.dtype)[None, :]
    if w_dtype == BIPOLAR:
        a_codes = 2 * a_bits - 1 if a_dtype == BIPOLAR else a_bits
        sums = 2 * sums - a_codes.sum(axis=1, dtype=sums.dtype)[:, None]
    return sums


def top_plane_negative(dtype: DataType) -> bool:
    """Tell whether the highest plane of a type counts negative (BIPOLAR is stored as 0 and 1)."""
    return dtype.is_signed and dtype != BIPOLAR


def stored_bits(codes: Codes, dtype: DataType) -> npt.NDArray[np.int32]:
    """Return the integers whose bits are the planes: int32 of the codes' shape."""
    wide = np.ascontiguousarray(codes, np.int32)
    return (wide + 1) >> 1 if dtype == BIPOLAR else wide
