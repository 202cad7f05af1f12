"""A student whose residual stream lies on the graph's grids is the same model on every rung."""

import dataclasses
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from lowbit_students import FAMILIES, Student, batch_of, build

from hwsim.errors import GraphError
from hwsim.freeze import freeze
from hwsim.graph.dtype import parse
from hwsim.rungs import free_running
from hwsim.student import Interpreter
from qat.recipe import load_recipe


def values_of(captured, batch):
    """The value of every call, by name."""
    values = {}
    Interpreter(captured, observe=values.__setitem__).run(batch)
    return values


def one_bit(captured):
    """Names of the calls that yield 1-bit codes."""
    return [
        c.name
        for c in captured.calls
        if c.op == "bitwright.quantize_static" and parse(c.args[4]).bits == 1
    ]


# A student with constant ranges, as at the end of a training.
CONSTANT = [f"quantization.roles.{role}.input.range=learned" for role in ("patch", "classifier")]


@pytest.fixture(scope="module")
def on_grids() -> Callable[[str], Student]:
    """`on_grids(family)`: a student of 1 bit with constant ranges, each once."""
    return cache(lambda family: build(family, load_recipe("bit_w1a1", CONSTANT)))


@pytest.mark.parametrize("family", FAMILIES)
def test_freezing_changes_no_bit_of_a_student_on_grids(on_grids, family):
    made = on_grids(family)
    batch = batch_of(family, 99)
    plain, static = values_of(made.captured, batch), values_of(made.static, batch)
    names = one_bit(made.captured)
    assert len(names) >= 9
    for name in names:
        assert torch.equal(plain[name], static[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_without_grids_freezing_turns_bits(family):
    """The control: the same comparison finds differences where the stream stays in float32."""
    recipe = load_recipe("bit_w1a1", [*CONSTANT, "quantization.residual=null"])
    made = build(family, recipe, layers=2)

    def turned(seed: int) -> int:
        batch = batch_of(family, seed, size=256)
        plain, static = values_of(made.captured, batch), values_of(made.static, batch)
        return sum(int((plain[n] != static[n]).sum()) for n in one_bit(made.captured))

    assert any(turned(seed) for seed in range(50, 54))


@pytest.mark.parametrize("family", ["vit", "bert"])  # GPT-2's tied head stays in float32
def test_the_integer_graph_says_what_the_module_says(on_grids, family):
    made = on_grids(family)
    batch = batch_of(family, 99)
    with torch.no_grad():
        logits = made.module(**batch).logits.double().numpy()
    *_, (node, got, _) = free_running(made.static_run)
    ours = got * np.asarray(made.graph.tensors[node.name].scale)
    assert np.abs(ours - logits).max() < 0.01 * logits.std()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_multiplier_is_left_in_the_residual_stream(student, family):
    graph = student(family, "bit_w1a1").graph
    sums = [n for n in graph.nodes if n.op == "add"]
    assert len(sums) >= 2
    for node in sums:
        scales = {graph.tensors[t].scale for t in (*node.inputs, node.name)}
        assert len(scales) == 1
        assert np.log2(scales.pop()).is_integer()
        assert graph.constants[node.constants["M"]].array.tolist() == [1, 1]
        assert graph.constants[node.constants["S"]].array.tolist() == [0, 0]


def test_the_patches_of_an_image_are_not_moved_there_and_back(student):
    graph = student("vit", "bit_w1a1").graph
    first = next(i for i, n in enumerate(graph.nodes) if n.op == "concat")
    assert [n.op for n in graph.nodes[:first]] == ["im2col", "linear", "requant"]


def test_a_grid_that_is_no_power_of_two_is_refused(student):
    made = student("bert", "bit_w1a1")
    snap = next(c for c in made.captured.calls if c.op == "bitwright.snap")
    third = dataclasses.replace(snap.args[1], array=np.array([1 / 3]))
    calls = tuple(
        dataclasses.replace(c, args=(c.args[0], third, c.args[2])) if c is snap else c
        for c in made.captured.calls
    )
    broken = dataclasses.replace(made.captured, calls=calls)
    with pytest.raises(GraphError, match=r"must be a power of two, it is 0\.333"):
        freeze(broken, made.ranges)
