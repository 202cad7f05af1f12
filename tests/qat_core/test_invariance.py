"""The loss and gradient of an update do not depend on how its rows are split."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from split_updates import (
    LENGTHS,
    gradients,
    largest_difference,
    objective_of,
    recipe_of,
    rows_of,
)
from torch import Tensor

from qat.objective import Objective
from qat.quantizers.lifecycle import after_update
from qat.recipe import load_recipe
from qat.step import Extent, Portion


def gradient(
    objective: Objective, batches: Sequence[dict[str, Tensor]], step: int
) -> tuple[float, dict[str, Tensor]]:
    extents = [objective.extent(batch) for batch in batches]
    whole = Extent(*map(sum, zip(*extents, strict=True)))
    objective.student.zero_grad()
    total = 0.0
    for batch, own in zip(batches, extents, strict=True):
        loss, _ = objective(batch, step, Portion(own, whole))
        loss.backward()
        total += loss.item()
    return total, gradients(objective.student)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("learned", 50),
        ("per_token", 0),
        ("per_token", 50),
    ],  # step 0: the teacher's outputs injected
)
def test_micro_batches_add_up_to_one_batch(family: str, kind: str, step: int) -> None:
    objective = objective_of(family, recipe_of(kind))
    loss, whole = gradient(objective, [rows_of(family, range(8))], step)
    assert sum(float(g.norm()) for n, g in whole.items() if n.endswith("alpha")) > 0 or (
        kind == "per_token"
    )
    quarters = [rows_of(family, (2 * i, 2 * i + 1)) for i in range(4)]
    split_loss, split = gradient(objective, quarters, step)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert largest_difference(whole, split) < 1e-5
    uneven = [rows_of(family, (0, 4, 6)), rows_of(family, (1,)), rows_of(family, (2, 3, 5, 7))]
    uneven_loss, split = gradient(objective, uneven, step)
    assert uneven_loss == pytest.approx(loss, rel=1e-5)
    assert largest_difference(whole, split) < 1e-5


def test_a_portion_that_is_everything_changes_no_bit() -> None:
    objective = objective_of("bert", recipe_of("learned"))
    batch = rows_of("bert", range(8))
    _, with_portion = gradient(objective, [batch], 50)
    objective.student.zero_grad()
    objective(batch, 50)[0].backward()
    for name, parameter in objective.student.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, with_portion[name]), name


def test_the_mean_of_the_micro_batches_means_is_another_gradient() -> None:
    objective = objective_of("bert", recipe_of("per_token"))
    _, whole = gradient(objective, [rows_of("bert", range(8))], 50)
    objective.student.zero_grad()
    for i in range(4):
        (objective(rows_of("bert", (2 * i, 2 * i + 1)), 50)[0] / 4).backward()
    assert largest_difference(whole, gradients(objective.student)) > 1e-2


def test_alpha_is_scaled_by_the_elements_of_the_whole_update() -> None:
    objective = objective_of("bert", recipe_of("learned"))
    batch = rows_of("bert", range(8))
    own = objective.extent(batch)
    pairs = sum(n * n for n in LENGTHS[:8])
    assert own == Extent(8, sum(LENGTHS[:8]), pairs, pairs, 8)
    found = []
    for factor in (1, 4):
        objective.student.zero_grad()
        whole = Extent(*(n * factor for n in own))
        (objective(batch, 50, Portion(own, whole))[0] * factor).backward()
        found.append(gradients(objective.student))
    for name, g in found[0].items():
        ratio = 0.5 if name.endswith("alpha") else 1.0  # kappa = 1 / sqrt(N): 4 N halve it
        assert torch.allclose(found[1][name], g * ratio, rtol=1e-5, atol=0), name


def test_a_causal_model_counts_the_pairs_it_attends_to() -> None:
    objective = objective_of("gpt2", recipe_of("per_token"))
    extent = objective.extent(rows_of("gpt2", (1, 3)))  # rows of 3 and of 2 tokens
    assert extent == Extent(rows=2, positions=5, pairs=13, scores=6 + 3, targets=2 + 1)
    images = {"pixel_values": torch.zeros(5, 1, 8, 8), "labels": torch.zeros(5, dtype=torch.long)}
    assert objective.extent(images) == Extent(5, 5, 5, 5, 5)


def test_ranges_per_tensor_depend_on_the_split_and_say_so() -> None:
    recipe = recipe_of("dynamic")
    assert recipe.batch_dependent
    assert not recipe_of("learned").batch_dependent
    assert not recipe_of("per_token").batch_dependent
    objective = objective_of("bert", recipe)
    _, whole = gradient(objective, [rows_of("bert", range(8))], 50)
    _, split = gradient(objective, [rows_of("bert", (2 * i, 2 * i + 1)) for i in range(4)], 50)
    assert largest_difference(whole, split) > 1e-4


def test_the_grids_of_an_update_do_not_move_before_it_ends() -> None:
    objective = objective_of("bert", recipe_of("learned"))
    student = objective.student
    with torch.no_grad():  # what was seen last is long ago: the first micro-batch would move a grid
        for grid in student.stream_grids:
            grid.amax.mul_(0.2)
            grid.scale.mul_(0.25)
    before = [grid.scale.clone() for grid in student.stream_grids]
    gradient(objective, [rows_of("bert", (0, 1)), rows_of("bert", (2, 3))], 50)
    assert all(map(torch.equal, before, [grid.scale for grid in student.stream_grids]))
    after_update(student)
    assert not all(map(torch.equal, before, [grid.scale for grid in student.stream_grids]))


def test_a_micro_batch_without_targets_adds_nothing() -> None:
    recipe = load_recipe("qat_w2a8", ["quantization={}", "activation_function=null"])
    objective = objective_of("gpt2", recipe)
    batch = rows_of("gpt2", range(8))
    batch["labels"][:4] = -100
    whole = objective.extent(batch)
    loss, _ = objective(batch, 0)
    parts = [{name: x[at : at + 4] for name, x in batch.items()} for at in (0, 4)]
    shares = [objective(part, 0, Portion(objective.extent(part), whole))[0] for part in parts]
    assert shares[0].item() == 0
    assert shares[1].item() == pytest.approx(loss.item(), rel=1e-5)
    batch["labels"][:] = -100
    nothing = objective.extent(batch)
    assert objective(batch, 0, Portion(nothing, nothing))[0].item() == 0
