"""ZigZag: its inputs from our machine, its answer read back, and its latency in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from hwsim.arch.int_array import IntArray
from hwsim.arch.machine import Machine
from hwsim.arch.memory import Memory
from hwsim.arch.work import ceil_div
from hwsim.errors import ConfigError
from hwsim.graph.dtype import parse
from hwsim.mapping.site import Site
from studies.crosstool.ours import OPERAND
from studies.crosstool.products import Product

AXIS_NAMES = ("M", "N", "K")
ALL_UNITS = ["D1", "D2", "D3"]
OPERANDS = {"I": "I1", "W": "I2", "O": "O"}
"""ZigZag's name of an operand of the product, and of a memory's operand"""
CODE = parse(OPERAND)
DRAM_BITS = 1 << 40
_PJ_PER_FJ = 1e-3

Loop = tuple[str, int]
"""(dimension, iterations)"""


@dataclass(frozen=True, slots=True)
class Theirs:
    """What ZigZag says of a product. `bus_cycles` are the words that its DRAM port moves, one a cycle.

    `cycles` = `ideal` + `stall` + `onload` + `offload`. `loops` has a list a memory level for each operand.
    """

    cycles: int
    ideal: int
    stall: int
    onload: int
    offload: int
    bus_cycles: int
    energy_pj: float
    loops: Mapping[str, Sequence[Sequence[Loop]]]


# -- what is sent ---------------------------------------------------------------------------------


def check_alike(machine: Machine) -> None:
    """Make sure that ZigZag can be told everything that the machine's figures depend on.

    Raises:
        ConfigError: the machine has parts that ZigZag has no word for; one line each.
    """
    spec, site = machine.spec, Site(machine)
    (name, array), *others = machine.arrays.items()
    port, bus = site.link.bits_per_cycle, site.link.burst_bits
    energy, memories = array.spec.energy, machine.memories
    inputs, sums = (memories[site.activation], memories[site.weight]), memories[site.output].spec
    ports = (array.spec.activation_port_bits_per_cycle, array.spec.weight_port_bits_per_cycle)
    block_bits = array.spec.rows * array.spec.cols * array.spec.accumulator_bits
    words = {
        "arrays must be one": not others,
        f"arrays.{name} must be of kind int": type(array) is IntArray,
        f"arrays.{name}.pipeline_depth_cycles must be 0": array.spec.pipeline_depth_cycles == 0,
        f"arrays.{name}.energy.operand_register_fj_per_bit must be 0": not energy.operand_register_fj_per_bit.value,
        f"arrays.{name}: ports must be as wide as a read of their memories": ports
        == tuple(memory.spec.read_width_bits for memory in inputs),
        f"memories.{site.output} must take and give a block of sums at once": block_bits
        == sums.read_width_bits
        == sums.write_width_bits,
        "dram.latency_cycles must be 0": site.link.latency_cycles == 0,
        "dma.overhead_cycles must be 0": site.link.overhead_cycles == 0,
        "dma.energy_pj_per_bit must be 0": spec.dma.energy_pj_per_bit.value == 0,
        "dram.burst_bytes must be what the link moves in a cycle": port == bus,
        "control_pj_per_step must be absent": spec.control_pj_per_step is None,
        "idle must be absent": spec.idle is None,
        "roles must name three memories": len({site.activation, site.weight, site.output}) == 3,
    }
    for key, memory in machine.memories.items():
        words[f"memories.{key}.buffering must be double"] = memory.spec.buffering == "double"
        words[f"memories.{key}.handoff_cycles must be 0"] = memory.spec.handoff_cycles == 0
        words[f"memories.{key}.leakage_mw must be 0"] = memory.leakage_mw.value == 0
    faults = [f"{machine.name}: {text}" for text, holds in words.items() if not holds]
    if faults:
        raise ConfigError(faults)


def accelerator(machine: Machine) -> dict[str, Any]:
    """Return ZigZag's description of a machine.

    An energy is one of a whole access there, so that a port is as wide as an access of ours.

    Raises:
        ConfigError: the machine cannot be described alike.
    """
    check_alike(machine)
    site = Site(machine)
    (array,) = machine.arrays.values()
    s = array.spec
    bus = site.link.burst_bits
    register = _memory(
        s.accumulator_bits, 0.0, s.energy.accumulator_update_fj.value * _PJ_PER_FJ, ["D3"]
    )
    register |= {"operands": ["O"], "ports": _output_ports(s.accumulator_bits, s.accumulator_bits)}
    sums = machine.memories[site.output]
    dram_pj = dram_word_pj(machine)
    dram = _memory(DRAM_BITS, dram_pj, dram_pj, ALL_UNITS)
    everything = [f"I1, {d}" for d in ("fh", "tl")] + [f"I2, {d}" for d in ("fh", "tl")]
    everything += [f"O, {d}" for d in ("fh", "tl", "fl", "th")]
    dram |= {"operands": ["I1", "I2", "O"], "ports": [_port("rw_port_1", bus, everything)]}
    return {
        "name": machine.name,
        "memories": {
            "accumulators": register,
            "activations": _input_memory(machine.memories[site.activation], "I1"),
            "weights": _input_memory(machine.memories[site.weight], "I2"),
            "sums": _on_chip(sums)
            | {
                "operands": ["O"],
                "ports": _output_ports(sums.spec.read_width_bits, sums.spec.write_width_bits),
            },
            "dram": dram,
        },
        "operational_array": {
            "unit_energy": array.lane_op_fj(CODE, CODE).value * _PJ_PER_FJ,
            "unit_area": 1.0,
            "dimensions": ALL_UNITS,
            "sizes": [s.rows, s.cols, s.lanes],
            "bit_serial_precision": None,
        },
    }


def dram_word_pj(machine: Machine) -> float:
    """Return the energy of what the link to DRAM moves in a cycle, pJ."""
    return machine.spec.dram.energy_pj_per_bit.value * Site(machine).link.burst_bits


def _memory(bits: int, read_pj: float, write_pj: float, serves: list[str]) -> dict[str, Any]:
    return {
        "size": bits,
        "r_cost": read_pj,
        "w_cost": write_pj,
        "area": 0.0,
        "latency": 0,
        "served_dimensions": serves,
    }


def _on_chip(memory: Memory) -> dict[str, Any]:
    bits = memory.spec.capacity_bytes * 8
    described = _memory(bits, memory.read_pj.value, memory.write_pj.value, ALL_UNITS)
    return described | {"force_double_buffering": True}


def _input_memory(memory: Memory, operand: str) -> dict[str, Any]:
    ports = [
        _port("r_port_1", memory.spec.read_width_bits, [f"{operand}, tl"]),
        _port("w_port_1", memory.spec.write_width_bits, [f"{operand}, fh"]),
    ]
    return _on_chip(memory) | {"operands": [operand], "ports": ports}


def _output_ports(read_bits: int, write_bits: int) -> list[dict[str, Any]]:
    return [
        _port("r_port_1", read_bits, ["O, tl"]),
        _port("r_port_2", read_bits, ["O, th"]),
        _port("w_port_1", write_bits, ["O, fh"]),
        _port("w_port_2", write_bits, ["O, fl"]),
    ]


def _port(name: str, bits: int, serves: list[str]) -> dict[str, Any]:
    kinds = {"r": "read", "w": "write", "rw": "read_write"}
    return {
        "name": name,
        "type": kinds[name.partition("_")[0]],
        "bandwidth_min": bits,
        "bandwidth_max": bits,
        "allocation": serves,
    }


def workload(product: Product, sum_bits: int) -> list[dict[str, Any]]:
    """Return ZigZag's description of a product whose results are sums of so many bits."""
    return [
        {
            "id": 0,
            "name": product.name,
            "operator_type": "Gemm",
            "equation": "O[m][n]+=I[m][k]*W[n][k]",
            "loop_dims": list(AXIS_NAMES),
            "loop_sizes": [product.m, product.n, product.k],
            "operand_precision": {
                "O": sum_bits,
                "O_final": sum_bits,
                "W": CODE.bits,
                "I": CODE.bits,
            },
            "operand_source": {"I": 0, "W": 0},
        }
    ]


