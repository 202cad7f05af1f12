"""A graph as plain data, the content of graph.json (docs/files.md), and back.

Arrays are not in it: each constant says here how it is packed, and lies in weights.safetensors under its name.
What is as it usually is, is left out: a zero point of 0, no constants, no attributes, a constant's name that is
NODE.ROLE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from hwsim.graph.dtype import parse
from hwsim.graph.ir import Constant, Node, QuantGraph, Tensor
from hwsim.graph.packing import Packed, unpack

KIND = "hwsim/model/"
SCHEMA = f"{KIND}3"
"""version 2 stored every constant at the width of its type; version 1 had other layer norms and exp2 tables"""
MOST_SIZE = 1 << 24
"""Elements of one axis, and the longest sequence: more than anything real, less than what exhausts a search."""
CONVENTIONS = {"schema": SCHEMA, "rounding": "half_up", "sign_of_zero": 1}
"""written at the head of graph.json; a reader that finds anything else would compute something else"""


class PackedDataError(ValueError):
    """A packed array is missing or does not decode."""


def graph_to_json(graph: QuantGraph, packed: Mapping[str, Packed]) -> dict[str, Any]:
    """Return a graph without its arrays as plain data.

    Args:
        graph: the graph.
        packed: its constants by name, as they lie in the file.
    """
    return {
        **CONVENTIONS,
        "max_length": graph.max_length,
        "inputs": [{"name": name, **_tensor(graph.tensors[name])} for name in graph.inputs],
        "outputs": list(graph.outputs),
        "meta": dict(graph.meta),
        "nodes": [_node(graph, node, packed) for node in graph.nodes],
    }


def graph_from_json(data: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> QuantGraph:
    """Rebuild a graph from `graph_to_json` and the packed arrays.

    Raises:
        PackedDataError: an array is missing or does not decode; the message names the constant.
        AttributeError, KeyError, TypeError, ValueError: the plain data is not what `graph_to_json` makes.
        GraphError: the graph is not consistent.
    """
    for key, wanted in CONVENTIONS.items():
        if data[key] != wanted:
            raise ValueError(f"{key} must be {wanted!r}, is {data[key]!r}")
    length = int(data["max_length"])
    if not 0 <= length <= MOST_SIZE:
        raise ValueError(f"max_length must be 0 to {MOST_SIZE:,}, is {length}")
    tensors = [_read_tensor(t) for t in (*data["inputs"], *data["nodes"])]
    constants: dict[str, Constant] = {}
    nodes = []
    for n in data["nodes"]:
        roles = {role: c.get("name", f"{n['name']}.{role}") for role, c in n.get("constants", {}).items()}  # fmt: skip
        for role, name in roles.items():
            constants[name] = _read_constant(name, n["constants"][role], arrays)
        attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in n.get("attrs", {}).items()}
        nodes.append(Node(n["name"], n["op"], tuple(n["inputs"]), roles, attrs, n["origin"]))
    return QuantGraph(
        tuple(nodes), {t.name: t for t in tensors}, constants, tuple(t["name"] for t in data["inputs"]),
        tuple(data["outputs"]), length, data["meta"],
    )  # fmt: skip


def _tensor(tensor: Tensor) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "type": tensor.dtype.name,
        "shape": list(tensor.shape),
        "scale": tensor.scale,
    }
    return plain | ({"zero_point": tensor.zero_point} if tensor.zero_point else {})


def _read_tensor(data: Mapping[str, Any]) -> Tensor:
    scale = None if data["scale"] is None else float(data["scale"])
    zero_point = int(data.get("zero_point", 0))
    shape = tuple(data["shape"])
    if not all(isinstance(d, str) or (type(d) is int and 0 < d <= MOST_SIZE) for d in shape):
        raise ValueError(
            f"{data['name']}: a shape must hold 'T' and sizes of 1 to {MOST_SIZE:,}, is {list(shape)}"
        )
    return Tensor(data["name"], parse(data["type"]), shape, scale, zero_point)


def _node(graph: QuantGraph, node: Node, packed: Mapping[str, Packed]) -> dict[str, Any]:
    tensor = _tensor(graph.tensors[node.name])
    plain = {"name": node.name, "op": node.op, "inputs": list(node.inputs), **tensor}
    if node.constants:
        plain["constants"] = {
            role: _constant(graph.constants[name], packed[name], f"{node.name}.{role}")
            for role, name in node.constants.items()
        }
    if node.attrs:
        plain["attrs"] = {k: list(v) if isinstance(v, tuple) else v for k, v in node.attrs.items()}
    return plain | {"origin": node.origin}


def _constant(constant: Constant, packed: Packed, usual_name: str) -> dict[str, Any]:
    shape = list(constant.array.shape)
    plain = {"type": constant.dtype.name, "shape": shape, "encoding": packed.encoding}
    if packed.stored != constant.array.shape:
        plain["stored"] = list(packed.stored)
    return plain | ({"name": constant.name} if constant.name != usual_name else {})


def _read_constant(
    name: str, data: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> Constant:
    dtype, shape = parse(data["type"]), _sizes(data["shape"])
    if name not in arrays:
        raise PackedDataError(f"constant {name} is missing")
    try:
        packed = Packed(arrays[name], data["encoding"], _sizes(data.get("stored", shape)))
        return Constant(name, dtype, unpack(packed, dtype, shape))
    except ValueError as fault:
        raise PackedDataError(f"constant {name}: {fault}") from None


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in shape)
