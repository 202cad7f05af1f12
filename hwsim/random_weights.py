"""A workload as a model with random weights: nothing was trained, everything can be executed.

The layers of published networks are public, their weights seldom are. A random graph of the same layers and
formats shows that a machine computes its own network exactly, at any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.chain import Link, links, reduced
from hwsim.graph import derive
from hwsim.graph.dtype import BIPOLAR, DataType, int_, parse, uint
from hwsim.graph.ir import Attr, Constant, Node, QuantGraph, Tensor
from hwsim.graph.numeric import weight_bound
from hwsim.graph.serialize import Model, Samples, load, save
from hwsim.workload import LayerSpec, Workload

THRESHOLD_BITS = 2
"""results of at most this many bits are reached by thresholds, wider ones by requant"""

Codes = npt.NDArray[np.int64]


def random_model(
    workload: Workload | Path | str,
    folder: Path | str,
    *,
    reduce: int = 1,
    seed: int = 0,
    samples: int = 8,
) -> Model:
    """Write an export folder with a workload's layers, random weights and random inputs, and load it.

    Args:
        workload: a shipped workload's name, a YAML file, or a loaded workload.
        folder: where to; an older export there is replaced.
        reduce: how much smaller, see `hwsim.chain.reduced`.
        seed: of weights and inputs.
        samples: how many inputs. They have no labels: there is nothing to be right about.

    Raises:
        ConfigError: a file is wrong or there is none.
        GraphError: the workload's layers are no chain.
        CheckpointError: something that is no export is in the way.
    """
    from hwsim.config.load import load_workload

    if not isinstance(workload, Workload):
        workload = load_workload(workload)
    graph, inputs = random_graph(reduced(workload, reduce), seed, samples)
    save(Path(folder), graph, inputs)
    return load(folder)


def random_graph(workload: Workload, seed: int, samples: int) -> tuple[QuantGraph, Samples]:
    """Return the graph of a chain of layers with random weights, and the random inputs that set its constants.

    Weights and inputs are uniform over the codes of their formats. Thresholds cut each channel's accumulators
    on these inputs into equally many; a toss of a coin says whether a channel counts upwards or downwards. A requant brings
    a layer's largest accumulator to the end of its format; a format that holds every accumulator takes them as they
    are.
    """
    layers = workload.layers()
    name, first = layers[0]
    maker = _Maker(np.random.default_rng(seed), f"{name}.in", first, samples)
    for (name, layer), link in zip(layers, [None, *links(workload)], strict=True):
        if link is not None:
            maker.link(name, link, layer.reads)
        maker.layer(name, layer)
    meta = {
        "task": f"{workload.name} with random weights",
        "workload_sha256": workload.sha256,
        "seed": seed,
    }
    return maker.graph(meta), Samples({maker.input: maker.given}, None)


class _Maker:
    """The graph under construction, with what the reference makes of the samples so far."""

    def __init__(self, rng: np.random.Generator, name: str, first: LayerSpec, samples: int) -> None:
        self.rng = rng
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        dtype = parse(first.activation)
        self.tensors = {name: Tensor(name, dtype, first.reads)}
        self.input = self.last = name
        self.given = self.codes = self._codes(dtype, (samples, *first.reads))

    def graph(self, meta: Mapping[str, Any]) -> QuantGraph:
        return QuantGraph(
            tuple(self.nodes), self.tensors, self.constants, (self.input,), (self.last,), meta=meta
        )

    def link(self, name: str, link: Link, reads: tuple[int, ...]) -> None:
        source = self.tensors[self.last]
        if link.pool > 1:
            height, width, channels = source.bind(0)
            pooled = (height // link.pool, width // link.pool, channels)
            sides = (link.pool, link.pool)
            self._add(
                f"{self.last}.pool", "max_pool", source.dtype, pooled, {"kernel": sides, "stride": sides}
            )  # fmt: skip
        if link.flat:
            self._add(f"{name}.flat", "reshape", source.dtype, reads, {"shape": reads})

    def layer(self, name: str, layer: LayerSpec) -> None:
        a, w, result = (parse(f) for f in (layer.activation, layer.weight, layer.result))
        weight = self._codes(w, layer.weight_shape)
        bound = weight_bound(weight, a)
        held = result.kind == "int" and bound <= result.qmax
        stored = result if held else int_(32)
        self._add(name, layer.op, stored, layer.writes, layer.attrs, {"weight": (w, weight)})
        if held:
            return
        acc = self.codes.reshape(-1, layer.writes[-1])
        if result.bits <= THRESHOLD_BITS:
            constants = self._thresholds(acc, result)
            op = "threshold"
        else:
            ratio = derive.Affine(np.array([result.qmax / max(1, np.abs(acc).max())]), np.zeros(1))
            m, s, b = derive.requant_constants(ratio, 1.0, bound, name)
            constants = {"M": (uint(31), m), "S": (uint(6), s), "B": (int_(64), b)}
            op = "requant"
        self._add(f"{name}.codes", op, result, layer.writes, {}, constants)

    def _add(
        self, name: str, op: str, dtype: DataType, shape: tuple[int, ...], attrs: Mapping[str, Attr],
        constants: Mapping[str, tuple[DataType, Codes]] | None = None,
    ) -> None:  # fmt: skip
        """Put a node behind the last one and run it on the samples."""
        from hwsim.reference import run_node

        roles = {role: f"{name}.{role}" for role in constants or {}}
        for role, (kind, array) in (constants or {}).items():
            stored = array.astype(np.int8) if role == "weight" and kind.bits <= 8 else array
            self.constants[roles[role]] = Constant(roles[role], kind, stored)
        node = Node(name, op, (self.last,), roles, attrs)
        self.nodes.append(node)
        self.tensors[name] = Tensor(name, dtype, shape)
        self.last = name
        self.codes = run_node(self.graph({}), node, [self.codes])

    def _codes(self, dtype: DataType, shape: tuple[int, ...]) -> Codes:
        """Draw codes of a type, each as likely as any other."""
        step = dtype.step
        return (
            self.rng.integers(0, (dtype.qmax - dtype.qmin) // step + 1, shape) * step + dtype.qmin
        )

    def _thresholds(self, acc: Codes, dtype: DataType) -> dict[str, tuple[DataType, Codes]]:
        """Return thresholds [C, n] and directions [C] that cut the accumulators [rows, C] into equal parts."""
        count = (dtype.qmax - dtype.qmin) // dtype.step
        direction = self.rng.choice(np.array([-1, 1]), acc.shape[1])
        levels = np.empty((acc.shape[1], count), np.int64)
        for c, sign in enumerate(direction):
            values = np.sort(sign * acc[:, c])
            cuts = values[[len(values) * (i + 1) // (count + 1) for i in range(count)]]
            above = values[values > values[0]]  # a cut at the least value would be reached by all
            least = above[0] if above.size else values[0]
            levels[c] = sign * np.maximum(cuts, least)
        return {"threshold": (int_(32), levels), "direction": (BIPOLAR, direction)}
