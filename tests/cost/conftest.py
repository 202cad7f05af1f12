"""A small graph, made by hand, with every kind of operator that the cost model treats differently."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graph_maker import INT32, GraphMaker
from view_cases import Case, make_cases

from hwsim.graph.dtype import int_, parse, uint
from hwsim.graph.ir import QuantGraph


def attention_block(
    a: str, w: str, width: int = 32, heads: int = 2, length: int = 12
) -> QuantGraph:
    """Embedding, layer norm, attention, residual, classifier on `a` x `w` products.

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


@pytest.fixture(scope="session")
def block() -> Callable[..., QuantGraph]:
    return attention_block


@pytest.fixture(scope="session")
def cases(block: Callable[..., QuantGraph]) -> dict[str, Case]:
    """Costed graphs for the tests of the views."""
    return make_cases(block)


@pytest.fixture
def maker() -> GraphMaker:
    return GraphMaker()
