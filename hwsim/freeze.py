"""From the captured student to the static student: every value on a fixed grid, every contraction on codes.

`freeze` rewrites the calls with what calibration saw. The result is still a list of float calls, which
`hwsim.student` runs in float64 (the static student of docs/arithmetic.md, section 12) and `hwsim.lower`
translates one by one into integer operators. All choices of formats and scales are made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from hwsim.calibrate import Range, RangeMethod
from hwsim.capture import RESHAPES, Call, Captured, Frozen, Ref, refs
from hwsim.errors import GraphError
from hwsim.graph.dtype import DataType, int_, parse, uint
from hwsim.graph.ir import Shape
from hwsim.grids import TINY, constants_of, grid_of, on_grid, require_finite, row_codes, widen

SUMS = ("aten.add", "aten.cat")
CURVES = ("aten.gelu", "aten.tanh")
STUDENT_GRID = "bitwright.snap"
MOVES = RESHAPES | {
    "aten.transpose", "aten.permute", "aten.slice", "aten.select", "aten.split", "aten.split_with_sizes", "getitem",
    "bitwright.patches",
}  # fmt: skip
"""calls that move elements: codes stay codes"""
FLOAT_LAYERS = ("aten.linear", "aten.conv2d")


_INT12, _INT16 = int_(12), int_(16)


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats of what a student leaves without a quantiser."""

    residual: DataType = _INT16
    """residual stream and layer-norm outputs"""
    curve: DataType = _INT12
    """inputs of GELU and tanh: the table has one entry a code"""
    layer_bits: int = 8
    """weights and inputs of layers that the recipe leaves in float32"""
    table: DataType = _INT16
    """embedding tables that the recipe leaves in float32"""
    logit_bits: int = 16
    """the largest logit seen becomes about 2^logit_bits; the codes themselves are int32"""


PROBABILITY = uint(17)
PROBABILITY_SCALE = 2.0**-16


def freeze(
    captured: Captured,
    ranges: Mapping[str, Range],
    method: RangeMethod = "max",
    formats: Formats | None = None,
) -> Captured:
    """Return the static student's calls.

    Raises:
        GraphError: a quantiser is dead, rounds by another rule, or a layer has no exact form; all at once.
    """
    return _Freezer(captured, ranges, method, formats or Formats()).run()


