"""One step of decoding as a graph: one token as the query, the keys and values of those before it as inputs.

Ranges are static and every operator but attention works on one token at a time, so a causal graph holds all
that a step needs. The view binds the sequence axis: 1 for queries, position + 1 for keys. The second operand
of each attention product becomes a cache: an input of the earlier tokens' codes, to which `append` adds this
token's. The last query sees every key, so no mask is left. Constants are shared, none is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import SEQUENCE, Attr, Node, QuantGraph, Shape, Tensor

MIXING = ("concat", "im2col")
"""operators besides attention whose rows are not one token each"""


@dataclass(frozen=True, slots=True)
class Cache:
    """The second operand of an attention product, kept for the tokens that are done.

    `tensor` is its name in the graph, for all tokens, and in a view, for the new one. `past` and `extended`
    exist in views only: the codes of the tokens before, and those with the new one's.
    """

    tensor: str
    axis: int
    """of the tokens in one sample: 1 of a key [H, T, D], 2 of a value [H, D, T]"""
    dtype: DataType
    shape: Shape

    @property
    def past(self) -> str:
        """The view's input."""
        return f"{self.tensor}.past"

    @property
    def extended(self) -> str:
        """The view's `append`."""
        return f"{self.tensor}.extended"

    def bind(self, tokens: int) -> tuple[int, ...]:
        """Return the shape of so many tokens' codes."""
        return tuple(tokens if isinstance(d, str) else d for d in self.shape)


def caches(graph: QuantGraph) -> tuple[Cache, ...]:
    """List the caches of a graph that can be decoded, in order of their products.

    Raises:
        GraphError: it cannot; one line for each reason.
    """
    faults = decode_faults(graph)
    if faults:
        raise GraphError("\n".join(faults))
    operands = dict.fromkeys(n.inputs[1] for n in graph.nodes if n.op == "matmul")
    tensors = [graph.tensors[name] for name in operands]
    return tuple(
        Cache(t.name, t.shape.index(SEQUENCE), t.dtype, t.shape)
        for t in tensors
        if SEQUENCE in t.shape
    )


def decode_faults(graph: QuantGraph) -> list[str]:
    """Say why a graph cannot be decoded token by token; an empty list if it can."""
    attention = [n for n in graph.nodes if "causal" in n.attrs]
    faults = []
    if not attention:
        faults.append("decoding needs a causal model; this one has no attention over a sequence")
    seeing = [n.name for n in attention if not n.attrs["causal"]]
    if seeing:
        faults.append(
            f"decoding needs a causal model; in {len(seeing)} places of this one a token attends to later ones,"
            f" first in {seeing[0]}"
        )
    faults += [
        f"node {n.name}: {n.op} is no operator on one token; such a model cannot be decoded"
        for n in graph.nodes
        if n.op in MIXING
    ]
    shapes = [graph.tensors[name].shape for name in graph.inputs]
    if attention and shapes != [(SEQUENCE,)]:
        faults.append(f"decoding needs token ids as the only input, not {', '.join(graph.inputs)}")
    for name in graph.outputs if attention else ():
        shape = graph.tensors[name].shape
        if len(shape) != 2 or shape[0] != SEQUENCE:
            faults.append(
                f"decoding needs an output with a row of logits a token, not {name} of shape {shape}"
            )
    return faults


def decode_view(graph: QuantGraph, position: int) -> QuantGraph:
    """Return the graph of one decoding step.

    Args:
        graph: a causal graph.
        position: of the token, 0 for the first: how many tokens the caches hold.

    Returns:
        a graph without a symbolic axis. Inputs: the token's id [1], then each `Cache.past`. Outputs: the
        logits [1, V], then what each cache gains. Nodes and tensors keep their names.

    Raises:
        GraphError: the graph cannot be decoded, or has no such position.
    """
    kept = {c.tensor: c for c in caches(graph)}
    check_position(graph, position)
    tensors = {
        name: replace(t, shape=_at_step(t.shape, position + 1)) for name, t in graph.tensors.items()
    }
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(_at_position(graph, node, position, kept))
        if node.name in kept:
            nodes.append(_append(graph.tensors[node.name], kept[node.name], position, tensors))
    return QuantGraph(
        tuple(nodes), tensors, graph.constants, (*graph.inputs, *(c.past for c in kept.values())),
        (*graph.outputs, *kept), position + 1, graph.meta,
    )  # fmt: skip


def prefill_view(graph: QuantGraph) -> QuantGraph:
    """Return the graph with its caches as further outputs: what fills them from a prompt.

    Raises:
        GraphError: the graph cannot be decoded.
    """
    return replace(graph, outputs=(*graph.outputs, *(c.tensor for c in caches(graph))))


def check_position(graph: QuantGraph, position: int) -> None:
    """Make sure that a graph has a position.

    Raises:
        GraphError: it lies in front of the first token, or behind the last that the graph was built for.
    """
    if not 0 <= position < graph.max_length:
        raise GraphError(
            f"position {position}: the model was built for {graph.max_length} tokens, positions 0 to"
            f" {graph.max_length - 1}; give a shorter prompt or ask for fewer tokens"
        )


def row_at(tensor: Tensor, codes: npt.NDArray[Any], position: int) -> npt.NDArray[Any]:
    """Cut from a tensor of one whole pass what a step computes.

    Args:
        tensor: its description in the graph.
        codes: [B, *shape] of a pass over more than `position` tokens.
        position: the step's.

    Returns:
        the query's row, [B, *shape] with 1 for the sequence; of scores the position + 1 keys that it sees.
    """
    index: list[slice] = [slice(None)] * codes.ndim
    sequence = [axis for axis, d in enumerate(tensor.shape, start=1) if d == SEQUENCE]
    for axis in sequence[:1]:
        index[axis] = slice(position, position + 1)
    for axis in sequence[1:]:
        index[axis] = slice(position + 1)
    return codes[tuple(index)]


def _at_step(shape: Shape, keys: int) -> Shape:
    """Bind a shape: the first sequence axis is the query's, a second one that of the keys."""
    sequence = [axis for axis, d in enumerate(shape) if d == SEQUENCE]
    sizes = dict(zip(sequence, (1, keys), strict=False))
    return tuple(sizes.get(axis, d) for axis, d in enumerate(shape))


def _at_position(graph: QuantGraph, node: Node, position: int, kept: Mapping[str, Cache]) -> Node:
    """Return a node as it is in the view."""
    attrs: dict[str, Attr] = dict(node.attrs)
    if "causal" in attrs:
        attrs |= {"causal": False, "masked": False}
    if node.op == "reshape":
        attrs["shape"] = _at_step(graph.tensors[node.name].shape, position + 1)
    if "addend" in node.constants and graph.constant(node, "addend").shape[0] > 1:
        attrs["first"] = position
    inputs = node.inputs
    if node.op == "matmul" and inputs[1] in kept:
        inputs = (inputs[0], kept[inputs[1]].extended)
    return replace(node, inputs=inputs, attrs=attrs)


def _append(row: Tensor, cache: Cache, position: int, tensors: dict[str, Tensor]) -> Node:
    """Return the node that puts a token's codes behind its cache; its tensors go into `tensors`."""
    for name, tokens in ((cache.past, position), (cache.extended, position + 1)):
        tensors[name] = replace(row, name=name, shape=cache.bind(tokens))
    return Node(cache.extended, "append", (cache.past, cache.tensor), {}, {"axis": cache.axis})
