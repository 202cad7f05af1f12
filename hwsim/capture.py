"""Capture a quantised student through torch.export: an ExportedProgram becomes torch-free calls.

No model family is known here. Everything that depends on parameters alone (weight codes and scales
included) is evaluated once, now, and frozen; every operator that we cannot execute is collected and
reported together.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.export import Dim

from hwsim.errors import GraphError
from hwsim.graph.ir import Shape
from hwsim.graph.ops import STUDENT_NAMESPACE, STUDENT_OPS

BATCH = "B"

# ATen operators that change no value and move no element: capture drops them.
IDENTITY = {
    "aten.dropout", "aten.alias", "aten.contiguous", "aten.clone", "aten.detach", "aten.to", "aten._to_copy",
}  # fmt: skip
RESHAPES = {
    "aten.view", "aten.reshape", "aten.flatten", "aten.unsqueeze", "aten.squeeze", "aten._unsafe_view",
    "aten.unflatten",
}  # fmt: skip
SUPPORTED = IDENTITY | RESHAPES | {
    "aten.linear", "aten.conv2d", "aten.embedding", "aten.layer_norm", "aten.gelu", "aten.relu", "aten.tanh",
    "aten.add", "aten.transpose", "aten.permute", "aten.slice", "aten.select", "aten.cat", "aten.expand",
    "aten.split", "aten.split_with_sizes", "getitem",
    *(f"{STUDENT_NAMESPACE}.{name}" for name in STUDENT_OPS),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to the value of a call or of an input."""

    name: str


@dataclass(frozen=True)
class Frozen:
    """A value that depends on parameters alone. Axes whose symbol is "T" are cut to the length at run time."""

    array: npt.NDArray[Any]
    shape: Shape = ()
    """symbolic shape, batch axis first where there is one"""
    origin: str = ""


@dataclass(frozen=True)
class Call:
    """One torch-free operator call. `args` holds Ref, Frozen, Python scalars, None, or tuples of those."""

    name: str
    op: str
    args: tuple[Any, ...]
    shape: Shape
    """symbolic output shape, batch first; () for tuples"""
    origin: str
    """path of the module that made the call"""


@dataclass(frozen=True)
class Captured:
    """A student as calls in execution order."""

    calls: tuple[Call, ...]
    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    max_length: int

    def consumers(self, name: str) -> list[Call]:
        """Return the calls that read a value."""
        return [c for c in self.calls if name in refs(c.args)]

    def by_name(self) -> dict[str, Call]:
        """Return the calls by name."""
        return {c.name: c for c in self.calls}


def refs(args: Any) -> list[str]:
    """Return the names that an argument structure refers to."""
    if isinstance(args, Ref):
        return [args.name]
    if isinstance(args, (tuple, list)):
        return [name for a in args for name in refs(a)]
    return []


def signature_defaults(
    target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Write all arguments of an operator call by position, defaults included."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return args
    full = list(args)
    for parameter in schema.arguments[len(args) :]:
        full.append(kwargs.get(parameter.name, parameter.default_value))
    return tuple(full)


def _op_name(target: Any) -> str:
    if target is operator.getitem:
        return "getitem"
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._opname}"
    return f"python.{getattr(target, '__name__', target)}"


