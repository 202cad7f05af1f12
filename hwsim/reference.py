"""The arithmetic in PyTorch: the specification that every kernel and every machine must match bit for bit.

One short function an operator, on int64 tensors with a leading batch axis. Nothing here is shared with
`hwsim.kernels`; the formulas and their proofs are in docs/arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwsim.errors import GraphError, OverflowRefused
from hwsim.graph.dtype import DataType
from hwsim.graph.ir import Node, QuantGraph, last_uses
from hwsim.graph.numeric import NumericProfile

_EXACT_FLOAT64 = 1 << 53
TABLE_BITS = 24  # fraction bits of the direct softmax table
LEVEL_BITS = 24  # fraction bits of the level of a binary attention map
EXP2_FRACTION_BITS = 12  # of the exponent; its upper and lower half each address a table of 2^-f
EXP2_TABLE_BITS = 20  # fraction bits of both tables


def rshr(x: Tensor, shift: Tensor | int) -> Tensor:
    """Shift right with round half towards plus infinity; a shift of 0 is the identity."""
    shift = torch.as_tensor(shift, dtype=torch.int64)
    half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp(min=0), 0)
    return (x + half) >> shift


def contract(a: Tensor, w: Tensor) -> Tensor:
    """acc[.., m, n] = sum_k a[.., m, k] * w[.., n, k], exact.

    float64 products are used where every partial sum stays below 2^53, int64 ones elsewhere.
    """
    k = a.shape[-1]
    if a.numel() == 0 or w.numel() == 0:
        return torch.zeros(*a.shape[:-1], w.shape[-2], dtype=torch.int64)
    bound = k * int(a.abs().max()) * int(w.abs().max())
    if bound < _EXACT_FLOAT64:
        return (a.double() @ w.double().transpose(-1, -2)).to(torch.int64)
    return a @ w.transpose(-1, -2)


def _bound_update(acc: Tensor, profile: NumericProfile, where: str) -> Tensor:
    """Apply the overflow rule f to an updated accumulator."""
    low, high = -profile.limit - 1, profile.limit
    if profile.overflow == "clamp":
        return acc.clamp(low, high)
    if profile.overflow == "wrap":
        return ((acc - low) & ((1 << profile.accumulator_bits) - 1)) + low
    outside = (acc < low) | (acc > high)
    if bool(outside.any()):
        place = [int(i) for i in outside.nonzero()[0]]
        value = int(acc[tuple(place)])
        bits = (value if value >= 0 else -value - 1).bit_length() + 1
        raise OverflowRefused(
            f"{where}: accumulator element {place} reached {value}, which needs {bits} bits; the array has"
            f" {profile.accumulator_bits} and its overflow rule is `error`"
        )
    return acc


def _planes(x: Tensor, dtype: DataType) -> list[tuple[int, Tensor]]:
    """Split codes into (weight, 0/1 plane) pairs, low bits first; a two's-complement top plane is negative."""
    if dtype.kind == "bipolar":
        return [(1, (x > 0).long())]
    top = dtype.bits - 1
    return [
        (-(1 << i) if dtype.is_signed and i == top else 1 << i, (x >> i) & 1)
        for i in range(dtype.bits)
    ]


def contract_profile(
    a: Tensor, w: Tensor, a_type: DataType, w_type: DataType, profile: NumericProfile, where: str
) -> Tensor:
    """The contraction as an array accumulates it: chunks of `lanes` along K, A bits, its overflow rule."""
    acc = torch.zeros(*a.shape[:-1], w.shape[-2], dtype=torch.int64)
    for start in range(0, a.shape[-1], profile.lanes):
        chunk_a = a[..., start : start + profile.lanes]
        chunk_w = w[..., start : start + profile.lanes]
        if profile.bit_serial:
            for w_weight, w_plane in _planes(chunk_w, w_type):
                for a_weight, a_plane in _planes(chunk_a, a_type):
                    update = contract(a_plane, w_plane) * (w_weight * a_weight)
                    acc = _bound_update(acc + update, profile, where)
        else:
            acc = _bound_update(acc + contract(chunk_a, chunk_w), profile, where)
    return _read_out(acc, a, w, a_type, w_type) if profile.bit_serial else acc


