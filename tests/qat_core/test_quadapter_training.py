"""Quadapter's training: frozen weights stay, each block is calibrated by itself, then all of it end to end."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from channel_scales import PRE_LN, RECIPE
from tiny_models import batch_of, tiny
from torch import Tensor

from qat.methods.quadapter import BlockSchedule
from qat.modules.norm import ChannelScale
from qat.objective import Objective
from qat.optim import make_optimizer
from qat.quantizers.lifecycle import initialise, uninitialised
from qat.recipe import Quadapter, load_recipe
from qat.student import prepare


def labelled(family: str) -> dict[str, Tensor]:
    batch = batch_of(family)
    labels = batch["input_ids"] if family == "gpt2" else torch.tensor([0, 1, 2])
    return batch | {"labels": labels}


def objective_of(family: str, steps: int = 8, **method: object) -> Objective:
    spec = {"name": "quadapter", "blockwise_fraction": 0.5} | method
    recipe = RECIPE.model_copy(update={"method": Quadapter.model_validate(spec)})
    student = prepare(tiny(family), recipe)
    initialise(student, [batch_of(family)])
    return Objective(student.train(), tiny(family), recipe, steps)


@pytest.mark.parametrize("family", PRE_LN)
def test_only_scales_and_ranges_train(family: str) -> None:
    objective = objective_of(family)
    student = objective.student
    before = copy.deepcopy(student.state_dict())
    optimizer = make_optimizer(student, RECIPE.optimizer)
    roles = {g["role"]: g["base_lr"] for g in optimizer.param_groups}
    assert roles == {"no_decay": 1e-2, "alpha": 1e-4}
    for step in range(8):
        loss, _ = objective(labelled(family), step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = {n for n, p in student.named_parameters() if p.requires_grad}
    assert {n.rsplit(".", 1)[1] for n in trained} == {"log_scale", "alpha"}
    assert len([n for n in trained if n.endswith("log_scale")]) == 4
    for name, tensor in student.state_dict().items():
        if name in trained:
            assert not torch.equal(tensor, before[name]), name
        elif "quantizer" not in name and "operands" not in name:
            assert torch.equal(tensor, before[name]), name


def test_phases_switch_at_the_step_that_the_recipe_says() -> None:
    objective = objective_of("gpt2", steps=8, blockwise_fraction=None, blockwise_steps=3)
    assert [objective.phase(t) for t in (0, 2, 3, 7)] == ["blockwise"] * 2 + ["labels"] * 2
    assert objective.restart_steps == (3,)
    names = [list(objective(labelled("gpt2"), step)[1]) for step in (2, 3)]
    assert names == [["blocks"], ["labels"]]


@pytest.mark.parametrize(("fraction", "length"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_either_phase_may_be_left_out(fraction: float, length: int) -> None:
    spec = Quadapter(name="quadapter", blockwise_fraction=fraction)
    schedule = BlockSchedule.from_spec(spec, 8)
    assert [schedule.injected(t) for t in range(8)] == ["input"] * length + [None] * (8 - length)
    assert schedule.restart_steps == ((length,) if 0 < length < 8 else ())


def test_phase_one_cannot_be_longer_than_the_run() -> None:
    spec = Quadapter(name="quadapter", blockwise_steps=9)
    with pytest.raises(ValueError, match="at most the run's 8 steps, got 9"):
        BlockSchedule.from_spec(spec, 8)


def block_errors(objective: Objective, family: str, inject: bool) -> list[Tensor]:
    """Mean squared error of each block's output against the float model's."""
    batch, student, teacher = batch_of(family), objective.student, objective.teacher
    assert teacher is not None
    with torch.no_grad(), teacher.step.record() as wanted:
        teacher(**batch)
    with (
        student.step.intervene("input" if inject else None, frozenset(), wanted),
        student.step.record() as got,
    ):
        student(**batch)
    pairs = zip(got.hidden[1:], wanted.hidden[1:], strict=True)
    return [(ours - theirs).square().mean() for ours, theirs in pairs]


@pytest.mark.parametrize("family", PRE_LN)
def test_a_blocks_error_reaches_that_block_alone(family: str) -> None:
    objective = objective_of(family)
    block = {"gpt2": "transformer.h.", "vit": "vit.layers."}[family]
    for i in (0, 1):
        objective.student.zero_grad()
        block_errors(objective, family, inject=True)[i].backward()
        parameters = objective.student.named_parameters()
        reached = {n for n, p in parameters if p.grad is not None and p.grad.any()}
        assert {n for n in reached if n.endswith("log_scale")}
        assert all(n.startswith(f"{block}{i}.") for n in reached)
    # the control: end to end, the second block's error reaches the first
    objective.student.zero_grad()
    block_errors(objective, family, inject=False)[1].backward()
    parameters = objective.student.named_parameters()
    assert any(n.startswith(f"{block}0.") and p.grad is not None for n, p in parameters)


@pytest.mark.parametrize("family", PRE_LN)
def test_a_block_is_calibrated_on_the_float_models_input(family: str) -> None:
    objective = objective_of(family)
    batch, teacher = batch_of(family), objective.teacher
    assert teacher is not None
    with torch.no_grad(), teacher.step.record() as wanted:
        teacher(**batch)
    blocks = {"gpt2": "transformer.h", "vit": "vit.layers"}[family]
    objective.student.eval()
    extra = {"attention_mask": batch["attention_mask"].bool()} if family == "gpt2" else {}
    objective.student.step.valid = batch["attention_mask"].bool() if extra else None
    by_hand = []
    for i, block in enumerate(objective.student.get_submodule(blocks)):
        out = block(wanted.hidden[i], **extra)
        out = out[0] if isinstance(out, tuple) else out
        error = (out - wanted.hidden[i + 1]).square()
        mask = batch["attention_mask"].bool() if extra else torch.ones(out.shape[:2]).bool()
        by_hand.append(error[mask].mean())
    loss, parts = objective(batch, 0)
    torch.testing.assert_close(loss, torch.stack(by_hand).sum(), rtol=1e-5, atol=1e-8)
    assert torch.equal(parts["blocks"], loss.detach())


def test_an_outlier_channel_is_learned_away() -> None:
    model = tiny("gpt2")
    with torch.no_grad():  # twenty times as large in front of the quantiser, and the same function
        for block in model.transformer.h:
            for norm, linear in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                norm.weight[3] *= 20
                norm.bias[3] *= 20
                linear.weight[3] /= 20
    recipe = load_recipe("quadapter_w8a8", ["method.blockwise_fraction=1.0"])
    batches = [batch_of("gpt2", seed, padded=False) for seed in range(8)]
    losses = {}
    for learned in (True, False):
        student = prepare(model, recipe)
        initialise(student, batches[:2])
        objective = Objective(student.train(), model, recipe, 64)
        for module in student.modules():
            if isinstance(module, ChannelScale):
                module.requires_grad_(learned)
        rates = {"learning_rate": 3e-2, "alpha_learning_rate": 1e-3}
        optimizer = make_optimizer(student, recipe.optimizer.model_copy(update=rates))
        seen = []
        for step in range(64):
            loss, _ = objective(batches[step % 8], step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(loss.item())
        losses[learned] = sum(seen[-8:]) / sum(seen[:8])
        scales = [m() for m in student.modules() if isinstance(m, ChannelScale)]
        if learned:
            assert all(scale[3] < 0.5 * scale.median() for scale in scales)
    assert losses[True] < 0.4
    assert losses[True] < 0.6 * losses[False]  # ranges alone cannot do it


def test_the_teacher_must_be_the_float_model_itself() -> None:
    student = prepare(tiny("gpt2", seed=0), RECIPE)
    with pytest.raises(ValueError, match=r"the model that the student was made from; .* differs"):
        Objective(student, tiny("gpt2", seed=1), RECIPE, 8)
    with pytest.raises(ValueError, match="must have a teacher, got none"):
        Objective(student, None, RECIPE, 8)


def test_dropout_is_refused_where_blocks_are_compared() -> None:
    model = tiny("gpt2")
    model.config.resid_pdrop = 0.1
    with pytest.raises(ValueError, match=r"resid_pdrop must be 0, not 0\.1: set train\.dropout"):
        Objective(prepare(model, RECIPE), tiny("gpt2"), RECIPE, 8)


def test_a_recipe_that_leaves_nothing_to_train_is_refused() -> None:
    recipe = load_recipe("smoothquant_w8a8", ["quantization.linear.input.range=dynamic"])
    with pytest.raises(ValueError, match="some activation must have range 'learned'"):
        Objective(prepare(tiny("vit"), recipe), None, recipe, 8)


def test_smoothquant_trains_ranges_alone_and_needs_no_teacher() -> None:
    recipe = load_recipe("smoothquant_w8a8")
    student = prepare(tiny("vit"), recipe)
    scales = {n for n, m in student.named_modules() if isinstance(m, ChannelScale)}
    assert scales <= set(uninitialised(student))
    initialise(student, [batch_of("vit")])
    objective = Objective(student.train(), None, recipe, 8)
    trained = {n.rsplit(".", 1)[1] for n, p in student.named_parameters() if p.requires_grad}
    assert trained == {"alpha"}
    loss, parts = objective(labelled("vit"), 0)
    loss.backward()
    assert list(parts) == ["labels"]
    assert objective.restart_steps == ()


def test_transformers_trainer_holds_what_trains_and_no_more(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    from qat.hf.trainer import DistillationTrainer

    model, student = tiny("gpt2"), prepare(tiny("gpt2"), RECIPE)
    ids = batch_of("gpt2")["input_ids"].tolist()
    trainer = DistillationTrainer(
        model=student,
        teacher=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
    )
    before = {n: p.clone() for n, p in student.named_parameters() if "log_scale" not in n}
    trainer.train()
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in student.parameters() if p.requires_grad}
    weights = {n: p for n, p in student.named_parameters() if n in before and "alpha" not in n}
    assert all(torch.equal(p, before[n]) for n, p in weights.items())


def test_a_quantised_teacher_is_no_float_model() -> None:
    teacher = prepare(tiny("vit"), load_recipe("w8a8"))
    student = prepare(teacher, RECIPE)
    initialise(student, [batch_of("vit")])
    with pytest.raises(ValueError, match="the float model, not a quantised student of it"):
        Objective(student, teacher, RECIPE, 10)
