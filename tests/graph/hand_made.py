"""A builder for small integer graphs, and one graph that holds every operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwsim.graph import derive
from hwsim.graph.dtype import BIPOLAR, TERNARY, UNIPOLAR, DataType, int_, parse, uint
from hwsim.graph.ir import Attr, Constant, Node, QuantGraph, Shape, Tensor

INT8, INT16, INT32, INT64 = int_(8), int_(16), int_(32), int_(64)
UINT8, UINT17 = uint(8), uint(17)
MULTIPLIER, SHIFT = uint(31), uint(6)


class Maker:
    """Collects nodes, tensors and constants; every method returns the new tensor's name."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Constant] = {}
        self.inputs: list[str] = []

    def input(self, name: str, dtype: DataType, *shape: int | str) -> str:
        self.inputs.append(name)
        self.tensors[name] = Tensor(name, dtype, shape)
        return name

    def node(
        self,
        name: str,
        op: str,
        inputs: Sequence[str],
        dtype: DataType,
        shape: Shape,
        constants: Mapping[str, tuple[DataType, Any]] | None = None,
        /,
        zero_point: int = 0,
        **attrs: Attr,
    ) -> str:
        roles = {}
        for role, (kind, values) in (constants or {}).items():
            roles[role] = f"{name}.{role}"
            array = np.asarray(values, np.int8 if kind.bits <= 8 and kind.qmax < 128 else np.int64)
            self.constants[roles[role]] = Constant(roles[role], kind, array)
        self.nodes.append(Node(name, op, tuple(inputs), roles, attrs, f"module.{name}"))
        self.tensors[name] = Tensor(name, dtype, shape, 0.5, zero_point)
        return name

    def requant(
        self, name: str, x: str, dtype: DataType, m: Any, s: Any, b: Any, zero_point: int = 0
    ) -> str:
        constants = {"M": (MULTIPLIER, m), "S": (SHIFT, s), "B": (INT64, b)}
        return self.node(
            name, "requant", (x,), dtype, self.tensors[x].shape, constants, zero_point=zero_point
        )

    def graph(self, *outputs: str, max_length: int = 0) -> QuantGraph:
        return QuantGraph(
            tuple(self.nodes),
            self.tensors,
            self.constants,
            tuple(self.inputs),
            outputs,
            max_length,
            {"task": "made by hand", "labels": ["a", "b"]},
        )


