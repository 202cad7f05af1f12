"""What the constants of a call become: weight formats, rows that are added, functions behind tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from hwsim.capture import Call, Frozen
from hwsim.errors import GraphError
from hwsim.graph.dtype import BIPOLAR, DataType, int_, parse
from hwsim.graph.ir import Shape


def code_type(codes: npt.NDArray[np.int64]) -> DataType:
    """Smallest weight format that holds these codes: bipolar, ternary, or a signed integer."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    if low >= -1 and high <= 1:
        return BIPOLAR if (codes != 0).all() and codes.size else parse("TERNARY")
    bits = max(high.bit_length(), (-low - 1).bit_length()) + 1
    return int_(8) if bits <= 8 else int_(16) if bits <= 16 else int_(32)


def constant_rows(value: Frozen, shape: Shape, call: Call) -> npt.NDArray[np.float64]:
    """A constant operand as [T|1, C]: without its batch axis."""
    array = value.array.astype(np.float64)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[-1] != shape[-1]:
        raise GraphError(
            f"{call.origin}: a constant of shape {value.array.shape} cannot be added to {shape}"
        )
    return np.ascontiguousarray(array)


def curve_function(
    call: Call,
) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The float64 function that a GELU or tanh call computes, for its table."""

    def evaluate(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        t = torch.from_numpy(x)
        y = (
            t.tanh()
            if call.op == "aten.tanh"
            else torch.nn.functional.gelu(t, approximate=call.args[1])
        )
        result: npt.NDArray[np.float64] = y.numpy()
        return result

    return evaluate
