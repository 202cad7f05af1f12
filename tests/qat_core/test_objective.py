"""The terms of the objective with their reductions, masks and phases."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import batch_of, tiny

from hwsim.errors import CheckpointError
from qat.methods.distillation import label_loss, layer_loss, logit_loss, score_loss
from qat.objective import Objective
from qat.quantizers.lifecycle import initialise, ranges_frozen
from qat.recipe import LogitLoss, load_recipe
from qat.student import prepare


def test_soft_cross_entropy_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    # target (3/4, 1/4), student (1/2, 1/2): the cross-entropy is log 2
    loss = logit_loss(student, teacher, LogitLoss(reduction="sum"), None)
    assert loss.item() == pytest.approx(math.log(2))


def test_sum_over_classes_is_the_number_of_classes_times_the_mean() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    summed = logit_loss(student, teacher, LogitLoss(reduction="sum"), None)
    mean = logit_loss(student, teacher, LogitLoss(reduction="mean"), None)
    assert summed.item() == pytest.approx(7 * mean.item(), rel=1e-6)


def test_logits_of_a_language_model_count_at_real_positions() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 5), torch.randn(1, 3, 5)
    spec = LogitLoss(reduction="sum")
    valid = torch.tensor([[True, True, False]])
    cut = logit_loss(student[:, :2], teacher[:, :2], spec, None)
    assert logit_loss(student, teacher, spec, valid).item() == pytest.approx(cut.item())


def test_layer_loss_by_hand() -> None:
    student = [torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), torch.zeros(1, 2, 2)]
    teacher = [torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0)]
    valid = torch.tensor([[True, False]])
    assert layer_loss(student, teacher, valid, "excluded").item() == pytest.approx(2.5 + 9)
    assert layer_loss(student, teacher, valid, "counted").item() == pytest.approx(167 / 4 + 9)


def test_score_loss_leaves_masked_entries_out() -> None:
    student, teacher = [torch.ones(1, 1, 2, 2) * 2], [torch.zeros(1, 1, 2, 2)]
    valid = torch.tensor([[True, False]])
    assert score_loss(student, teacher, valid, False, "excluded").item() == 4
    # zeroed on both sides but counted: two of four entries remain
    assert score_loss(student, teacher, valid, False, "counted").item() == 2
    student[0][0, 0, 0, 1] = 100.0
    assert score_loss(student, teacher, None, True, "excluded").item() == 4


def test_labels_of_a_language_model_are_shifted_by_one() -> None:
    logits = torch.full((1, 3, 4), -30.0)
    for t, token in enumerate((2, 1, 0)):
        logits[0, t, token] = 30.0
    assert label_loss(logits, torch.tensor([[3, 2, 1]]), False).item() == pytest.approx(0, abs=1e-6)
    assert label_loss(logits, torch.tensor([[3, 2, -100]]), False).item() == pytest.approx(
        0, abs=1e-6
    )


def test_regression_is_squared_error() -> None:
    loss = label_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]), True)
    assert loss.item() == 2.5


def test_a_student_equal_to_its_teacher_has_no_distance_left() -> None:
    teacher = prepare(tiny("bert"))
    recipe = load_recipe("ti_g_w2a8").model_copy(update={"freeze_ranges": 0.0})
    _, parts = Objective(prepare(teacher), teacher, recipe, 10)(batch_of("bert"), 9)
    assert set(parts) == {"logits", "hidden", "scores", "output"}
    assert [parts[k].item() for k in ("hidden", "scores", "output")] == [0, 0, 0]


@pytest.mark.parametrize("padding", ["excluded", "counted"])
def test_excluded_losses_do_not_see_padding(padding: str) -> None:
    teacher = prepare(tiny("bert", 1))
    recipe = load_recipe("ti_g_w2a8")
    spec = recipe.objective.model_copy(update={"padding": padding})
    recipe = recipe.model_copy(update={"objective": spec, "method": None, "freeze_ranges": 0.0})
    student = prepare(tiny("bert", 2)).eval()
    objective = Objective(student, teacher, recipe, 10)
    batch = {name: tensor[1:2] for name, tensor in batch_of("bert").items()}
    short = {name: tensor[:, :4] for name, tensor in batch.items()}
    padded, cut = objective(batch, 0)[0].item(), objective(short, 0)[0].item()
    if padding == "excluded":
        assert padded == pytest.approx(cut, rel=1e-5)
    else:
        assert abs(padded - cut) > 1e-3 * cut


def test_phases_restart_and_freezing() -> None:
    teacher = prepare(tiny("vit"))
    recipe = load_recipe("ti_g_w2a8")
    student = prepare(teacher, recipe).train()
    objective = Objective(student, teacher, recipe, 60)
    assert objective.restart_steps == (12,)
    names = [objective.phase(t) for t in (0, 2, 4, 12)]
    assert names == [
        "intervention_output",
        "intervention_context",
        "intervention_map",
        "distillation",
    ]
    batch = batch_of("vit")
    assert objective.freeze_step == 48
    objective(batch, 47)
    assert not ranges_frozen(student)
    objective(batch, 48)
    assert ranges_frozen(student)


def test_float_training_needs_no_teacher_and_distillation_does() -> None:
    student = prepare(tiny("vit"))
    objective = Objective(student, None, load_recipe("float"), 10)
    loss, parts = objective({**batch_of("vit"), "labels": torch.tensor([0, 1, 2])}, 0)
    assert list(parts) == ["labels"]
    assert objective.phase(0) == "labels"
    assert loss.requires_grad
    with pytest.raises(ValueError, match="recipe w8a8 must have a teacher"):
        Objective(student, None, load_recipe("w8a8"), 10)


def test_the_teacher_is_in_eval_mode_unless_the_recipe_says_else() -> None:
    teacher = prepare(tiny("vit")).train()
    recipe = load_recipe("bit_w1a1")
    Objective(prepare(teacher, recipe), teacher, recipe, 10)
    assert not teacher.training
    recipe = load_recipe("bit_w1a1_as_released")
    Objective(prepare(teacher, recipe), teacher, recipe, 10)
    assert teacher.training


def test_uninitialised_quantisers_are_refused_by_name() -> None:
    teacher, recipe = prepare(tiny("vit")), load_recipe("bit_w1a1")
    student = prepare(teacher, recipe)
    objective = Objective(student, teacher, recipe, 10)
    with pytest.raises(
        ValueError, match=r"layers\.0\.attention\.q_proj\.input_quantizer and 25 more"
    ):
        objective(batch_of("vit"), 0)
    initialise(student, [batch_of("vit")])
    loss, _ = objective(batch_of("vit"), 0)
    loss.backward()
    assert [n for n, p in student.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in teacher.parameters())


def test_resuming_under_another_schedule_is_refused() -> None:
    teacher, recipe = prepare(tiny("vit")), load_recipe("ti_g_w2a8")
    student = prepare(teacher, recipe)
    state = Objective(student, teacher, recipe, 60).state_dict()
    Objective(student, teacher, recipe, 60).load_state_dict(state)
    with pytest.raises(CheckpointError, match="total_steps was 60 and is now 90"):
        Objective(student, teacher, recipe, 90).load_state_dict(state)
