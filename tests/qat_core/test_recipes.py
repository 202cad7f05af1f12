"""Recipes: every shipped one loads, and wrong ones are refused with their place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.errors import ConfigError
from qat.recipe import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_under_their_own_name_and_survive_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    again = Recipe.model_validate_json(recipe.model_dump_json(by_alias=True))
    assert again == recipe


def test_the_named_recipes_are_there() -> None:
    assert {"float", "w8a8", "kd_w2a8", "ti_g_w2a8", "bit_w1a1"} <= set(recipe_names())


def test_released_and_corrected_recipes_differ_where_they_say() -> None:
    ours, theirs = load_recipe("ti_g_w2a8"), load_recipe("ti_w2a8_as_released")
    assert ours.objective.output is not None
    assert theirs.objective.output is not None
    assert (ours.objective.output.on, theirs.objective.output.on) == ("ao", "post_ln")
    assert theirs.quantization.linear.input is not None
    assert theirs.quantization.linear.input.rounding == "half_even"
    assert theirs.method is not None
    assert (theirs.method.steps, theirs.method.fraction) == (60, None)
    assert load_recipe("bit_w1a1_as_released").teacher_mode == "train"


def test_batch_dependence_is_known() -> None:
    assert load_recipe("w8a8").batch_dependent
    assert load_recipe("bit_w1a1").batch_dependent  # until the classifier's range is frozen
    assert not load_recipe("bit_w1a1_as_released").batch_dependent
    assert not load_recipe("float").quantizes


def test_an_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="not 'ti_w2a8'; did you mean 'ti_"):
        load_recipe("ti_w2a8")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quantization.linear.weight.format=INT8", "method twn must have format TERNARY, not INT8"),
        ("quantization.linear.weight.format=INT3X", "INT3X"),
        ("quantization.attention.key.granularity=token", "tokens are reduced over"),
        ("quantization.linear.input.shift=true", "a shift must have range 'learned'"),
        ("objective.logits.reduction=median", "must be 'sum' or 'mean', not 'median'"),
        ("method.steps=5", "exactly one of steps and fraction"),
        ("method.mode=sideways", "sideways"),
        ("freeze_rangs=0.1", "freeze_ranges"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe("ti_g_w2a8", [override])
    assert override.partition(".")[0].partition("=")[0][:7] in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.blockwise_steps=5", "exactly one of blockwise_steps and blockwise_fraction"),
        ("method.migration=1.5", "must be at most 1.0, not 1.5"),
        ("method.init=zeros", "must be 'ones' or 'smoothquant', not 'zeros'"),
        ("objective.output={on: post_ln}", "channel scales change what layer norms yield"),
        # of the three methods' keys only those of the named one are offered
        (
            "method.mode=gradual",
            r"known key \(blockwise_fraction, blockwise_steps, init, migration, name\), not 'mode'",
        ),
    ],
)
def test_wrong_values_of_quadapter_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("quadapter_w8a8", [override])


def test_quadapter_differs_from_its_baselines_in_the_method_alone() -> None:
    ours, closed = load_recipe("quadapter_w8a8"), load_recipe("smoothquant_w8a8")
    same = {"name": ours.name, "description": ours.description, "method": ours.method}
    assert closed.model_copy(update=same) == ours
    assert ours.needs_teacher
    assert not closed.needs_teacher
    assert load_recipe("quadapter_w8a8", ["method=null"]).channel_scaling is None


def test_a_users_recipe_extends_a_shipped_one_and_its_faults_have_a_place(tmp_path: Path) -> None:
    good = tmp_path / "mine.yaml"
    good.write_text("extends: bit_w1a1\nname: mine\noptimizer: {learning_rate: 3.0e-3}\n")
    recipe = load_recipe(good)
    assert recipe.optimizer.learning_rate == 3e-3
    assert recipe.optimizer.name == "bert_adam"
    bad = tmp_path / "bad.yaml"
    bad.write_text("extends: bit_w1a1\nname: mine\nobjective:\n  hiden: {weight: 1.0}\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml:4:3: objective\.hiden"):
        load_recipe(bad)


def test_recipes_do_not_import_torch() -> None:
    code = "import sys, qat.recipe; qat.recipe.load_recipe('bit_w1a1'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("optimizer=null", "both of objective and optimizer must be given, or neither"),
        ("quantization.linear.weight={format: INT4, method: lsq, granularity: row}", "method lsq must have granularity 'tensor', no clip and no schedule"),
        ("quantization.linear.weight={format: TERNARY, method: lsq}", "method lsq must have format INTn, not TERNARY"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(override: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_recipe("kd_w2a8", [override])


def test_a_recipe_that_trains_nothing_has_no_method_that_learns() -> None:
    nothing = ["objective=null", "optimizer=null"]
    assert not load_recipe("kd_w2a8", nothing).trains
    with pytest.raises(
        ConfigError, match="method teacher_intervention needs objective and optimizer"
    ):
        load_recipe("ti_g_w2a8", nothing)
