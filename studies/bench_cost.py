"""`python -m studies.bench cost`: machines a second of one `hwsim.cost` call beside one `cost()` a machine.

Two chains of matrix products without weights: the linear layers of a digits-size vision transformer and of BERT base. The
machines are drawn with a fixed seed from a grid of sizes, capacities, bandwidths and unit energies of `ternary_edge`, as a
search would ask for them; machines that cannot be are in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hwsim
from hwsim.config.load import build_machine, changed_machine, load_machine, machine_bases
from hwsim.engine.cost import cost
from hwsim.errors import BitwrightError
from hwsim.graph.ir import QuantGraph
from hwsim.search import Variant
from hwsim.workload import Workload, WorkloadSpec

MACHINE = "ternary_edge"
SEED = 20250101
GRID: dict[str, list[Any]] = {
    "arrays.main.rows": [2, 4, 8],
    "arrays.main.cols": [8, 16, 32],
    "memories.weight_sram.capacity_bytes": [32768, 65536, 131072, 262144],
    "memories.activation_sram.capacity_bytes": [65536, 262144],
    "dram.bandwidth_bytes_per_s": [1_600_000_000, 3_200_000_000],
    "dram.energy_pj_per_bit": [
        {"value": value, "kind": "assumed", "source": "bench"} for value in (4, 12)
    ],
    "idle.clock_pj_per_cycle": [
        {"value": value, "kind": "assumed", "source": "bench"} for value in (1, 4)
    ],
}
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "digits": (17, 64, 256, 3),
    "bert_base": (128, 768, 3072, 12),
}
"""tokens, width, width of the feed-forward layer, layers"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Machines a second of one call and of one machine after the other, on one graph."""

    graph: str
    machines: int
    together: float
    one_by_one: float

    @property
    def ratio(self) -> float:
        """How many times more in one call."""
        return self.together / self.one_by_one


def linear_layers(name: str) -> QuantGraph:
    """Return the linear layers of a transformer encoder as a chain of INT8 x TERNARY products."""
    tokens, width, deep, layers = SHAPES[name]
    sizes = {"query": (width, width), "key": (width, width), "value": (width, width),
             "output": (width, width), "up": (deep, width), "down": (width, deep)}  # fmt: skip
    chain = [
        {
            "name": f"{layer}.{role}",
            "gemm": {"m": tokens, "n": n, "k": k},
            "activation": "INT8",
            "weight": "TERNARY",
            "result": "INT8",
        }
        for layer in range(layers)
        for role, (n, k) in sizes.items()
    ]
    spec = {
        "schema": "hwsim/workload/1",
        "name": name,
        "description": "linear layers of an encoder",
        "source": "the architecture",
        "energy_includes": "nothing published",
        "layers": chain,
    }
    return Workload(WorkloadSpec.model_validate(spec)).graph()


def drawn(count: int) -> list[dict[str, Any]]:
    """Return settings drawn from the grid."""
    draw = random.Random(SEED)
    return [{key: draw.choice(values) for key, values in GRID.items()} for _ in range(count)]


def rates(count: int) -> Iterator[Rate]:
    """Yield the rates of each graph: both ways timed, one after the other, in processor seconds of this process."""
    variants = hwsim.vary(MACHINE, drawn(count))
    for name in SHAPES:
        graph = linear_layers(name)
        cost(graph, load_machine(MACHINE))  # compiles
        begin = time.process_time()
        hwsim.cost(graph, variants)
        middle = time.process_time()
        for variant in variants:
            _alone(graph, variant)
        end = time.process_time()
        yield Rate(name, count, count / (middle - begin), count / (end - middle))


def _alone(graph: QuantGraph, variant: Variant) -> None:
    """Cost one machine as a program without `hwsim.cost` would: file, overrides, check, cost."""
    try:
        machine = build_machine(changed_machine(machine_bases(variant.machine), variant.settings))
        energy = cost(graph, machine).energy_pj
    except BitwrightError:
        return
    assert energy.nominal > 0