def _read_out(acc: Tensor, a: Tensor, w: Tensor, a_type: DataType, w_type: DataType) -> Tensor:
    """Turn sums over stored bits into sums over codes: a BIPOLAR operand x is stored as (x + 1)/2."""
    if a_type.kind == "bipolar":
        w_bits = (w > 0).long() if w_type.kind == "bipolar" else w
        acc = 2 * acc - w_bits.sum(-1).unsqueeze(-2)
    if w_type.kind == "bipolar":
        acc = 2 * acc - a.sum(-1, keepdim=True)
    return acc


def requant(x: Tensor, m: Tensor, s: Tensor, b: Tensor, zero_point: int, dtype: DataType) -> Tensor:
    """clamp(((x*M + B + 2^(S-1)) >> S) + zp, qmin, qmax) over the last axis."""
    half = torch.ones_like(s) << (s - 1)
    return (((x * m + b + half) >> s) + zero_point).clamp(dtype.qmin, dtype.qmax)


def threshold(x: Tensor, levels: Tensor, direction: Tensor, dtype: DataType) -> Tensor:
    """qmin + step * #{i : T_i <= x}; where the direction is -1, #{i : x <= T_i}."""
    up = (levels <= x.unsqueeze(-1)).sum(-1)
    down = (x.unsqueeze(-1) <= levels).sum(-1)
    return dtype.qmin + dtype.step * torch.where(direction >= 0, up, down)


def add(a: Tensor, b: Tensor, m: Tensor, s: Tensor, dtype: DataType) -> Tensor:
    """clamp(rshr(a*M0, S0) + rshr(b*M1, S1)), no clamp between."""
    return (rshr(a * m[0], s[0]) + rshr(b * m[1], s[1])).clamp(dtype.qmin, dtype.qmax)


def bit_length(v: Tensor) -> Tensor:
    """Count the bits of non-negative integers without any float logarithm."""
    length = torch.zeros_like(v)
    for i in range(63):
        length += (v >> i) > 0
    return length


def isqrt(v: Tensor) -> Tensor:
    """Floor square root of 0 <= v < 2^62: a float64 guess, then corrected by exact comparisons."""
    r = v.double().sqrt().to(torch.int64)
    r = torch.where(r * r > v, r - 1, r)
    return torch.where((r + 1) * (r + 1) <= v, r + 1, r)


def layer_norm(
    x: Tensor,
    g: Tensor,
    b: Tensor,
    eps: int,
    fraction: int,
    q: int,
    zero_point: int,
    dtype: DataType,
) -> Tensor:
    """Integer layer norm of rows of N codes (docs/arithmetic.md, section 6)."""
    n = x.shape[-1]
    total = x.sum(-1, keepdim=True)
    d = n * x - total
    v = (n * (x * x).sum(-1, keepdim=True) - total * total + eps).clamp(min=1)
    k = (62 - bit_length(v)) >> 1
    r = isqrt(v << (2 * k))
    reciprocal = torch.div((1 << 61) + (r >> 1), r, rounding_mode="floor")
    h = 61 - k - fraction
    normalised = (d * reciprocal + (torch.ones_like(h) << (h - 1))) >> h
    y = ((normalised * g + b + (1 << (q - 1))) >> q) + zero_point
    return y.clamp(dtype.qmin, dtype.qmax)


def key_mask(shape: torch.Size, lengths: Tensor | None, causal: bool) -> Tensor:
    """True where query t may see key s: [B, 1, T, S]."""
    batch, _, queries, keys = shape
    key = torch.arange(keys)
    mask = torch.ones(batch, 1, queries, keys, dtype=torch.bool)
    if lengths is not None:
        mask &= key < lengths[:, None, None, None]
    if causal:
        mask &= key <= torch.arange(queries)[:, None]
    return mask


