"""Builds the graph: nodes with their tensors, constants and taps; views; and quantisation of a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.capture import RESHAPES, Call, Captured
from hwsim.errors import GraphError
from hwsim.graph import derive
from hwsim.graph.dtype import BIPOLAR, DataType, int_, uint
from hwsim.graph.ir import Attr, Constant, Node, Shape, Tensor
from hwsim.lower.values import Acc, Codes, Tap
from hwsim.lower.views import SELECT_KEEP, channel_index, permutation

THRESHOLD_BITS = 2
"""formats of at most this many bits are reached by thresholds, wider ones by requant"""


class Builder:
    """The graph under construction."""

    def __init__(self, static: Captured) -> None:
        self.static = static
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Constant] = {}
        self.taps: dict[str, Tap] = {}
        self.inputs: list[str] = []

    def _add_input(self, name: str, dtype: DataType, shape: Shape, scale: float = 1.0) -> None:
        self.inputs.append(name)
        self.tensors[name] = Tensor(name, dtype, shape[1:], scale)

    def _unique(self, origin: str, what: str) -> str:
        stem = f"{origin}.{what}" if origin else what
        name, i = stem, 2
        while name in self.tensors:
            name, i = f"{stem}_{i}", i + 1
        return name

    def _node(
        self, call: Call, op: str, what: str, inputs: tuple[str, ...], dtype: DataType, shape: Shape, tap: Tap,
        constants: Mapping[str, tuple[DataType, npt.NDArray[Any]]] | None = None,
        attrs: Mapping[str, Attr] | None = None, scale: float | None = 1.0,
    ) -> str:  # fmt: skip
        name = self._unique(call.origin, what)
        names: dict[str, str] = {}
        for role, (kind, array) in (constants or {}).items():
            names[role] = f"{name}.{role}"
            small = kind.bits <= 8 and role in ("weight",)
            stored = np.ascontiguousarray(array.astype(np.int8 if small else np.int64))
            self.constants[names[role]] = Constant(names[role], kind, stored)
        self.tensors[name] = Tensor(name, dtype, shape, scale)
        self.nodes.append(Node(name, op, inputs, names, attrs or {}, call.origin or call.name))
        self.taps[name] = tap
        return name

    def _views(self, call: Call, tensor: str, views: tuple[Call, ...], tap: Tap) -> str:
        """Emit the view nodes that lead from a base tensor to what the student sees."""
        for i, view in enumerate(views):
            tensor = self._view(call, tensor, view, replace(tap, views=tap.views + views[: i + 1]))
        return tensor

    def _view(self, call: Call, tensor: str, view: Call, tap: Tap) -> str:
        source = self.tensors[tensor]
        shape = view.shape[1:]
        rank = len(source.shape) + 1
        what = f"{tensor.rsplit('.', 1)[-1]}"
        here = replace(call, origin=tensor.rsplit(".", 1)[0] if "." in tensor else "")

        def emit(op: str, name: str, attrs: Mapping[str, Attr], out: Shape = shape) -> str:
            return self._node(
                here,
                op,
                f"{what}_{name}",
                (tensor,),
                source.dtype,
                out,
                tap,
                attrs=attrs,
                scale=source.scale,
            )

        if view.op in RESHAPES:
            return emit("reshape", "reshaped", {"shape": shape})
        if view.op in ("aten.transpose", "aten.permute"):
            axes = permutation(view, rank)
            if axes[-1] == rank - 2:
                return emit("permute", "heads", {"axes": axes})
            if axes == (*range(rank - 3), rank - 2, rank - 3):
                return emit("relayout", "relayout", {})
            raise GraphError(
                f"{view.origin}: a permutation {axes} that moves the packing axis has no operator"
            )
        if view.op == "aten.select":
            axis, index = int(view.args[1]) % rank, int(view.args[2])
            if index < 0 or axis == 0:
                raise GraphError(
                    f"{view.origin}: element {index} of axis {axis} has no operator: it lies in the batch"
                    " or counts from the end of the sequence"
                )
            cut_shape = (*source.shape[: axis - 1], 1, *source.shape[axis:])
            tap = replace(tap, views=(*tap.views[:-1], replace(view, op=SELECT_KEEP)))
            sliced = emit(
                "slice",
                "selected",
                {"axis": axis - 1, "start": index, "stop": index + 1},
                cut_shape,
            )
            tensor = sliced
            tap = self.taps[sliced]
            tap = replace(tap, views=(*tap.views[:-1], view))
            return self._node(
                here, "reshape", f"{what}_token", (sliced,), source.dtype, shape, tap,
                attrs={"shape": shape}, scale=source.scale,
            )  # fmt: skip
        if view.op == "aten.slice":
            axis, start = int(view.args[1]) % rank, int(view.args[2] or 0)
            size = shape[axis - 1]
            if isinstance(size, str) or axis == 0:
                raise GraphError(
                    f"{view.origin}: a slice along the batch or the sequence axis has no operator"
                )
            return emit(
                "slice", "sliced", {"axis": axis - 1, "start": start, "stop": start + int(size)}
            )
        raise GraphError(f"{view.origin}: {view.op} is no view that the graph can express")

    def _pull_back(
        self, acc: Acc, shift: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64] | None:
        """Move per-channel parameters of the viewed last axis to the base's last axis; None if they mix."""
        if shift.size == 1:
            return shift
        channel = channel_index(self.tensors[acc.tensor].shape, acc.views)
        if channel.shape[-1] != shift.size:
            return None
        base = np.full(int(self.tensors[acc.tensor].shape[-1]), np.nan)
        seen = np.broadcast_to(shift, channel.shape)
        for c, v in zip(channel.reshape(-1, shift.size)[0], shift, strict=True):
            base[int(c)] = v
        if np.isnan(base).any() or not (base[channel] == seen).all():
            return None
        return base

    def _materialise(self, call: Call, acc: Acc) -> Acc:
        """Emit an accumulator's views, so that the viewed tensor becomes the base."""
        if not acc.views:
            return acc
        if acc.affine.channels > 1:
            raise GraphError(
                f"{call.origin}: per-channel scales cannot follow the views of {acc.call}"
            )
        tap = self.taps[acc.tensor]
        tensor = self._views(call, acc.tensor, acc.views, tap)
        return replace(acc, tensor=tensor, views=(), call=acc.views[-1].name)

    def _as_acc(self, value: Codes | Acc) -> Acc:
        if isinstance(value, Acc):
            return value
        bound = value.dtype.max_abs
        affine = derive.Affine(np.array([value.scale]), np.zeros(1))
        return Acc(value.tensor, affine, bound, "")

    # -- quantisation of a value

    def _quantise(
        self, call: Call, value: Codes | Acc, dtype: DataType, scale: float,
        shift: npt.NDArray[np.float64] | None, what: str = "codes",
    ) -> Codes:  # fmt: skip
        """Bring a value to a format: thresholds up to 2 bits, requant above; views follow on the codes."""
        if (
            isinstance(value, Codes)
            and value.dtype == dtype
            and value.scale == scale
            and shift is None
        ):
            return value
        acc = self._as_acc(value)
        moved = np.zeros(1) if shift is None else shift.astype(np.float64)
        base = self._pull_back(acc, moved)
        if base is None:
            acc = self._materialise(call, acc)
            base = moved
        shape = self.tensors[acc.tensor].shape
        where = f"{call.origin}.{what}"
        constants: dict[str, tuple[DataType, npt.NDArray[Any]]]
        if dtype.bits <= THRESHOLD_BITS:
            levels, direction = derive.threshold_constants(
                acc.affine, scale, base, acc.relu, dtype, acc.bound
            )
            width = int_(min(64, acc.bound.bit_length() + 2))
            constants = {"threshold": (width, levels), "direction": (BIPOLAR, direction)}
            op = "threshold"
        else:
            if acc.relu and shift is not None:
                raise GraphError(
                    f"{where}: a shift between a ReLU and a {dtype} quantiser is not expressible"
                )
            if acc.relu and dtype.is_signed:
                # Only the codes from 0 up occur: without the sign, the clamp at 0 is the ReLU.
                dtype = uint(dtype.bits - 1)
            if acc.relu and float(base.max()) > 0:
                raise GraphError(
                    f"{where}: a ReLU followed by a positive shift into {dtype} is not expressible: codes would"
                    " start above 0; train without a shift there"
                )
            total = derive.Affine(acc.affine.scale, acc.affine.bias + base)
            m, s, b = derive.requant_constants(total, scale, acc.bound, where)
            constants = {
                "M": (uint(derive.MULTIPLIER_BITS), m),
                "S": (uint(6), s),
                "B": (int_(64), b),
            }
            op = "requant"
        tap = self._grid_tap(call, value, acc, dtype, scale, base if shift is not None else None)
        tensor = self._node(
            call, op, what, (acc.tensor,), dtype, shape, tap, constants, scale=scale
        )
        return Codes(self._views(call, tensor, acc.views, tap), dtype, scale)

    @staticmethod
    def _grid_tap(
        call: Call, value: Codes | Acc, acc: Acc, dtype: DataType, scale: float,
        shift: npt.NDArray[np.float64] | None,
    ) -> Tap:  # fmt: skip
        """The student's own value: the accumulator's call, or what this call reads."""
        source = acc.call if isinstance(value, Acc) else call.args[0].name
        return Tap(source, "grid", dtype, scale, shift)
