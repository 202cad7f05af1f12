"""The student in float64, call by call: for collecting ranges and, once frozen, for rung A.

This interpreter works on real values in the order of the student's own operations. It knows nothing of
folding, multipliers or thresholds, so that a fault in `hwsim.lower` shows as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.capture import RESHAPES, Call, Captured, Frozen, Ref, refs
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType, parse
from hwsim.graph.ir import Shape

Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that a tensor of the graph can hold: scale * code."""

    dtype: DataType
    scale: float

    def codes(self, value: Tensor) -> Tensor:
        """Nearest codes (ties towards plus infinity), clamped; float64."""
        return torch.floor(value / self.scale + 0.5).clamp(self.dtype.qmin, self.dtype.qmax)

    def snap(self, value: Tensor) -> Tensor:
        """Nearest representable values."""
        return self.codes(value) * self.scale


def quantize(x: Tensor, alpha: Tensor, shift: Tensor | None, dtype: DataType) -> Tensor:
    """clamp(floor((x + shift)/alpha + 1/2)); bipolar: sign(x + shift) with sign(0) = +1."""
    moved = x if shift is None else x + shift
    if dtype.kind == "bipolar":
        return torch.where(moved >= 0, 1.0, -1.0).to(x.dtype)
    return torch.floor(moved / alpha + 0.5).clamp(dtype.qmin, dtype.qmax)


def _dynamic_scale(
    x: Tensor, valid: Tensor | None, dtype: DataType, granularity: str, clip: float
) -> Tensor:
    magnitude = x.abs()
    if clip > 0:
        magnitude = magnitude.clamp(max=clip)
    if granularity == "token":
        amax = magnitude.amax(-1, keepdim=True)
    else:
        if valid is not None and x.ndim == 3:
            magnitude = magnitude * valid.unsqueeze(-1)
        amax = magnitude.amax().reshape(1)
    return amax.clamp(min=1e-12) / dtype.qmax


