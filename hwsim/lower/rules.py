"""One rule an operator: what each call of the static student becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.capture import Call, Captured, Frozen, Ref, refs
from hwsim.errors import GraphError
from hwsim.freeze import PROBABILITY
from hwsim.graph import derive
from hwsim.graph.dtype import BIPOLAR, UNIPOLAR, DataType, int_, parse, uint
from hwsim.graph.ir import Attr, QuantGraph
from hwsim.graph.numeric import matmul_bound, weight_bound
from hwsim.lower.builder import Builder
from hwsim.lower.constants import code_type, constant_rows, curve_function
from hwsim.lower.values import (
    ACCUMULATOR,
    Acc,
    Codes,
    Curve,
    Lowered,
    Normalised,
    Rows,
    Scores,
    Tap,
)
from hwsim.lower.views import VIEWS, cancel

_FAULTY = object()
MAX_KEYS = 1 << 14
"""longest softmax row whose sum of exponentials and reciprocal stay within int64"""


def lower(static: Captured, meta: Mapping[str, Any] | None = None) -> Lowered:
    """Translate the static student.

    Args:
        static: what `hwsim.freeze.freeze` returned.
        meta: what the trainer knows (task, metric, method, seed, revision), stored in the graph.

    Raises:
        GraphError: calls that have no exact integer form; all of them are listed.
    """
    return _Lowering(static).run(dict(meta or {}))


class _Lowering(Builder):
    def __init__(self, static: Captured) -> None:
        super().__init__(static)
        self.values: dict[str, Any] = {}
        self.shapes = dict(static.inputs) | {c.name: c.shape for c in static.calls}

    def run(self, meta: dict[str, Any]) -> Lowered:
        for name, shape in self.static.inputs.items():
            self.values[name] = Ref(name) if name != "attention_mask" else None
            if shape[1:] == ("T",) and name != "attention_mask":
                self._add_input(name, int_(32), shape)
        faults: list[str] = []
        for call in self.static.calls:
            if any(self.values[name] is _FAULTY for name in refs(call.args)):
                self.values[call.name] = _FAULTY  # its cause is already in the list
                continue
            try:
                self.values[call.name] = self._lower(call, [self._arg(a) for a in call.args])
            except GraphError as fault:
                faults.append(str(fault))
                self.values[call.name] = _FAULTY
        if faults:
            raise GraphError(
                "the model has no exact integer graph:\n" + "\n".join(dict.fromkeys(faults))
            )
        outputs = tuple(self.values[name].tensor for name in self.static.outputs)
        graph = QuantGraph(
            tuple(self.nodes), self.tensors, self.constants, tuple(self.inputs), outputs,
            self.static.max_length, meta,
        )  # fmt: skip
        return Lowered(graph, self.taps)

    def _arg(self, arg: Any) -> Any:
        if isinstance(arg, Ref):
            return self.values[arg.name]
        if isinstance(arg, tuple):
            return tuple(self._arg(a) for a in arg)
        return arg

    # -- one rule an operator

    def _lower(self, call: Call, a: list[Any]) -> Any:
        op = call.op
        if op in VIEWS:
            return self._lower_view(call, a)
        match op:
            case "bitwright.quantize_static":
                return self._quantize_static(call, a)
            case "hwsim.snap":
                if isinstance(a[0], Scores):
                    return self._softmax(call, a[0])
                if isinstance(a[0], Curve):
                    return self._table(call, a[0], parse(a[1]), a[2])
                if isinstance(a[0], (Normalised, Rows)):
                    return a[0].emit(call, parse(a[1]), a[2])
                return self._quantise(call, a[0], parse(a[1]), a[2], None, self._snap_name(call))
            case "bitwright.linear":
                return self._linear(call, a)
            case "bitwright.matmul":
                return self._matmul(call, a)
            case "bitwright.softmax":
                if not isinstance(a[0], Acc):
                    raise GraphError(
                        f"{call.origin}: a softmax must read the scores of an attention product; an"
                        " additive bias has no exact integer form"
                    )
                masked = call.args[1] is not None
                return Scores(self._materialise(call, a[0]), bool(a[2]), masked, call.name)
            case "bitwright.bool_map":
                return self._bool_map(call, a)
            case "bitwright.embedding":
                return Rows(lambda c, dtype, scale: self._embedding(c, call, a, dtype, scale))
            case "aten.layer_norm":
                return Normalised(lambda c, dtype, scale: self._layer_norm(c, a, dtype, scale))
            case "aten.relu":
                acc = self._as_acc(a[0]) if isinstance(a[0], (Acc, Codes)) else None
                if acc is None or acc.views:
                    raise GraphError(
                        f"{call.origin}: a ReLU must follow a linear layer or a value on a grid, with no"
                        " view between"
                    )
                return replace(acc, relu=True, call=call.name)
            case "aten.gelu" | "aten.tanh":
                return Curve(a[0], curve_function(call), call.name)
            case "aten.split" | "aten.split_with_sizes":
                return self._split(call, a)
            case "hwsim.add":
                return self._add(call, a)
            case "aten.cat":
                return self._concat(call, a)
            case "hwsim.im2col":
                return self._im2col(call, a)
        raise GraphError(f"{call.origin or call.name}: {op} has no exact integer form")

    @staticmethod
    def _snap_name(call: Call) -> str:
        """Last part of a snap's node: `freeze` names snaps CALL_input, CALL_part0, CALL_branch1, CALL_grid."""
        return call.name.rpartition("_")[2].rstrip("0123456789")

    def _lower_view(self, call: Call, a: list[Any]) -> Any:
        value = a[0]
        if call.op == "getitem":
            part = value[a[1]]
            return (
                replace(part, call=call.name) if isinstance(part, Acc) and not part.views else part
            )
        if isinstance(value, Acc):
            return self._view_of_acc(call, value)
        if isinstance(value, Codes):
            tap = self.taps.get(
                value.tensor, Tap(call.args[0].name, "grid", value.dtype, value.scale)
            )
            tensor = self._views(call, value.tensor, (call,), tap)
            return replace(value, tensor=tensor)
        raise GraphError(f"{call.origin}: {call.op} of this value has no exact integer form")

    def _view_of_acc(self, call: Call, acc: Acc) -> Acc:
        if call.op != "aten.slice" or acc.views:
            views = (*acc.views, call)
            if call.shape[1:] == self.tensors[acc.tensor].shape and cancel(call.shape[1:], views):
                views = ()
            return replace(acc, views=views)
        axis, start = int(call.args[1]) % len(call.shape), int(call.args[2] or 0)
        if axis != len(call.shape) - 1:
            return replace(acc, views=(*acc.views, call))
        stop = start + int(call.shape[-1])
        tensor = self._view(call, acc.tensor, call, replace(self.taps[acc.tensor], views=(call,)))
        part = derive.Affine(
            acc.affine.scale[start:stop] if acc.affine.scale.size > 1 else acc.affine.scale,
            acc.affine.bias[start:stop] if acc.affine.bias.size > 1 else acc.affine.bias,
        )
        return replace(acc, tensor=tensor, affine=part, call=call.name)

    def _split(self, call: Call, a: list[Any]) -> tuple[Any, ...]:
        """A split along the last axis is one slice a part."""
        source = self.shapes[call.args[0].name]
        axis = int(a[2]) % len(source)
        total = source[axis]
        if isinstance(total, str):
            raise GraphError(f"{call.origin}: a split along the sequence has no operator")
        if isinstance(a[1], tuple):
            sizes = [int(size) for size in a[1]]
        else:
            step = int(a[1])
            sizes = [min(step, int(total) - at) for at in range(0, int(total), step)]
        parts, start = [], 0
        for i, size in enumerate(sizes):
            shape = (*source[:axis], size, *source[axis + 1 :])
            args = (call.args[0], axis, start, start + size, 1)
            piece = Call(f"{call.name}_{i}", "aten.slice", args, shape, call.origin)
            parts.append(self._lower_view(piece, [a[0], *args[1:]]))
            start += size
        return tuple(parts)

    def _quantize_static(self, call: Call, a: list[Any]) -> Codes:
        dtype = parse(a[4])
        scale = float(np.float64(a[1].array.reshape(-1)[0]))
        shift = None if a[2] is None else a[2].array.reshape(-1).astype(np.float64)
        value = a[0]
        if isinstance(value, Ref):  # the model's own input: the host makes the codes
            if value.name in self.inputs:
                raise GraphError(f"{call.origin}: the input {value.name} has two quantisers")
            self._add_input(value.name, dtype, self.static.inputs[value.name], scale)
            return Codes(value.name, dtype, scale)
        if isinstance(value, Scores):
            if shift is not None:
                raise GraphError(
                    f"{call.origin}: a shift on a binary attention map has no operator"
                )
            return self._softmax_binary(call, value, dtype, scale)
        if isinstance(value, Curve):
            return self._table(call, value, dtype, scale)
        what = f"{_last(call.origin, 'codes')}"
        return self._quantise(call, value, dtype, scale, shift, what)

    def _linear(self, call: Call, a: list[Any]) -> Acc:
        codes, a_scale, weight, w_scale, bias = a
        if not isinstance(codes, Codes):
            raise GraphError(f"{call.origin}: the input of an integer linear must be codes")
        w = weight.array.astype(np.int64)
        w_type = code_type(w)
        scale = a_scale.array.astype(np.float64).reshape(-1) * w_scale.array.astype(
            np.float64
        ).reshape(-1)
        offset = np.zeros(1) if bias is None else bias.array.astype(np.float64)
        shape = (*self.tensors[codes.tensor].shape[:-1], w.shape[0])
        tensor = self._node(
            call, "linear", "acc", (codes.tensor,), ACCUMULATOR, shape, Tap(call.name, "acc"),
            {"weight": (w_type, w)}, scale=None if scale.size > 1 else float(scale[0]),
        )  # fmt: skip
        bound = weight_bound(w, codes.dtype)
        self._check_accumulator(call, bound)
        return Acc(tensor, derive.Affine(scale, offset), bound, call.name)

    @staticmethod
    def _check_accumulator(call: Call, bound: int) -> None:
        if bound > ACCUMULATOR.qmax:
            raise GraphError(
                f"{call.origin}: the accumulator could reach {bound}, more than 32 bits hold"
            )

    def _matmul(self, call: Call, a: list[Any]) -> Acc:
        left, l_scale, right, r_scale, transposed, factor = a
        if not (isinstance(left, Codes) and isinstance(right, Codes)):
            raise GraphError(f"{call.origin}: both operands of an attention product must be codes")
        if not transposed:  # both operands reduce over their last axis: V is packed along tokens
            source = self.tensors[right.tensor]
            rank = len(source.shape) + 1
            shape = (*source.shape[:-2], source.shape[-1], source.shape[-2])
            turn = Call(
                f"{call.name}_v",
                "aten.transpose",
                (call.args[2], rank - 2, rank - 1),
                ("B", *shape),
                call.origin,
            )
            tap = self.taps[right.tensor]
            tensor = self._view(call, right.tensor, turn, replace(tap, views=(*tap.views, turn)))
            right = replace(right, tensor=tensor)
        l_shape, r_shape = self.tensors[left.tensor].shape, self.tensors[right.tensor].shape
        scale = np.array(
            [
                float(l_scale.array.reshape(-1)[0])
                * float(r_scale.array.reshape(-1)[0])
                * float(factor)
            ]
        )
        k = self.static.max_length if isinstance(l_shape[-1], str) else int(l_shape[-1])
        bound = matmul_bound(k, left.dtype, right.dtype)
        self._check_accumulator(call, bound)
        shape = (*l_shape[:-1], r_shape[-2])
        what = "scores_acc" if transposed else "context_acc"
        tensor = self._node(
            call, "matmul", what, (left.tensor, right.tensor), ACCUMULATOR, shape, Tap(call.name, "acc"),
            scale=float(scale[0]),
        )  # fmt: skip
        return Acc(tensor, derive.Affine(scale, np.zeros(1)), bound, call.name)

    def _exponent(
        self, scores: Scores
    ) -> tuple[dict[str, tuple[DataType, npt.NDArray[Any]]], dict[str, Attr]]:
        """Table and mode of a softmax: one entry a difference where few are possible, else 2^-t."""
        acc = scores.acc
        scale = float(acc.affine.scale[0])
        operands = self._node_inputs(acc.tensor)
        shift = int(all(self.tensors[t].dtype == BIPOLAR for t in operands))
        delta = 2 * acc.bound
        keys = self.tensors[acc.tensor].shape[-1]
        longest = self.static.max_length if isinstance(keys, str) else keys
        if longest > MAX_KEYS:
            raise GraphError(
                f"{acc.call}.softmax: {longest} keys; an exact softmax has at most {MAX_KEYS}"
            )
        attrs: dict[str, Attr] = {"causal": scores.causal, "masked": scores.masked, "shift": shift}
        if (delta >> shift) + 1 <= derive.DIRECT_MAX_ENTRIES:
            table = derive.softmax_direct_table(scale, delta, shift)
            return {"table": (uint(25), table)}, attrs | {"mode": "direct"}
        m, s = derive.multiplier(scale * float(np.log2(math.e)) * 4096, f"{acc.call}.softmax")
        if delta * m + (1 << s >> 1) >= 1 << 63:
            raise GraphError(
                f"{acc.call}.softmax: the exponent could leave int64 (delta <= {delta}, M = {m})"
            )
        constants: dict[str, tuple[DataType, npt.NDArray[Any]]] = {
            "table": (uint(21), derive.softmax_exp2_table()),
            "M": (uint(derive.MULTIPLIER_BITS), np.array([m])),
            "S": (uint(6), np.array([s])),
        }
        return constants, attrs | {"mode": "exp2", "shift": 0}

    def _node_inputs(self, tensor: str) -> tuple[str, ...]:
        return next(n.inputs for n in self.nodes if n.name == tensor)

    def _softmax(self, call: Call, scores: Scores) -> Codes:
        constants, attrs = self._exponent(scores)
        scale = float(call.args[2])
        tap = Tap(scores.call, "grid", PROBABILITY, scale)
        shape = self.tensors[scores.acc.tensor].shape
        tensor = self._node(
            call,
            "softmax",
            "probabilities",
            (scores.acc.tensor,),
            PROBABILITY,
            shape,
            tap,
            constants,
            attrs,
            scale,
        )
        return Codes(tensor, PROBABILITY, scale)

    def _softmax_binary(self, call: Call, scores: Scores, dtype: DataType, alpha: float) -> Codes:
        constants, attrs = self._exponent(scores)
        attrs = attrs | {"level": derive.binary_softmax_level(alpha)}
        tap = Tap(scores.call, "grid", dtype, alpha)
        shape = self.tensors[scores.acc.tensor].shape
        tensor = self._node(
            call,
            "softmax_binary",
            "map",
            (scores.acc.tensor,),
            dtype,
            shape,
            tap,
            constants,
            attrs,
            alpha,
        )
        return Codes(tensor, dtype, alpha)

    def _bool_map(self, call: Call, a: list[Any]) -> Codes:
        """1 where a score is above 0: its scale is positive, so that is where the accumulator is."""
        if not isinstance(a[0], Acc):
            raise GraphError(
                f"{call.origin}: a bool map must read the scores of an attention product"
            )
        acc = self._materialise(call, a[0])
        constants: dict[str, tuple[DataType, npt.NDArray[Any]]] = {
            "threshold": (int_(min(64, acc.bound.bit_length() + 2)), np.ones((1, 1), np.int64)),
            "direction": (BIPOLAR, np.ones(1, np.int64)),
        }
        attrs: dict[str, Attr] = {"causal": bool(a[2]), "masked": call.args[1] is not None}
        tensor = self._node(
            call, "threshold", "map", (acc.tensor,), UNIPOLAR, self.tensors[acc.tensor].shape,
            Tap(call.name, "codes", UNIPOLAR), constants, attrs, 1.0,
        )  # fmt: skip
        return Codes(tensor, UNIPOLAR, 1.0)

    def _table(self, call: Call, curve: Curve, dtype: DataType, scale: float) -> Codes:
        x = curve.x
        if not isinstance(x, Codes):
            raise GraphError(f"{call.origin}: the input of a table must be codes")
        table = derive.unary_table(curve.function, x.dtype, x.scale, dtype, scale)
        tap = Tap(curve.call, "grid", dtype, scale)
        shape = self.tensors[x.tensor].shape
        tensor = self._node(
            call,
            "table",
            "table",
            (x.tensor,),
            dtype,
            shape,
            tap,
            {"table": (dtype, table)},
            scale=scale,
        )
        return Codes(tensor, dtype, scale)

    def _layer_norm(self, call: Call, a: list[Any], dtype: DataType, scale: float) -> Codes:
        x, normalised_shape, gamma, beta, eps = a[:5]
        if not isinstance(x, Codes) or len(normalised_shape) != 1:
            raise GraphError(
                f"{call.origin}: a layer norm must run over the last axis of a value on a grid"
            )
        n = int(normalised_shape[0])
        g = np.ones(n) if gamma is None else gamma.array.astype(np.float64)
        b = np.zeros(n) if beta is None else beta.array.astype(np.float64)
        c = derive.layer_norm_constants(g, b, float(eps), x.dtype, x.scale, scale, call.origin)
        shape = self.tensors[x.tensor].shape
        tensor = self._node(
            call, "layer_norm", "normalised", (x.tensor,), dtype, shape, Tap(call.name, "grid", dtype, scale),
            {"G": (int_(30), c.g), "B": (int_(64), c.b)}, {"E": c.e, "F": c.f, "Q": c.q}, scale,
        )  # fmt: skip
        return Codes(tensor, dtype, scale)

    def _embedding(
        self, snap: Call, call: Call, a: list[Any], dtype: DataType, scale: float
    ) -> Codes:
        ids, weight, w_scale = a
        if not isinstance(ids, Ref):
            raise GraphError(f"{call.origin}: an embedding must read the ids of an input")
        codes = weight.array.astype(np.int64)
        rows = np.broadcast_to(w_scale.array.astype(np.float64).reshape(-1), (codes.shape[0],))
        m, s = derive.embedding_factors(np.ascontiguousarray(rows), scale, call.origin)
        shape = (*self.tensors[ids.name].shape, codes.shape[1])
        constants: dict[str, tuple[DataType, npt.NDArray[Any]]] = {
            "weight": (code_type(codes), codes),
            "M": (uint(derive.MULTIPLIER_BITS), m),
        }
        tensor = self._node(
            snap, "embedding", "rows", (ids.name,), dtype, shape, Tap(snap.name, "grid", dtype, scale),
            constants, {"S": s}, scale,
        )  # fmt: skip
        return Codes(tensor, dtype, scale)

    def _add(self, call: Call, a: list[Any]) -> Codes:
        dtype, scale = parse(a[2]), float(a[3])
        shape = call.shape[1:]
        operands, addend = [], None
        for i, value in enumerate(a[:2]):
            if isinstance(value, Frozen):
                addend = np.floor(constant_rows(value, shape, call) / scale + 0.5).astype(np.int64)
            elif isinstance(value, Codes) and self.tensors[value.tensor].shape == shape:
                operands.append(value)
            else:
                raise GraphError(
                    f"{call.origin}: operand {i} of a sum must be codes of shape {shape} or a constant"
                )
        m, s = derive.add_factors(
            [o.scale for o in operands] + [scale] * (addend is not None), scale, call.origin
        )
        constants: dict[str, tuple[DataType, npt.NDArray[Any]]] = {
            "M": (uint(31), m),
            "S": (uint(6), s),
        }
        if addend is not None:
            constants["addend"] = (
                int_(16) if np.abs(addend).max(initial=0) < 1 << 15 else int_(32),
                addend,
            )
        tensor = self._node(
            call, "add", "sum", tuple(o.tensor for o in operands), dtype, shape,
            Tap(call.name, "grid", dtype, scale), constants, scale=scale,
        )  # fmt: skip
        return Codes(tensor, dtype, scale)

    def _concat(self, call: Call, a: list[Any]) -> Codes:
        parts = a[0]
        if (
            len(parts) != 2
            or not isinstance(parts[0], Frozen)
            or not isinstance(parts[1], Codes)
            or a[1] != 1
        ):
            raise GraphError(
                f"{call.origin}: a concatenation must put constant rows in front of a value, along tokens"
            )
        rest = parts[1]
        rows = np.floor(parts[0].array[0].astype(np.float64) / rest.scale + 0.5).astype(np.int64)
        tensor = self._node(
            call, "concat", "tokens", (rest.tensor,), rest.dtype, call.shape[1:],
            Tap(call.name, "grid", rest.dtype, rest.scale), {"rows": (rest.dtype, rows)}, scale=rest.scale,
        )  # fmt: skip
        return replace(rest, tensor=tensor)

    def _im2col(self, call: Call, a: list[Any]) -> Codes:
        kernel, stride = a[1:]
        codes: Codes = a[0]
        tensor = self._node(
            call, "im2col", "patches", (codes.tensor,), codes.dtype, call.shape[1:],
            Tap(call.name, "codes", codes.dtype, codes.scale), attrs={"kernel": kernel, "stride": stride},
            scale=codes.scale,
        )  # fmt: skip
        return replace(codes, tensor=tensor)


def _last(path: str, default: str) -> str:
    return path.rsplit(".", 1)[-1] if path else default