class _Freezer:
    def __init__(
        self, captured: Captured, ranges: Mapping[str, Range], method: RangeMethod, formats: Formats
    ) -> None:
        self.captured = captured
        self.ranges = ranges
        self.method = method
        self.formats = formats
        self.source = captured.by_name()
        self.calls: list[Call] = []
        self.shapes: dict[str, Shape] = dict(captured.inputs)
        self.replaced: dict[str, Any] = {}
        self.grid: dict[str, tuple[DataType, float]] = {}
        """format and scale of the values that already lie on a grid"""
        self.sum_scale = self._sum_scales()

    def run(self) -> Captured:
        faults: list[str] = []
        for original in self.captured.calls:
            call = replace(original, args=tuple(self._resolve(a) for a in original.args))
            try:
                require_finite(call)
                self._rewrite(call)
            except GraphError as fault:
                faults.append(str(fault))
                self._emit(call)  # so that the faults behind it are found too
        if faults:
            raise GraphError("\n".join(faults))
        outputs = []
        for name in self.captured.outputs:
            value = self._resolve(Ref(name))
            scale = max(self.ranges[name].amax, TINY) / 2.0**self.formats.logit_bits
            outputs.append(self._snap(f"{name}_codes", value, int_(32), scale, "logits").name)
        return replace(self.captured, calls=tuple(self.calls), outputs=tuple(outputs))

    # -- where values come from and go to

    def _sum_scales(self) -> dict[str, float]:
        """One scale for every connected family of sums: a pre-LN residual stream keeps one grid.

        It is the student's own where the student put the stream on a grid.
        """
        sums = {c.name: c for c in self.captured.calls if c.op in SUMS}
        parent = {name: name for name in sums}

        def root(name: str) -> str:
            while parent[name] != name:
                name = parent[name]
            return name

        amax = dict.fromkeys(sums, 0.0)
        for name, call in sums.items():
            amax[name] = self.ranges[name].amax
            for operand in refs(call.args):
                amax[name] = max(amax[name], self.ranges[operand].amax)
                if operand in sums:
                    parent[root(name)] = root(operand)
            for constant in constants_of(call.args):
                amax[name] = max(amax[name], float(np.abs(constant.array).max(initial=0)))
        largest: dict[str, float] = {}
        chosen: dict[str, float] = {}
        for name, call in sums.items():
            largest[root(name)] = max(largest.get(root(name), TINY), amax[name])
            around = (
                *self.captured.consumers(name),
                *(self.source.get(n) for n in refs(call.args)),
            )
            for neighbour in around:
                if neighbour is not None and neighbour.op == STUDENT_GRID:
                    chosen[root(name)] = grid_of(neighbour)[1]
        return {
            name: chosen.get(
                root(name), largest[root(name)] * widen(root(name)) / self.formats.residual.qmax
            )
            for name in sums
        }

    # -- emitting calls

    def _emit(self, call: Call, grid: tuple[DataType, float] | None = None) -> Ref:
        self.calls.append(call)
        self.shapes[call.name] = call.shape
        if grid is not None:
            self.grid[call.name] = grid
        return Ref(call.name)

    def _snap(self, name: str, x: Ref, dtype: DataType, scale: float, origin: str) -> Ref:
        if self.grid.get(x.name) == (dtype, scale):
            return x
        call = Call(name, "hwsim.snap", (x, dtype.name, scale), self.shapes[x.name], origin)
        return self._emit(call, (dtype, scale))

    def _then_snap(self, call: Call, dtype: DataType, scale: float) -> None:
        """Emit a call under another name and its value on a grid under the call's own name."""
        inner = self._emit(replace(call, name=f"{call.name}_exact"))
        self._snap(call.name, inner, dtype, scale, call.origin)

    def _scale(self, name: str, dtype: DataType) -> float:
        return max(self.ranges[name].limit(self.method, dtype), TINY) * widen(name) / dtype.qmax

    def _full_scale(self, name: str, dtype: DataType) -> float:
        """Scale that never saturates what calibration saw: for wide formats."""
        return max(self.ranges[name].amax, TINY) * widen(name) / dtype.qmax

    def _resolve(self, arg: Any) -> Any:
        if isinstance(arg, Ref):
            return self.replaced.get(arg.name, arg)
        if isinstance(arg, tuple):
            return tuple(self._resolve(a) for a in arg)
        return arg

    # -- one rule an operator

    def _rewrite(self, call: Call) -> None:
        original = self.source[call.name]
        match call.op:
            case op if op in RESHAPES or op in (
                "aten.transpose",
                "aten.permute",
                "aten.slice",
                "aten.select",
            ):
                moved = call.args[0]
                self._emit(call, self.grid.get(moved.name) if isinstance(moved, Ref) else None)
            case "bitwright.snap":
                self._student_grid(call)
            case "bitwright.patches":
                self._emit(replace(call, op="hwsim.im2col"))
            case "bitwright.quantize_dynamic":
                self._dynamic(call)
            case "bitwright.quantize_static":
                self._static(call)
            case "getitem":
                pair = self.replaced.get(refs(original.args)[0])
                if pair is None:
                    self._emit(call)
                else:
                    self.replaced[call.name] = pair[call.args[1]]
            case "bitwright.linear":
                self._linear(call)
            case "bitwright.matmul":
                self._matmul(call)
            case "aten.linear":
                codes, alpha = self._input_codes(call)
                self._integer_linear(call, codes, alpha, call.args[1], call.args[2])
            case "aten.conv2d":
                self._patch_convolution(call)
            case "aten.embedding":
                self._float_embedding(call)
            case "bitwright.embedding":
                self._embedding(call)
            case "aten.layer_norm":
                self._layer_norm(call)
            case "aten.gelu" | "aten.tanh":
                self._curve(call)
            case "bitwright.softmax":
                self._softmax(call)
            case "aten.add":
                self._add(call)
            case "aten.cat":
                self._concat(call)
            case _:
                self._emit(call)

    def _add(self, call: Call) -> None:
        dtype = int_(32) if self._feeds_a_sum(call.name) else self.formats.residual
        scale = self.sum_scale[call.name]
        operands = []
        for i, operand in enumerate(call.args[:2]):
            if isinstance(operand, Ref) and operand.name not in self.grid:
                # A branch saturates before it is added: the machine requantises it on its own.
                name = f"{call.name}_branch{i}"
                operands.append(self._snap(name, operand, dtype, scale, call.origin))
            else:
                operands.append(on_grid(operand, scale))
        args = (*operands, dtype.name, scale)
        self._emit(replace(call, op="hwsim.add", args=args), (dtype, scale))

    def _feeds_a_sum(self, name: str) -> bool:
        """Whether a value goes into one addition and nowhere else: it is then summed in int32."""
        users = self.captured.consumers(name)
        return len(users) == 1 and users[0].op == "aten.add"

    def _check_rounding(self, call: Call, rounding: str) -> None:
        if rounding != "half_up":
            raise GraphError(
                f"{call.origin}: rounds {rounding!r}; the machine rounds half up, so its codes would differ."
                " Train with a recipe whose rounding is half_up to export"
            )

    def _static(self, call: Call) -> None:
        scales = call.args[1].array.reshape(-1)
        if scales.size != 1:
            raise GraphError(
                f"{call.origin}: an activation must have one scale a tensor, it has {scales.size}"
            )
        if not scales[0] > 0:
            raise GraphError(
                f"{call.origin}: its scale alpha is {scales[0]}; a dead quantiser cannot be exported"
            )
        self._check_rounding(call, call.args[5])
        self._emit(call)

    def _dynamic(self, call: Call) -> None:
        x, _, fmt, _, clip, rounding, _ = call.args
        self._check_rounding(call, rounding)
        dtype = parse(fmt)
        source = refs(self.source[call.name].args)[0]
        scale = self._scale(source, dtype)
        if clip > 0:
            scale = min(scale, clip / dtype.qmax)
        alpha = Frozen(np.array([scale]))
        args = (x, alpha, None, None, fmt, "half_up", 0.0)
        codes = self._emit(
            Call(call.name, "bitwright.quantize_static", args, self.shapes[x.name], call.origin)
        )
        self.replaced[call.name] = (codes, alpha)

    def _input_codes(self, call: Call) -> tuple[Ref, Frozen]:
        """Put the input of a float layer on codes."""
        source = refs(self.source[call.name].args)[0]
        return self._codes_of(call, call.args[0], source, "input")

    def _codes_of(self, call: Call, x: Ref, source: str, what: str) -> tuple[Ref, Frozen]:
        """Put a value on Int(8), or UInt(8) where it is never negative; `source` is its name in the student."""
        bits = self.formats.layer_bits
        dtype = uint(bits) if self.ranges[source].low >= 0 else int_(bits)
        alpha = Frozen(np.array([self._scale(source, dtype)]))
        args = (x, alpha, None, None, dtype.name, "half_up", 0.0)
        name = f"{call.name}_{what}"
        return self._emit(
            Call(name, "bitwright.quantize_static", args, self.shapes[x.name], call.origin)
        ), alpha

    def _is_codes(self, operand: Any) -> bool:
        """Whether the student itself put an operand of a contraction on codes."""
        while isinstance(operand, Ref) and operand.name in self.source:
            call = self.source[operand.name]
            if call.op.startswith("bitwright.quantize_") or call.op == "bitwright.bool_map":
                return True
            if call.op not in MOVES:
                return False
            operand = call.args[0]
        return False

    def _linear(self, call: Call) -> None:
        """A layer of which the recipe quantises one side only has 8 bits on the other."""
        codes, alpha, weight, w_scale, bias = call.args
        if not self._is_codes(self.source[call.name].args[0]):
            codes, alpha = self._input_codes(call)
        if not (weight.array == np.round(weight.array)).all():
            narrow = int_(self.formats.layer_bits, narrow=True)
            w_codes, scales = row_codes(weight.array, narrow, per_row=True)
            weight, w_scale = Frozen(w_codes, (), weight.origin), Frozen(scales)
        self._emit(replace(call, args=(codes, alpha, weight, w_scale, bias)))

    def _matmul(self, call: Call) -> None:
        """So has an operand of an attention product that the recipe leaves in float32."""
        args, original = list(call.args), self.source[call.name].args
        for side, place in (("left", 0), ("right", 2)):
            if not self._is_codes(original[place]):
                name = original[place].name
                args[place : place + 2] = self._codes_of(call, args[place], name, side)
        self._emit(replace(call, args=tuple(args)))

    def _integer_linear(
        self, call: Call, codes: Ref, alpha: Frozen, weight: Frozen, bias: Frozen | None
    ) -> Ref:
        narrow = int_(self.formats.layer_bits, narrow=True)
        w_codes, w_scale = row_codes(weight.array, narrow, per_row=True)
        args = (codes, alpha, Frozen(w_codes, (), weight.origin), Frozen(w_scale), bias)
        return self._emit(replace(call, op="bitwright.linear", args=args))

    def _patch_convolution(self, call: Call) -> None:
        """conv2d without padding = im2col, an integer linear, and the way back to [B, C, h, w]."""
        _, weight, bias, stride, padding, dilation, groups = call.args
        if any(p != 0 for p in padding) or any(d != 1 for d in dilation) or groups != 1:
            raise GraphError(
                f"{call.origin}: a convolution must have no padding, dilation 1 and one group"
            )
        batch, channels, rows, cols = call.shape
        depth = int(np.prod(weight.array.shape[1:]))
        patches = int(rows) * int(cols)
        codes, alpha = self._input_codes(call)
        shape = (batch, patches, depth)
        args = (codes, tuple(int(k) for k in weight.array.shape[2:]), tuple(stride))
        columns = self._emit(Call(f"{call.name}_columns", "hwsim.im2col", args, shape, call.origin))
        flat = Frozen(weight.array.reshape(weight.array.shape[0], depth), (), weight.origin)
        inner = replace(call, name=f"{call.name}_product", shape=(batch, patches, channels))
        product = self._integer_linear(inner, columns, alpha, flat, bias)
        turned = self._emit(
            Call(
                f"{call.name}_turned",
                "aten.transpose",
                (product, 1, 2),
                (batch, channels, patches),
                call.origin,
            )
        )
        self._emit(Call(call.name, "aten.view", (turned, call.shape), call.shape, call.origin))

    def _own_grid(self, name: str) -> tuple[DataType, float] | None:
        """The grid on which the student itself puts a value, which nothing else may read then."""
        users = self.captured.consumers(name)
        return grid_of(users[0]) if [u.op for u in users] == [STUDENT_GRID] else None

    def _student_grid(self, call: Call) -> None:
        dtype, scale = grid_of(call)
        if not scale > 0 or not np.log2(scale).is_integer():
            raise GraphError(
                f"{call.origin}: the step of a residual grid must be a power of two, it is {scale}"
            )
        # the grid is a module of its own; what it grids is the value of the one before it
        origin = next(c.origin for c in self.calls if c.name == call.args[0].name)
        name = f"{call.args[0].name}_grid"
        self.replaced[call.name] = self._snap(name, call.args[0], dtype, scale, origin)

    def _float_embedding(self, call: Call) -> None:
        own = self._own_grid(call.name)
        if own is not None:
            rows, step = call.args[0].array.astype(np.float64), np.array([own[1]])
            codes, scale = np.clip(np.floor(rows / step + 0.5), own[0].qmin, own[0].qmax), step
        else:
            codes, scale = row_codes(call.args[0].array, self.formats.table, per_row=False)
        args = (call.args[1], Frozen(codes, (), call.origin), Frozen(scale))
        self._embedding(replace(call, op="bitwright.embedding", args=args))

    def _embedding(self, call: Call) -> None:
        users = self.captured.consumers(call.name)
        if self._own_grid(call.name) is not None:
            self._emit(call)
        elif self._feeds_a_sum(call.name):
            self._then_snap(call, int_(32), self.sum_scale[users[0].name])
        else:
            self._then_snap(
                call, self.formats.residual, self._full_scale(call.name, self.formats.residual)
            )

    def _layer_norm(self, call: Call) -> None:
        x = call.args[0]
        if x.name not in self.grid:
            source = refs(self.source[call.name].args)[0]
            scale = self._full_scale(source, self.formats.residual)
            x = self._snap(f"{call.name}_input", x, self.formats.residual, scale, call.origin)
        call = replace(call, args=(x, *call.args[1:]))
        if self._own_grid(call.name) is not None:
            self._emit(call)
        else:
            scale = self._full_scale(call.name, self.formats.residual)
            self._then_snap(call, self.formats.residual, scale)

    def _curve(self, call: Call) -> None:
        source = refs(self.source[call.name].args)[0]
        scale = self._full_scale(source, self.formats.curve)
        x = self._snap(f"{call.name}_input", call.args[0], self.formats.curve, scale, call.origin)
        curve = replace(call, args=(x, *call.args[1:]))
        if self._one_plain_quantiser(call.name):
            self._emit(curve)  # its table yields the consumer's codes directly
        else:
            self._then_snap(
                curve, self.formats.residual, self._full_scale(call.name, self.formats.residual)
            )

    def _one_plain_quantiser(self, name: str) -> bool:
        users = self.captured.consumers(name)
        if len(users) != 1:
            return False
        user = users[0]
        if user.op == "bitwright.quantize_static":
            return user.args[2] is None
        return user.op in FLOAT_LAYERS or user.op == "bitwright.quantize_dynamic"

    def _softmax(self, call: Call) -> None:
        users = self.captured.consumers(call.name)
        binary = [u.op == "bitwright.quantize_static" and u.args[4] == "UNIPOLAR" for u in users]
        if len(users) == 1 and all(binary):
            self._emit(call)
        elif any(binary):
            raise GraphError(
                f"{call.origin}: a binary attention map must be the only use of its softmax"
            )
        else:
            self._then_snap(call, PROBABILITY, PROBABILITY_SCALE)

    def _constant_rows(self, call: Call, rows: Frozen, scale: float) -> Frozen:
        """Put the rows in front on the grid. Where a constant is added to them next (a class token and its
        position), it is their sum that is rounded, once, as in the student."""
        users = self.captured.consumers(call.name)
        added = [a for u in users if u.op == "aten.add" for a in constants_of(u.args[:2])]
        if len(users) != 1 or not added or call.args[1] != 1:
            return cast("Frozen", on_grid(rows, scale))
        following = added[0].array[:, : rows.array.shape[1]]
        both = on_grid(replace(rows, array=rows.array + following), scale).array
        return replace(rows, array=both - on_grid(replace(rows, array=following), scale).array)

    def _concat(self, call: Call) -> None:
        scale = self.sum_scale[call.name]
        parts: list[Ref | Frozen] = []
        for i, part in enumerate(call.args[0]):
            if isinstance(part, Frozen):
                parts.append(self._constant_rows(call, part, scale))
            else:
                parts.append(
                    self._snap(
                        f"{call.name}_part{i}", part, self.formats.residual, scale, call.origin
                    )
                )
        grid = (self.formats.residual, scale)
        self._emit(replace(call, args=(tuple(parts), *call.args[1:])), grid)
