"""From a group of nodes and the memory plan to the mapping problem that it poses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from hwsim.arch.machine import operand_types
from hwsim.engine.memory_plan import Group, MemoryPlan, require_constants_fit, row_constants
from hwsim.graph.ir import Attr, Node, QuantGraph
from hwsim.mapping.gemm import GemmProblem, Place
from hwsim.mapping.rowwise import RowProblem, RowSource
from hwsim.mapping.site import Site
from hwsim.mapping.tile import row_bits

Scenario = Literal["cold", "steady"]
"""`cold`: resident constants must come from DRAM once. `steady`: they are on chip."""


@dataclass
class ProblemMaker:
    """Poses the problems of one inference, in order: it remembers what a cold start has loaded."""

    graph: QuantGraph
    plan: MemoryPlan
    site: Site
    scenario: Scenario
    _arrived: set[str] = field(default_factory=set)

    def gemm(self, index: int) -> GemmProblem:
        """Return the problem of an array operator with its epilogue: of one block where it is repeated."""
        group = self.plan.groups[index]
        node = group.head
        a_type, w_type = operand_types(self.graph, node)
        a_shape = self._shape(node.inputs[0])
        out = self.graph.tensors[group.output]
        w_place: Place
        if node.op == "linear":
            batch, m = 1, math.prod(a_shape[:-1])
            n = self.graph.constant(node, "weight").shape[0]
            name = node.constants["weight"]
            w_place = "stream"
            if name in self.plan.resident:
                w_place = "fill" if self._must_arrive(name) else "chip"
            w_memory = self.site.weight
        else:
            batch, m = math.prod(a_shape[:-2]) // self.plan.repeats[index], a_shape[-2]
            n = self._shape(node.inputs[1])[-2]
            w_place = "chip" if self.plan.is_on_chip(node.inputs[1]) else "stream"
            w_memory = self.site.activation
        epilogue = group.nodes[1:]
        load, fetch, free = self._constants(index, epilogue)
        return GemmProblem(
            array=self.site.machine.array_for(a_type, w_type).name,
            batch=batch,
            m=m,
            n=n,
            k=a_shape[-1],
            a=a_type,
            w=w_type,
            out=out.dtype,
            out_row=out.bind(self.plan.length)[-1],
            a_place="chip" if self.plan.is_on_chip(node.inputs[0]) else "stream",
            w_place=w_place,
            w_memory=w_memory,
            out_streams=not self.plan.is_on_chip(group.output),
            epilogue=tuple(n.op for n in epilogue),
            constant_bits=load,
            constant_fetch_bits=fetch,
            free_bytes=free,
        )

    def rows(self, index: int) -> RowProblem:
        """Return the problem of a vector operator: of one block where it is repeated."""
        group: Group = self.plan.groups[index]
        node = group.head
        shape = self._shape(node.name)
        out_row = row_bits(self.graph.tensors[node.name].dtype, shape[-1])
        rows = math.prod(shape[:-1]) // self.plan.repeats[index]
        units = rows
        if node.op == "relayout":  # a unit is one transposed matrix
            units = math.prod(shape[:-2]) // self.plan.repeats[index]
        elif node.op == "im2col":  # a unit is one row of patches
            units = self._patch_rows(node)
        load, fetch, free = self._constants(index, (node,))
        sources = tuple(
            self._source(node, t, units, index, first=i == 0) for i, t in enumerate(node.inputs)
        )
        if node.op == "embedding":
            sources = (*sources, self._table(node))
        sources += tuple(self._row_constant(name) for name in row_constants(self.graph, node))
        return RowProblem(
            op=node.op,
            units=units,
            rows_per_unit=rows // units,
            elements_per_unit=rows // units * shape[-1],
            sources=sources,
            out_bits_per_unit=rows // units * out_row,
            out_streams=not self.plan.is_on_chip(node.name),
            constant_bits=load,
            constant_fetch_bits=fetch,
            free_bytes=free,
        )

    def _shape(self, tensor: str) -> tuple[int, ...]:
        return self.graph.tensors[tensor].bind(self.plan.length)

    def _source(self, node: Node, tensor: str, units: int, index: int, *, first: bool) -> RowSource:
        shape = self._shape(tensor)
        dtype = self.graph.tensors[tensor].dtype
        if node.op == "embedding":
            bits = dtype.bits  # one token id
        elif node.op == "im2col":  # the band of pixels under one row of patches
            channels, _, width = shape
            bits = channels * _pair(node.attrs["kernel"])[0] * row_bits(dtype, width)
        elif node.op == "concat":  # rows pass one by one; those in front are priced as if read, too
            bits = row_bits(dtype, shape[-1])
        else:
            total = math.prod(shape[:-1]) * row_bits(dtype, shape[-1])
            bits = total // (units * self.plan.repeats[index])
        passes = len(self.site.vector.spec.operators[node.op].passes) if first else 1
        return RowSource(
            operand="activation",
            memory=self.site.activation,
            bits_per_unit=bits,
            streams=not self.plan.is_on_chip(tensor),
            passes=passes,
        )

    def _patch_rows(self, node: Node) -> int:
        height = self._shape(node.inputs[0])[1]
        kernel, stride = _pair(node.attrs["kernel"]), _pair(node.attrs["stride"])
        return (height - kernel[0]) // stride[0] + 1

    def _table(self, node: Node) -> RowSource:
        """Return the rows gathered from an embedding table, each with its multiplier."""
        name = node.constants["weight"]
        weight = self.graph.constants[name]
        bits = row_bits(weight.dtype, weight.array.shape[1])
        multipliers = self.graph.constants[node.constants["M"]]
        if multipliers.array.size > 1:
            bits += row_bits(multipliers.dtype, 1)
        resident = name in self.plan.resident
        return RowSource("weight", self.site.weight, bits, streams=not resident, gathered=True)

    def _row_constant(self, name: str) -> RowSource:
        """Return a constant of which each token reads a row."""
        constant = self.graph.constants[name]
        bits = row_bits(constant.dtype, constant.array.shape[1])
        resident = name in self.plan.resident
        return RowSource("constant", self.site.weight, bits, streams=not resident)

    def _must_arrive(self, name: str) -> bool:
        """Tell, once, whether a resident store still has to come from DRAM."""
        if self.scenario == "steady" or name in self._arrived:
            return False
        self._arrived.add(name)
        return True

    def _constants(
        self, index: int, nodes: tuple[Node, ...]
    ) -> tuple[int, int, tuple[tuple[str, int], ...]]:
        """Return (bits to load, bits to fetch a tile, free bytes by memory) for some nodes' constants.

        The weight of a linear layer is not among them. Tables and constants with a row a token are read
        row by row, but where they are resident a cold start loads them here.
        """
        free = self.plan.free_bytes(index, self.site)
        load = fetch = transient = 0
        for node in nodes:
            by_row = row_constants(self.graph, node)
            for role, name in sorted(node.constants.items()):
                if node.op == "embedding" and role == "M":
                    continue  # stands in the table's rows
                store = self.plan.stores[name]
                resident = name in self.plan.resident
                if resident and self._must_arrive(name):
                    load += 8 * store.bytes
                if node.op == "embedding" or name in by_row:
                    continue
                fetch += 8 * store.bytes
                if not resident:
                    load += 8 * store.bytes
                    transient += store.bytes
        head = self.plan.groups[index].head.name
        require_constants_fit(head, transient, free[self.site.weight], self.site.weight)
        free[self.site.weight] -= transient
        return load, fetch, tuple(sorted(free.items()))


def _pair(value: Attr) -> tuple[int, int]:
    """Return a (height, width) attribute."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"kernel and stride must be pairs, not {value!r}")
    return int(value[0]), int(value[1])
