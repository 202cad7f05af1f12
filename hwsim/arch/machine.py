"""A machine built from its description: what the mapper, the engine and the cost model use."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal

from hwsim.arch.component import ArrayComponent
from hwsim.arch.dram import Dram
from hwsim.arch.machine_spec import MachineSpec, array_class
from hwsim.arch.memory import Memory
from hwsim.arch.vector_unit import VectorUnit
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS

__all__ = ["Machine", "MachineSpec", "operand_types"]

_LATER = (("backing", None), ("latency_cycles", 0), ("latency_ns", None))


class Machine:
    """A machine built from its description."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.arrays: dict[str, ArrayComponent] = {
            name: array_class(a.kind)(name, a) for name, a in spec.arrays.items()
        }
        self.vector_unit = None if spec.vector_unit is None else VectorUnit(spec.vector_unit)
        self.memories = {name: Memory(name, m) for name, m in spec.memories.items()}
        self.dram = Dram(spec.dram, spec.clock_hz)

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.spec.name

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the resolved description, as hexadecimal text.

        Published targets are left out: what a machine is does not depend on what it is held against.
        """
        data: dict[str, Any] = self.spec.model_dump(
            mode="json", by_alias=True, exclude={"validation"}
        )
        # Keys that came later: a machine that does not use them is what it was.
        for part in (data["dram"], *data["memories"].values()):
            for key in [k for k, unused in _LATER if k in part and part[k] == unused]:
                del part[key]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def memory(self, role: Literal["activation", "weight", "output"]) -> Memory:
        """Return the memory that plays a role."""
        return self.memories[getattr(self.spec.roles, role)]

    def chain(self, memory: str) -> tuple[str, ...]:
        """Return a memory and those behind it, nearest first, DRAM left out."""
        names = [memory]
        while (behind := self.memories[names[-1]].spec.backing) is not None:
            names.append(behind)
        return tuple(names)

    def array_for(self, a: DataType, w: DataType) -> ArrayComponent:
        """Return the first array, in the file's order, that multiplies these operand types.

        Raises:
            GraphError: no array does; the message lists what each one multiplies.
        """
        for array in self.arrays.values():
            if array.supports(a, w):
                return array
        have = "; ".join(
            f"{name}: " + ", ".join(f"{p.activation} x {p.weight}" for p in array.spec.formats)
            for name, array in self.arrays.items()
        )
        raise GraphError(f"machine {self.name} has no array for {a} x {w} (it has {have})")

    def check(self, graph: QuantGraph) -> None:
        """Make sure that the machine can run every node of a graph.

        Raises:
            GraphError: it cannot; one line for each missing operator and format pair, with the nodes.
        """
        lacking: dict[str, list[str]] = {}
        for node in graph.nodes:
            fault = self._lacks(graph, node)
            if fault is not None:
                lacking.setdefault(fault, []).append(node.name)
        if lacking:
            lines = [f"  {fault}: {_some(nodes)}" for fault, nodes in lacking.items()]
            raise GraphError(
                f"machine {self.name} cannot run this graph, it lacks:\n" + "\n".join(lines)
            )

    def _lacks(self, graph: QuantGraph, node: Node) -> str | None:
        unit = OPERATORS[node.op].unit
        if unit == "vector":
            has = self.vector_unit is not None and self.vector_unit.supports(node.op)
            return None if has else f"vector operator {node.op}"
        if unit == "array":
            a, w = operand_types(graph, node)
            if not any(array.supports(a, w) for array in self.arrays.values()):
                return f"{node.op} of {a} x {w}"
        return None


def operand_types(graph: QuantGraph, node: Node) -> tuple[DataType, DataType]:
    """Return the types of the activation and of the other operand of a contraction."""
    a = graph.tensors[node.inputs[0]].dtype
    if node.op == "linear":
        return a, graph.constants[node.constants["weight"]].dtype
    return a, graph.tensors[node.inputs[1]].dtype


def _some(nodes: list[str], show: int = 4) -> str:
    more = f" and {len(nodes) - show} more" if len(nodes) > show else ""
    return ", ".join(nodes[:show]) + more
