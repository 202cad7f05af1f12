"""What has no exact integer form is refused, all of it at once and by the module's name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from lowbit_students import FAMILIES, LONGEST, batch_of, build, plain
from torch import Tensor, nn

from hwsim.calibrate import collect_ranges
from hwsim.capture import capture
from hwsim.config.load import load_machine
from hwsim.engine.execute import execute
from hwsim.errors import DataError, GraphError
from hwsim.freeze import freeze
from hwsim.lower import lower
from hwsim.rungs import StaticRun, compare_local
from qat.recipe import load_recipe
from qat.student import prepare


def lowered(model: nn.Module, example: dict[str, Tensor]):
    captured = capture(model, example, LONGEST)
    static = freeze(captured, collect_ranges(captured, [example]))
    return static, lower(static)


def all_hold(model: nn.Module, example: dict[str, Tensor]) -> list[str]:
    """Lower, compare every operator with the static student, and return the operators in order."""
    static, low = lowered(model, example)
    checks = {}
    compare_local(StaticRun(static, low, example), checks)
    assert [c for c in checks.values() if not c.holds] == []
    return [n.op for n in low.graph.nodes]


class Body(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between: nn.Module | None = None, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 6)
        self.between = between or nn.Identity()
        self.last = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def example() -> dict[str, Tensor]:
    return {"x": torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))}


def test_all_operators_without_an_exact_form_are_listed_at_once():
    between = nn.Sequential(nn.Softplus(), nn.Sigmoid(), nn.BatchNorm1d(5), nn.Sigmoid())
    with pytest.raises(GraphError) as fault:
        capture(Body(between), example())
    lines = str(fault.value).splitlines()
    assert lines[0] == "the model cannot be captured:"
    assert any("aten.softplus" in x and "between.0" in x for x in lines)
    assert any("aten.sigmoid" in x and "used 2 times" in x and "between.1" in x for x in lines)
    assert any("aten.batch_norm" in x and "between.2" in x for x in lines)
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.add(x, x, alpha=2), "aten.add with alpha=2"),
        (lambda x: x + 1.0, "aten.add of a Python number"),
        (lambda x: x[:, ::2], "aten.slice with step 2"),
        (lambda x: x.to(torch.bfloat16).to(torch.float32), "from torch.float32 to torch.bfloat16"),
    ],
)
def test_a_use_of_a_known_operator_that_changes_values_is_refused(function, text):
    with pytest.raises(GraphError) as fault:
        capture(Body(Function(function)), example())
    assert text in str(fault.value)
    assert "between" in str(fault.value)


@pytest.mark.parametrize(
    ("function", "width"),
    [
        (lambda x: x[:, -2:], 6),
        (lambda x: x[:, -1], 6),
        (lambda x: x[..., -4:], 4),
        (lambda x: x[:, 1:-1], 6),
        (lambda x: x[:, 2], 6),
        (lambda x: torch.split(x, 4, dim=-1)[1], 2),
        (lambda x: torch.split(x, [1, 3, 2], dim=-1)[1], 3),
        (lambda x: x.transpose(1, 2).transpose(1, 2), 6),
        (lambda x: x.reshape(-1, 5, 2, 3).permute(0, 2, 1, 3)[:, 1], 3),
    ],
)
def test_views_count_from_either_end(function, width):
    ops = all_hold(Body(Function(function), width), example())
    assert ops.count("linear") == 2


def test_a_residual_around_a_relu_and_a_second_consumer():
    """One accumulator goes through a ReLU to a quantiser and, without it, into a sum."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
            self.norm = nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            z = y + self.middle(torch.relu(y))
            return self.last(self.norm(z) + z)

    ops = all_hold(Residual(), example())
    assert ops.count("add") == 2


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_relu_before_a_signed_format_keeps_its_non_negative_codes(family):
    """INT8 behind a ReLU uses codes 0 to 127 only: the graph holds them as UINT7."""
    recipe = load_recipe("w8a8", ["activation_function=relu"])
    made = build(family, recipe)
    checks = {}
    compare_local(made.static_run, checks)
    assert [c for c in checks.values() if not c.holds] == []
    types = {made.graph.tensors[n.name].dtype.name for n in made.graph.nodes if n.op == "requant"}
    assert "UINT7" in types


