"""What an accumulator can hold: static bounds, and the profile that counts where a bound does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph

Overflow = Literal["error", "wrap", "clamp"]


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """How an array accumulates: chunks of `lanes` along K, each added to an accumulator of A bits.

    With `bit_serial` the chunks are outer, weight planes next, activation planes inner, and each
    update of the accumulator is one application of the overflow rule.
    """

    accumulator_bits: int
    overflow: Overflow
    lanes: int
    bit_serial: bool = False

    @property
    def limit(self) -> int:
        """Largest magnitude that fits on the positive side: 2^(A-1) - 1."""
        return (1 << (self.accumulator_bits - 1)) - 1


def planes(dtype: DataType) -> int:
    """Bit-planes a bit-serial array needs for a number type: ternary has a plus and a minus plane."""
    return dtype.bits


def weight_bound(weight: npt.NDArray[Any], a: DataType) -> int:
    """Largest |acc| of a linear over every possible activation: max_n sum_k |w[n, k]| * max|a|."""
    if weight.size == 0:
        return 0
    return int(np.abs(weight.astype(np.int64)).sum(axis=1).max()) * a.max_abs


def matmul_bound(k: int, a: DataType, b: DataType) -> int:
    """Largest |acc| of a product of two activations: K * max|a| * max|b|."""
    return k * a.max_abs * b.max_abs


def bit_serial_bound(k: int, a: DataType, w: DataType) -> int:
    """Largest partial sum of a bit-serial product: K * (2^wb - 1) * (2^ab - 1)."""
    return k * ((1 << planes(w)) - 1) * ((1 << planes(a)) - 1)


def node_bound(graph: QuantGraph, node: Node, length: int) -> int:
    """Static bound of a contraction node at a sequence length (0 elsewhere)."""
    if node.op == "linear":
        return weight_bound(graph.constant(node, "weight"), graph.tensors[node.inputs[0]].dtype)
    if node.op == "matmul":
        a, b = (graph.tensors[t] for t in node.inputs)
        return matmul_bound(a.bind(length)[-1], a.dtype, b.dtype)
    return 0


def needs_profile(bound: int, profile: NumericProfile, serial_bound: int) -> bool:
    """Say whether the array's own accumulation order and width decide the result."""
    return (serial_bound if profile.bit_serial else bound) > profile.limit
