"""From a group of nodes and the memory plan to the mapping problem that it poses."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from hwsim.arch.machine import operand_types
from hwsim.engine.execute import contraction_bound
from hwsim.engine.memory_plan import Program, row_constants
from hwsim.graph.ir import Attr, Node, QuantGraph
from hwsim.mapping.gemm import GemmProblem, Place
from hwsim.mapping.rowwise import RowProblem, RowSource
from hwsim.mapping.site import DRAM, Bits, Site
from hwsim.mapping.tile import row_bits

Scenario = Literal["cold", "steady"]
"""`cold`: resident constants must come from DRAM once. `steady`: they are on chip."""


@dataclass(frozen=True)
class Places:
    """Where the tensors of one group are, and how many times over it runs.

    Attributes:
        inputs: the home of each input of the group's first node: a memory, or `dram`.
        output: that of its result.
        heads: blocks that it runs in, one head at a time in attention; else 1.
    """

    inputs: tuple[str, ...]
    output: str
    heads: int = 1


@dataclass(frozen=True)
class Posed:
    """A mapping problem, and the bytes of the weight memory that its own constants take while it runs.

    `arriving`: bits that memories behind others take from DRAM before it, by level.
    """

    problem: GemmProblem | RowProblem
    transient_bytes: int
    arriving: Bits


@dataclass(frozen=True)
class ProblemMaker:
    """Poses the problems of one inference with given resident constants.

    `backed`: stores that live in a memory behind the weight memory, and in which. `posed`: what was posed before, which makers
    of the same graph, site and length share: a problem depends on where the constants of its own group are, not on others.
    """

    graph: QuantGraph
    program: Program
    site: Site
    scenario: Scenario
    resident: frozenset[str]
    backed: Mapping[str, str] = field(default_factory=dict)
    posed: dict[tuple[int, Places, Hashable], Posed] = field(
        default_factory=dict, repr=False, compare=False
    )

    def pose(self, index: int, places: Places) -> Posed:
        """Return the problem of a group: of one block where it is repeated."""
        key = (index, places, self._held[index])
        if key not in self.posed:
            gemm = self.program.groups[index].unit == "array"
            self.posed[key] = self._gemm(index, places) if gemm else self._rows(index, places)
        return self.posed[key]

    @cached_property
    def _held(self) -> tuple[Hashable, ...]:
        """Where the constants of each group are, and which of them arrive for it."""
        return tuple(
            tuple(
                (name in self.resident, self.backed.get(name), self._must_arrive(name, index))
                for node in group.nodes
                for name in node.constants.values()
            )
            for index, group in enumerate(self.program.groups)
        )

    def _gemm(self, index: int, places: Places) -> Posed:
        group = self.program.groups[index]
        node = group.head
        a_type, w_type = operand_types(self.graph, node)
        a_shape = self._shape(node.inputs[0])
        out = self.graph.tensors[group.output]
        w_place: Place
        w_from = DRAM
        if node.op == "linear":
            batch, m = 1, math.prod(a_shape[:-1])
            n = self.graph.constant(node, "weight").shape[0]
            name = node.constants["weight"]
            w_place = "stream"
            if name in self.resident:
                w_place = "fill" if self._must_arrive(name, index) else "chip"
            else:
                w_from = self.backed.get(name, DRAM)
            w_memory = self.site.weight
        else:
            batch, m = math.prod(a_shape[:-2]) // places.heads, a_shape[-2]
            n = self._shape(node.inputs[1])[-2]
            w_place, w_from = self._stream(places.inputs[1])
            w_memory = self.site.activation
        epilogue = group.nodes[1:]
        a_place, a_from = self._stream(places.inputs[0])
        out_place, out_to = self._stream(places.output)
        load, fetch, transient = self._constants(index, epilogue)
        problem = GemmProblem(
            array=self.site.machine.array_for(a_type, w_type).name,
            batch=batch,
            m=m,
            n=n,
            k=a_shape[-1],
            a=a_type,
            w=w_type,
            out=out.dtype,
            out_row=out.bind(self.program.length)[-1],
            a_place=a_place,
            w_place=w_place,
            w_memory=w_memory,
            out_streams=out_place == "stream",
            epilogue=tuple(n.op for n in epilogue),
            constant_bits=load,
            constant_fetch_bits=fetch,
            whole_lanes=self._may_overflow(node),
            a_from=a_from,
            w_from=w_from,
            out_to=out_to,
        )
        return Posed(problem, transient, self._arriving(index))

    def _stream(self, home: str) -> tuple[Place, str]:
        """Return whether a tensor streams, and from or to where; DRAM, for all that does not."""
        return ("chip", DRAM) if home == self.site.activation else ("stream", home)

    def _arriving(self, index: int) -> Bits:
        """Return the bits that each level behind the weight memory takes from DRAM before a group."""
        bits = dict.fromkeys(self.site.levels, 0)
        for name, level in self.backed.items():
            if self._must_arrive(name, index):
                bits[level] += 8 * self.program.stores[name].bytes
        return tuple(bits.values())

    def _rows(self, index: int, places: Places) -> Posed:
        group = self.program.groups[index]
        node = group.head
        shape = self._shape(node.name)
        out_row = row_bits(self.graph.tensors[node.name].dtype, shape[-1])
        rows = math.prod(shape[:-1]) // places.heads
        units = rows
        if node.op == "relayout":
            units = self._relaid_units(node) // places.heads
        elif node.op == "im2col":  # a unit is one row of patches
            units = self._patch_rows(node)
        elif node.op == "max_pool":  # a unit is one row of positions
            units = shape[0]
        load, fetch, transient = self._constants(index, (node,))
        sources = tuple(
            self._source(node, t, units, places, position) for position, t in enumerate(node.inputs)
        )
        if node.op == "embedding":
            sources = (*sources, self._table(node))
        out_place, out_to = self._stream(places.output)
        sources += tuple(self._row_constant(name) for name in row_constants(self.graph, node))
        problem = RowProblem(
            op=node.op,
            units=units,
            rows_per_unit=rows // units,
            elements_per_unit=rows // units * shape[-1] * self._codes_per_result(node),
            sources=sources,
            out_bits_per_unit=rows // units * out_row,
            out_streams=out_place == "stream",
            constant_bits=load,
            constant_fetch_bits=fetch,
            out_to=out_to,
        )
        return Posed(problem, transient, self._arriving(index))

    def _may_overflow(self, node: Node) -> bool:
        """Tell whether a contraction's static bound does not fit its array's accumulators."""
        a, w = operand_types(self.graph, node)
        array = self.site.machine.array_for(a, w)
        k = self._shape(node.inputs[0])[-1]
        profile = array.profile(a, w)
        if profile.fits(array.static_bound(None, k, a, w)):
            return False  # by the types alone; no need to look at the weights
        bound = contraction_bound(self.graph, node, self.site.machine, self.program.length)
        return not profile.fits(bound)

    def _shape(self, tensor: str) -> tuple[int, ...]:
        return self.graph.tensors[tensor].bind(self.program.length)

    def _source(
        self, node: Node, tensor: str, units: int, places: Places, position: int
    ) -> RowSource:
        shape = self._shape(tensor)
        dtype = self.graph.tensors[tensor].dtype
        if node.op == "embedding":
            bits = dtype.bits  # one token id
        elif node.op == "im2col":  # the band of pixels under one row of patches
            channels, _, width = shape
            bits = channels * _pair(node.attrs["kernel"])[0] * row_bits(dtype, width)
        elif node.op == "max_pool":  # the band under one row of positions
            _, width, channels = shape
            bits = width * _pair(node.attrs["kernel"])[0] * row_bits(dtype, channels)
        elif node.op == "concat":  # rows pass one by one; those in front are priced as if read, too
            bits = row_bits(dtype, shape[-1])
        else:
            total = math.prod(shape[:-1]) * row_bits(dtype, shape[-1])
            bits = total // (units * places.heads)
        operator = self.site.vector.spec.operators[node.op]
        passes = len(operator.passes) if position == 0 else 1
        place, level = self._stream(places.inputs[position])
        return RowSource(
            operand="activation",
            memory=self.site.activation,
            bits_per_unit=bits,
            streams=place == "stream",
            passes=passes,
            level=level,
        )

    def _relaid_units(self, node: Node) -> int:
        """Count the matrices that are transposed, or the fewest codes that are whole rows of both shapes."""
        shape = self._shape(node.name)
        if "shape" not in node.attrs:
            return math.prod(shape[:-2])
        return math.prod(shape) // math.lcm(self._shape(node.inputs[0])[-1], shape[-1])

    def _codes_per_result(self, node: Node) -> int:
        """Return how many codes a vector operator looks at for one of its own."""
        return math.prod(_pair(node.attrs["kernel"])) if node.op == "max_pool" else 1

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
        streams, level = name not in self.resident, self.backed.get(name, DRAM)
        return RowSource("weight", self.site.weight, bits, streams, gathered=True, level=level)

    def _row_constant(self, name: str) -> RowSource:
        """Return a constant of which each token reads a row."""
        constant = self.graph.constants[name]
        bits = row_bits(constant.dtype, constant.array.shape[1])
        streams, level = name not in self.resident, self.backed.get(name, DRAM)
        return RowSource("constant", self.site.weight, bits, streams, level=level)

    def _must_arrive(self, name: str, index: int) -> bool:
        """Tell whether a store that stays on chip has to come from DRAM for this group: once, on a cold start."""
        return self.scenario == "cold" and self.program.first_use[name] == index

    def _constants(self, index: int, nodes: tuple[Node, ...]) -> tuple[Bits, int, int]:
        """Return (bits to load by level, bits to fetch a tile, bytes held meanwhile) for some nodes' constants.

        The weight of a linear layer is not among them. Tables and constants with a row a token are read
        row by row, but where they are resident a cold start loads them here.
        """
        fetch = transient = 0
        load = dict.fromkeys(self.site.levels, 0)
        arrived: set[str] = set()
        for node in nodes:
            by_row = row_constants(self.graph, node)
            for role, name in sorted(node.constants.items()):
                if node.op == "embedding" and role == "M":
                    continue  # stands in the table's rows
                store = self.program.stores[name]
                resident = name in self.resident
                if resident and self._must_arrive(name, index) and name not in arrived:
                    load[DRAM] += 8 * store.bytes
                    arrived.add(name)
                if node.op == "embedding" or name in by_row:
                    continue
                fetch += 8 * store.bytes
                if not resident:
                    load[self.backed.get(name, DRAM)] += 8 * store.bytes
                    transient += store.bytes
        return tuple(load.values()), fetch, transient


def _pair(value: Attr) -> tuple[int, int]:
    """Return a (height, width) attribute."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"kernel and stride must be pairs, not {value!r}")
    return int(value[0]), int(value[1])
