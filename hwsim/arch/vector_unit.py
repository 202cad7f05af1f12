"""Vector unit: every operator that is not a contraction, each at a stated cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hwsim.arch.component import ceil_div
from hwsim.arch.spec import Count, NonNegative, Quantity, Spec


class VectorPassSpec(Spec):
    """One sweep over all elements of an operator's rows."""

    name: str
    """what the pass does"""
    cycles_per_element: Count
    """cycles that one lane spends on one element"""


class VectorOperatorSpec(Spec):
    """Cost of one operator."""

    passes: Annotated[list[VectorPassSpec], Field(min_length=1)]
    """sweeps over the elements, in order"""
    cycles_per_row: NonNegative = 0
    """cycles spent once a row: square roots and divisions"""
    energy_pj_per_element: Quantity
    """pJ an element, all passes together, memory accesses apart"""
    energy_pj_per_row: Quantity
    """pJ a row"""


class VectorUnitSpec(Spec):
    """Description of the vector unit."""

    lanes: Count
    """elements worked on at once"""
    overhead_cycles: NonNegative
    """cycles to start one operator"""
    operators: Annotated[dict[str, VectorOperatorSpec], Field(min_length=1)]
    """operator of the integer graph -> its cost; an operator that is not listed cannot run"""
    leakage_mw: Quantity | None = None
    """leakage power in milliwatts"""
    area_um2: Quantity | None = None
    """silicon area in square micrometres"""


class VectorUnit:
    """The vector unit as the cost model sees it."""

    def __init__(self, spec: VectorUnitSpec) -> None:
        self.spec = spec

    def supports(self, op: str) -> bool:
        """Tell whether the unit has the operator."""
        return op in self.spec.operators

    def cycles(self, op: str, rows: int, elements: int) -> int:
        """Count the cycles of one operator.

        Args:
            op: operator of the integer graph.
            rows: how many rows are worked on.
            elements: how many elements all rows hold together.
        """
        cost = self.spec.operators[op]
        steps = ceil_div(elements, self.spec.lanes)
        sweeps = sum(steps * p.cycles_per_element for p in cost.passes)
        return self.spec.overhead_cycles + rows * cost.cycles_per_row + sweeps
