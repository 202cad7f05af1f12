"""Graphs made by hand, a line a node."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.graph.dtype import DataType, int_, parse, uint
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


def two_products() -> QuantGraph:
    """A ternary and an int8 product, each requantised: quick to search, with epilogues, constants and two arrays."""
    g = GraphMaker()
    g.input("x", int_(8), 12, 40)
    g.node("y", "linear", ("x",), int_(32), (12, 48), {"weight": (parse("TERNARY"), (48, 40))})
    g.requant("yq", "y", int_(8))
    g.node("z", "linear", ("yq",), int_(32), (12, 20), {"weight": (int_(8), (20, 48))})
    g.requant("zq", "z", int_(8))
    return g.build(("x",), ("zq",), 12)


def attention_block(
    a: str, w: str, width: int = 32, heads: int = 2, length: int = 12
) -> QuantGraph:
    """A small graph with every kind of operator that the cost model treats differently.

    Embedding, layer norm, attention, residual, classifier on `a` x `w` products.

    `a` is INT8 or BIPOLAR, `w` BIPOLAR, TERNARY or INT8; the classifier is INT8 x INT8.
    """
    g = GraphMaker()
    act, weight = parse(a), parse(w)
    binary = act.kind == "bipolar"
    d = width // heads
    stream = int_(16)
    g.input("ids", uint(16), "T")
    table = {"weight": (weight, (50, width)), "M": (uint(16), (50,))}
    g.node("emb", "embedding", ("ids",), INT32, ("T", width), table, S=8)
    addend = {"addend": (int_(16), (length, width)), "M": (uint(31), (2,)), "S": (uint(6), (2,))}
    g.node("pos", "add", ("emb",), stream, ("T", width), addend)

    def to_act(name: str, x: str) -> str:
        if not binary:
            return g.requant(name, x, act)
        constants = {"threshold": (INT32, (width, 1)), "direction": (parse("BIPOLAR"), (width,))}
        return g.node(name, "threshold", (x,), act, g.tensors[x].shape, constants)

    g.node("ln", "layer_norm", ("pos",), stream, ("T", width),
           {"G": (int_(30), (width,)), "B": (int_(64), (width,))}, E=1, F=22, Q=30)  # fmt: skip
    to_act("x", "ln")
    split = {}
    for head in "qkv":
        g.node(head, "linear", ("x",), INT32, ("T", width), {"weight": (weight, (width, width))})
        to_act(f"{head}a", head)
        g.node(f"{head}r", "reshape", (f"{head}a",), act, ("T", heads, d), shape=("T", heads, d))
        split[head] = g.node(
            f"{head}p", "permute", (f"{head}r",), act, (heads, "T", d), axes=(1, 0, 2)
        )
    g.node("vt", "relayout", (split["v"],), act, (heads, d, "T"))
    g.node("qk", "matmul", (split["q"], split["k"]), INT32, (heads, "T", "T"))
    soft = {"table": (uint(21), (1, 128)), "M": (uint(31), (1,)), "S": (uint(6), (1,))}
    attrs = {"mode": "exp2", "shift": 0, "causal": False, "masked": True}
    if binary:
        g.node(
            "p",
            "softmax_binary",
            ("qk",),
            parse("UNIPOLAR"),
            (heads, "T", "T"),
            soft,
            level=1,
            **attrs,
        )
    else:
        g.node("u", "softmax", ("qk",), uint(17), (heads, "T", "T"), soft, **attrs)
        g.requant("p", "u", uint(8))
    g.node("pv", "matmul", ("p", "vt"), INT32, (heads, "T", d))
    g.node("pvp", "permute", ("pv",), INT32, ("T", heads, d), axes=(1, 0, 2))
    g.node("pvr", "reshape", ("pvp",), INT32, ("T", width), shape=("T", width))
    to_act("ctx", "pvr")
    g.node("o", "linear", ("ctx",), INT32, ("T", width), {"weight": (weight, (width, width))})
    g.requant("oq", "o", stream)
    g.node(
        "res",
        "add",
        ("pos", "oq"),
        stream,
        ("T", width),
        {"M": (uint(31), (2,)), "S": (uint(6), (2,))},
    )
    g.node("cls", "slice", ("res",), stream, (1, width), axis=0, start=0, stop=1)
    g.requant("clsq", "cls", int_(8))
    g.node("logits_acc", "linear", ("clsq",), INT32, (1, 4), {"weight": (int_(8), (4, width))})
    g.requant("logits", "logits_acc", INT32)
    return g.build(("ids",), ("logits",), length)
