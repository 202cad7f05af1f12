"""Graphs run twice; the neighbouring folders' plain-Python operators and graph builder are importable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import Inputs, Run

from hwsim import reference
from hwsim.config.load import load_machine
from hwsim.engine.execute import execute
from hwsim.graph.ir import QuantGraph

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "graph")]


@pytest.fixture(params=["reference", "bitserial_edge"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a graph: every tensor as nested lists, the batch axis first."""

    def through(
        graph: QuantGraph, inputs: Inputs, lengths: list[int] | None = None
    ) -> dict[str, list[Any]]:
        arrays = {name: np.array(x, np.int64) for name, x in inputs.items()}
        real = None if lengths is None else np.array(lengths, np.int64)
        if request.param == "reference":
            return {n: x.tolist() for n, x in reference.execute(graph, arrays, real)}
        machine = load_machine(request.param)
        return {n: x.tolist() for n, x in execute(graph, machine, arrays, real)}

    return through
