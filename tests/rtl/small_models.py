"""One small attention with random integers, on any pair of formats, saved as an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwsim.graph.dtype import BIPOLAR, UNIPOLAR, DataType, int_, parse, uint
from hwsim.graph.ir import Constant, Node, QuantGraph, Tensor
from hwsim.graph.serialize import Model, Samples, load, save

INT32 = int_(32)
HEADS, DEPTH, INNER, OUTPUTS = 2, 11, 22, 7
WIDTH, LONGEST = 37, 9
LENGTHS = (9, 5, 1)


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Constant] = {}

    def node(self, name: str, op: str, inputs: tuple[str, ...], dtype: DataType,
             shape: tuple[int | str, ...], constants: dict[str, tuple[DataType, Any]] | None = None,
             /, **attrs: Any) -> str:  # fmt: skip
        roles = {}
        for role, (kind, values) in (constants or {}).items():
            array = np.asarray(values, np.int8 if kind.bits <= 8 else np.int64)
            self.constants[f"{name}.{role}"] = Constant(f"{name}.{role}", kind, array)
            roles[role] = f"{name}.{role}"
        self.nodes.append(Node(name, op, inputs, roles, attrs))
        self.tensors[name] = Tensor(name, dtype, shape)
        return name

    def narrow(self, name: str, x: str, dtype: DataType, shift: int) -> str:
        """Follow an accumulator with a threshold (one bit) or a requant by 2^-shift."""
        shape = self.tensors[x].shape
        if dtype.bits == 1:
            level = self.random.integers(-3, 4, (1, 1))
            constants = {"threshold": (INT32, level), "direction": (BIPOLAR, [1])}
            return self.node(name, "threshold", (x,), dtype, shape, constants)
        constants = {"M": (uint(31), [1 << 30]), "S": (uint(6), [30 + shift]), "B": (int_(64), [0])}
        return self.node(name, "requant", (x,), dtype, shape, constants)


def codes(random: np.random.Generator, dtype: DataType, shape: tuple[int, ...]) -> Any:
    """Random codes of a type, both ends of its range among them."""
    levels = np.arange(dtype.qmin, dtype.qmax + 1, dtype.step)
    found = random.choice(levels, shape)
    found.reshape(-1)[:2] = levels[[0, -1]]
    return found


def attention(activation: str, weight: str, seed: int = 3, sparse: bool = False) -> QuantGraph:
    """Linear, two heads of Q K^T and P V whose results pass views, linear.

    P is UNIPOLAR where activations are one bit. `sparse`: the weights of the last half of the columns are zero.
    """
    g = _Maker(seed)
    a, w = parse(activation), parse(weight)
    p = UNIPOLAR if a.bits == 1 else a
    g.tensors["x"] = Tensor("x", a, ("T", WIDTH))
    first = codes(g.random, w, (INNER, WIDTH))
    if sparse:
        first[INNER // 2 :] = 0
    g.node("x.acc", "linear", ("x",), INT32, ("T", INNER), {"weight": (w, first)})
    g.narrow("h", "x.acc", a, 5)
    g.node("h.split", "reshape", ("h",), a, ("T", HEADS, DEPTH), shape=("T", HEADS, DEPTH))
    g.node("heads", "permute", ("h.split",), a, (HEADS, "T", DEPTH), axes=(1, 0, 2))
    g.node("turned", "relayout", ("heads",), a, (HEADS, DEPTH, "T"))
    g.node("scores.acc", "matmul", ("heads", "heads"), INT32, (HEADS, "T", "T"))
    g.narrow("scores", "scores.acc", p, 6)
    g.node("mix.acc", "matmul", ("scores", "turned"), INT32, (HEADS, "T", DEPTH))
    g.node("mix.rows", "permute", ("mix.acc",), INT32, ("T", HEADS, DEPTH), axes=(1, 0, 2))
    g.node("mix.joined", "reshape", ("mix.rows",), INT32, ("T", INNER), shape=("T", INNER))
    g.narrow("mix", "mix.joined", a, 5)
    last = {"weight": (w, codes(g.random, w, (OUTPUTS, INNER)))}
    g.node("y.acc", "linear", ("mix",), INT32, ("T", OUTPUTS), last)
    return QuantGraph(
        tuple(g.nodes), g.tensors, g.constants, ("x",), ("y.acc",), max_length=LONGEST
    )


def export(folder: Path, graph: QuantGraph, seed: int = 4) -> Model:
    """Save a graph with random samples of the lengths above."""
    random = np.random.default_rng(seed)
    x = codes(random, graph.tensors["x"].dtype, (len(LENGTHS), LONGEST, WIDTH)).astype(np.int64)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = graph.tensors["x"].dtype.qmin
    save(folder, graph, Samples({"x": x}, None, np.array(LENGTHS)))
    return load(folder)
