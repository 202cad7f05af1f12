"""QuantGraph: the torch-free integer graph that the reference, the kernels and the machines execute.

Shapes are those of one sample: there is no batch axis. The sequence length is the symbol `"T"`; a run
binds it. Everything is frozen: a pass makes a new graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy.typing as npt

from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType
from hwsim.graph.ops import OPERATORS
from hwsim.graph.windows import window_faults

Shape = tuple[int | str, ...]
Attr = int | float | str | bool | tuple[int | str, ...]
SEQUENCE = "T"


EXP2_ENTRIES = 128
"""two tables of 64: kernels address them without looking at their size"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of codes. `scale` is documentation: value = scale * (code - zero_point).

    It is None for an accumulator whose scale differs by channel: the consumer's constants hold it.
    """

    name: str
    dtype: DataType
    shape: Shape
    scale: float | None = 1.0
    zero_point: int = 0

    def bind(self, length: int) -> tuple[int, ...]:
        """Return the shape with the sequence length filled in."""
        return tuple(length if isinstance(d, str) else d for d in self.shape)

    def elements(self, length: int) -> int:
        """Count the elements of one sample at this sequence length."""
        count = 1
        for d in self.bind(length):
            count *= d
        return count


@dataclass(frozen=True)
class Constant:
    """A stored integer array: weight codes, multipliers, thresholds, tables."""

    name: str
    dtype: DataType
    array: npt.NDArray[Any]
    """int8 for weights of at most 8 bits, else int64; the shape is the logical one, never packed."""


@dataclass(frozen=True)
class Node:
    """One operator: reads tensors, owns constants, writes one tensor named like the node."""

    name: str
    op: str
    inputs: tuple[str, ...]
    constants: Mapping[str, str] = field(default_factory=dict)
    """role (`weight`, `M`, `S`, `B`, `threshold`, `table`, ...) -> constant name"""
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    origin: str = ""
    """the module or call of the student that this node came from"""


@dataclass(frozen=True)
class QuantGraph:
    """Nodes in execution order, with typed tensors and constants.

    Raises:
        GraphError: a node reads what nobody wrote, an operator is unknown, or inputs, constants or attributes
            are not those of its operator; all faults at once.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_length: int = 0
    """longest sequence the graph was built for; 0 where nothing depends on a sequence length"""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """what the trainer knows: task, metric, method, seed, revision, labels"""

    def __post_init__(self) -> None:
        faults: list[str] = []
        faults += [f"input {t!r} has no type" for t in self.inputs if t not in self.tensors]
        written = set(self.inputs)
        for node in self.nodes:
            operator = OPERATORS.get(node.op)
            if operator is None:
                faults.append(f"node {node.name}: unknown operator {node.op!r}")
                continue
            faults += [
                f"node {node.name}: reads {t!r}, which nothing wrote"
                for t in node.inputs
                if t not in written
            ]
            faults += [
                f"node {node.name}: constant {c!r} is not in the graph"
                for c in node.constants.values()
                if c not in self.constants
            ]
            faults += [
                f"node {node.name}: {node.op} needs constant {r!r}"
                for r in operator.constants
                if not r.endswith("?") and r not in node.constants
            ]
            faults += [
                f"node {node.name}: {node.op} needs attribute {a!r}"
                for a in operator.attrs
                if not a.endswith("?") and a not in node.attrs
            ]
            most = len(operator.inputs)
            least = most - sum(i.endswith("?") for i in operator.inputs)
            if not least <= len(node.inputs) <= most:
                takes = f"{most}" if least == most else f"{least} or {most}"
                faults.append(
                    f"node {node.name}: {node.op} takes {takes} inputs, has {len(node.inputs)}"
                )
            known = {r.removesuffix("?") for r in operator.constants}
            faults += [
                f"node {node.name}: {node.op} has no constant {r!r}"
                for r in node.constants
                if r not in known
            ]
            if node.attrs.get("mode") == "exp2" and node.constants.get("table") in self.constants:
                entries = self.constants[node.constants["table"]].array.shape[-1]
                if entries != EXP2_ENTRIES:
                    faults.append(
                        f"node {node.name}: an exp2 table must have {EXP2_ENTRIES} entries, has {entries}"
                    )
            if node.name not in self.tensors:
                faults.append(f"node {node.name}: its output tensor has no type")
            if node.name in written:
                faults.append(f"node {node.name}: written twice")
            if not faults and node.op in ("conv2d", "max_pool"):
                faults += [f"node {node.name}: {fault}" for fault in self._window_faults(node)]
            written.add(node.name)
        faults += [f"output {t!r} is written by no node" for t in self.outputs if t not in written]
        if faults:
            raise GraphError("\n".join(faults))

    def _window_faults(self, node: Node) -> list[str]:
        weight = node.constants.get("weight")
        return window_faults(
            node.op,
            node.attrs,
            self.tensors[node.inputs[0]].shape,
            None if weight is None else self.constants[weight].array.shape,
            self.tensors[node.name].shape,
        )

    @property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @property
    def uses_length(self) -> bool:
        """Whether some node masks by the length of each sequence."""
        return any(node.attrs.get("masked") for node in self.nodes)

    def constant(self, node: Node, role: str) -> npt.NDArray[Any]:
        """Return the array that a node holds in a role."""
        return self.constants[node.constants[role]].array

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor."""
        return tuple(n for n in self.nodes if tensor in n.inputs)

    def to_networkx(self) -> nx.DiGraph:
        """Return the graph as a networkx DiGraph: frozen nodes, edges labelled with tensor names."""
        graph = nx.DiGraph()
        for name in self.inputs:
            graph.add_node(name, tensor=self.tensors[name])
        for node in self.nodes:
            graph.add_node(node.name, node=node, tensor=self.tensors[node.name])
            for t in node.inputs:
                graph.add_edge(t, node.name, tensor=t)
        return graph


def last_uses(nodes: Iterable[Node], keep: Iterable[str] = ()) -> dict[str, list[str]]:
    """Map each node to the tensors that nobody reads after it, so that an executor may drop them."""
    kept = set(keep)
    seen: set[str] = set()
    drop: dict[str, list[str]] = {}
    for node in reversed(list(nodes)):
        ends = [
            t for t in dict.fromkeys((*node.inputs, node.name)) if t not in seen and t not in kept
        ]
        drop[node.name] = ends
        seen.update(ends)
    return drop
