"""Run data through the machine: packed kernels on the arrays and vector units that the machine has.

Every tensor is yielded as it is made. The contractions go to the array that the machine chooses by the
operands' types; row operators go to the vector kernels. Nothing of `hwsim.reference` is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch.machine import Machine, operand_types
from hwsim.engine.convolution import convolve, max_pool
from hwsim.errors import GraphError, OverflowRefused
from hwsim.graph.ir import Node, QuantGraph, Tensor, last_uses
from hwsim.graph.numeric import NumericProfile
from hwsim.graph.ops import OPERATORS
from hwsim.graph.windows import Windows
from hwsim.kernels import requant, softmax, vector

Array = npt.NDArray[Any]
Host = Callable[[Node, list[Array]], Array]
"""computes a node from its operands [B, *shape], for a machine that has no unit for it"""
Memory = Callable[[Tensor, Array], Array]
"""what the memory gives back of a node's tensor [B, *shape] that was written to it"""


def contraction_bound(graph: QuantGraph, node: Node, machine: Machine, length: int) -> int:
    """Static bound of the intermediate accumulators of a contraction on its array."""
    a, w = operand_types(graph, node)
    weight = graph.constant(node, "weight") if "weight" in node.constants else None
    k = weight.shape[1] if weight is not None else graph.tensors[node.inputs[0]].bind(length)[-1]
    return machine.array_for(a, w).static_bound(weight, k, a, w)


def numeric_profiles(graph: QuantGraph, machine: Machine, length: int) -> dict[str, NumericProfile]:
    """Accumulation profiles of the contractions whose static bound does not fit their array.

    Those that no array of the machine can run have none.
    """
    profiles = {}
    lacking = machine.lacking(graph)
    for node in graph.nodes:
        if OPERATORS[node.op].unit == "array" and node.name not in lacking:
            a, w = operand_types(graph, node)
            profile = machine.array_for(a, w).profile(a, w)
            if not profile.fits(contraction_bound(graph, node, machine, length)):
                profiles[node.name] = profile
    return profiles


def execute(
    graph: QuantGraph,
    machine: Machine,
    inputs: Mapping[str, Array],
    lengths: npt.NDArray[np.int64] | None = None,
    host: Host | None = None,
    memory: Memory | None = None,
) -> Iterator[tuple[str, Array]]:
    """Yield every tensor of the graph in execution order, as the machine computes it.

    Args:
        graph: the integer graph, as it lies in the machine's memory.
        machine: the machine.
        inputs: codes of the graph's inputs, each [B, *shape].
        lengths: real length of each sequence, int64 [B]; needed where a node masks.
        host: what computes the nodes that the machine cannot run; None refuses them.
        memory: what a tensor goes through on its way to its readers; None returns what was written.

    Raises:
        GraphError: the machine lacks an operator or a format, and there is no host; all of them are listed.
        OverflowRefused: an accumulator left its range under the rule `error`.
    """
    if host is None:
        machine.check(graph)
    return _Execution(graph, machine, lengths, host, memory).run(inputs)


