"""What an array's output stage takes over: operators on its accumulators on their way to memory."""

from __future__ import annotations

from collections.abc import Collection

from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS


def staged(graph: QuantGraph, operators: Collection[str]) -> dict[str, tuple[Node, ...]]:
    """Return array node -> the nodes behind it that run in its output stage, in order.

    A node does if the stage has its operator and it is the only reader of what the array, or the stage
    before it, made. Reshape and permute may stand between. A requant whose bias has a row for every
    token does not: a stage holds one constant a column.

    Args:
        graph: the integer graph.
        operators: what the stage has.
    """
    if not operators:
        return {}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for t in node.inputs:
            readers.setdefault(t, []).append(node)

    def follower(tensor: str) -> Node | None:
        found = readers.get(tensor, [])
        if len(found) != 1 or tensor in graph.outputs:
            return None
        node = found[0]
        if node.op in ("reshape", "permute"):
            return follower(node.name)
        return node if node.op in operators and not _by_row(graph, node) else None

    chains: dict[str, tuple[Node, ...]] = {}
    for head in graph.nodes:
        if OPERATORS[head.op].unit != "array":
            continue
        chain: list[Node] = []
        behind = follower(head.name)
        while behind is not None:
            chain.append(behind)
            behind = follower(behind.name)
        if chain:
            chains[head.name] = tuple(chain)
    return chains


def _by_row(graph: QuantGraph, node: Node) -> bool:
    return node.op == "requant" and graph.constant(node, "B").ndim == 2