class Interpreter:
    """Runs captured calls on float64 tensors.

    Args:
        captured: the calls, as captured or as `hwsim.freeze` rewrote them.
        observe: called with every call's name and value, and with NAME.acc and the integer accumulator
            of every contraction.
    """

    def __init__(self, captured: Captured, observe: Observer | None = None) -> None:
        self.captured = captured
        self.observe = observe
        last = {name: i for i, call in enumerate(captured.calls) for name in refs(call.args)}
        self._last_read: dict[int, list[str]] = {}
        for name in last.keys() - set(captured.outputs):
            self._last_read.setdefault(last[name], []).append(name)

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Execute on a batch; float inputs are taken as float64, integer ones as int64."""
        values: dict[str, Any] = {}
        for name in self.captured.inputs:
            t = inputs[name]
            values[name] = self._settle(name, t.double() if t.is_floating_point() else t.long())
        first = values[next(iter(self.captured.inputs))]
        self.batch, self.length = first.shape[0], first.shape[1]
        with torch.no_grad():
            for index, call in enumerate(self.captured.calls):
                result = self._call(call, [self._arg(a, values) for a in call.args])
                values[call.name] = self._settle(call.name, result)
                # of a large model all values together fill the memory
                for name in self._last_read.get(index, ()):
                    del values[name]
        return tuple(values[name] for name in self.captured.outputs)

    def _settle(self, name: str, value: Any) -> Any:
        if self.observe is not None and isinstance(value, Tensor):
            self.observe(name, value)
        return value

    def _arg(self, arg: Any, values: Mapping[str, Any]) -> Any:
        if isinstance(arg, Ref):
            return values[arg.name]
        if isinstance(arg, Frozen):
            return cut(arg, self.length)
        if isinstance(arg, tuple):
            return [self._arg(a, values) for a in arg]
        return arg

    def _shape(self, shape: Shape) -> list[int]:
        return [{"B": self.batch, "T": self.length}[d] if isinstance(d, str) else d for d in shape]

    def _call(self, call: Call, a: list[Any]) -> Any:
        op = call.op
        if op in RESHAPES:
            return a[0].reshape(self._shape(call.shape))
        match op:
            case "getitem":
                return a[0][a[1]]
            case "aten.linear":
                return F.linear(a[0], a[1], a[2])
            case "aten.conv2d":
                return F.conv2d(a[0], a[1], a[2], *a[3:])
            case "aten.embedding":
                return F.embedding(a[1].long(), a[0])
            case "aten.layer_norm":
                return F.layer_norm(a[0], a[1], a[2], a[3], a[4])
            case "aten.gelu":
                return F.gelu(a[0], approximate=a[1])
            case "aten.relu":
                return a[0].relu()
            case "aten.tanh":
                return a[0].tanh()
            case "aten.add":
                return a[0] + a[1]
            case "hwsim.add":
                # each operand is rounded to the sum's grid on its own, as the machine's `add` does
                total = torch.floor(a[0] / a[3] + 0.5) + torch.floor(a[1] / a[3] + 0.5)
                dtype = parse(a[2])
                return total.clamp(dtype.qmin, dtype.qmax) * a[3]
            case "hwsim.snap":
                return Grid(parse(a[1]), a[2]).snap(a[0])
            case "aten.transpose":
                return a[0].transpose(a[1], a[2])
            case "aten.permute":
                return a[0].permute(a[1])
            case "aten.slice":
                return a[0][self._slices(call, a)]
            case "aten.select":
                return a[0].select(a[1], a[2])
            case "aten.cat":
                return torch.cat([t.expand(self.batch, *t.shape[1:]) for t in a[0]], dim=a[1])
            case "aten.expand":
                return a[0].expand(self._shape(call.shape))
            case "aten.split" | "aten.split_with_sizes":
                return torch.split(a[0], a[1], dim=a[2])
            case "bitwright.snap":
                return Grid(parse(a[2]), float(a[1])).snap(a[0])
            case "bitwright.quantize_static":
                return quantize(a[0], a[1], a[2], parse(a[4]))
            case "bitwright.quantize_dynamic":
                dtype = parse(a[2])
                scale = _dynamic_scale(a[0], _bool(a[1]), dtype, a[3], a[4])
                return quantize(a[0], scale, None, dtype), scale
            case "bitwright.linear":
                return self._contract(call, a[0], a[2].transpose(-1, -2), a[1] * a[3], a[4])
            case "bitwright.matmul":
                b = a[2].transpose(-1, -2) if a[4] else a[2]
                return self._contract(call, a[0], b, a[1] * a[3] * a[5], None)
            case "bitwright.embedding":
                rows = a[1][a[0].long()]
                return rows * (a[2][a[0].long()].unsqueeze(-1) if a[2].numel() > 1 else a[2])
            case "bitwright.softmax":
                return masked_softmax(a[0], _bool(a[1]), a[2])
            case "bitwright.bool_map":
                return ((a[0] > 0) & structural_mask(a[0], _bool(a[1]), a[2])).double()
            case "hwsim.im2col" | "bitwright.patches":
                return im2col(a[0], a[1], a[2])
        raise GraphError(f"the float student has no operator {op} (in {call.origin})")

    def _contract(
        self, call: Call, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor | None
    ) -> Tensor:
        acc = a @ b
        if self.observe is not None:
            self.observe(f"{call.name}.acc", acc)
        y = acc * scale
        return y if bias is None else y + bias

    def _slices(self, call: Call, a: list[Any]) -> tuple[slice, ...]:
        axis, start, stop = a[1], a[2], a[3]
        index = [slice(None)] * a[0].ndim
        stop = (
            self._shape(call.shape)[axis] + (start or 0)
            if isinstance(call.shape[axis], str)
            else stop
        )
        index[axis] = slice(start or 0, stop)
        return tuple(index)


def cut(frozen: Frozen, length: int) -> Tensor:
    """Return a frozen value with its T axes cut to the running length; floats become float64."""
    array = frozen.array
    for axis, d in enumerate(frozen.shape):
        if d == "T":
            array = np.take(array, np.arange(length), axis=axis)
    t = torch.from_numpy(np.ascontiguousarray(array))
    return t.double() if t.is_floating_point() else t


def _bool(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.bool()


def masked_softmax(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """Softmax over the last axis with structural masks; a row without an unmasked key is all 0."""
    mask = structural_mask(scores, valid, causal)
    p = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    return torch.where(mask, p, torch.zeros_like(p))


def structural_mask(scores: Tensor, valid: Tensor | None, causal: bool) -> Tensor:
    """Which of the scores [B, H, T, S] count: keys that are real and, where causal, not behind the query."""
    queries, keys = scores.shape[-2:]
    mask = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        mask = torch.arange(keys) <= torch.arange(queries)[:, None]
    mask = mask.expand(scores.shape)
    if valid is not None:
        mask = mask & valid[:, None, None, :]
    return mask


def im2col(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
    """[B, C, H, W] -> [B, P, C*kh*kw] in (channel, kh, kw) order."""
    return F.unfold(x, tuple(kernel), stride=tuple(stride)).transpose(1, 2)
