"""Rung A1: every operator of the integer graph against the static student, and that a fault is named."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from lowbit_students import (
    FAMILIES,
    RECIPES,
    Student,
    first_node,
    with_attrs,
    with_constant,
)

from hwsim.calibrate import Range
from hwsim.freeze import freeze
from hwsim.graph.ir import QuantGraph
from hwsim.lower import lower
from hwsim.rungs import EXACT, OperatorCheck, compare_local

COMBINATIONS = [(f, r) for f in FAMILIES for r in RECIPES]


def checks_of(made: Student, graph: QuantGraph | None = None) -> dict[str, OperatorCheck]:
    """Rung A1 of a student, or of another graph against the same student."""
    run = copy.copy(made.static_run)
    run.lowered = dataclasses.replace(made.lowered, graph=graph or made.graph)
    checks: dict[str, OperatorCheck] = {}
    compare_local(run, checks)
    return checks


@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_every_operator_computes_what_the_student_computes(student, family, recipe):
    made = student(family, recipe)
    checks = checks_of(made)
    assert list(checks) == [n.name for n in made.graph.nodes]
    assert all(c.elements > 0 for c in checks.values())
    assert [c for c in checks.values() if not c.holds] == []
    assert [c for c in checks.values() if c.op in EXACT and c.differing] == []
    for check in checks.values():
        if check.op in ("requant", "add", "embedding", "softmax_binary"):
            assert check.differing == 0, "few elements: a single differing one is already 1e-3"


@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_no_tensor_is_trivial(student, family, recipe):
    """A constant tensor would agree whatever its operator did."""
    made = student(family, recipe)
    dead = [n.name for n in made.graph.nodes if np.unique(made.static_run.codes(n.name)).size < 2]
    assert dead == []


@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_graph_agrees_with_the_static_student_end_to_end(student, family, recipe):
    """Rung A2 in small: the free-running graph's logits, in the units of the student's."""
    from hwsim import reference

    made = student(family, recipe)
    run = made.static_run
    *_, (name, codes) = reference.execute(made.graph, run.inputs, run.lengths)
    logits = codes * made.graph.tensors[name].scale
    spread = run.output.numpy().std()
    error = np.sqrt(np.square(logits - run.output.numpy()).mean())
    assert name == made.graph.outputs[0]
    assert error < 0.05 * spread


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_agree_where_values_leave_the_calibrated_range(student, family):
    """Real data saturates now and then; the static student must saturate in the same places."""
    made = student(family, "w8a8")
    narrow = {n: Range(r.low / 3, r.high / 3) for n, r in made.ranges.items()}
    static = freeze(made.captured, narrow)
    lowered = lower(static)
    tight = dataclasses.replace(made, static=static, lowered=lowered)
    checks = checks_of(tight)
    codes = [
        (lowered.graph.tensors[c.node].dtype, tight.static_run.codes(c.node))
        for c in checks.values()
        if c.op in ("requant", "add")
    ]
    assert sum(int((x == d.qmax).sum() + (x == d.qmin).sum()) for d, x in codes) > 100
    assert [c for c in checks.values() if not c.holds] == []


Fault = Callable[[QuantGraph], tuple[QuantGraph, str]]


def _constant_fault(
    op: str, role: str, change: Callable[[np.ndarray], np.ndarray], contains: str = ""
) -> Fault:
    def apply(graph: QuantGraph) -> tuple[QuantGraph, str]:
        node = first_node(graph, op, contains)
        array = graph.constant(graph.by_name[node], role)
        changed = change(array.copy())
        assert not np.array_equal(changed, array)
        return with_constant(graph, node, role, changed), node

    return apply


def _attribute_fault(op: str, contains: str = "", **attrs: object) -> Fault:
    def apply(graph: QuantGraph) -> tuple[QuantGraph, str]:
        node = first_node(graph, op, contains)
        assert dict(graph.by_name[node].attrs) != {**graph.by_name[node].attrs, **attrs}
        return with_attrs(graph, node, **attrs), node

    return apply


def _negate_first_row(w: np.ndarray) -> np.ndarray:
    w[0] = -w[0]
    return w


def _as_reshape(op: str) -> Fault:
    """An operator that moves elements is replaced by one that only renames the axes."""

    def apply(graph: QuantGraph) -> tuple[QuantGraph, str]:
        node = first_node(graph, op)
        shape = graph.tensors[node].shape
        wrong = dataclasses.replace(
            graph.by_name[node], op="reshape", attrs={"shape": shape}, constants={}
        )
        nodes = tuple(wrong if n.name == node else n for n in graph.nodes)
        return dataclasses.replace(graph, nodes=nodes), node

    return apply


def _swapped_operands(graph: QuantGraph) -> tuple[QuantGraph, str]:
    """K Q^T instead of Q K^T: the same shape."""
    node = first_node(graph, "matmul", "scores")
    wrong = dataclasses.replace(graph.by_name[node], inputs=graph.by_name[node].inputs[::-1])
    nodes = tuple(wrong if n.name == node else n for n in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes), node


def _key_for_value(graph: QuantGraph) -> tuple[QuantGraph, str]:
    """The third slice of a fused projection reads the second one's channels."""
    slices = [n for n in graph.nodes if n.op == "slice"][:3]
    wrong = dict(slices[1].attrs)
    return with_attrs(graph, slices[2].name, **wrong), slices[2].name


