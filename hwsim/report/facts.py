"""What a machine is, in the few figures that its results hang on, and what of it can never be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hwsim.arch.component import ArrayComponent
from hwsim.arch.machine import Machine
from hwsim.graph import dtype as dt
from hwsim.graph.dtype import DataType


def facts(machine: Machine) -> dict[str, Any]:
    """Return a machine's main figures as plain data.

    Returns:
        `clock_hz`; `arrays`, name, kind and size of each in words, the main one first; `memories_bytes`, name -> capacity; `dram`: `bytes_per_s`,
        `pj_per_bit` (value, low, high) and `unknown`, the name of the draw that its energy follows; `notes`: `limits`.
    """
    spec = machine.spec
    bit = spec.dram.energy_pj_per_bit
    return {
        "clock_hz": spec.clock_hz,
        "arrays": [
            f"{name}: {a.kind} {a.rows} x {a.cols} x {a.lanes}" for name, a in spec.arrays.items()
        ],
        "memories_bytes": {name: m.capacity_bytes for name, m in spec.memories.items()},
        "dram": {
            "bytes_per_s": spec.dram.bandwidth_bytes_per_s,
            "pj_per_bit": [bit.value, bit.low, bit.high],
            "unknown": bit.shared or "",
        },
        "notes": list(limits(machine)),
    }


def limits(machine: Machine) -> Iterator[str]:
    """Yield a sentence for each part that another one keeps from its full rate: arrays by their ports, DRAM by the DMA."""
    yield from _port_limits(machine)
    spec, width = machine.spec, machine.spec.dma.width_bits_per_cycle
    if width < machine.dram.bits_per_cycle:
        carried = width * spec.clock_hz / 8e9
        yield (
            f"dma: {width} bits a cycle carry {carried:.3g} GB/s of the {spec.dram.bandwidth_bytes_per_s / 1e9:.3g} GB/s"
            " off-chip; see dma.width_bits_per_cycle"
        )


def _port_limits(machine: Machine) -> Iterator[str]:
    for name, array in machine.arrays.items():
        starved: dict[tuple[str, int], list[str]] = {}
        for pair in array.spec.formats:
            types = dt.parse(pair.activation), dt.parse(pair.weight)
            for side, interval in _waits(array, *types):
                waiting = starved.setdefault((side, interval), [])
                waiting.append(f"{pair.activation} x {pair.weight}")
        size = f"{array.spec.rows} x {array.spec.cols} x {array.spec.lanes}"
        for (side, interval), formats in starved.items():
            key = f"{side}_port_bits_per_cycle"
            yield (
                f"array {name}: a beat of all {size} takes {interval} cycles ({', '.join(formats)}), because its {side} port"
                f" brings {getattr(array.spec, key)} bits a cycle; a smaller array would do as much; see arrays.{name}.{key}"
            )


def _waits(array: ArrayComponent, a: DataType, w: DataType) -> Iterator[tuple[str, int]]:
    """Yield each port that makes a full block's beat longer than the array's own least, with that many cycles."""
    rows, cols, lanes = array.block(a, w)
    least = array.initiation_interval(a, w, 0, 0, lanes)
    for side, r, c in (("activation", rows, 0), ("weight", 0, cols)):
        interval = array.initiation_interval(a, w, r, c, lanes)
        if interval > least:
            yield side, interval
