"""Off-chip memory and the DMA engine that moves data between it and the chip."""

from __future__ import annotations

from fractions import Fraction

from hwsim.arch.component import ceil_div
from hwsim.arch.spec import Count, NonNegative, Quantity, Spec


class DramSpec(Spec):
    """Description of the off-chip memory. Its bus serves one transfer at a time."""

    bandwidth_bytes_per_s: Count
    """bytes a second on the bus"""
    burst_bytes: Count
    """a contiguous run is rounded up to whole bursts"""
    latency_cycles: NonNegative
    """core cycles from a request to its first data"""
    energy_pj_per_bit: Quantity
    """pJ a bit on the bus, device and interface together"""


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
        return dma.overhead_cycles + self.spec.latency_cycles + moving
