"""A contraction as its array meets it: mapped tiles in order, their beats, and the operands' bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hwsim.arch.component import ArrayComponent
from hwsim.arch.encoding import Encoding, Patterns, bit_patterns
from hwsim.arch.machine import Machine, operand_types
from hwsim.arch.work import cut
from hwsim.arch.zero_skipping import occupied_blocks
from hwsim.engine.cost import OperatorCost
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph
from hwsim.mapping.block import Block, part_of
from hwsim.mapping.layout import AXES, Order

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One compute step: a tile of the product, positions within it. `batch` is its matrix, 0 of a linear."""

    index: int
    batch: int
    m: range
    n: range
    k: range


@dataclass(frozen=True, slots=True)
class StepBeat:
    """One beat of a compute step: positions within the step, planes, and which operand is loaded anew."""

    m: range
    n: range
    k: range
    a_plane: int
    w_plane: int
    loads_a: bool
    loads_w: bool


@dataclass(frozen=True)
class Operand:
    """How one operand enters its array. `rows` and `lanes` are those of the register, used or not.

    A pass takes `pass_bits` of each code, the least significant first; `planes` passes take all of it.
    """

    port: str
    dtype: DataType
    encoding: Encoding
    rows: int
    lanes: int
    pass_bits: int
    planes: int

    @property
    def width_bits(self) -> int:
        """Bits of the register: rows x lanes positions."""
        return self.rows * self.lanes * self.pass_bits

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a code, stored without ones; +-1 in one bit has none."""
        return self.encoding != "sign_bit"

    def patterns(self, codes: Array) -> Patterns:
        """Return the bits of codes, uint32 of their shape."""
        return bit_patterns(codes, self.dtype, self.encoding)

    def to_json(self) -> dict[str, object]:
        """Return the description as plain data."""
        return {
            "port": self.port,
            "type": self.dtype.name,
            "encoding": self.encoding,
            "code_bits": self.dtype.bits,
            "rows": self.rows,
            "lanes": self.lanes,
            "pass_bits": self.pass_bits,
            "planes": self.planes,
            "width_bits": self.width_bits,
        }


@dataclass(frozen=True)
class MappedProduct:
    """A linear or matmul of a graph with the mapping that a cost report chose for it.

    `a` [batch, M, K] x `w` [batch, N, K]; tiles follow each other matrix by matrix, in the mapped order.

    Attributes:
        graph: what it is part of.
        node: the contraction.
        array: what it runs on, whole.
        fused: the operators on its output tiles, in order.
        shape: batch, M, N and K.
        tile: tm, tn and tk.
        order: the operand that stays.
        block: rows, columns and lanes of a beat.
    """

    graph: QuantGraph
    node: Node
    array: ArrayComponent
    fused: tuple[str, ...]
    shape: tuple[int, int, int, int]
    tile: tuple[int, int, int]
    order: Order
    block: Block

    @classmethod
    def of(
        cls, graph: QuantGraph, machine: Machine, length: int, row: OperatorCost
    ) -> MappedProduct:
        """Return the product of a report's row, at a sequence length that need not be the report's.

        Raises:
            GraphError: the operator or the kind of its array has beats that are not described here.
        """
        node = graph.by_name[row.node]
        array = machine.arrays[row.unit.removeprefix("array:")]
        if type(array).schedule is not ArrayComponent.schedule:
            raise GraphError(
                f"{node.name}: must run on an array whose beats are blocks in the order m, n, k with both operands"
                f" at its ports; {array.spec.kind} array {array.name} has beats of its own"
            )
        if row.mapping is None:
            raise GraphError(f"{node.name}: has no mapping")
        a = graph.tensors[node.inputs[0]].bind(length)
        if node.op == "linear":
            batch, m = 1, int(np.prod(a[:-1]))
            n = graph.constant(node, "weight").shape[0]
        elif node.op == "matmul":
            batch, m = int(np.prod(a[:-2])), a[-2]
            n = graph.tensors[node.inputs[1]].bind(length)[-2]
        else:
            raise GraphError(f"{node.name}: must be a linear or a matmul, not {node.op}")
        return cls(
            graph,
            node,
            array,
            row.fused,
            (batch, m, n, a[-1]),
            cast("tuple[int, int, int]", row.mapping.tile),
            cast(Order, row.mapping.order),
            cast(Block, row.mapping.block),
        )

    @property
    def types(self) -> tuple[DataType, DataType]:
        """Number types of both operands."""
        return operand_types(self.graph, self.node)

    @cached_property
    def part(self) -> ArrayComponent:
        """The array as if it had only the rows, columns and lanes of a beat."""
        return part_of(self.array, self.block)

    @cached_property
    def operands(self) -> tuple[Operand, Operand]:
        """Both operands."""
        a, w = self.types
        rows, cols, lanes = self.array.block(a, w)
        bits, planes = self.array.operand_bits(a, w), self.array.planes(a, w)
        encodings = self.array.encodings(a, w)
        return (
            Operand("activation", a, encodings[0], rows, lanes, bits[0], planes[0]),
            Operand("weight", w, encodings[1], cols, lanes, bits[1], planes[1]),
        )

    @property
    def tiles(self) -> int:
        """How many compute steps it takes."""
        batch, *sizes = self.shape
        counts = [len(cut(size, part)) for size, part in zip(sizes, self.tile, strict=True)]
        return batch * counts[0] * counts[1] * counts[2]

    def steps(self) -> Iterator[Step]:
        """Yield the compute steps in the order in which they run."""
        axes = AXES[self.order]
        parts = [cut(size, part) for size, part in zip(self.shape[1:], self.tile, strict=True)]
        tiles = product(*(parts[axis] for axis in axes))
        for index, (batch, ranges) in enumerate(product(range(self.shape[0]), list(tiles))):
            m, n, k = (ranges[axes.index(axis)] for axis in range(3))
            yield Step(index, batch, m, n, k)

    def codes(self, tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return both operands of one executed sample: [batch, M, K] and [batch, N, K].

        Args:
            tensors: name -> codes [1, *shape].
        """
        batch, m, n, k = self.shape
        a = tensors[self.node.inputs[0]].reshape(batch, m, k)
        if self.node.op == "linear":
            return a, self.graph.constant(self.node, "weight").reshape(batch, n, k)
        return a, tensors[self.node.inputs[1]].reshape(batch, n, k)

    def occupied(self, weight: Array) -> npt.NDArray[np.bool_]:
        """Return which blocks of a step's weights [tn, tk] take a beat: [n blocks, k blocks]."""
        _, cols, lanes = self.part.block(*self.types)
        if self.array.spec.zero_skipping and self.node.op == "linear":
            return occupied_blocks(weight, cols, lanes)
        n, k = weight.shape
        return np.ones((len(cut(n, cols)), len(cut(k, lanes))), np.bool_)

    def interval(self, step: Step) -> int:
        """Return the cycles from one beat of a step to the next."""
        return self.part.interval_of(len(step.m), len(step.n), len(step.k), *self.types)

    def beats(self, step: Step, weight: Array) -> Iterator[StepBeat]:
        """Yield the beats of a step in order.

        Args:
            step: the step.
            weight: its weights [tn, tk], which decide where beats are skipped.
        """
        a, w = self.types
        _, cols, lanes = self.part.block(a, w)
        a_planes, _ = self.part.planes(a, w)
        occupied = self.occupied(weight)
        held_a: object = None
        held_w: object = None
        at: tuple[range, range, range] | None = None
        turn = 0
        for beat in self.part.schedule(len(step.m), len(step.n), len(step.k), a, w):
            here = (beat.m, beat.n, beat.k)
            turn = turn + 1 if here == at else 0
            at = here
            if not occupied[beat.n.start // cols, beat.k.start // lanes]:
                continue
            w_plane, a_plane = divmod(turn, a_planes)
            new_a, new_w = (beat.m, beat.k, a_plane), (beat.n, beat.k, w_plane)
            yield StepBeat(*here, a_plane, w_plane, new_a != held_a, new_w != held_w)
            held_a, held_w = new_a, new_w
