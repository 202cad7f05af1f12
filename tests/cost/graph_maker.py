"""Graphs made by hand, a line a node."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.graph.dtype import DataType, int_, uint
from hwsim.graph.ir import Constant, Node, QuantGraph, Tensor

INT32 = int_(32)


class GraphMaker:
    """Collects nodes, tensors and constants under short names."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Constant] = {}

    def input(self, name: str, dtype: DataType, *shape: int | str) -> str:
        self.tensors[name] = Tensor(name, dtype, shape)
        return name

    def constant(self, name: str, dtype: DataType, *shape: int) -> str:
        storage = np.int8 if dtype.bits <= 8 else np.int64
        self.constants[name] = Constant(name, dtype, np.ones(shape, dtype=storage))
        return name

    def node(
        self,
        name: str,
        op: str,
        inputs: tuple[str, ...],
        dtype: DataType,
        shape: tuple[int | str, ...],
        constants: dict[str, tuple[DataType, tuple[int, ...]]] | None = None,
        /,
        **attrs: Any,
    ) -> str:
        roles = {
            role: self.constant(f"{name}.{role}", d, *s)
            for role, (d, s) in (constants or {}).items()
        }
        self.nodes.append(Node(name, op, inputs, roles, attrs))
        self.tensors[name] = Tensor(name, dtype, shape)
        return name

    def requant(self, name: str, x: str, dtype: DataType) -> str:
        constants = {"M": (uint(31), (1,)), "S": (uint(6), (1,)), "B": (int_(64), (1,))}
        return self.node(name, "requant", (x,), dtype, self.tensors[x].shape, constants)

    def build(self, inputs: tuple[str, ...], outputs: tuple[str, ...], length: int) -> QuantGraph:
        return QuantGraph(
            tuple(self.nodes), self.tensors, self.constants, inputs, outputs, max_length=length
        )