class _Importer:
    """Walks the exported graph once; `values` maps node names to what they became."""

    def __init__(self, symbols: Mapping[str, str], max_length: int) -> None:
        self.symbols = symbols
        self.max_length = max_length
        self.values: dict[str, Any] = {}
        self.calls: list[Call] = []
        self.unsupported: dict[str, list[str]] = {}

    def shape(self, value: Any) -> Shape:
        if not isinstance(value, torch.Tensor):
            return ()
        dims: list[int | str] = []
        for d in value.shape:
            text = str(d)
            dims.append(self.symbols.get(text, text) if isinstance(d, torch.SymInt) else int(d))
        return tuple(dims)

    def shape_of(self, argument: Any) -> Shape:
        return self.shape(argument.meta.get("val"))

    def visit(self, node: torch.fx.Node) -> None:
        op = _op_name(node.target)
        origin = _origin(node)
        arguments = signature_defaults(node.target, node.args, node.kwargs)
        if op == "aten.sym_size":
            symbol = self.symbols.get(str(node.meta["val"]), "")
            self.values[node.name] = {BATCH: 1, "T": self.max_length}.get(symbol, 0)
            return
        if (
            op.startswith("aten._assert")
            or op.startswith("aten.sym_")
            or op == "aten._assert_scalar"
        ):
            self.values[node.name] = None
            return
        resolved = _map(arguments, self.values)
        if not refs(resolved):
            self.values[node.name] = self.fold(node, origin)
            return
        inexact = _inexact_use(op, node, resolved)
        if op not in SUPPORTED or inexact:
            self.unsupported.setdefault(f"{op}{inexact}", []).append(origin or node.name)
        name = node.name
        shape = self.shape(node.meta.get("val"))
        if op in IDENTITY or (op in RESHAPES and shape == self.shape_of(node.args[0])):
            self.values[name] = resolved[0]
            return
        args = _from_the_front(op, tuple(_freeze(a) for a in resolved), node)
        if op == "aten.cat":
            args = (_joined_front(args[0], args[1]), *args[1:])
        self.calls.append(Call(name, op, args, shape, origin))
        self.values[name] = Ref(name)

    def fold(self, node: torch.fx.Node, origin: str) -> Any:
        """Evaluate a node that depends on parameters alone, at the longest sequence."""
        args = _map_frozen(_map(node.args, self.values))
        kwargs = {k: _map_frozen(_map(v, self.values)) for k, v in node.kwargs.items()}
        with torch.no_grad():
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        val = node.meta.get("val")
        if isinstance(result, (tuple, list)):
            shapes = (
                [self.shape(v) for v in val]
                if isinstance(val, (tuple, list))
                else [()] * len(result)
            )
            return tuple(Frozen(_numpy(r), s, origin) for r, s in zip(result, shapes, strict=True))
        if isinstance(result, torch.Tensor):
            return Frozen(_numpy(result), self.shape(val), origin)
        return result


def _inexact_use(op: str, node: torch.fx.Node, args: tuple[Any, ...]) -> str:
    """Say which argument of a supported operator has no integer counterpart; empty where none."""
    if op in IDENTITY:
        before, after = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
        if before != after and (before.is_floating_point or after.is_floating_point):
            return f" from {before} to {after}"
    if op == "aten.add" and args[2] != 1:
        return f" with alpha={args[2]}"
    if op == "aten.add" and not all(isinstance(a, (Ref, Frozen)) for a in args[:2]):
        return " of a Python number"
    if op == "aten.slice" and args[4] != 1:
        return f" with step {args[4]}"
    return ""


def _from_the_front(op: str, args: tuple[Any, ...], node: torch.fx.Node) -> Any:
    """Count a slice's start and a selected index from the front, where the exporter left them negative."""
    if op not in ("aten.slice", "aten.select") or (args[2] or 0) >= 0:
        return args
    size = node.args[0].meta["val"].shape[args[1]]  # type: ignore[union-attr]
    if isinstance(size, torch.SymInt):
        return args  # along the sequence: `hwsim.lower` refuses it
    return (*args[:2], max(0, args[2] + int(size)), *args[3:])


