"""On-chip memory: capacity, ports and access energy, re-evaluated when the capacity or width changes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.arch.component import ceil_div
from hwsim.arch.spec import CapacityBytes, Count, NonNegative, Quantity, Spec

Exponent = Annotated[float, Field(ge=0, le=2)]


class MemoryScalingSpec(Spec):
    """How access energy, leakage and area follow capacity and width about a reference point."""

    reference_capacity_bytes: CapacityBytes
    """capacity at which the energies, leakage and area hold"""
    reference_read_width_bits: Count
    """read width at which the read energy holds"""
    reference_write_width_bits: Count
    """write width at which the write energy holds"""
    energy_capacity_exponent: Exponent
    """access energy ~ capacity to this power"""
    energy_width_exponent: Exponent
    """access energy ~ width to this power"""
    leakage_capacity_exponent: Exponent
    """leakage ~ capacity to this power"""
    area_capacity_exponent: Exponent
    """area ~ capacity to this power"""
    valid_from_bytes: CapacityBytes
    """smallest capacity at which the exponents may be used"""
    valid_to_bytes: CapacityBytes
    """largest capacity at which the exponents may be used"""
    source: Annotated[str, Field(min_length=1)]
    """where the exponents come from"""


class MemorySpec(Spec):
    """Description of one on-chip memory."""

    capacity_bytes: CapacityBytes
    """bytes in all, both halves of a double buffer together"""
    read_width_bits: Count
    """bits of one read access"""
    write_width_bits: Count
    """bits of one write access"""
    ports: Count = 1
    """of a memory behind others: transfers served at once"""
    banks: Count = 1
    """words that one transfer from or to a memory behind others moves in a cycle"""
    buffering: Literal["single", "double"]
    """`double`: two halves, each with a port to the arrays and one to the DMA"""
    handoff_cycles: NonNegative = 0
    """cycles to hand a half from its producer to its consumer"""
    backing: str | None = None
    """memory behind this one, from which tiles come and where results go; without it, DRAM alone is"""
    latency_cycles: NonNegative = 0
    """of a memory behind others: core cycles from a request to its first data"""
    read_pj: Quantity
    """pJ of one read access of the read width, at the reference point"""
    write_pj: Quantity
    """pJ of one write access of the write width, at the reference point"""
    leakage_mw: Quantity
    """leakage power in milliwatts at the reference point"""
    area_um2: Quantity | None = None
    """silicon area in square micrometres at the reference point"""
    scaling: MemoryScalingSpec | None = None
    """how the four follow capacity and width; without it they hold for this memory as it stands"""
    fixed: bool = False
    """insist that they hold although capacity, width or banks were changed"""

    @model_validator(mode="after")
    def _capacity_within_validity(self) -> MemorySpec:
        s = self.scaling
        if s is not None and not s.valid_from_bytes <= self.capacity_bytes <= s.valid_to_bytes:
            raise ValueError(
                f"must have capacity_bytes within its scaling's validity,"
                f" {s.valid_from_bytes} to {s.valid_to_bytes}, not {self.capacity_bytes}: stay within it, or state"
                " the energies, leakage and area of this size and leave `scaling:` out"
            )
        return self

    @property
    def half_bytes(self) -> int:
        """Bytes that one step may own at a time."""
        return self.capacity_bytes // (2 if self.buffering == "double" else 1)


class Memory:
    """An on-chip memory with its energies at its real size."""

    def __init__(self, name: str, spec: MemorySpec) -> None:
        self.name = name
        self.spec = spec

    @property
    def read_pj(self) -> Quantity:
        """pJ of one read access."""
        s = self.spec.scaling
        width = 1.0 if s is None else self.spec.read_width_bits / s.reference_read_width_bits
        return self.spec.read_pj.scaled(self._energy_factor(width))

    @property
    def write_pj(self) -> Quantity:
        """pJ of one write access."""
        s = self.spec.scaling
        width = 1.0 if s is None else self.spec.write_width_bits / s.reference_write_width_bits
        return self.spec.write_pj.scaled(self._energy_factor(width))

    @property
    def leakage_mw(self) -> Quantity:
        """Leakage power in milliwatts."""
        s = self.spec.scaling
        return self.spec.leakage_mw.scaled(
            1.0 if s is None else self._capacity_ratio() ** s.leakage_capacity_exponent
        )

    @property
    def area_um2(self) -> Quantity | None:
        """Area in square micrometres, where stated."""
        s, area = self.spec.scaling, self.spec.area_um2
        if area is None or s is None:
            return area
        return area.scaled(self._capacity_ratio() ** s.area_capacity_exponent)

    def reads(self, bits: int) -> int:
        """Count the read accesses that fetch so many contiguous bits."""
        return ceil_div(bits, self.spec.read_width_bits)

    def writes(self, bits: int) -> int:
        """Count the write accesses that store so many contiguous bits."""
        return ceil_div(bits, self.spec.write_width_bits)

    def _capacity_ratio(self) -> float:
        s = self.spec.scaling
        return 1.0 if s is None else self.spec.capacity_bytes / s.reference_capacity_bytes

    def _energy_factor(self, width_ratio: float) -> float:
        s = self.spec.scaling
        if s is None:
            return 1.0
        by_capacity: float = self._capacity_ratio() ** s.energy_capacity_exponent
        by_width: float = width_ratio**s.energy_width_exponent
        return by_capacity * by_width
