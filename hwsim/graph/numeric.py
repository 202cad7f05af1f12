"""What an accumulator can hold: static bounds, and the profile that counts where a bound does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import DataType

Overflow = Literal["error", "wrap", "clamp"]


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """How an array accumulates: chunks of `lanes` along K, each added to an accumulator of A bits.

    With `bit_serial` the chunks are outer, weight planes next, activation planes inner, and each update
    of the accumulator is one application of the overflow rule. Planes are the bits of the stored number:
    two's complement, TERNARY in two bits; BIPOLAR is one bit b of value 2b - 1, and what the offset adds
    is corrected where the accumulator is read out.
    """

    accumulator_bits: int
    overflow: Overflow
    lanes: int
    bit_serial: bool = False

    @property
    def limit(self) -> int:
        """Largest magnitude that fits on the positive side: 2^(A-1) - 1."""
        return (1 << (self.accumulator_bits - 1)) - 1

    def fits(self, bound: int) -> bool:
        """Tell whether sums of at most this magnitude never leave the accumulator."""
        return bound <= self.limit


def weight_bound(weight: npt.NDArray[Any], a: DataType) -> int:
    """Largest |acc| of a linear over every possible activation: max_n sum_k |w[n, k]| * max|a|."""
    if weight.size == 0:
        return 0
    return int(np.abs(weight.astype(np.int64)).sum(axis=1).max()) * a.max_abs


def matmul_bound(k: int, a: DataType, b: DataType) -> int:
    """Largest |acc| of a product of two activations: K * max|a| * max|b|."""
    return k * a.max_abs * b.max_abs