def _joined_front(parts: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    """Make one constant of the constants in front of a concatenation (DeiT has two tokens there)."""
    front = list(itertools.takewhile(lambda part: isinstance(part, Frozen), parts))
    if len(front) < 2:
        return parts
    joined = np.concatenate([part.array for part in front], axis)
    sizes = (joined.shape[i] if i == axis else d for i, d in enumerate(front[0].shape))
    return (Frozen(joined, tuple(sizes), front[0].origin), *parts[len(front) :])


def _numpy(t: torch.Tensor) -> npt.NDArray[Any]:
    return t.detach().cpu().numpy().copy()


def _origin(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return str(path).removeprefix("L['self'].").removeprefix("L__self___")


def _map(args: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(args, torch.fx.Node):
        return values[args.name]
    if isinstance(args, (tuple, list)):
        return tuple(_map(a, values) for a in args)
    return args


def _map_frozen(args: Any) -> Any:
    if isinstance(args, Frozen):
        return torch.from_numpy(np.ascontiguousarray(args.array))
    if isinstance(args, tuple):
        return [_map_frozen(a) for a in args]
    return args


def _freeze(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return tuple(_freeze(a) for a in arg)
    if isinstance(arg, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return str(arg)
    return arg


def capture(model: nn.Module, example: Mapping[str, torch.Tensor], max_length: int = 0) -> Captured:
    """Capture a model in evaluation mode.

    Args:
        model: a Hugging Face model whose quantisers are `bitwright::` operators.
        example: keyword inputs; axis 0 is the batch, axis 1 of integer inputs the sequence.
        max_length: longest sequence that will ever run (text models); constants are built for it.

    Raises:
        GraphError: the model has operators that we cannot execute; all of them are listed.
    """
    model.eval()
    batch = Dim("B", min=1, max=1 << 20)
    length = Dim("T", min=2, max=max(max_length, 3))
    dynamic = {
        name: {0: batch} if t.is_floating_point() else {0: batch, 1: length}
        for name, t in example.items()
    }
    with torch.no_grad():
        program = torch.export.export(
            model, (), kwargs=dict(example), dynamic_shapes=dynamic, strict=False
        )
    parameters = {
        **dict(program.named_parameters()),
        **dict(program.named_buffers()),
        **program.constants,
    }
    bound = {
        **program.graph_signature.inputs_to_parameters,
        **program.graph_signature.inputs_to_buffers,
        **program.graph_signature.inputs_to_lifted_tensor_constants,
    }
    symbols = _symbols(program, example)
    importer = _Importer(symbols, max_length)
    inputs: dict[str, Shape] = {}
    outputs: tuple[str, ...] = ()
    program.graph.eliminate_dead_code()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in bound:
                tensor = parameters[bound[node.name]]
                importer.values[node.name] = Frozen(
                    _numpy(tensor), tuple(tensor.shape), bound[node.name]
                )
            else:
                importer.values[node.name] = Ref(node.name)
                inputs[node.name] = importer.shape(node.meta.get("val"))
        elif node.op == "output":
            outputs = tuple(refs(_map(node.args[0], importer.values)))
        else:
            importer.visit(node)
    if importer.unsupported:
        lines = [
            f"operator {op} has no exact integer form; used {len(places)} times, first in {places[0]}"
            for op, places in sorted(importer.unsupported.items())
        ]
        raise GraphError("the model cannot be captured:\n" + "\n".join(lines))
    return _drop_dead(Captured(tuple(importer.calls), inputs, outputs[:1], max_length))


def _symbols(
    program: torch.export.ExportedProgram, example: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """Map the exporter's symbols (s53, ...) to B and T, read off the inputs' own axes."""
    symbols: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in example:
            value = node.meta["val"]
            for axis, letter in ((0, BATCH), (1, "T")):
                if axis < value.ndim and isinstance(value.shape[axis], torch.SymInt):
                    symbols[str(value.shape[axis])] = letter
    return symbols


def _drop_dead(captured: Captured) -> Captured:
    """Drop the calls that no output depends on, and the inputs that no call reads."""
    needed = set(captured.outputs)
    kept: list[Call] = []
    for call in reversed(captured.calls):
        if call.name in needed:
            kept.append(call)
            needed.update(refs(call.args))
    inputs = {name: shape for name, shape in captured.inputs.items() if name in needed}
    return replace(captured, calls=tuple(reversed(kept)), inputs=inputs)
