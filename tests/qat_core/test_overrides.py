"""Mixed precision by name, and bit widths that fall during a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import batch_of, tiny

from hwsim.errors import ConfigError
from qat.formats import BitSchedule
from qat.objective import Objective
from qat.overview import summary
from qat.quantizers.weight import WeightQuantizer
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

INT8 = {"format": "INT8", "method": "absmax"}
STATIC = {"format": "INT4", "range": "learned"}


def with_overrides(name: str, *overrides: dict[str, Any]) -> Recipe:
    values = load_recipe(name).model_dump(mode="json", by_alias=True)
    values["quantization"]["overrides"] = list(overrides)
    return Recipe.model_validate(values)


def formats(recipe: Recipe, family: str = "bert") -> dict[str, tuple[str, str]]:
    return {row.name: (row.weight, row.input) for row in summary(prepare(tiny(family), recipe))}


def test_the_last_override_that_matches_wins_key_by_key() -> None:
    recipe = with_overrides(
        "kd_w2a8",
        {"modules": "*.layer.0.*", "weight": INT8, "input": None},
        {"modules": "*.attention.self.key", "weight": None},
        {"modules": "*.[1].intermediate.dense", "input": STATIC},
        {"modules": "*word_embeddings", "weight": None},
        {"modules": "*.0.attention.self", "query": None, "probabilities": STATIC},
    )
    found, plain = formats(recipe), formats(load_recipe("kd_w2a8"))
    layer = "bert.encoder.layer."
    expected = {
        f"{layer}0.attention.self.query": ("INT8", "FLOAT32"),
        f"{layer}0.attention.self.key": ("FLOAT32", "FLOAT32"),
        f"{layer}0.attention.self.value": ("INT8", "FLOAT32"),
        f"{layer}0.attention.output.dense": ("INT8", "FLOAT32"),
        f"{layer}0.intermediate.dense": ("INT8", "FLOAT32"),
        f"{layer}0.output.dense": ("INT8", "FLOAT32"),
        f"{layer}0.attention.self.operands": ("", "q:FLOAT32 k:INT8 v:INT8 p:INT4"),
        f"{layer}1.attention.self.key": ("FLOAT32", "INT8"),
        f"{layer}1.intermediate.dense": ("TERNARY", "INT4"),
        "bert.embeddings.word_embeddings": ("FLOAT32", "FLOAT32"),
    }
    changed = {name for name, pair in found.items() if pair != plain[name]}
    assert changed == set(expected)
    assert {name: found[name] for name in expected} == expected


def test_a_fused_projection_and_what_has_no_role_by_default_can_be_named() -> None:
    recipe = with_overrides("kd_w2a8", {"modules": "*.h.1.attn.c_attn", "weight": INT8})
    found = formats(recipe, "gpt2")
    assert found["transformer.h.1.attn.c_attn"][0] == "INT8"
    assert found["transformer.h.0.attn.c_attn"][0] == "TERNARY"
    patch = {"modules": "*.projection", "weight": INT8, "input": STATIC}
    found = formats(with_overrides("kd_w2a8", patch), "vit")
    assert found["vit.embeddings.patch_embeddings.projection"] == ("INT8", "INT4")


def test_what_fits_nothing_is_refused_with_its_place() -> None:
    recipe = with_overrides(
        "kd_w2a8",
        {"modules": "*.layer.7.*", "weight": INT8},
        {"modules": "bert.encoder.layer.0.atention.self.query", "weight": INT8},
        {"modules": "*.intermediate.dense", "key": STATIC},
    )
    with pytest.raises(ConfigError) as fault:
        prepare(tiny("bert"), recipe)
    first, second, third = fault.value.faults
    assert first.startswith("quantization.overrides[0].modules: '*.layer.7.*' matches no module")
    assert second.endswith("did you mean 'bert.encoder.layer.0.attention.self.query'?")
    assert third == (
        "quantization.overrides[2].key: nothing that '*.intermediate.dense' matches has it:"
        " 'bert.encoder.layer.0.intermediate.dense' has weight, input"
    )
    half = with_overrides("kd_w2a8", {"modules": "*.projection", "weight": INT8})
    with pytest.raises(ConfigError, match="projection must have both weight and input"):
        prepare(tiny("vit"), half)
    with pytest.raises(ValueError, match="at least one of weight, input, query"):
        with_overrides("kd_w2a8", {"modules": "*"})


def test_an_override_can_make_a_recipe_depend_on_the_batch() -> None:
    static = load_recipe("bit_w1a1_as_released")
    dynamic = {"format": "INT8", "range": "dynamic"}
    assert not static.batch_dependent
    for key in ("input", "value"):
        override = {"modules": "*", key: dynamic}
        assert with_overrides("bit_w1a1_as_released", override).batch_dependent


@pytest.mark.parametrize(
    ("schedule", "target", "bits"),
    [
        ((4, 2, 3), 2, [4, 4, 4, 4, 4, 3, 3, 2, 2]),
        ((3, 1, 0), 1, [3, 2, 1, 1]),
        ((8, 3, 0), 8 - 1, [8, 8, 8, 7, 7]),
    ],
)
def test_bits_fall_by_one_every_period(
    schedule: tuple[int, int, int], target: int, bits: list[int]
) -> None:
    spec = BitSchedule(start_bits=schedule[0], period=schedule[1], offset=schedule[2])
    assert [spec.bits(step, target) for step in range(len(bits))] == bits
    assert spec.end(target) == bits.index(target)


def test_codes_follow_the_schedule_down_to_the_recipes_format() -> None:
    schedule = BitSchedule(start_bits=4, period=1)
    quantizer = WeightQuantizer("BIPOLAR", "bwn", "row", schedule=schedule)
    fresh = WeightQuantizer("BIPOLAR", "bwn", "row")
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer(weight)[0], fresh(weight)[0])  # not told of any step: as exported
    levels = []
    for step in (0, 1, 2, 3, 9, 0):
        quantizer.at_step(step)
        levels.append(len(quantizer(weight)[0].unique()))
    assert levels == [15, 7, 3, 2, 2, 15]
    assert quantizer.final_step == 3


def test_a_schedule_must_end_before_the_run_and_start_above_the_format() -> None:
    prefix = "quantization.linear.weight"
    short = ["format=INT4", "method=absmax", "clip=0.0", "schedule={start_bits: 8, period: 5}"]
    recipe = load_recipe("kd_w2a8", [f"{prefix}.{text}" for text in short])
    teacher = prepare(tiny("bert"))
    student = prepare(teacher, recipe)
    with pytest.raises(ValueError, match=r"must end before the run's 20 steps .* at step 20"):
        Objective(student, teacher, recipe, 20)
    objective = Objective(student, teacher, recipe, 21)
    assert objective.own_bits_step == 20
    student.train()
    query = student.bert.encoder.layer[0].attention.self.query.weight_quantizer
    for step, fmt in ((0, "INT8"), (5, "INT7"), (19, "INT5"), (20, "INT4")):
        objective(batch_of("bert"), step)
        assert query.fmt == fmt
    with pytest.raises(ConfigError, match="must be more than the 8 of INT8, not 8"):
        load_recipe(
            "w8a8",
            [f"{prefix}.schedule={{start_bits: 8, period: 5}}"],
        )
