"""Constants of captured calls and the grids that they are put on: what `hwsim.freeze` chooses scales with."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.capture import Call, Frozen
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType, parse

TINY = 1e-12
"""smallest range: a value that is always 0 still needs a positive scale"""


def grid_of(snap: Call) -> tuple[DataType, float]:
    """Format and scale of a student's own grid."""
    return parse(snap.args[2]), float(snap.args[1].array.reshape(-1)[0])


def require_finite(call: Call) -> None:
    """Refuse parameters that are not numbers, by the name of their module."""
    for constant in constants_of(call.args):
        if not np.isfinite(constant.array).all():
            raise GraphError(
                f"{call.origin}: a parameter of {call.op} is not finite; train it again"
            )


def widen(name: str) -> float:
    """A factor between 1 + 2^-16 and 1 + 2^-15 of its own for every edge.

    A calibrated maximum is itself scale * accumulator. Taken as the range, it would make the
    requantisation a small rational with exact ties, which M/2^S then breaks at random; a common factor
    would cancel between the input's scale and the output's.
    """
    return 1.0 + 2.0**-16 * (1.0 + zlib.crc32(name.encode()) / 2.0**32)


def constants_of(args: Any) -> list[Frozen]:
    if isinstance(args, Frozen):
        return [args]
    if isinstance(args, tuple):
        return [f for a in args for f in constants_of(a)]
    return []


def on_grid(arg: Any, scale: float) -> Any:
    """Round a constant to a grid; anything else passes."""
    if not isinstance(arg, Frozen):
        return arg
    return replace(arg, array=np.floor(arg.array.astype(np.float64) / scale + 0.5) * scale)


def row_codes(
    weight: npt.NDArray[Any], dtype: DataType, per_row: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Symmetric codes of a float matrix [N, K] and their scale, [N] or [1]."""
    w = weight.astype(np.float64)
    amax = np.abs(w).max(axis=1) if per_row else np.abs(w).max(keepdims=True).reshape(1)
    scale = np.maximum(amax, TINY) / dtype.qmax
    codes = np.floor(w / (scale[:, None] if per_row else scale) + 0.5)
    return np.clip(codes, dtype.qmin, dtype.qmax), scale
