"""SCALE-Sim: its inputs from our machine, its reports read back, and its numbers in closed form.

SCALE-Sim always runs the whole array: a fold that does not fill it takes as long as one that does. Words are bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hwsim.arch.machine import Machine
from hwsim.arch.systolic_array import OutputStationaryArray, WeightStationaryArray
from hwsim.arch.work import ceil_div
from hwsim.errors import ConfigError, DataError
from hwsim.graph.dtype import parse
from hwsim.mapping.site import Site
from studies.crosstool.ours import OPERAND
from studies.crosstool.products import Product

Dataflow = Literal["os", "ws"]
DATAFLOWS: dict[type, Dataflow] = {OutputStationaryArray: "os", WeightStationaryArray: "ws"}
BYTES_PER_KB = 1024
CODE = parse(OPERAND)

LAYOUT = "Layer,\n"
"""A file of layouts that SCALE-Sim insists on and that says nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """What SCALE-Sim says of a product. `compute` is free of stalls as long as `stalls` is 0; `total` begins with the
    first load from DRAM and ends with the last store. Words of an operand at the memories next to the array."""

    compute: int
    stalls: int
    total: int
    activation_words: int
    weight_words: int
    output_words: int


def dataflow_of(machine: Machine) -> Dataflow:
    """Return SCALE-Sim's name of a machine's dataflow.

    Raises:
        ConfigError: SCALE-Sim has no such machine.
    """
    (name, array), *others = machine.arrays.items()
    s, site = array.spec, Site(machine)
    words = {
        "arrays must be one": not others,
        f"arrays.{name} must be of kind systolic_output or systolic_weight": type(array)
        in DATAFLOWS,
        f"arrays.{name}.lanes must be 1": s.lanes == 1,
        f"arrays.{name}.overlap_folds must be false": not getattr(s, "overlap_folds", False),
        f"arrays.{name}.pipeline_depth_cycles must be 0": s.pipeline_depth_cycles == 0,
        f"arrays.{name}: ports must feed a step a cycle": array.initiation_interval(
            CODE, CODE, *array.block(CODE, CODE)
        )
        == 1,
        "dram.latency_cycles must be 0": site.link.latency_cycles == 0,
        "dma.overhead_cycles must be 0": site.link.overhead_cycles == 0,
        "memories must be whole numbers of KiB": all(
            m.spec.capacity_bytes % BYTES_PER_KB == 0 for m in machine.memories.values()
        ),
        "dram.bandwidth_bytes_per_s must be whole bytes a cycle": site.link.bits_per_cycle % 8 == 0,
    }
    faults = [f"{machine.name}: {text}" for text, holds in words.items() if not holds]
    if faults:
        raise ConfigError(faults)
    return DATAFLOWS[type(array)]


def config(machine: Machine, run: str) -> str:
    """Return SCALE-Sim's configuration file: a run with the machine's link to DRAM for each operand."""
    (array,) = machine.arrays.values()
    flow, site = dataflow_of(machine), Site(machine)
    kb = {
        role: machine.memory(role).spec.capacity_bytes // BYTES_PER_KB
        for role in ("activation", "weight", "output")
    }
    width = int(site.link.bits_per_cycle // 8)
    sections: dict[str, dict[str, object]] = {
        "general": {"run_name": run},
        "architecture_presets": {
            "ArrayHeight": array.spec.rows,
            "ArrayWidth": array.spec.cols,
            "ifmapsramszkB": kb["activation"],
            "filtersramszkB": kb["weight"],
            "ofmapsramszkB": kb["output"],
            "IfmapOffset": 0,
            "FilterOffset": 10_000_000,
            "OfmapOffset": 20_000_000,
            "Dataflow": flow,
            "Bandwidth": width,
            "ReadRequestBuffer": 64,
            "WriteRequestBuffer": 64,
        },
        # where 3.0.0 takes the bandwidth of loads from, although no layout is used
        "layout": {
            "IfmapCustomLayout": False,
            "IfmapSRAMBankBandwidth": width,
            "IfmapSRAMBankNum": 1,
            "IfmapSRAMBankPort": 1,
            "FilterCustomLayout": False,
            "FilterSRAMBankBandwidth": width,
            "FilterSRAMBankNum": 1,
            "FilterSRAMBankPort": 1,
        },
        "sparsity": {
            "SparsitySupport": "false",
            "SparseRep": "ellpack_block",
            "OptimizedMapping": "false",
            "BlockSize": 8,
            "RandomNumberGeneratorSeed": 40,
        },
        "run_presets": {"InterfaceBandwidth": "USER", "UseRamulatorTrace": False},
    }
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def topology(products: Sequence[Product]) -> str:
    """Return SCALE-Sim's list of products."""
    rows = [f"{p.name},{p.m},{p.n},{p.k}," for p in products]
    return "\n".join(["Layer,M,N,K,", *rows]) + "\n"


def read_reports(compute: str, accesses: str, products: Sequence[Product]) -> list[Report]:
    """Read SCALE-Sim's `COMPUTE_REPORT.csv` and `DETAILED_ACCESS_REPORT.csv`.

    Raises:
        DataError: a report lacks a column or a product.
    """
    found = []
    for name, text in (("COMPUTE_REPORT.csv", compute), ("DETAILED_ACCESS_REPORT.csv", accesses)):
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
        if len(rows) != len(products):
            raise DataError(f"{name}: must have {len(products)} rows, has {len(rows)}")
        found.append(rows)
    try:
        return [
            Report(
                compute=int(c["Total Cycles"]),
                stalls=int(c["Stall Cycles"]),
                total=int(c["Total Cycles (incl. prefetch)"]),
                activation_words=int(a["SRAM IFMAP Reads"]),
                weight_words=int(a["SRAM Filter Reads"]),
                output_words=int(a["SRAM OFMAP Writes"]),
            )
            for c, a in zip(*found, strict=True)
        ]
    except KeyError as missing:
        raise DataError(f"SCALE-Sim's reports have no column {missing}") from None


# -- its numbers in closed form -------------------------------------------------------------------


def expected(product: Product, machine: Machine) -> Report:
    """Return SCALE-Sim's report of a product that fits the buffers, in closed form.

    A fold takes T + R + C - 2 cycles with sums that stay (T = K) and 2R + T + C - 2 with weights that stay (T = M);
    the last cycle's number is printed, one less than their count. Loads come first, both operands side by side,
    folds filled up with empty words that are moved, too; stores follow when everything is computed. Sums of every
    fold along K are written. Where sums stay, R + C writes a fold are counted too many.
    """
    (array,) = machine.arrays.values()
    r, c = array.spec.rows, array.spec.cols
    width = int(Site(machine).link.bits_per_cycle // 8)
    m, n, k = product.m, product.n, product.k
    across = ceil_div(n, c)
    if dataflow_of(machine) == "os":
        down = ceil_div(m, r)
        fold = k + r + c - 2
        a_moved, sums = k * r * down, m * n
        too_many = down * across * (r + c)
        a_words, w_words = m * k * across, n * k * down
    else:
        down = ceil_div(k, r)
        fold = 2 * r + m + c - 2
        a_moved, sums = m * r * down, m * n * down
        too_many = 0
        a_words, w_words = m * k * across, n * k
    compute = down * across * fold - 1
    loads = max(ceil_div(a_moved, width), ceil_div(k * c * across, width))
    total = loads + compute + ceil_div(sums, width) - 1
    return Report(compute, 0, total, a_words, w_words, sums + too_many)
