"""The graph that is costed: convolutions as the products of their windows, output stages as part of their arrays.

Only shapes and constants' names count here. The values come from the graph itself (`hwsim.engine.execute`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwsim.engine.memory_plan import fuse
from hwsim.graph.ir import Node, QuantGraph, Tensor
from hwsim.graph.output_stage import staged
from hwsim.graph.windows import Windows


@dataclass(frozen=True, slots=True)
class Part:
    """Output positions of a convolution that sum equally many codes: one product of m rows and depth k."""

    m: int
    k: int


def parts(windows: Windows, channels: int, padding_positions: str) -> list[Part]:
    """Return the products that a convolution is, the largest first.

    Computed padding makes one. Skipped padding makes one of all output positions that see equally many
    kernel rows and columns; positions that see nothing are in none.
    """
    if padding_positions == "computed":
        height, width = windows.positions
        return [Part(height * width, windows.kernel[0] * windows.kernel[1] * channels)]
    rows, cols = (Counter(len(taps) for taps in windows.seen(axis)) for axis in (0, 1))
    found = [
        Part(r_times * c_times, r * c * channels)
        for r, r_times in rows.items()
        for c, c_times in cols.items()
        if r * c
    ]
    return sorted(found, key=lambda p: (-p.m * p.k, -p.k))


def as_products(graph: QuantGraph, stage: Collection[str]) -> QuantGraph:
    """Return a graph without convolutions and without the operators of an output stage, to be costed.

    Args:
        graph: the integer graph.
        stage: operators of the machine's output stage. What they make is the array's own result, in the
            format that they give it; a maximum over windows is taken where the results are stored.
    """
    return _without_convolutions(_without_stage(graph, stage))


def _without_stage(graph: QuantGraph, stage: Collection[str]) -> QuantGraph:
    chains = staged(graph, stage)
    if not chains:
        return graph
    inside = {node.name for chain in chains.values() for node in chain}
    tensors = dict(graph.tensors)
    for head, chain in chains.items():
        names = [head, *_between(graph, head, chain)]
        for name in names:  # all of them are the one result, as it is stored
            tensors[name] = replace(tensors[name], dtype=graph.tensors[chain[-1].name].dtype)
    nodes = tuple(_view(n.name, n.inputs[0]) if n.name in inside else n for n in graph.nodes)
    return replace(graph, nodes=nodes, tensors=tensors)


def _between(graph: QuantGraph, head: str, chain: tuple[Node, ...]) -> list[str]:
    """Return the tensors from the array's to the last one of its stage, views among them."""
    nodes = graph.by_name
    found = []
    name = chain[-1].name
    while name != head:
        found.append(name)
        name = nodes[name].inputs[0]
    return found


def _without_convolutions(graph: QuantGraph) -> QuantGraph:
    if not any(node.op == "conv2d" for node in graph.nodes):
        return graph
    behind = {group.head.name: group.nodes[1:] for group in fuse(graph)}
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    late: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op != "conv2d":
            nodes.append(node)
        else:
            epilogue = behind[node.name]
            last = epilogue[-1].name if epilogue else node.name
            for number, part in enumerate(_parts_of(graph, node)):
                made = _product(graph, node, epilogue, part, number, tensors)
                if number:
                    late.setdefault(last, []).extend(made)
                else:
                    nodes.extend(made)
        nodes.extend(late.pop(node.name, ()))
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _parts_of(graph: QuantGraph, node: Node) -> list[Part]:
    attrs: Mapping[str, Any] = node.attrs
    shape = graph.tensors[node.inputs[0]].bind(0)
    return parts(Windows.of(attrs, shape), shape[2], attrs["padding_positions"])


def _product(
    graph: QuantGraph, node: Node, epilogue: tuple[Node, ...], part: Part, number: int,
    tensors: dict[str, Tensor],
) -> list[Node]:  # fmt: skip
    """Return the nodes of one product and add their tensors; all but the first bring their own epilogue."""
    x = graph.tensors[node.inputs[0]]

    def named(name: str) -> str:
        return f"{name}.part{number}" if number else name

    read = f"{named(node.name)}.windows"
    tensors[read] = Tensor(read, x.dtype, (part.m, part.k))
    nodes = [
        _view(read, x.name),
        Node(named(node.name), "linear", (read,), node.constants, origin=node.origin),
    ]
    if number:
        before = nodes[-1].name
        for follower in epilogue:
            nodes.append(
                replace(follower, name=named(follower.name), inputs=(before, *follower.inputs[1:]))
            )
            before = nodes[-1].name
        for old in (node, *epilogue):
            tensor = graph.tensors[old.name]
            name = named(old.name)
            tensors[name] = replace(tensor, name=name, shape=(part.m, tensor.shape[-1]))
    return nodes


def _view(name: str, source: str) -> Node:
    return Node(name, "slice", (source,), attrs={"axis": 0, "start": 0, "stop": 0})