def _next_table_entry(t: np.ndarray) -> np.ndarray:
    return np.roll(t, 1, axis=-1)


FAULTS = {
    "lost bias, requant": ("vit", "w8a8", _constant_fault("requant", "B", np.zeros_like)),
    "lost bias, branch": ("bert", "w8a8", _constant_fault("requant", "B", np.zeros_like, "branch")),
    "lost bias, thresholds": (
        "bert", "bit_w1a1", _constant_fault("threshold", "threshold", lambda t: np.broadcast_to(t[:1], t.shape).copy(), "query"),
    ),
    "thresholds one off": ("gpt2", "bit_w1a1", _constant_fault("threshold", "threshold", lambda t: t + 2, "operands")),
    "threshold direction": ("vit", "bit_w1a1", _constant_fault("threshold", "direction", lambda d: -d)),
    "one negated weight row, int8": ("vit", "w8a8", _constant_fault("linear", "weight", _negate_first_row, "attention")),
    "one negated weight row, ternary": ("bert", "kd_w2a8", _constant_fault("linear", "weight", _negate_first_row, "attention")),
    "one negated weight row, binary": ("gpt2", "bit_w1a1", _constant_fault("linear", "weight", _negate_first_row, "attn")),
    "multiplier of the neighbour": ("bert", "w8a8", _constant_fault("requant", "M", lambda m: np.roll(m, 1), "operands")),
    "shift one off": ("gpt2", "kd_w2a8", _constant_fault("requant", "S", lambda s: s - 1)),
    "heads not permuted": ("bert", "w8a8", _as_reshape("permute")),
    "values not turned": ("gpt2", "bit_w1a1", _as_reshape("relayout")),
    "K Q^T": ("vit", "bit_w1a1", _swapped_operands),
    "key channels for value": ("gpt2", "kd_w2a8", _key_for_value),
    "padding not masked": ("bert", "w8a8", _attribute_fault("softmax", masked=False)),
    "padding not masked, binary": ("bert", "bit_w1a1", _attribute_fault("softmax_binary", masked=False)),
    "not causal": ("gpt2", "w8a8", _attribute_fault("softmax", causal=False)),
    "not causal, binary": ("gpt2", "bit_w1a1", _attribute_fault("softmax_binary", causal=False)),
    "padding not masked, bool map": ("bert", "bibert_w1a1", _attribute_fault("threshold", ".map", masked=False)),
    "not causal, bool map": ("gpt2", "bibert_w1a1", _attribute_fault("threshold", ".map", causal=False)),
    "bits where a score is 0": ("vit", "bibert_w1a1", _constant_fault("threshold", "threshold", np.zeros_like, ".map")),
    "softmax too cold": ("vit", "w8a8", _constant_fault("softmax", "M", lambda m: m - m // 8)),
    "binary map's level": ("vit", "bit_w1a1", _attribute_fault("softmax_binary", level=1 << 15)),
    "lost beta": ("gpt2", "kd_w2a8", _constant_fault("layer_norm", "B", np.zeros_like)),
    "gamma of the neighbour": ("vit", "bit_w1a1", _constant_fault("layer_norm", "G", lambda g: np.roll(g, 1))),
    "GELU's table one off": ("bert", "kd_w2a8", _constant_fault("table", "table", _next_table_entry)),
    "wrong scale in a sum": ("bert", "w8a8", _constant_fault("add", "M", lambda m: m - m // 64, "attention.output")),
    "positions one off": ("vit", "kd_w2a8", _constant_fault("add", "addend", lambda r: np.roll(r, 1, axis=0))),
    "row factor of the neighbour": ("bert", "bit_w1a1", _constant_fault("embedding", "M", lambda m: np.roll(m, 1))),
    "class token": ("vit", "w8a8", _constant_fault("concat", "rows", lambda r: r + 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_one_operator_is_named(student, name):
    family, recipe, inject = FAULTS[name]
    made = student(family, recipe)
    wrong, node = inject(made.graph)
    checks = checks_of(made, wrong)
    assert [c.node for c in checks.values() if not c.holds] == [node]