def exponentials(
    x: Tensor,
    mask: Tensor,
    table: Tensor,
    mode: str,
    shift: int,
    m: Tensor | None,
    s: Tensor | None,
) -> Tensor:
    """e_j of a softmax row: table look-up of max - x, 0 where masked (docs/arithmetic.md, section 7)."""
    lowest = torch.iinfo(torch.int64).min
    top = x.masked_fill(~mask, lowest).amax(-1, keepdim=True)
    delta = torch.where(mask, top - x, 0)
    heads = torch.arange(x.shape[1])[None, :, None, None].clamp(max=table.shape[0] - 1)
    if mode == "direct":
        # the address saturates: only accumulators that wrapped or clamped can leave the table
        e = table[heads, (delta >> shift).clamp(max=table.shape[1] - 1)]
    else:
        assert m is not None
        assert s is not None
        t = rshr(delta * m[:, None, None], s[:, None, None]).clamp(max=(1 << 17) - 1)
        octave = t >> EXP2_FRACTION_BITS
        product = table[heads, (t >> 6) & 63] * table[heads, 64 + (t & 63)]
        e = rshr(product, EXP2_TABLE_BITS + octave)
        e = torch.where(octave > 21, 0, e)
    return torch.where(mask, e, 0)


def softmax(e: Tensor) -> Tensor:
    """Q0.16 probabilities (0..65536) of exponentials; a row of zeros stays zero."""
    z = e.sum(-1, keepdim=True)
    reciprocal = torch.div(1 << 56, z.clamp(min=1), rounding_mode="floor")
    return torch.where(z > 0, rshr(e * reciprocal, 40), 0)


def softmax_binary(e: Tensor, level: int) -> Tensor:
    """1 iff the probability reaches alpha/2, without a division; a row of zeros stays zero."""
    z = e.sum(-1, keepdim=True)
    return ((e << LEVEL_BITS) >= level * z).long() * (z > 0)


