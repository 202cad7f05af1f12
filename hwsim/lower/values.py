"""What a value of the static student can be on its way to integers.

`Codes` is an integer tensor on a grid, `Acc` an accumulator with a pending exact affine map that its consumer
absorbs. `Scores`, `Curve`, `Normalised` and `Rows` are operators whose output format their consumer decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.capture import Call
from hwsim.graph import derive
from hwsim.graph.dtype import DataType, int_
from hwsim.graph.ir import QuantGraph

ACCUMULATOR = int_(32)


@dataclass(frozen=True)
class Tap:
    """Where rung A finds a graph tensor in the static student: a call's value and how to read its codes."""

    call: str
    kind: str
    """`acc`: the accumulator itself; `codes`: the value is codes; `grid`: quantise it as below"""
    dtype: DataType = ACCUMULATOR
    scale: float = 1.0
    shift: npt.NDArray[np.float64] | None = None
    views: tuple[Call, ...] = ()
    """view calls applied on top, in order"""


@dataclass(frozen=True)
class Codes:
    """value = scale * codes."""

    tensor: str
    dtype: DataType
    scale: float


@dataclass(frozen=True)
class Acc:
    """value = f(affine(codes)) seen through `views`; f is the ReLU where `relu`."""

    tensor: str
    affine: derive.Affine
    bound: int
    call: str
    """the call whose value has the base tensor's own layout"""
    relu: bool = False
    views: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Scores:
    """A softmax whose output format its consumer decides."""

    acc: Acc
    causal: bool
    masked: bool
    call: str


@dataclass(frozen=True)
class Lowered:
    """The graph and, for every tensor of it, its tap."""

    graph: QuantGraph
    taps: Mapping[str, Tap]


@dataclass(frozen=True)
class Curve:
    """A GELU or tanh whose output grid its consumer decides."""

    x: Any
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    call: str


@dataclass(frozen=True)
class Normalised:
    """A layer norm that is emitted by the grid that follows it."""

    emit: Callable[[Call, DataType, float], Codes]


@dataclass(frozen=True)
class Rows:
    """An embedding look-up that is emitted by the grid that follows it."""

    emit: Callable[[Call, DataType, float], Codes]
