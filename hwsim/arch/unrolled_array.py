"""Fully unrolled array: one output position of all columns in a beat, as in CUTIE (arXiv 2011.01713)."""

from __future__ import annotations

from typing import Literal

from hwsim.arch.spec import Count
from hwsim.arch.stationary_array import HeldWeightsSpec, StationaryArray
from hwsim.arch.ternary_array import TernaryArray
from hwsim.arch.work import ceil_div
from hwsim.graph.dtype import DataType
from hwsim.registry import register


class UnrolledArraySpec(HeldWeightsSpec):
    """Description of a fully unrolled array."""

    kind: Literal["unrolled"]
    """`unrolled`"""
    rows: Literal[1] = 1
    """one output position at a time"""
    weight_word_bits: Count
    """bits that every column's own weight memory gives in a cycle; the columns load side by side"""


@register("array", "unrolled")
class UnrolledArray(StationaryArray):
    """Multiplies activations of at most 8 bits by TERNARY or BIPOLAR weights, one row of M in a beat.

    Each column has a weight memory of its own, so a block of l weights a column is loaded in
    ceil(l * bits / word bits) cycles however many columns there are. A layer with K <= lanes and
    N <= cols takes M beats and one load; a larger one takes as many blocks as it has.
    """

    spec_class = UnrolledArraySpec
    spec: UnrolledArraySpec

    @classmethod
    def check_formats(cls, activation: DataType, weight: DataType) -> str | None:
        """Return what is wrong with a pair of formats, or None."""
        wrong = TernaryArray.check_formats(activation, weight)
        return None if wrong is None else wrong.replace("a ternary array", "an unrolled array")

    def load_cycles(self, c: int, l: int, w: DataType) -> int:  # noqa: E741
        """Return the cycles that loading l weights into each of c columns takes."""
        return ceil_div(l * w.bits, self.spec.weight_word_bits)