def every_operator() -> QuantGraph:
    """Attention over tokens and a patch embedding, with each of the operators at least once."""
    rng = np.random.default_rng(7)
    g = Maker()

    ids = g.input("ids", INT32, "T")
    rows = g.node(
        "rows", "embedding", (ids,), INT32, ("T", 8),
        {"weight": (TERNARY, rng.integers(-1, 2, (11, 8))), "M": (MULTIPLIER, rng.integers(1, 2**31, 11))},
        S=24,
    )  # fmt: skip
    stream = g.node(
        "stream", "add", (rows,), INT16, ("T", 8),
        {"M": (MULTIPLIER, [3, 1]), "S": (SHIFT, [2, 0]), "addend": (INT16, rng.integers(-900, 900, (6, 8)))},
    )  # fmt: skip
    norm = derive.layer_norm_constants(
        rng.normal(size=8), rng.normal(size=8), 1e-5, INT16, 0.01, 0.03, "norm"
    )
    norm_name = g.node(
        "norm", "layer_norm", (stream,), INT8, ("T", 8),
        {"G": (int_(30), norm.g), "B": (INT64, norm.b)}, E=norm.e, F=norm.f, Q=norm.q,
    )  # fmt: skip
    signs = g.node(
        "signs", "threshold", (norm_name,), BIPOLAR, ("T", 8),
        {"threshold": (INT8, rng.integers(-20, 20, (8, 1))), "direction": (BIPOLAR, rng.choice([-1, 1], 8))},
    )  # fmt: skip
    split = g.node("split", "reshape", (signs,), BIPOLAR, ("T", 2, 4), shape=("T", 2, 4))
    heads = g.node("heads", "permute", (split,), BIPOLAR, (2, "T", 4), axes=(1, 0, 2))
    turned = g.node("turned", "relayout", (heads,), BIPOLAR, (2, 4, "T"))
    scores = g.node("scores", "matmul", (heads, heads), INT32, (2, "T", "T"))
    masks: dict[str, Any] = {"causal": False, "masked": True}
    wide = g.node(
        "wide", "softmax", (scores,), UINT17, (2, "T", "T"),
        {"table": (uint(21), derive.softmax_exp2_table()), "M": (MULTIPLIER, [185 << 20]), "S": (SHIFT, [20])},
        mode="exp2", shift=0, **masks,
    )  # fmt: skip
    p = g.requant("p", wide, UINT8, [255], [16], [0])
    mixed = g.node("mixed", "matmul", (p, turned), INT32, (2, "T", 4))
    binary = g.node(
        "binary", "softmax_binary", (scores,), UNIPOLAR, (2, "T", "T"),
        {"table": (uint(25), derive.softmax_direct_table(0.4, 8, 1))},
        mode="direct", shift=1, level=derive.binary_softmax_level(0.5), causal=True, masked=True,
    )  # fmt: skip
    picked = g.node("picked", "matmul", (binary, turned), INT32, (2, "T", 4))
    both = g.node(
        "both", "add", (mixed, picked), INT16, (2, "T", 4),
        {"M": (MULTIPLIER, [1, 100]), "S": (SHIFT, [0, 1])},
    )  # fmt: skip
    back = g.node("back", "permute", (both,), INT16, ("T", 2, 4), axes=(1, 0, 2))
    joined = g.node("joined", "reshape", (back,), INT16, ("T", 8), shape=("T", 8))
    narrow = g.requant("narrow", joined, INT8, [1], [2], [0], zero_point=3)
    weight = rng.integers(-127, 128, (3, 8))
    hidden = g.node(
        "hidden", "linear", (narrow,), INT32, ("T", 3), {"weight": (parse("INT8N"), weight)}
    )
    correction = -3 * weight.sum(axis=1)
    small = g.requant("small", hidden, int_(4), [1, 2, 3], [9, 10, 11], correction)
    curve = g.node(
        "curve", "table", (small,), UINT8, ("T", 3), {"table": (UINT8, np.arange(16) * 17)}
    )

    pixels = g.input("pixels", UINT8, 1, 4, 4)
    patches = g.node("patches", "im2col", (pixels,), UINT8, (4, 4), kernel=(2, 2), stride=(2, 2))
    projected = g.node(
        "projected", "linear", (patches,), INT32, (4, 5), {"weight": (INT8, rng.integers(-128, 128, (5, 4)))}
    )  # fmt: skip
    codes = g.requant("codes", projected, INT16, [7] * 5, [3] * 5, [0, 1, -2, 3, -4])
    tokens = g.node(
        "tokens",
        "concat",
        (codes,),
        INT16,
        (5, 5),
        {"rows": (INT16, rng.integers(-99, 99, (1, 5)))},
    )
    longer = g.node("longer", "append", (tokens, codes), INT16, (9, 5), axis=0)
    first = g.node("first", "slice", (longer,), INT16, (1, 5), axis=0, start=0, stop=1)
    flat = g.node("flat", "reshape", (first,), INT16, (5,), shape=(5,))

    image = g.node("image", "reshape", (pixels,), UINT8, (4, 4, 1), shape=(4, 4, 1))
    felt = g.node(
        "felt", "conv2d", (image,), INT32, (4, 4, 2), {"weight": (TERNARY, rng.integers(-1, 2, (2, 9)))},
        kernel=(3, 3), stride=(1, 1), padding=(1, 1), padding_positions="computed",
    )  # fmt: skip
    edges = g.node(
        "edges", "threshold", (felt,), BIPOLAR, (4, 4, 2),
        {"threshold": (INT16, [[0], [-40]]), "direction": (BIPOLAR, [1, -1])},
    )  # fmt: skip
    pooled = g.node(
        "pooled", "max_pool", (edges,), BIPOLAR, (2, 2, 2), kernel=(2, 2), stride=(2, 2)
    )
    seen = g.node(
        "seen", "conv2d", (pooled,), INT32, (2, 2, 3), {"weight": (BIPOLAR, rng.choice([-1, 1], (3, 18)))},
        kernel=(3, 3), stride=(1, 1), padding=(1, 1), padding_positions="skipped",
    )  # fmt: skip
    return g.graph(curve, flat, seen, max_length=6)


def inputs_of_every_operator(
    batch: int = 3, length: int = 6
) -> tuple[dict[str, np.ndarray[Any, np.dtype[np.int64]]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Inputs of `every_operator` and the lengths of its sequences."""
    rng = np.random.default_rng(3)
    inputs = {
        "ids": rng.integers(0, 11, (batch, length)),
        "pixels": rng.integers(0, 256, (batch, 1, 4, 4)),
    }
    lengths = np.array([length, max(1, length // 2), 1][:batch], np.int64)
    return inputs, lengths
