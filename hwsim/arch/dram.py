"""Off-chip memory and the DMA engine that moves data between it and the chip."""

from __future__ import annotations

from fractions import Fraction

from pydantic import model_validator

from hwsim.arch.component import ceil_div
from hwsim.arch.spec import Count, NonNegative, Quantity, Spec


class DramSpec(Spec):
    """Description of the off-chip memory. Its bus serves one transfer at a time."""

    bandwidth_bytes_per_s: Count
    """bytes a second on the bus"""
    burst_bytes: Count
    """a contiguous run is rounded up to whole bursts"""
    latency_cycles: NonNegative | None = None
    """core cycles from a request to its first data; this or `latency_ns`"""
    latency_ns: NonNegative | None = None
    """the same in nanoseconds, rounded up to core cycles"""
    energy_pj_per_bit: Quantity
    """pJ a bit on the bus, device and interface together"""

    @model_validator(mode="after")
    def _one_latency(self) -> DramSpec:
        if (self.latency_cycles is None) == (self.latency_ns is None):
            both = "neither" if self.latency_ns is None else "both"
            raise ValueError(f"must have one of latency_cycles and latency_ns, not {both}")
        return self


class DmaSpec(Spec):
    """Description of the DMA engine."""

    channels: Count
    """transfers in progress at once"""
    overhead_cycles: NonNegative
    """cycles to set up one transfer"""
    width_bits_per_cycle: Count
    """bits a cycle that one channel moves"""
    energy_pj_per_bit: Quantity
    """pJ a bit that is moved"""


class Dram:
    """The off-chip memory at a core clock."""

    def __init__(self, spec: DramSpec, clock_hz: int) -> None:
        self.spec = spec
        self.bits_per_cycle = Fraction(spec.bandwidth_bytes_per_s * 8, clock_hz)
        """bus bits a core cycle, an exact rational"""
        self.latency_cycles = (
            ceil_div((spec.latency_ns or 0) * clock_hz, 10**9)
            if spec.latency_cycles is None
            else spec.latency_cycles
        )
        """core cycles from a request to its first data"""

    def bus_bits(self, run_bits: int) -> int:
        """Return the bits on the bus for one contiguous run: whole bursts."""
        burst = self.spec.burst_bytes * 8
        return ceil_div(run_bits, burst) * burst

    def transfer_cycles(self, bus_bits: int, dma: DmaSpec) -> int:
        """Count the cycles of one transfer of so many bus bits through a DMA channel.

        The slower of bus and channel decides; set-up and latency come on top.
        """
        rate = min(self.bits_per_cycle, Fraction(dma.width_bits_per_cycle))
        moving = ceil_div(bus_bits * rate.denominator, rate.numerator)
        return dma.overhead_cycles + self.latency_cycles + moving
