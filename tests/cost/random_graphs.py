"""Random small graphs and machines for properties, as plain descriptions that shrink well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from graph_maker import INT32, GraphMaker
from hypothesis import strategies as st

from hwsim.arch.machine import Machine
from hwsim.config.load import load_machine
from hwsim.graph.dtype import int_, parse, uint
from hwsim.graph.ir import QuantGraph

Layer = tuple[str, int]
"""("linear", outputs), ("attention", heads), ("residual", outputs) or ("norm", 0)"""

LAYERS = st.one_of(
    st.tuples(st.just("linear"), st.integers(1, 12)),
    st.tuples(st.just("residual"), st.integers(1, 12)),
    st.tuples(st.just("attention"), st.integers(1, 2)),
    st.tuples(st.just("norm"), st.just(0)),
)


@dataclass(frozen=True)
class Shape:
    """A graph: rows and columns of its input, and its layers in order."""

    rows: int
    cols: int
    layers: tuple[Layer, ...]

    def build(self, rename: Callable[[str], str] = str, weight: str = "INT8") -> QuantGraph:
        """Build it, each node under `rename(name)`."""
        g, int8 = GraphMaker(), parse("INT8")
        rows, cols = self.rows, self.cols
        x = start = g.input(rename("x"), int8, rows, cols)

        def product(name: str, x: str, inputs: int, outputs: int) -> str:
            constants = {"weight": (parse(weight), (outputs, inputs))}
            acc = g.node(rename(name), "linear", (x,), INT32, (rows, outputs), constants)
            return g.requant(rename(f"{name}.codes"), acc, int8)

        for i, (kind, size) in enumerate(self.layers):
            name = f"{i}.{kind}"
            if kind == "linear":
                x, cols = product(name, x, cols, size), size
            elif kind == "residual":
                inner = product(f"{name}.in", x, cols, size)
                outer = product(f"{name}.out", inner, size, cols)
                scales = {"M": (uint(31), (2,)), "S": (uint(6), (2,))}
                x = g.node(rename(name), "add", (x, outer), int8, (rows, cols), scales)
            elif kind == "norm":
                constants = {"G": (int_(30), (cols,)), "B": (int_(64), (cols,))}
                normal = g.node(rename(name), "layer_norm", (x,), int_(16), (rows, cols),
                                constants, E=1, F=22, Q=30)  # fmt: skip
                x = g.requant(rename(f"{name}.codes"), normal, int8)
            else:
                x, cols = self._attention(g, rename, name, x, cols, size, product)
        y = g.requant(rename("y"), x, int8)
        return g.build((start,), (y,), 0)

    def _attention(
        self,
        g: GraphMaker,
        rename: Callable[[str], str],
        name: str,
        x: str,
        cols: int,
        heads: int,
        product: Callable[[str, str, int, int], str],
    ) -> tuple[str, int]:
        int8, rows, d = parse("INT8"), self.rows, 4
        split = {}
        for part in "qkv":
            codes = product(f"{name}.{part}", x, cols, heads * d)
            apart = g.node(rename(f"{name}.{part}.heads"), "reshape", (codes,), int8,
                           (rows, heads, d), shape=(rows, heads, d))  # fmt: skip
            split[part] = g.node(rename(f"{name}.{part}.turned"), "permute", (apart,), int8,
                                 (heads, rows, d), axes=(1, 0, 2))  # fmt: skip
        v = g.node(rename(f"{name}.vt"), "relayout", (split["v"],), int8, (heads, d, rows))
        square = (heads, rows, rows)
        qk = g.node(rename(f"{name}.qk"), "matmul", (split["q"], split["k"]), INT32, square)
        table = {"table": (uint(21), (1, 128)), "M": (uint(31), (1,)), "S": (uint(6), (1,))}
        u = g.node(rename(f"{name}.u"), "softmax", (qk,), uint(24), square, table,
                   mode="exp2", shift=0, causal=False, masked=False)  # fmt: skip
        p = g.requant(rename(f"{name}.p"), u, uint(8))
        pv = g.node(rename(f"{name}.pv"), "matmul", (p, v), INT32, (heads, rows, d))
        codes = g.requant(rename(f"{name}.pv.codes"), pv, int8)
        turned = g.node(rename(f"{name}.back"), "permute", (codes,), int8,
                        (rows, heads, d), axes=(1, 0, 2))  # fmt: skip
        whole = g.node(rename(f"{name}.joined"), "reshape", (turned,), int8,
                       (rows, heads * d), shape=(rows, heads * d))  # fmt: skip
        return whole, heads * d


SHAPES = st.builds(
    Shape,
    st.integers(1, 12),
    st.integers(1, 24),
    st.lists(LAYERS, min_size=1, max_size=3).map(tuple),
)

RESOURCES: dict[str, tuple[int, int]] = {
    "dram.bandwidth_bytes_per_s": (10**6, 10**10),
    "dma.width_bits_per_cycle": (1, 512),
    "dma.channels": (1, 3),
    "memories.buffer.capacity_bytes": (576, 3000),
    "memories.weights.capacity_bytes": (300, 3000),
    "memories.buffer.ports": (1, 3),
    "arrays.main.rows": (1, 6),
    "arrays.main.cols": (1, 6),
    "arrays.main.lanes": (1, 12),
    "arrays.main.activation_port_bits_per_cycle": (8, 300),
    "arrays.main.weight_port_bits_per_cycle": (8, 300),
    "vector_unit.lanes": (1, 8),
}
"""What a machine may have more of, and the range that it is drawn from.

A half of the least buffer holds a block of accumulators of an array with twice the rows or columns: files with less are refused.
"""

SIZES = st.fixed_dictionaries({key: st.integers(*ends) for key, ends in RESOURCES.items()})


def machine(sizes: dict[str, int], more: Iterable[str] = ()) -> Machine:
    """Return `toy` with other sizes; what was stated for its own sizes is kept."""
    given = [f"{key}={value}" for key, value in sizes.items()]
    kept = ("memories.buffer.fixed=true", "memories.weights.fixed=true")
    return load_machine("toy", [*given, *kept, *more])
