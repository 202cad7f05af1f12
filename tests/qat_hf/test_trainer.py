"""DistillationTrainer: the project's own loop under transformers', resumable bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import classifier, rows, tokenizer
from transformers import TrainerCallback, TrainingArguments

from hwsim.errors import CheckpointError, ConfigError
from qat.hf.trainer import DistillationTrainer
from qat.objective import Objective
from qat.optim import Schedule, make_optimizer, set_learning_rate
from qat.quantizers.lifecycle import after_update, initialise
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

STEPS = 8
# a two-step method whose ranges freeze within the run, on a batch-dependent optimiser
METHOD = load_recipe("ti_g_w2a8", ["method.fraction=0.5", "freeze_ranges=0.25"])
BIT = load_recipe("bit_w1a1", ["freeze_ranges=0.25"])


def trainer(
    folder: Path, recipe: Recipe, dropout: float = 0.0, **changes: Any
) -> DistillationTrainer:
    keys = ("callbacks", "initialise_batches", "eval_dataset", "compute_metrics")
    kwargs = {key: changes.pop(key) for key in keys if key in changes}
    values = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "save_steps": 3,
        "logging_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    }
    return DistillationTrainer(
        model=prepare(classifier(dropout, layers=1), recipe),
        teacher=classifier(layers=1),
        args=TrainingArguments(**values),
        train_dataset=rows(24, 1),
        processing_class=tokenizer(),
        **kwargs,
    )


def weights(made: DistillationTrainer) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in made.student.state_dict().items()}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


class Stop(TrainerCallback):
    """Ends a training after a step, as a killed process would, without a checkpoint of its own."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("recipe", [METHOD, BIT], ids=["ti", "bit"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, recipe: Recipe) -> None:
    # the 1-bit student has no dropout to restore, the other one does
    dropout = 0.1 if recipe is METHOD else 0.0
    whole = trainer(tmp_path / "whole", recipe, dropout)
    whole.train()
    # TI restarts at step 4: stop 4 resumes in front of the restart, stop 7 in front of the frozen ranges
    for stop in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path / f"{stop}", recipe, dropout, callbacks=[Stop(stop)]).train(True)
        resumed = trainer(tmp_path / f"{stop}", recipe, dropout)
        torch.rand(3)  # a new process has other generators
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == STEPS
        assert differing(weights(resumed), weights(whole)) == []
    assert differing(weights(whole), weights(trainer(tmp_path / "new", recipe))) != []


@pytest.mark.parametrize("recipe", [METHOD, BIT], ids=["ti", "bit"])
def test_it_computes_what_the_projects_own_loop_computes(tmp_path: Path, recipe: Recipe) -> None:
    """The same batches through objective, optimiser, schedule and projection by hand."""
    made = trainer(tmp_path, recipe, save_strategy="no", initialise_batches=2)
    seen: list[dict[str, torch.Tensor]] = []
    rates: list[list[float]] = []
    plain = made.compute_loss

    def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({name: x.clone() for name, x in inputs.items()})
        rates.append([group["lr"] for group in made.optimizer.param_groups])
        return plain(model, inputs, *args, **kwargs)

    made.compute_loss = watched  # type: ignore[method-assign]
    first = made._first_batches()
    made.train()
    assert len(seen) == STEPS

    by_hand = prepare(classifier(layers=1), recipe).train()
    initialise(by_hand, first)
    objective = Objective(by_hand, classifier(layers=1), recipe, STEPS, seed=made.args.seed)
    schedule = Schedule((0, *objective.restart_steps), STEPS, recipe.optimizer.warmup_fraction)
    optimizer = make_optimizer(by_hand, recipe.optimizer)
    for step, batch in enumerate(seen):
        if step in objective.restart_steps:
            optimizer = make_optimizer(by_hand, recipe.optimizer)
        set_learning_rate(optimizer, schedule.factor(step))
        assert rates[step] == [group["lr"] for group in optimizer.param_groups]
        loss, _ = objective(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after_update(by_hand)
    assert differing(weights(made), by_hand.state_dict()) == []
    restarts = [4] if recipe is METHOD else []
    assert list(objective.restart_steps) == restarts
    for restart in restarts:
        assert rates[restart] == rates[0]
        assert rates[restart - 1] < rates[restart]


def test_arguments_that_are_not_the_defaults_replace_the_recipes(tmp_path: Path) -> None:
    made = trainer(tmp_path, BIT)
    assert made.optimizer_spec(100) == BIT.optimizer
    made = trainer(tmp_path, BIT, learning_rate=1e-3, weight_decay=0.5, warmup_steps=20)
    spec = made.optimizer_spec(100)
    assert (spec.learning_rate, spec.weight_decay, spec.warmup_fraction) == (1e-3, 0.5, 0.2)
    assert spec.alpha_learning_rate == BIT.optimizer.alpha_learning_rate


def test_what_contradicts_the_recipe_is_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        trainer(tmp_path, BIT, optim="sgd", lr_scheduler_type="cosine", bf16=True)
    lines = str(fault.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["args.optim", "args.lr_scheduler_type", "args.bf16"]  # fmt: skip
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(ConfigError, match="teacher: recipe 'bit_w1a1' learns from one"):
        DistillationTrainer(
            model=prepare(classifier(layers=1), BIT), args=args, train_dataset=rows(4, 1)
        )
    with pytest.raises(ConfigError, match=r"must be a student of qat.prepare"):
        DistillationTrainer(model=classifier(layers=1), args=args, train_dataset=rows(4, 1))


def test_a_checkpoint_of_another_length_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, METHOD, max_steps=3).train()
    with pytest.raises(CheckpointError, match="total_steps was 3 and is now 8"):
        trainer(tmp_path, METHOD).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-3/bitwright.json").unlink()
    with pytest.raises(CheckpointError, match="not a checkpoint of a DistillationTrainer"):
        trainer(tmp_path, METHOD).train(resume_from_checkpoint=True)


def test_gradient_accumulation_changes_nothing_but_the_portions(tmp_path: Path) -> None:
    """Equal rows: a batch of four is the mean of two batches of two."""
    same = [rows(1, 2)[0]] * 24
    recipe = load_recipe("w8a8", ["freeze_ranges=0.0"])
    results = []
    for size, portions in ((4, 1), (2, 2)):
        made = trainer(
            tmp_path, recipe, per_device_train_batch_size=size,
            gradient_accumulation_steps=portions, save_strategy="no", max_steps=2,
        )  # fmt: skip
        made.train_dataset = same
        made.train()
        results.append(dict(made.student.named_parameters()))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_evaluation_is_the_students_own_loss_and_the_best_checkpoint_comes_back(
    tmp_path: Path,
) -> None:
    seen: list[float] = []

    def metric(prediction: Any) -> dict[str, float]:
        seen.append(float(prediction.predictions.sum()))
        return {"score": float(-len(seen))}  # the first evaluation is the best

    made = trainer(
        tmp_path, BIT, max_steps=6, eval_strategy="steps", eval_steps=3,
        load_best_model_at_end=True, metric_for_best_model="score",
        eval_dataset=rows(6, 9), compute_metrics=metric,
    )  # fmt: skip
    made.train()
    made.evaluate()
    assert len(seen) == 3
    assert seen[0] == seen[2] != seen[1]
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert logged[0]["loss"] == pytest.approx(logged[0]["loss_logits"] + logged[0]["loss_hidden"], abs=1e-3)  # fmt: skip
