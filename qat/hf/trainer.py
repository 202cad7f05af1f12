"""`transformers.Trainer` for students: the recipe's objective, optimiser, schedule and method."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import logging

from hwsim.errors import CheckpointError, ConfigError
from qat.checkpoint import read_json, read_model, write_json
from qat.hf.quantizer import recipe_of
from qat.loop import TrainingDiverged
from qat.methods.quadapter import freeze_weights
from qat.objective import Objective
from qat.optim import Schedule, make_optimizer, set_learning_rate
from qat.quantizers.lifecycle import after_update, initialise, uninitialised
from qat.recipe import OptimizerSpec, Quadapter, Recipe

METHOD_FILE = "bitwright.json"
INITIALISE_BATCHES = 4
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
_RECIPES_OWN = {
    "optim": "the recipe names the optimiser",
    "lr_scheduler_type": "a recipe's rate rises and falls linearly",
    "adam_beta1": "the recipe's optimiser has its own",
    "adam_beta2": "the recipe's optimiser has its own",
    "adam_epsilon": "the recipe's optimiser has its own",
    "label_smoothing_factor": "the recipe states the loss",
    "bf16": "codes depend on the last bit of what is rounded",
    "fp16": "codes depend on the last bit of what is rounded",
}

logger = logging.get_logger(__name__)


class DistillationTrainer(Trainer):
    """Trains a student as its recipe says; everything else is `transformers.Trainer`.

    Optimiser, learning rates, weight decay, warm-up and the terms of the loss are the recipe's. `learning_rate`,
    `weight_decay`, `warmup_steps` and `max_grad_norm` of the arguments replace the recipe's where they are not
    transformers' defaults (a default cannot be told from a value that was given). Evaluation measures the student
    alone, with the model's own loss on labels.

    Args:
        model: a student of `qat.prepare`; its recipe comes with it.
        args: as for `Trainer`.
        teacher: a Hugging Face model, or a student; None where the recipe needs none.
        layers: which of the teacher's layers the student's correspond to, where it has fewer.
        initialise_batches: seeded training batches from which learned quantisers take their first scale.
        kwargs: as for `Trainer`, but for `model_init`, `compute_loss_func` and `optimizers`.

    Raises:
        ConfigError: the model is no student, or arguments contradict the recipe; all of them at once.
    """

    loss_is_scaled_for_ga = False  # a mean over the micro-batch: Trainer divides by their number

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments | None = None,
        *,
        teacher: PreTrainedModel | None = None,
        layers: Sequence[int] | None = None,
        initialise_batches: int = INITIALISE_BATCHES,
        **kwargs: Any,
    ) -> None:
        recipe = recipe_of(model)
        if recipe is None:
            raise ConfigError(
                f"model: must be a student of qat.prepare(model, recipe), this {type(model).__name__} is not"
                " quantised; train it with transformers.Trainer"
            )
        self.recipe: Recipe = recipe
        self.student = model  # `self.model`, never wrapped
        self.teacher, self.layers = teacher, layers
        self.initialise_batches = initialise_batches
        self.objective: Objective | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._part_sums: dict[str, Tensor] = {}
        self._parts_seen = 0
        args = args or TrainingArguments()
        _check_arguments(args, kwargs, recipe, teacher)
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(_Method(self))

    # -- optimiser and schedule -----------------------------------------------------------------

    def optimizer_spec(self, steps: int) -> OptimizerSpec:
        """Return the recipe's optimiser with the arguments' values in place of its own, for so many steps."""
        own = {
            name: getattr(self.args, name)
            for name in ("learning_rate", "weight_decay")
            if getattr(self.args, name) != _DEFAULTS[name]
        }
        if self.args.warmup_steps != _DEFAULTS["warmup_steps"]:
            own["warmup_fraction"] = min(self.args.get_warmup_steps(steps) / steps, 0.999)
        assert self.recipe.optimizer is not None  # _check_arguments
        return self.recipe.optimizer.model_copy(update=own)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Make the recipe's optimiser."""
        if self.optimizer is None:
            if self.recipe.channel_scaling is not None:  # the optimiser holds what trains
                freeze_weights(self.student, isinstance(self.recipe.method, Quadapter))
            self.optimizer = make_optimizer(self.student, self.optimizer_spec(1))
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """Make the objective, now that the number of steps is known, and the schedule with its restarts."""
        steps = num_training_steps
        if self.teacher is not None:
            self.teacher.to(self.args.device)  # type: ignore[arg-type]
        try:
            self.objective = Objective(
                self.student, self.teacher, self.recipe, steps, self.args.seed, self.layers
            )
        except ValueError as fault:
            raise ConfigError(f"recipe '{self.recipe.name}': {fault}") from None
        if self._resumed is not None:
            self.objective.load_state_dict(self._resumed)
        self.objective.enter(0)
        if uninitialised(self.student):
            initialise(self.student, self._first_batches())
        spec = self.optimizer_spec(steps)
        schedule = Schedule((0, *self.objective.restart_steps), steps, spec.warmup_fraction)
        optimizer = optimizer or self.optimizer
        assert optimizer is not None  # made before
        set_learning_rate(optimizer, 1.0)
        # one step past the last is asked for once all are done
        self.lr_scheduler = LambdaLR(
            optimizer, lambda step: schedule.factor(min(step, schedule.steps - 1))
        )
        self._created_lr_scheduler = True
        logger.warning(
            f"recipe {self.recipe.name}: {spec.name}, learning rate {spec.learning_rate:g},"
            f" weight decay {spec.weight_decay:g}, warm-up {spec.warmup_fraction:g} of {steps} steps"
        )
        return self.lr_scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.args.max_grad_norm == _DEFAULTS["max_grad_norm"]:
            return None  # no recipe clips all gradients together
        return super()._clip_grad_norm(model)

    def _first_batches(self) -> list[dict[str, Tensor]]:
        """Batches of seeded rows, the same in every process; no generator of the training is touched."""
        rows: Any = self.train_dataset
        size = self.args.per_device_train_batch_size
        count = self.initialise_batches * size
        if hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
            order = np.random.default_rng(self.args.seed).permutation(len(rows))[:count]
            chosen: Iterable[Any] = [rows[int(row)] for row in order]
        else:
            chosen = itertools.islice(iter(rows), count)
        collate = self._get_collator_with_removed_columns(self.data_collator)
        features = list(chosen)
        return [
            dict(self._prepare_inputs(collate(features[start : start + size])))
            for start in range(0, len(features), size)
        ]

    # -- steps ----------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the objective's loss in training, the model's own on labels in evaluation.

        Raises TrainingDiverged where the objective's is no finite number.
        """
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        assert self.objective is not None  # create_scheduler made it
        loss, parts = self.objective(inputs, self.state.global_step, wrapped=model)
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"recipe {self.recipe.name}: the loss is {loss.item()} at step {self.state.global_step};"
                f" checkpoints in {self.args.output_dir} are kept"
            )
        for name, term in parts.items():
            self._part_sums[name] = self._part_sums.get(name, torch.zeros_like(term)) + term
        self._parts_seen += 1
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms of the loss, means since the last time, to what Trainer logs of a training step."""
        if "loss" in logs and self._parts_seen:
            assert self.objective is not None
            means = {k: (v / self._parts_seen).item() for k, v in self._part_sums.items()}
            logs |= {f"loss_{name}": value for name, value in means.items()}
            self._part_sums, self._parts_seen = {}, 0
        super().log(logs, start_time)

    # -- resuming -------------------------------------------------------------------------------

    def train(  # type: ignore[override]  # what is passed on is Trainer's business
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """As `Trainer.train`, but `resume_from_checkpoint=True` starts anew where there is no checkpoint yet.

        Raises:
            CheckpointError: a checkpoint is damaged, or was made under another recipe, seed or number of steps.
        """
        self._resumed = None
        if resume_from_checkpoint is True and get_last_checkpoint(self.args.output_dir) is None:
            logger.warning(f"{self.args.output_dir}: no checkpoint yet, training starts anew")
            resume_from_checkpoint = None
        return super().train(resume_from_checkpoint, **kwargs)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        folder = Path(resume_from_checkpoint)
        if not (folder / METHOD_FILE).is_file():
            raise CheckpointError(f"{folder}: not a checkpoint of a DistillationTrainer")
        self._resumed = read_json(folder / METHOD_FILE)
        self.student.load_state_dict(read_model(folder, self.recipe).state_dict())

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class _Method(TrainerCallback):
    """What the recipe asks for around a step of Trainer's loop."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the optimiser anew between the steps of a two-step method; the schedule knows by itself."""
        trainer = self.trainer
        assert trainer.objective is not None
        assert trainer.optimizer is not None
        if state.global_step in trainer.objective.restart_steps:
            trainer.optimizer.state.clear()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep every alpha at or above its floor."""
        after_update(self.trainer.student)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write beside a checkpoint what a resumed training must agree with."""
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if args.should_save and folder.is_dir() and self.trainer.objective is not None:
            write_json(folder / METHOD_FILE, self.trainer.objective.state_dict())


def _check_arguments(
    args: TrainingArguments,
    kwargs: Mapping[str, Any],
    recipe: Recipe,
    teacher: PreTrainedModel | None,
) -> None:
    """Refuse what would contradict the recipe, all at once. Raises ConfigError."""
    faults = [
        f"args.{name}: must be left at {_DEFAULTS[name]!r}, is {getattr(args, name)!r}: {reason}"
        for name, reason in _RECIPES_OWN.items()
        if getattr(args, name) != _DEFAULTS[name]
    ]
    faults += [
        f"{name}: must be left out: recipe '{recipe.name}' decides"
        for name in ("model_init", "compute_loss_func", "optimizers", "optimizer_cls_and_kwargs")
        if kwargs.get(name) is not None
    ]
    if not recipe.trains:
        faults.append(f"model: recipe '{recipe.name}' trains nothing: initialise and export it")
    if teacher is None and recipe.needs_teacher:
        faults.append(f"teacher: recipe '{recipe.name}' learns from one")
    if faults:
        raise ConfigError(faults)
