"""The graph: what its constructor refuses, its look-ups, lifetimes of tensors, the networkx view."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hand_made import INT8, INT32, Maker, every_operator

from hwsim.errors import GraphError
from hwsim.graph.ir import Node, QuantGraph, Tensor, last_uses
from hwsim.graph.ops import OPERATORS


def two_nodes(**changes: Any) -> QuantGraph:
    """x -> linear `acc` -> requant `y`, with changes to the node `acc` or to the graph."""
    g = Maker()
    x = g.input("x", INT8, "T", 2)
    acc = g.node("acc", "linear", (x,), INT32, ("T", 3), {"weight": (INT8, np.ones((3, 2)))})
    g.requant("y", acc, INT8, [1], [1], [0])
    graph = g.graph("y")
    node = {key: changes.pop(key) for key in ("op", "inputs_of_acc", "constants_of_acc", "attrs", "name") if key in changes}  # fmt: skip
    renamed = {"inputs_of_acc": "inputs", "constants_of_acc": "constants"}
    first = replace(graph.nodes[0], **{renamed.get(k, k): v for k, v in node.items()})
    return replace(graph, **{"nodes": (first, *graph.nodes[1:]), **changes})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"op": "gelu"}, "node acc: unknown operator 'gelu'"),
        ({"inputs_of_acc": ("nothing",)}, "node acc: reads 'nothing', which nothing wrote"),
        ({"inputs_of_acc": ("y",)}, "node acc: reads 'y', which nothing wrote"),
        ({"inputs_of_acc": ()}, "node acc: linear takes 1 inputs, has 0"),
        ({"inputs_of_acc": ("x", "x")}, "node acc: linear takes 1 inputs, has 2"),
        ({"op": "add", "inputs_of_acc": ()}, "node acc: add takes 1 or 2 inputs, has 0"),
        ({"constants_of_acc": {}}, "node acc: linear needs constant 'weight'"),
        ({"constants_of_acc": {"weight": "lost"}}, "node acc: constant 'lost' is not in the graph"),
        ({"constants_of_acc": {"weight": "acc.weight", "bias": "acc.weight"}}, "node acc: linear has no constant 'bias'"),
        ({"op": "reshape"}, "node acc: reshape needs attribute 'shape'"),
        ({"name": "x"}, "node x: written twice"),
        ({"name": "z"}, "node z: its output tensor has no type"),
        ({"outputs": ("y", "q")}, "output 'q' is written by no node"),
        ({"inputs": ("x", "ghost")}, "input 'ghost' has no type"),
    ],
)  # fmt: skip
def test_a_graph_that_does_not_hold_together_is_refused(
    changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(GraphError) as error:
        two_nodes(**changes)
    assert fault in str(error.value).splitlines()


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(GraphError) as error:
        two_nodes(inputs_of_acc=("nothing",), constants_of_acc={}, outputs=("q",))
    assert len(str(error.value).splitlines()) == 3


def test_the_unchanged_graph_is_accepted() -> None:
    assert [n.name for n in two_nodes().nodes] == ["acc", "y"]


def test_the_hand_made_graph_holds_every_operator() -> None:
    assert {n.op for n in every_operator().nodes} == set(OPERATORS)


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_is_defined_in_the_documentation(op: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "arithmetic.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{op}\b", page)


def test_look_ups() -> None:
    graph = every_operator()
    assert [n.name for n in graph.consumers("scores")] == ["wide", "binary"]
    assert [n.name for n in graph.consumers("heads")] == ["turned", "scores"]
    assert graph.consumers("flat") == ()
    assert graph.by_name["p"].op == "requant"
    assert graph.constant(graph.by_name["codes"], "B").tolist() == [0, 1, -2, 3, -4]
    assert graph.uses_length
    assert not two_nodes().uses_length


def test_graphs_are_frozen() -> None:
    graph = two_nodes()
    with pytest.raises(FrozenInstanceError):
        graph.nodes = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        graph.nodes[0].op = "matmul"  # type: ignore[misc]


def test_the_sequence_length_is_bound_by_name() -> None:
    tensor = Tensor("scores", INT32, (2, "T", "T"))
    assert tensor.bind(5) == (2, 5, 5)
    assert tensor.elements(5) == 50
    assert Tensor("scalar", INT32, ()).elements(5) == 1


class TestLastUses:
    def chain(self) -> tuple[Node, ...]:
        return (
            Node("a", "relayout", ("x",)),
            Node("b", "add", ("a", "a")),
            Node("c", "add", ("a", "b")),
            Node("dead", "relayout", ("x",)),
        )

    def test_a_tensor_ends_where_it_is_read_for_the_last_time(self) -> None:
        assert last_uses(self.chain()) == {"a": [], "b": [], "c": ["a", "b", "c"], "dead": ["x", "dead"]}  # fmt: skip

    def test_kept_tensors_never_end(self) -> None:
        drop = last_uses(self.chain(), keep=("a", "c"))
        assert drop == {"a": [], "b": [], "c": ["b"], "dead": ["x", "dead"]}

    def test_every_tensor_ends_exactly_once_and_never_before_a_use(self) -> None:
        graph = every_operator()
        dropped: set[str] = set()
        for node in graph.nodes:
            assert not dropped & set(node.inputs)
            ends = last_uses(graph.nodes)[node.name]
            assert not dropped & set(ends)
            dropped.update(ends)
        assert dropped == set(graph.tensors)


def test_networkx_view() -> None:
    graph = every_operator()
    view = graph.to_networkx()
    assert set(view.nodes) == set(graph.tensors)
    assert nx.is_directed_acyclic_graph(view)
    assert view.nodes["scores"]["node"].op == "matmul"
    assert view.nodes["ids"]["tensor"].shape == ("T",)
    assert "node" not in view.nodes["ids"]
    assert view.edges["scores", "wide"] == {"tensor": "scores"}
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    assert all(order[a] < order[b] for a, b in view.edges if a in order)
    assert nx.ancestors(view, "flat") == {"pixels", "patches", "projected", "codes", "tokens", "longer", "first"}  # fmt: skip


def test_an_exp2_table_of_another_size_is_refused() -> None:
    """Kernels address both halves without a bounds check."""
    graph = every_operator()
    name = next(n.constants["table"] for n in graph.nodes if n.attrs.get("mode") == "exp2")
    short = replace(graph.constants[name], array=graph.constants[name].array[:, :64])
    with pytest.raises(GraphError, match="an exp2 table must have 128 entries, has 64"):
        replace(graph, constants={**graph.constants, name: short})
