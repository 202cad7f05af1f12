"""What decoding costs: the cost model on the graph of each step, with the cache in DRAM.

A view's caches are inputs of its graph, so they lie in DRAM as all inputs and outputs do: each step reads the
keys and values of every token so far, and writes those of its own. docs/machine.md, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.arch.machine import Machine
from hwsim.engine.cost import DEFAULT_OBJECTIVE, CostReport, cost
from hwsim.engine.draws import Band
from hwsim.engine.energy import Ledger
from hwsim.graph.decode_view import caches, check_position, decode_view, prefill_view
from hwsim.graph.ir import QuantGraph
from hwsim.mapping.objective import Objective
from hwsim.mapping.tile import WORD_BITS, stored_bytes


@dataclass(frozen=True)
class StepCost:
    """One decoding step, resident constants on chip (`steady`).

    `position` is the token's, so many tokens does the cache hold before it. `cache_bytes` are theirs. `ledger` is the
    priced counts that `energy_pj` is of.
    """

    position: int
    cycles: int
    latency_s: float
    energy_pj: Band
    cache_bytes: int
    traffic_bytes: dict[str, int]
    ledger: Ledger

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "position": self.position,
            "cycles": self.cycles,
            "latency_s": self.latency_s,
            "energy_pj": self.energy_pj.to_json(),
            "cache_bytes": self.cache_bytes,
            "traffic_bytes": self.traffic_bytes,
        }


def cache_bytes(graph: QuantGraph, tokens: int) -> int:
    """Return the encoded bytes of the keys and values of so many tokens, rows padded to words.

    Raises:
        GraphError: the graph cannot be decoded.
    """
    return sum(stored_bytes(c.dtype, c.bind(tokens)) for c in caches(graph))


def cache_sizes(graph: QuantGraph, tokens: int) -> dict[str, float]:
    """Return `bytes` of so many tokens, `bytes_longest` of as many as the graph was built for, `bytes_per_token`.

    The last is what a token adds on the average, over as many as fill whole words of values.

    Raises:
        GraphError: the graph cannot be decoded.
    """
    return {
        "bytes": cache_bytes(graph, tokens),
        "bytes_longest": cache_bytes(graph, graph.max_length),
        "bytes_per_token": cache_bytes(graph, WORD_BITS) / WORD_BITS,
    }


def prefill_cost(graph: QuantGraph, machine: Machine, tokens: int) -> CostReport:
    """Return what one pass over a prompt costs that fills the cache: logits of every token included.

    Raises:
        GraphError: the graph cannot be decoded, or was built for shorter prompts.
        CapacityError: not even the smallest tile of an operator fits a memory.
    """
    check_position(graph, tokens - 1)
    return cost(prefill_view(graph), machine, tokens)


def step_costs(
    graph: QuantGraph,
    machine: Machine,
    positions: Iterable[int],
    objective: Objective = DEFAULT_OBJECTIVE,
) -> list[StepCost]:
    """Return what the steps at some positions cost, mapped for an objective.

    Raises:
        GraphError: the graph cannot be decoded, or has no such position.
        CapacityError: not even the smallest tile of an operator fits a memory.
    """
    steps = []
    for position in positions:
        report = cost(decode_view(graph, position), machine, objective=objective)
        steps.append(
            StepCost(
                position=position,
                cycles=report.latency_cycles["steady"],
                latency_s=report.latency_s["steady"],
                energy_pj=report.energy_pj,
                cache_bytes=cache_bytes(graph, position),
                traffic_bytes=report.steady.traffic_bytes(),
                ledger=report.steady.ledger,
            )
        )
    return steps