def mapping(machine: Machine, order: Sequence[Loop] = ()) -> list[dict[str, Any]]:
    """Return ZigZag's mapping file: what is unrolled on the array, and the loops if they are given."""
    (array,) = machine.arrays.values()
    sizes = (array.spec.rows, array.spec.cols, array.spec.lanes)
    unrolled = {
        unit: [f"{axis}, {size}"]
        for unit, axis, size in zip(ALL_UNITS, AXIS_NAMES, sizes, strict=True)
    }
    given = {"temporal_ordering": [list(loop) for loop in order]} if order else {}
    links = {"memory_operand_links": OPERANDS}
    return [{"name": "default", "spatial_mapping": unrolled} | links | given]


# -- what comes back ------------------------------------------------------------------------------


def read_answer(answer: Mapping[str, Any]) -> Theirs:
    """Read what the driver wrote of one evaluation."""
    top = [levels[-1] for levels in answer["accesses"].values()]
    return Theirs(
        cycles=round(answer["latency"]),
        ideal=round(answer["ideal"]),
        stall=round(answer["stall"]),
        onload=round(answer["onload"]),
        offload=round(answer["offload"]),
        bus_cycles=sum(sum(level.values()) for level in top),
        energy_pj=answer["energy_pj"],
        loops={
            operand: [[(axis, size) for axis, size in level] for level in levels]
            for operand, levels in answer["loops"].items()
        },
    )


# -- its latency in closed form --------------------------------------------------------------------


def resident_words(product: Product, machine: Machine, sum_bits: int) -> dict[str, int]:
    """Return the words of DRAM of a product that is loaded and stored once, in closed form.

    `padded`: rows start on a word, as ours do; `packed`: tensors without gaps, as ZigZag's are.
    """
    bus = Site(machine).link.burst_bits
    m, n, k = product.m, product.n, product.k
    tensors = ((m, k * CODE.bits), (n, k * CODE.bits), (m, n * sum_bits))
    return {
        "padded": sum(rows * ceil_div(bits, bus) for rows, bits in tensors),
        "packed": sum(ceil_div(rows * bits, bus) for rows, bits in tensors),
    }


def resident_cycles(product: Product, machine: Machine, sum_bits: int) -> int:
    """Return ZigZag's latency of a product that is on chip as a whole, in closed form.

    ideal + max(A, W) + max(O - ideal, 1) + 1: of the two operands that come through one DRAM port only the longer
    is waited for, and what goes out may have gone while the array worked. A dimension d that is no multiple
    of the array is f * int(d / f) for f = ceil(d / part): int() may drop rows.
    """
    (array,) = machine.arrays.values()
    folds, moved = [], []
    for size, part in zip(
        (product.m, product.n, product.k),
        (array.spec.rows, array.spec.cols, array.spec.lanes),
        strict=True,
    ):
        folds.append(ceil_div(size, part))
        moved.append(folds[-1] * (size // folds[-1]))
    m, n, k = moved
    bus = Site(machine).link.burst_bits
    ideal = prod(folds)
    a, w = ceil_div(m * k * CODE.bits, bus), ceil_div(n * k * CODE.bits, bus)
    return ideal + max(a, w) + max(ceil_div(m * n * sum_bits, bus) - ideal, 1) + 1
