"""Multi-mode array: one array that multiplies several pairs of formats, each with lanes and energy of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.arch.component import ArrayComponent, ArraySpec, Codes, FormatPair
from hwsim.arch.int_array import IntArray
from hwsim.arch.spec import Count
from hwsim.arch.ternary_array import TernaryArray
from hwsim.arch.xnor_array import XnorArray
from hwsim.graph import dtype as dt
from hwsim.graph.dtype import DataType
from hwsim.registry import register


class Mode(FormatPair):
    """A pair of formats and how the array works on it."""

    lanes: Count | None = None
    """K positions summed in one beat of this mode, where they differ from the array's own"""


class MultiModeArraySpec(ArraySpec):
    """Description of a multi-mode array. Operands use the first mode, in the list's order, that has them."""

    kind: Literal["multi_mode"]
    """`multi_mode`"""
    formats: Annotated[list[Mode], Field(min_length=1)]  # type: ignore[assignment]
    """the modes: operand formats, lanes and energy of a lane operation"""

    @model_validator(mode="after")
    def _every_mode_is_reachable(self) -> MultiModeArraySpec:
        for index, mode in enumerate(self.formats):
            a, w = dt.parse(mode.activation), dt.parse(mode.weight)
            for before in self.formats[:index]:
                if before.covers(a, w):
                    raise ValueError(
                        f"must list {mode.activation} x {mode.weight} before {before.activation} x"
                        f" {before.weight}, which has all its codes and would always be chosen"
                    )
        return self


@register("array", "multi_mode")
class MultiModeArray(ArrayComponent):
    """Multiplies operands of at most 8 bits each, with the lanes of the mode that they use.

    Rows, columns, ports, pipeline, accumulators and their energy are common to all modes.
    """

    spec_class = MultiModeArraySpec
    spec: MultiModeArraySpec
    _datapaths: tuple[type[ArrayComponent], ...] = (XnorArray, TernaryArray, IntArray)
    """narrowest first: whose products are exact for the formats that they take"""

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        if activation.bits <= 8 and weight.bits <= 8:
            return None
        return "must be at most 8 bits x at most 8 bits on a multi_mode array"

    def block(self, a: DataType, w: DataType) -> tuple[int, int, int]:
        """Return the M, N and K positions of a full block in the mode of these types."""
        s = self.spec
        own = next((mode.lanes for mode in s.formats if mode.covers(a, w)), None)
        return s.rows, s.cols, own or s.lanes

    def _exact(self, a: Codes, w: Codes, a_dtype: DataType, w_dtype: DataType) -> Codes:
        datapath = next(d for d in self._datapaths if d.check_formats(a_dtype, w_dtype) is None)
        return datapath(self.name, self.spec)._exact(a, w, a_dtype, w_dtype)