def im2col(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """[B, C, H, W] -> [B, P, C*kh*kw], patches in row order, elements in (channel, kh, kw) order."""
    patches = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    batch, channels, rows, cols = patches.shape[:4]
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(
        batch, rows * cols, channels * kernel[0] * kernel[1]
    )


def windows(x: Tensor, attrs: Mapping[str, Any], outside: int = 0) -> Tensor:
    """[B, H, W, C] -> [B, H', W', kh, kw, C]; positions outside the image hold the code `outside`."""
    (kh, kw), (sh, sw) = attrs["kernel"], attrs["stride"]
    ph, pw = attrs.get("padding", (0, 0))
    padded = torch.nn.functional.pad(x, (0, 0, pw, pw, ph, ph), value=outside)
    return padded.unfold(1, kh, sh).unfold(2, kw, sw).permute(0, 1, 2, 4, 5, 3)


def conv2d(x: Tensor, w: Tensor, attrs: Mapping[str, Any]) -> Tensor:
    """acc[.., i, j, n] = sum of x * w over the window's positions inside the image (docs/arithmetic.md, section 13)."""
    return contract(windows(x, attrs).flatten(3), w)


def conv2d_profile(
    x: Tensor, w: Tensor, attrs: Mapping[str, Any], a_type: DataType, w_type: DataType,
    profile: NumericProfile, where: str,
) -> Tensor:  # fmt: skip
    """The convolution as an array accumulates it: chunks of the whole window, or of its inside where padding is skipped.

    Computed padding holds the code 0; where the type has none (BIPOLAR), -1, and what that adds to an
    accumulator is taken out again where it is read.
    """
    inside = windows(torch.ones_like(x[:1]), attrs).flatten(3).flatten(0, 2)  # [P, K]
    outside = -1 if a_type.kind == "bipolar" else 0
    patches = windows(x, attrs, outside).flatten(3)
    shape = (*patches.shape[:3], w.shape[0])
    patches = patches.flatten(1, 2)  # [B, P, K]
    if attrs["padding_positions"] == "computed":
        acc = contract_profile(patches, w, a_type, w_type, profile, where)
        return (acc - outside * contract(1 - inside, w)).reshape(shape)
    acc = torch.zeros(*patches.shape[:2], w.shape[0], dtype=torch.int64)
    kinds, kind = torch.unique(inside, dim=0, return_inverse=True)
    for number, taps in enumerate(kinds.bool()):
        rows = kind == number
        part = patches[:, rows][..., taps]
        acc[:, rows] = contract_profile(part, w[:, taps], a_type, w_type, profile, where)
    return acc.reshape(shape)


def max_pool(x: Tensor, attrs: Mapping[str, Any]) -> Tensor:
    """[B, H, W, C] -> [B, H', W', C], the largest code of each window in each channel."""
    return windows(x, attrs).amax(dim=(3, 4))


class _Run:
    """One execution: the graph, the sequence lengths and the tensors that are still needed."""

    def __init__(
        self, graph: QuantGraph, lengths: Tensor | None, profiles: Mapping[str, NumericProfile]
    ) -> None:
        self.graph = graph
        self.lengths = lengths
        self.profiles = profiles

    def constant(self, node: Node, role: str) -> Tensor:
        return torch.from_numpy(self.graph.constant(node, role).astype(np.int64))

    def optional(self, node: Node, role: str) -> Tensor | None:
        return self.constant(node, role) if role in node.constants else None

    def addend(self, node: Node, tokens: int) -> Tensor:
        rows = self.constant(node, "addend")
        first = int(node.attrs.get("first", 0))  # type: ignore[arg-type]
        return rows[first : first + tokens]

    def key_mask(self, node: Node, scores: Tensor) -> Tensor:
        lengths = self.lengths if node.attrs["masked"] else None
        return key_mask(scores.shape, lengths, bool(node.attrs["causal"]))

    def contraction(self, node: Node, a: Tensor, w: Tensor, w_type: DataType) -> Tensor:
        profile = self.profiles.get(node.name)
        if profile is None:
            return contract(a, w)
        a_type = self.graph.tensors[node.inputs[0]].dtype
        return contract_profile(a, w, a_type, w_type, profile, f"operator {node.name}")

    def convolution(self, node: Node, x: Tensor) -> Tensor:
        profile, w = self.profiles.get(node.name), self.constant(node, "weight")
        if profile is None:
            return conv2d(x, w, node.attrs)
        a_type = self.graph.tensors[node.inputs[0]].dtype
        w_type = self.graph.constants[node.constants["weight"]].dtype
        return conv2d_profile(x, w, node.attrs, a_type, w_type, profile, f"operator {node.name}")

    def step(self, node: Node, x: list[Tensor]) -> Tensor:
        out = self.graph.tensors[node.name]
        attrs: Mapping[str, Any] = node.attrs
        match node.op:
            case "linear":
                w_type = self.graph.constants[node.constants["weight"]].dtype
                return self.contraction(node, x[0], self.constant(node, "weight"), w_type)
            case "matmul":
                return self.contraction(node, x[0], x[1], self.graph.tensors[node.inputs[1]].dtype)
            case "conv2d":
                return self.convolution(node, x[0])
            case "requant":
                m, s, b = (self.constant(node, r) for r in ("M", "S", "B"))
                return requant(x[0], m, s, b, out.zero_point, out.dtype)
            case "threshold":
                levels, direction = (
                    self.constant(node, "threshold"),
                    self.constant(node, "direction"),
                )
                codes = threshold(x[0], levels, direction, out.dtype)
                if "masked" not in attrs:
                    return codes
                return codes.masked_fill(~self.key_mask(node, x[0]), out.dtype.qmin)
            case "add":
                other = x[1] if len(x) > 1 else self.addend(node, x[0].shape[1])
                return add(
                    x[0], other, self.constant(node, "M"), self.constant(node, "S"), out.dtype
                )
            case "layer_norm":
                g, b = self.constant(node, "G"), self.constant(node, "B")
                sizes = (int(attrs["E"]), int(attrs["F"]), int(attrs["Q"]))
                return layer_norm(x[0], g, b, *sizes, out.zero_point, out.dtype)
            case "softmax" | "softmax_binary":
                mask = self.key_mask(node, x[0])
                table = self.constant(node, "table")
                factor = self.optional(node, "M"), self.optional(node, "S")
                e = exponentials(x[0], mask, table, attrs["mode"], int(attrs["shift"]), *factor)
                return (
                    softmax(e) if node.op == "softmax" else softmax_binary(e, int(attrs["level"]))
                )
            case "table":
                return self.constant(node, "table")[
                    x[0] - self.graph.tensors[node.inputs[0]].dtype.qmin
                ]
            case "embedding":
                rows = self.constant(node, "weight")[x[0]] * self.constant(node, "M")[
                    x[0]
                ].unsqueeze(-1)
                return rshr(rows, int(attrs["S"]))
            case "concat":
                rows = self.constant(node, "rows").expand(x[0].shape[0], -1, -1)
                return torch.cat([rows, x[0]], dim=1)
            case "relayout":
                return x[0].transpose(-1, -2).contiguous()
            case "im2col":
                return im2col(x[0], attrs["kernel"], attrs["stride"])
            case "max_pool":
                return max_pool(x[0], attrs)
            case "reshape":
                length = _length_of(self.graph.tensors[node.inputs[0]].shape, x[0])
                shape = [length if isinstance(d, str) else d for d in out.shape]
                return x[0].reshape(x[0].shape[0], *shape)
            case "permute":
                return x[0].permute(0, *(int(i) + 1 for i in attrs["axes"])).contiguous()
            case "slice":
                index = [slice(None)] * x[0].ndim
                index[int(attrs["axis"]) + 1] = slice(int(attrs["start"]), int(attrs["stop"]))
                return x[0][tuple(index)]
            case "append":
                return torch.cat(x, dim=int(attrs["axis"]) + 1)
        raise GraphError(f"node {node.name}: the reference has no operator {node.op!r}")


def _length_of(shape: tuple[int | str, ...], x: Tensor) -> int:
    """Read the bound sequence length off a tensor whose per-sample shape names it."""
    return next((x.shape[i + 1] for i, d in enumerate(shape) if isinstance(d, str)), 0)


def run_node(
    graph: QuantGraph,
    node: Node,
    operands: list[npt.NDArray[Any]],
    lengths: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Execute one node on given operands, each [B, *shape]; used to compare operator by operator."""
    run = _Run(graph, None if lengths is None else torch.from_numpy(lengths), {})
    result: npt.NDArray[np.int64] = run.step(
        node, [torch.from_numpy(o.astype(np.int64)) for o in operands]
    ).numpy()
    return result


def execute(
    graph: QuantGraph,
    inputs: Mapping[str, npt.NDArray[Any]],
    lengths: npt.NDArray[np.int64] | None = None,
    profiles: Mapping[str, NumericProfile] | None = None,
) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yield every tensor of the graph in execution order.

    Args:
        graph: the integer graph.
        inputs: codes of the graph's inputs, each [B, *shape].
        lengths: real length of each sequence, int64 [B]; needed where a node masks.
        profiles: accumulation profile of the contractions whose static bound does not fit their array.

    Raises:
        OverflowRefused: an accumulator left its range under the rule `error`.
    """
    run = _Run(graph, None if lengths is None else torch.from_numpy(lengths), profiles or {})
    alive = {
        name: torch.from_numpy(np.asarray(inputs[name]).astype(np.int64)) for name in graph.inputs
    }
    drop = last_uses(graph.nodes)
    for node in graph.nodes:
        result = run.step(node, [alive[t] for t in node.inputs])
        alive[node.name] = result
        yield node.name, result.numpy()
        for name in drop[node.name]:
            alive.pop(name, None)
