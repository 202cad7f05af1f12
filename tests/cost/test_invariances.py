"""What may not change a result, and what may only change it one way."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from graph_maker import INT32, GraphMaker
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.config.load import find_machine, load_machine
from hwsim.engine.cost import cost
from hwsim.engine.energy import Prices
from hwsim.engine.execute import execute
from hwsim.graph.dtype import int_, parse, uint
from hwsim.graph.ir import Constant, QuantGraph
from hwsim.mapping.gemm import GemmProblem, Tiling
from hwsim.mapping.mapper import Mapper
from hwsim.mapping.site import Site

shipped = cache(load_machine)
WHERE = st.sampled_from(["chip", "stream"])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    machine=st.sampled_from(["toy", "bitserial_edge", "int8_edge"]),
    bits=st.tuples(*[st.integers(2, 8)] * 4),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    tile=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    order=st.sampled_from(["activation", "weight", "output"]),
    places=st.tuples(WHERE, WHERE, st.booleans()),
)
def test_more_bits_are_never_cheaper_under_one_mapping(
    machine: str,
    bits: tuple[int, int, int, int],
    shape: tuple[int, int, int],
    tile: tuple[int, int, int],
    order: str,
    places: tuple[str, str, bool],
) -> None:
    on = shipped(machine)
    mapper, (m, n, k) = Mapper(Site(on), Prices(on)), shape
    found = []
    for a, w in (
        (min(bits[:2]), min(bits[2:])),
        (max(bits[:2]), min(bits[2:])),
        (max(bits[:2]), max(bits[2:])),
    ):
        array = on.array_for(int_(a), int_(w))
        p = GemmProblem(
            array.name, 1, m, n, k, int_(a), int_(w), int_(32), n,
            places[0], places[1], on.spec.roles.weight, places[2], (), (), 0,
        )  # type: ignore[arg-type]  # fmt: skip
        sizes = (min(x, whole) for x, whole in zip(tile, shape, strict=True))
        t = Tiling(*sizes, order, array.block(int_(a), int_(w)))  # type: ignore[arg-type]
        mapping = mapper.gemm_at(p, t)
        pj = Prices(on).nominal_pj(mapping.counts)
        found.append((array.name, mapping.timeline.cycles, pj))
    assert len({name for name, _, _ in found}) == 1  # or these are different units
    assert [c for _, c, _ in found] == sorted(c for _, c, _ in found)
    for (_, _, narrow), (_, _, wide) in pairwise(found):
        assert wide >= narrow * (1 - 1e-12)


def product(rows: int, outputs: int, depth: int, seed: int) -> QuantGraph:
    """A linear layer with random weights and a requantisation by channel."""
    rng = np.random.default_rng(seed)
    g, int8 = GraphMaker(), parse("INT8")
    g.input("x", int8, rows, depth)
    g.node("acc", "linear", ("x",), INT32, (rows, outputs), {"weight": (int8, (outputs, depth))})
    scales = {"M": (uint(31), (outputs,)), "S": (uint(6), (outputs,)), "B": (int_(64), (outputs,))}
    g.node("y", "requant", ("acc",), int8, (rows, outputs), scales)
    drawn = {
        "acc.weight": rng.integers(-128, 128, (outputs, depth)),
        "y.M": rng.integers(1, 1 << 16, outputs),
        "y.S": rng.integers(16, 24, outputs),
        "y.B": rng.integers(-1000, 1000, outputs),
    }
    for name, array in drawn.items():
        old = g.constants[name]
        g.constants[name] = Constant(name, old.dtype, array.astype(old.array.dtype))
    return g.build(("x",), ("y",), 0)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    st.integers(1, 6), st.integers(1, 20), st.integers(1, 40), st.integers(0, 10**6),
    st.sampled_from(["toy", "int8_edge", "bitserial_edge"]),
)  # fmt: skip
def test_output_channels_may_be_relabelled(
    rows: int, outputs: int, depth: int, seed: int, machine: str
) -> None:
    graph, on = product(rows, outputs, depth, seed), shipped(machine)
    rng = np.random.default_rng(seed + 1)
    order = rng.permutation(outputs)
    constants = {
        name: replace(c, array=np.ascontiguousarray(c.array[order]))
        for name, c in graph.constants.items()
    }
    turned = replace(graph, constants=constants)
    x = {"x": rng.integers(-128, 128, (2, rows, depth))}
    first, second = (dict(execute(g, on, x))["y"] for g in (graph, turned))
    assert (first[..., order] == second).all()
    costs = [cost(g, on).to_json() for g in (graph, turned)]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("machine", ["toy", "xnor_edge"])
def test_the_formatting_of_a_file_changes_nothing(machine: str, tmp_path: Path) -> None:
    source = find_machine(machine)
    data = yaml.safe_load(source.read_text(encoding="utf-8"))

    def turned(value: object) -> object:
        """Keys in the opposite order, but arrays, where the order is a priority."""
        if not isinstance(value, dict):
            return value
        return {key: turned(value[key]) for key in reversed(value)}

    arrays = {name: turned(spec) for name, spec in data["arrays"].items()}
    other = tmp_path / f"{machine}.yaml"
    text = yaml.safe_dump(turned(data) | {"arrays": arrays}, sort_keys=False, default_flow_style=True, width=60)  # type: ignore[operator]  # fmt: skip
    other.write_text(f"# all in one\n\n{text}", encoding="utf-8")
    if "extends" in data:
        (tmp_path / "base").symlink_to(source.parent / "base")
    one, two = load_machine(machine), load_machine(other)
    assert one.sha256 == two.sha256
    graph = product(5, 9, 30, 1)
    assert cost(graph, one).to_json() == cost(graph, two).to_json()