def test_a_shift_between_a_relu_and_a_wide_format_is_refused():
    recipe = load_recipe(
        "bit_w1a1",
        ["quantization.roles.ffn2.input.format=UINT8", "quantization.roles.ffn2.input.start=lsq"],
    )
    with pytest.raises(GraphError, match=r"output\.dense.*: a shift between a ReLU and a UINT8"):
        build("bert", recipe)


def test_wide_attention_operands_cannot_overflow_the_accumulator_unseen():
    spec = "{format: INT16, range: dynamic}"
    recipe = load_recipe(
        "w8a8", [f"quantization.attention.query={spec}", f"quantization.attention.key={spec}"]
    )
    with pytest.raises(GraphError, match="more than 32 bits hold"):
        build("vit", recipe)


@pytest.mark.parametrize("family", FAMILIES)
def test_dead_quantisers_are_refused_by_name_all_at_once(student, family):
    made = student(family, "bit_w1a1")
    alive = [c for c in made.captured.calls if c.op == "bitwright.quantize_static"]
    dead = [alive[0], alive[-1]]

    def kill(call, value):
        alpha = dataclasses.replace(call.args[1], array=call.args[1].array * 0 + value)
        return dataclasses.replace(call, args=(call.args[0], alpha, *call.args[2:]))

    values = dict(zip([c.name for c in dead], [0.0, float("nan")], strict=True))
    calls = tuple(kill(c, values[c.name]) if c.name in values else c for c in made.captured.calls)
    with pytest.raises(GraphError) as fault:
        freeze(dataclasses.replace(made.captured, calls=calls), made.ranges)
    lines = str(fault.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [c.origin for c in dead]
    assert "alpha is 0.0; a dead quantiser cannot be exported" in lines[0]
    assert "is not finite" in lines[1]


@pytest.mark.parametrize("recipe", ["bit_w1a1_as_released", "ti_w2a8_as_released"])
def test_the_rounding_of_the_released_code_is_refused_by_name(recipe):
    with pytest.raises(GraphError) as fault:
        build("bert", recipe)
    lines = str(fault.value).splitlines()
    assert any(
        line.startswith("bert.encoder.layer.0.attention.self.operands.query: ") for line in lines
    )
    assert all("rounds 'half_even'; the machine rounds half up" in line for line in lines)
    student = prepare(plain("bert", 1), load_recipe(recipe))
    quantisers = [m for m in student.modules() if getattr(m, "rounding", "") == "half_even"]
    assert len(lines) == len(quantisers)


def test_longest_sequence_of_the_batch_is_allowed(student):
    made = student("gpt2", "w8a8")
    assert made.graph.max_length == LONGEST + 2
    whole = batch_of("gpt2", 5, longest=LONGEST + 2)
    checks = {}
    compare_local(StaticRun(made.static, made.lowered, whole), checks)
    assert [c for c in checks.values() if not c.holds] == []


def test_longer_sequences_than_the_graph_was_built_for_are_refused(student):
    made = student("gpt2", "w8a8")
    ids = np.ones((1, LONGEST + 3), np.int64)
    with pytest.raises(
        GraphError, match=r"input input_ids: sequences must have at most 11 tokens.* not 12"
    ):
        list(execute(made.graph, load_machine("int8_edge"), {"input_ids": ids}, np.array([3])))


def test_padding_on_the_left_is_refused(student):
    made = student("bert", "w8a8")
    batch = {name: x.flip(1) for name, x in batch_of("bert", 5).items()}
    with pytest.raises(DataError, match="all its padding on the right"):
        StaticRun(made.static, made.lowered, batch)
