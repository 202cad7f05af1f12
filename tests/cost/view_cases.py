"""Costed graphs that exercise every way in which an operator can be scheduled, for the tests of the views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.engine.cost import CostReport, cost
from hwsim.graph.ir import QuantGraph

MACHINES = Path(__file__).parents[1] / "machines"
SMALL = [
    f"memories.{name}.{key}"
    for name in ("buffer", "weights")
    for key in ("capacity_bytes=2048", "fixed=true")
]


@dataclass(frozen=True, repr=False)
class Case:
    """A graph, a machine and what the one costs on the other."""

    graph: QuantGraph
    machine: Machine
    report: CostReport


def sparse(graph: QuantGraph) -> QuantGraph:
    """Return the graph with ternary weights that have many empty blocks."""
    rng = np.random.default_rng(11)
    constants = dict(graph.constants)
    for name, c in graph.constants.items():
        if c.dtype.kind == "ternary" and c.array.ndim == 2:
            codes = rng.integers(-1, 2, c.array.shape) * (rng.random(c.array.shape) < 0.01)
            constants[name] = dataclasses.replace(c, array=codes.astype(np.int8))
    return dataclasses.replace(graph, constants=constants)


def make_cases(block: Callable[..., QuantGraph]) -> dict[str, Case]:
    """Return the cases by name."""
    heads = block("INT8", "INT8", heads=8, length=24)
    plain = block("INT8", "INT8")
    ternary = sparse(block("INT8", "TERNARY"))
    binary = block("BIPOLAR", "BIPOLAR")
    chosen = {
        "head by head": (heads, load_machine("toy")),
        "spilled": (plain, load_machine("toy", SMALL)),
        "empty beats": (ternary, load_machine("ternary_edge", ["arrays.main.zero_skipping=true"])),
        "fused thresholds": (binary, load_machine("xnor_edge")),
        "own rhythm": (plain, load_machine(str(MACHINES / "systolic_output.yaml"))),
    }
    return {name: Case(g, m, cost(g, m)) for name, (g, m) in chosen.items()}
