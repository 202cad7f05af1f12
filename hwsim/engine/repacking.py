"""Reshapes that cut or join rows which are not whole words: work of the vector unit, not addresses.

Rows start on a word in every memory. Where a row before and one after a reshape are both whole words, its words are
read where they are. Otherwise codes move within words, which is what the vector unit's `relayout` does.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.engine.memory_plan import Group, fuse
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph
from hwsim.mapping.tile import WORD_BITS


def cutting(graph: QuantGraph, length: int) -> frozenset[str]:
    """Return the reshapes that move codes within words.

    Args:
        graph: the graph that is costed.
        length: the bound sequence length.
    """
    stored = {n.name: graph.tensors[n.name].dtype for n in graph.nodes}
    for group in fuse(graph):
        dtype = graph.tensors[group.output].dtype  # what the views within a group arrange
        stored |= dict.fromkeys((n.name for n in _path(graph, group)), dtype)
    reshapes = (n for n in graph.nodes if n.op == "reshape")
    return frozenset(n.name for n in reshapes if _cuts(graph, n, stored[n.name], length))


def repacked(graph: QuantGraph, length: int) -> QuantGraph:
    """Return a graph in which each of them is a `relayout` with the new `shape`, to be costed.

    An epilogue behind such a reshape is applied in front of it, so that codes are moved and not accumulators.
    """
    cut = cutting(graph, length)
    if not cut:
        return graph
    for group in fuse(graph):
        if cut & {n.name for n in _path(graph, group)}:
            graph = _epilogue_first(graph, group)
    nodes = tuple(replace(n, op="relayout") if n.name in cut else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


def _cuts(graph: QuantGraph, node: Node, dtype: DataType, length: int) -> bool:
    ends = [graph.tensors[t].bind(length)[-1] for t in (node.inputs[0], node.name)]
    return ends[0] != ends[1] and any(d * dtype.bits % WORD_BITS for d in ends)


def _path(graph: QuantGraph, group: Group) -> list[Node]:
    """Return the nodes behind the first one of a group up to its last one, views among them."""
    nodes, found = graph.by_name, []
    name = group.output
    while name != group.head.name:
        found.append(nodes[name])
        name = nodes[name].inputs[0]
    return found[::-1]


def _epilogue_first(graph: QuantGraph, group: Group) -> QuantGraph:
    """Return the graph with the views within a group behind it: they make what its last node made."""
    path = _path(graph, group)
    views = [n for n in path if n not in group.nodes]
    dtype, whole = graph.tensors[group.output].dtype, graph.tensors[group.head.name]
    tensors = dict(graph.tensors)
    moved: list[Node] = []
    for node in (*group.nodes[1:], *views):
        before = moved[-1].name if moved else group.head.name
        moved.append(replace(node, inputs=(before,)))
        old = tensors[node.name]
        is_view = node in views
        tensors[node.name] = (
            replace(old, dtype=dtype) if is_view else replace(old, shape=whole.shape)
        )
    made = views[-1].name

    def new(tensor: str) -> str:
        return made if tensor == group.output else tensor

    taken = {n.name for n in path}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == group.output:
            nodes += moved
        elif node.name not in taken:
            nodes.append(replace(node, inputs=tuple(new(t) for t in node.inputs)))
    outputs = tuple(new(t) for t in graph.outputs)
    return replace(graph, nodes=tuple(nodes), tensors=tensors, outputs=outputs)
