"""Rung B: every tensor that a machine computes equals the reference, on every machine, in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from lowbit_students import FAMILIES, MACHINES, RECIPES, Student, batch_of

from hwsim import api, reference
from hwsim.config.load import load_machine
from hwsim.engine.execute import execute
from hwsim.graph.ir import QuantGraph
from hwsim.graph.serialize import Samples
from hwsim.rungs import graph_inputs

COMBINATIONS = [(f, r) for f in FAMILIES for r in RECIPES]
Tensors = dict[str, np.ndarray]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_no_tensor_is_unequal(student, family, recipe, machine):
    made = student(family, recipe)
    graph, samples = made.model.graph, made.model.samples
    found = api.verify(made.model, machine)
    assert found.unequal == []
    assert found.ok
    assert found.samples == len(samples)
    assert found.tensors == len(graph.nodes)
    assert found.elements == elements(graph, samples)
    assert found.profiles == {}


def elements(graph: QuantGraph, samples: Samples) -> int:
    """Elements of all tensors of all samples; here all samples fit one batch, cut to its longest."""
    longest = 0 if samples.lengths is None else int(samples.lengths.max())
    return len(samples) * sum(graph.tensors[n.name].elements(longest) for n in graph.nodes)


def test_accumulators_and_both_operands_of_attention_are_among_the_tensors(student):
    """What is compared is not only what leaves a layer."""
    for family, recipe in COMBINATIONS:
        graph = student(family, recipe).graph
        contractions = [n for n in graph.nodes if n.op in ("linear", "matmul")]
        layers = 2 if family == "gpt2" else 1
        products = {"vit": 6 * layers + 2, "bert": 6 * layers + 2, "gpt2": 4 * layers + 1}[family]
        assert len(contractions) == products + 2 * layers
        for node in contractions:
            assert graph.tensors[node.name].dtype.name == "INT32"
            assert graph.consumers(node.name)


@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_an_export_comes_back_from_the_disk_unchanged(student, family, recipe):
    made = student(family, recipe)
    graph, back = made.graph, made.model.graph
    assert back.nodes == graph.nodes
    assert back.tensors == graph.tensors
    assert list(back.constants) == list(graph.constants)
    for name, constant in graph.constants.items():
        assert back.constants[name].dtype == constant.dtype
        assert np.array_equal(back.constants[name].array, constant.array)


def inputs_of(made: Student, seed: int) -> tuple[Tensors, np.ndarray | None]:
    batch = batch_of(made.family, seed)
    lengths = batch["attention_mask"].sum(1).numpy() if "attention_mask" in batch else None
    return graph_inputs(made.graph, batch), lengths


def real(graph: QuantGraph, tensor: str, row: np.ndarray, length: int) -> np.ndarray:
    """One sample's tensor, cut to its real positions."""
    cut = tuple(
        slice(length) if isinstance(d, str) else slice(None) for d in graph.tensors[tensor].shape
    )
    return row[cut]


@pytest.mark.parametrize("machine", [None, "xnor_edge"])
@pytest.mark.parametrize(
    ("family", "recipe"), [("bert", r) for r in RECIPES] + [("gpt2", r) for r in RECIPES]
)
def test_a_sentence_alone_equals_the_sentence_in_a_padded_batch(student, family, recipe, machine):
    made = student(family, recipe)
    graph = made.graph
    inputs, lengths = inputs_of(made, 21)

    def run(x: Tensors, n: np.ndarray) -> Tensors:
        if machine is None:
            return dict(reference.execute(graph, x, n))
        return dict(execute(graph, load_machine(machine), x, n))

    together = run(inputs, lengths)
    assert len(set(lengths)) > 3
    for i, length in enumerate(lengths.tolist()):
        alone = run({k: x[i : i + 1, :length] for k, x in inputs.items()}, lengths[i : i + 1])
        for name in together:
            want = real(graph, name, together[name][i], length)
            assert np.array_equal(alone[name][0], want), (i, name)


@pytest.mark.parametrize(("family", "recipe"), COMBINATIONS)
def test_the_order_of_a_batch_changes_nothing(student, family, recipe):
    made = student(family, recipe)
    inputs, lengths = inputs_of(made, 22)
    order = np.random.default_rng(0).permutation(len(next(iter(inputs.values()))))
    moved = {k: x[order] for k, x in inputs.items()}
    machine = load_machine("int8_edge")
    straight = execute(made.graph, machine, inputs, lengths)
    shuffled = execute(made.graph, machine, moved, None if lengths is None else lengths[order])
    for (name, a), (_, b) in zip(straight, shuffled, strict=True):
        assert np.array_equal(a[order], b), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_padded_positions_reach_no_real_one(student, recipe):
    """Other ids behind the end of every sentence change nothing in front of it."""
    for family in ("bert", "gpt2"):
        made = student(family, recipe)
        graph = made.graph
        inputs, lengths = inputs_of(made, 23)
        behind = np.arange(inputs["input_ids"].shape[1]) >= lengths[:, None]
        other = {**inputs, "input_ids": np.where(behind, 17, inputs["input_ids"])}
        assert not np.array_equal(other["input_ids"], inputs["input_ids"])
        for (name, a), (_, b) in zip(
            reference.execute(graph, inputs, lengths),
            reference.execute(graph, other, lengths),
            strict=True,
        ):
            for i, length in enumerate(lengths.tolist()):
                assert np.array_equal(
                    real(graph, name, a[i], length), real(graph, name, b[i], length)
                )


@pytest.mark.parametrize("machine", [None, "ternary_edge"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_logits_of_a_prefix_are_a_prefix_of_the_logits(student, recipe, machine):
    made = student("gpt2", recipe)
    graph = made.graph
    output = graph.outputs[0]
    inputs, lengths = inputs_of(made, 24)
    full = {k: x[:1] for k, x in inputs.items()}  # the first sample has no padding
    longest = int(lengths[0])

    def logits(length: int) -> np.ndarray:
        x = {k: v[:, :length] for k, v in full.items()}
        n = np.array([length])
        tensors = (
            reference.execute(graph, x, n)
            if machine is None
            else execute(graph, load_machine(machine), x, n)
        )
        return dict(tensors)[output][0]

    whole = logits(longest)
    assert whole.shape == (longest, made.module.config.vocab_size)
    for length in range(1, longest):
        assert np.array_equal(logits(length), whole[:length])


def test_segments_matter_and_agree(student):
    """Token types reach the result, and through the machine as through the reference."""
    made = student("bert", "w8a8")
    inputs, lengths = inputs_of(made, 25)
    flat = {**inputs, "token_type_ids": np.zeros_like(inputs["token_type_ids"])}
    output = made.graph.outputs[0]
    assert set(made.graph.inputs) == {"input_ids", "token_type_ids"}
    with_segments = dict(reference.execute(made.graph, inputs, lengths))[output]
    without = dict(reference.execute(made.graph, flat, lengths))[output]
    assert not np.array_equal(with_segments, without)
    on_machine = dict(execute(made.graph, load_machine("int8_edge"), flat, lengths))[output]
    assert np.array_equal(on_machine, without)


def test_no_test_here_tolerates_a_difference():
    """Bit exactness is the claim: nothing in this folder may compare with a tolerance."""
    from pathlib import Path

    words = ["all" + "close", "app" + "rox", "is" + "close", "assert_" + "almost"]
    for path in Path(__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert [w for w in words if w in text] == [], path.name