class _Execution:
    def __init__(
        self,
        graph: QuantGraph,
        machine: Machine,
        lengths: npt.NDArray[np.int64] | None,
        host: Host | None,
        memory: Memory | None,
    ) -> None:
        self.graph = graph
        self.machine = machine
        self.host = host
        self.memory = memory
        self.on_host = {} if host is None else machine.lacking(graph)
        self.lengths = np.zeros(0, np.int64) if lengths is None else lengths
        self.length = 0

    def run(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        alive: dict[str, Array] = {}
        for name in self.graph.inputs:
            tensor = self.graph.tensors[name]
            alive[name] = stored(np.asarray(inputs[name]), tensor)
            self._read_length(tensor, alive[name])
        drop = last_uses(self.graph.nodes)
        for node in self.graph.nodes:
            operands = [alive[t] for t in node.inputs]
            if self.host is not None and node.name in self.on_host:
                result = stored(self.host(node, operands), self.graph.tensors[node.name])
            else:
                result = self._step(node, operands)
            if self.memory is not None:
                result = self.memory(self.graph.tensors[node.name], result)
            alive[node.name] = result
            yield node.name, result
            for name in drop[node.name]:
                alive.pop(name, None)

    def _read_length(self, tensor: Tensor, x: Array) -> None:
        for axis, d in enumerate(tensor.shape, start=1):
            if isinstance(d, str):
                self.length = x.shape[axis]
        if self.length > self.graph.max_length > 0:
            raise GraphError(
                f"input {tensor.name}: sequences must have at most {self.graph.max_length} tokens, the length"
                f" that the graph was built for, not {self.length}"
            )

    def _constant(self, node: Node, role: str) -> Array:
        return self.graph.constant(node, role)

    def _step(self, node: Node, x: list[Array]) -> Array:
        out = self.graph.tensors[node.name]
        attrs: Mapping[str, Any] = node.attrs
        match node.op:
            case "linear":
                return self._linear(node, x[0])
            case "matmul":
                return self._matmul(node, x[0], x[1])
            case "conv2d":
                return self._conv2d(node, x[0])
            case "requant" | "threshold" | "layer_norm":
                return self._rows(node, x[0], out)
            case "add":
                return self._add(node, x, out)
            case "softmax" | "softmax_binary":
                return self._softmax(node, x[0], out)
            case "table":
                result = np.empty(x[0].size, np.int64)
                qmin = self.graph.tensors[node.inputs[0]].dtype.qmin
                vector.table_lookup(x[0].reshape(-1), qmin, self._constant(node, "table"), result)
                return stored(result.reshape(x[0].shape), out)
            case "embedding":
                weight = self._constant(node, "weight")
                result = np.empty((x[0].size, weight.shape[1]), np.int64)
                vector.embedding_rows(
                    x[0].reshape(-1), weight, self._constant(node, "M"), int(attrs["S"]), result
                )
                return stored(result.reshape(*x[0].shape, weight.shape[1]), out)
            case "concat":
                rows = self._constant(node, "rows").astype(x[0].dtype)
                front = np.broadcast_to(rows, (x[0].shape[0], *rows.shape))
                return np.concatenate([front, x[0]], axis=1)
            case "relayout":
                return np.ascontiguousarray(x[0].swapaxes(-1, -2))
            case "im2col":
                return _im2col(x[0], attrs["kernel"], attrs["stride"])
            case "max_pool":
                return max_pool(x[0], Windows.of(attrs, x[0].shape[1:]))
            case "reshape":
                shape = [self.length if isinstance(d, str) else d for d in out.shape]
                return x[0].reshape(x[0].shape[0], *shape)
            case "permute":
                axes = (0, *(int(i) + 1 for i in attrs["axes"]))
                return np.ascontiguousarray(x[0].transpose(axes))
            case "slice":
                index: list[slice] = [slice(None)] * x[0].ndim
                index[int(attrs["axis"]) + 1] = slice(int(attrs["start"]), int(attrs["stop"]))
                return np.ascontiguousarray(x[0][tuple(index)])
            case "append":
                return np.concatenate(x, axis=int(attrs["axis"]) + 1)
        raise GraphError(f"node {node.name}: the machine has no operator {node.op!r}")

    # -- arrays

    def _linear(self, node: Node, a: Array) -> Array:
        weight = self._constant(node, "weight")
        a_type, w_type = operand_types(self.graph, node)
        flat = np.ascontiguousarray(a).reshape(-1, a.shape[-1])
        bound = contraction_bound(self.graph, node, self.machine, self.length)
        array = self.machine.array_for(a_type, w_type)
        acc = array.gemm(flat, weight, a_type, w_type, where=f"operator {node.name}", bound=bound)
        return acc.reshape(*a.shape[:-1], weight.shape[0])

    def _conv2d(self, node: Node, x: Array) -> Array:
        attrs: Mapping[str, Any] = node.attrs
        a_type, w_type = operand_types(self.graph, node)
        bound = contraction_bound(self.graph, node, self.machine, self.length)
        array = self.machine.array_for(a_type, w_type)

        def product(a: Array, w: Array) -> Array:
            return array.gemm(a, w, a_type, w_type, where=f"operator {node.name}", bound=bound)

        return convolve(
            x,
            self._constant(node, "weight"),
            Windows.of(attrs, x.shape[1:]),
            a_type,
            attrs["padding_positions"],
            product,
        )

    def _matmul(self, node: Node, a: Array, b: Array) -> Array:
        a_type, b_type = operand_types(self.graph, node)
        array = self.machine.array_for(a_type, b_type)
        bound = array.static_bound(None, a.shape[-1], a_type, b_type)
        out = np.empty((*a.shape[:-1], b.shape[-2]), np.int32)
        for index in np.ndindex(a.shape[:-2]):
            try:
                out[index] = array.gemm(
                    a[index], b[index], a_type, b_type, where=f"operator {node.name}", bound=bound
                )
            except OverflowRefused as fault:
                raise OverflowRefused(f"{fault} (sample and head {list(index)})") from None
        return out

    # -- vector unit

    def _rows(self, node: Node, x: Array, out: Tensor) -> Array:
        flat = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        result = np.empty(flat.shape, np.int64)
        qmin, qmax = out.dtype.qmin, out.dtype.qmax
        if node.op == "requant":
            m, s, b = (self._constant(node, role) for role in ("M", "S", "B"))
            requant.requant_rows_i64(flat, m, s, b, out.zero_point, qmin, qmax, result)
        elif node.op == "threshold":
            levels = self._constant(node, "threshold")
            direction = self._constant(node, "direction")
            requant.threshold_rows_i64(flat, levels, direction, qmin, out.dtype.step, result)
            if "masked" in node.attrs:
                softmax.mask_rows(result.reshape(x.shape), *self._masks(node), qmin)
        else:
            g, b = self._constant(node, "G"), self._constant(node, "B")
            e, f, q = (int(node.attrs[key]) for key in ("E", "F", "Q"))  # type: ignore[arg-type]
            vector.layer_norm_rows_i64(flat, g, b, e, f, q, out.zero_point, qmin, qmax, result)
        return stored(result.reshape(x.shape), out)

    def _add(self, node: Node, x: list[Array], out: Tensor) -> Array:
        a = np.ascontiguousarray(x[0]).reshape(-1, x[0].shape[-1])
        if len(x) > 1:
            b = np.ascontiguousarray(x[1]).reshape(-1, x[1].shape[-1])
        else:
            first = int(node.attrs.get("first", 0))  # type: ignore[arg-type]
            b = self._constant(node, "addend")[first : first + x[0].shape[1]]
        m, s = self._constant(node, "M"), self._constant(node, "S")
        result = np.empty(a.shape, np.int64)
        factors = (int(m[0]), int(s[0]), int(m[1]), int(s[1]))
        vector.add_rows_i64(a, b, *factors, out.dtype.qmin, out.dtype.qmax, result)
        return stored(result.reshape(x[0].shape), out)

    def _masks(self, node: Node) -> tuple[npt.NDArray[np.int64], bool, bool]:
        return self.lengths, bool(node.attrs["masked"]), bool(node.attrs["causal"])

    def _softmax(self, node: Node, x: Array, out: Tensor) -> Array:
        attrs: Mapping[str, Any] = node.attrs
        table = self._constant(node, "table")
        masks = self._masks(node)
        result = np.empty(x.shape, np.int64)
        binary = node.op == "softmax_binary"
        if attrs["mode"] == "direct":
            shift = int(attrs["shift"])
            if binary:
                softmax.softmax_binary_direct_rows(
                    x, *masks, table, shift, int(attrs["level"]), result
                )
            else:
                softmax.softmax_direct_rows(x, *masks, table, shift, result)
        else:
            m, s = self._constant(node, "M"), self._constant(node, "S")
            if binary:
                softmax.softmax_binary_exp2_rows(
                    x, *masks, table, m, s, int(attrs["level"]), result
                )
            else:
                softmax.softmax_exp2_rows(x, *masks, table, m, s, result)
        return stored(result, out)


def stored(codes: Array, tensor: Tensor) -> Array:
    """Codes in the width they have in the machine's memory: int8 (uint8) up to 8 bits, int32 above."""
    if tensor.dtype.bits > 8:
        return np.ascontiguousarray(codes, np.int32)
    return np.ascontiguousarray(codes, np.int8 if tensor.dtype.qmax <= 127 else np.uint8)


def _im2col(x: Array, kernel: tuple[int, int], stride: tuple[int, int]) -> Array:
    """[B, C, H, W] -> [B, P, C*kh*kw] in (channel, kh, kw) order."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]]
    batch, channels, rows, cols = windows.shape[:4]
    patches = windows.transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(
        patches.reshape(batch, rows * cols, channels * kernel[0] * kernel[1])
    )
