"""A machine built from its description: what the mapper, the engine and the cost model use."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Any, Literal

from hwsim.arch.component import ArrayComponent
from hwsim.arch.dram import Dram
from hwsim.arch.machine_spec import MachineSpec, array_class
from hwsim.arch.memory import Memory
from hwsim.arch.operating_point import at_operating_point
from hwsim.arch.vector_unit import VectorUnit
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph
from hwsim.graph.ops import OPERATORS
from hwsim.graph.output_stage import staged

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

        Published targets are left out: what a machine is does not depend on what it is held against. So is an
        output stage that does nothing: machines without one are what they were before there were any.
        """
        data: dict[str, Any] = self.spec.model_dump(
            mode="json", by_alias=True, exclude={"validation"}
        )
        # Keys that came later: a machine that does not use them is what it was.
        if not data["output_stage"]:
            del data["output_stage"]
        for array in data["arrays"].values():
            if array["energy"]["activity"] is None:
                del array["energy"]["activity"]
        for part in (data["dram"], *data["memories"].values()):
            for key in [k for k, unused in _LATER if k in part and part[k] == unused]:
                del part[key]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def at(self, operating_point: str) -> Machine:
        """Return the machine at one of its operating points.

        Raises:
            ConfigError: it has no such point.
        """
        return Machine(at_operating_point(self.spec, operating_point))

    def memory(self, role: Literal["activation", "weight", "output"]) -> Memory:
        """Return the memory that plays a role."""
        return self.memories[getattr(self.spec.roles, role)]

    @cached_property
    def areas_um2(self) -> dict[str, float | None]:
        """Silicon area of each array, memory and the vector unit by name, square micrometres; None where none is stated."""
        areas = {f"array:{name}": a.area_um2 for name, a in self.arrays.items()}
        areas |= {f"memory:{name}": m.area_um2 for name, m in self.memories.items()}
        if self.spec.vector_unit is not None:
            areas["vector"] = self.spec.vector_unit.area_um2
        return {name: None if area is None else area.value for name, area in areas.items()}

    @property
    def area_um2(self) -> float | None:
        """Nominal area of all parts, square micrometres; None where one states none."""
        stated = [area for area in self.areas_um2.values() if area is not None]
        return math.fsum(stated) if len(stated) == len(self.areas_um2) else None

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
        for name, fault in self.lacking(graph).items():
            lacking.setdefault(fault, []).append(name)
        if lacking:
            lines = [f"  {fault}: {_some(nodes)}" for fault, nodes in lacking.items()]
            raise GraphError(
                f"machine {self.name} cannot run this graph, it lacks:\n" + "\n".join(lines)
            )

    def lacking(self, graph: QuantGraph) -> dict[str, str]:
        """Return node -> what the machine would need to run it, for the nodes that it cannot run."""
        in_stage = {node.name for node in self.output_stage(graph)}
        faults = {n.name: self._lacks(graph, n) for n in graph.nodes if n.name not in in_stage}
        return {name: fault for name, fault in faults.items() if fault is not None}

    def output_stage(self, graph: QuantGraph) -> tuple[Node, ...]:
        """Return the nodes of a graph that run in the arrays' output stage, in order."""
        chains = staged(graph, self.spec.output_stage)
        return tuple(node for chain in chains.values() for node in chain)

    def _lacks(self, graph: QuantGraph, node: Node) -> str | None:
        unit = OPERATORS[node.op].unit
        if unit == "vector":
            has = self.vector_unit is not None and self.vector_unit.supports(node.op)
            if has:
                return None
            elsewhere = node.op in self.spec.output_stage
            apart = " that does not alone follow a product" if elsewhere else ""
            return f"vector operator {node.op}{apart}"
        if unit == "array":
            a, w = operand_types(graph, node)
            if not any(array.supports(a, w) for array in self.arrays.values()):
                return f"{node.op} of {a} x {w}"
        return None


def operand_types(graph: QuantGraph, node: Node) -> tuple[DataType, DataType]:
    """Return the types of the activation and of the other operand of a contraction."""
    a = graph.tensors[node.inputs[0]].dtype
    if "weight" in node.constants:
        return a, graph.constants[node.constants["weight"]].dtype
    return a, graph.tensors[node.inputs[1]].dtype


def _some(nodes: list[str], show: int = 4) -> str:
    more = f" and {len(nodes) - show} more" if len(nodes) > show else ""
    return ", ".join(nodes[:show]) + more
