"""The objective of a run: loss of one batch at one step, with its method's intervention.

The training loop knows only this: `loss, parts = objective(batch, step)`, the steps at which optimiser and
schedule restart, and the name of the phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hwsim.errors import CheckpointError
from qat.attention import AttentionOperands
from qat.methods.distillation import label_loss, layer_loss, logit_loss, score_loss
from qat.methods.layer_reduction import check_layers, depth, select
from qat.methods.teacher_intervention import DETACHED, InterventionSchedule
from qat.quantizers.lifecycle import freeze_ranges, ranges_frozen, uninitialised
from qat.recipe import Recipe
from qat.step import Recording, StepState
from qat.student import prepare


class Objective:
    """Loss of a prepared student.

    Args:
        student: from `qat.student.prepare`, its learned quantisers initialised before the first call.
        teacher: a Hugging Face model (prepared here if it is not yet), or None where no term needs one.
        recipe: terms, method, range freezing.
        total_steps: steps of the whole run, both steps of a two-step method together.
        seed: of the method's own draws.
        layers: which of the teacher's layers the student's correspond to, where it has fewer.

    Attributes:
        restart_steps: steps before which optimiser and learning-rate schedule start anew.
        freeze_step: step from which dynamic ranges are constants, None for never.

    Raises:
        ValueError: the recipe needs a teacher and there is none, or the method does not fit the steps.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        recipe: Recipe,
        total_steps: int,
        seed: int = 0,
        layers: Sequence[int] | None = None,
    ) -> None:
        if teacher is None and (recipe.objective.needs_teacher or recipe.method is not None):
            raise ValueError(f"recipe {recipe.name} must have a teacher, got none")
        self.student, self.recipe, self.total_steps, self.seed = student, recipe, total_steps, seed
        self.teacher = teacher
        if teacher is not None:
            if not isinstance(getattr(teacher, "step", None), StepState):
                self.teacher = prepare(teacher)
            assert self.teacher is not None
            self.teacher.train(recipe.teacher_mode == "train")
        self.layers = layers
        if self.teacher is not None:
            _check_depths(student, self.teacher, layers)
        self.schedule = (
            None
            if recipe.method is None
            else InterventionSchedule.from_spec(recipe.method, total_steps, seed)
        )
        self.restart_steps = () if self.schedule is None else self.schedule.restart_steps
        self.freeze_step = (
            round((1 - recipe.freeze_ranges) * total_steps)
            if recipe.freeze_ranges > 0 and not ranges_frozen(student)
            else None
        )
        attention = [m for m in student.modules() if isinstance(_operands(m), AttentionOperands)]
        self._causal = any(getattr(m, "is_causal", False) for m in attention)
        self._regression = is_regression(student)
        self._checked = False

    def phase(self, step: int) -> str:
        """Name of what happens at a step: `labels`, `distillation`, or `intervention_*`."""
        if self.schedule is not None and step < self.schedule.length:
            return f"intervention_{self.schedule.injected(step) or 'none'}"
        return "distillation" if self.recipe.objective.needs_teacher else "labels"

    def __call__(
        self, batch: Mapping[str, Tensor], step: int, wrapped: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch at a step (0-based), and its weighted terms (detached, on the device).

        Args:
            batch: the model's inputs by name, and `labels` where a term needs them.
            step: number of weight updates made so far.
            wrapped: the student inside `DistributedDataParallel` or the like, to be called in its place.
        """
        self._check()
        if self.freeze_step is not None and step >= self.freeze_step:
            freeze_ranges(self.student)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        mask = batch.get("attention_mask")
        valid = None if mask is None else mask.bool()

        teacher_logits, teacher_record = self._ask_teacher(inputs)
        state: StepState = self.student.step  # type: ignore[assignment]
        injected = None if self.schedule is None else self.schedule.injected(step)
        intervention = (
            nullcontext()
            if injected is None
            else state.intervene(injected, DETACHED[injected], teacher_record)
        )
        with intervention, state.record() as record:
            logits = (wrapped or self.student)(**inputs).logits

        parts: dict[str, Tensor] = {}
        spec = self.recipe.objective
        if spec.labels is not None:
            parts["labels"] = spec.labels.weight * label_loss(
                logits, batch["labels"], self._regression
            )
        if teacher_logits is not None and teacher_record is not None:
            parts |= self._compare(logits, record, teacher_logits, teacher_record, valid)
        loss = torch.stack(list(parts.values())).sum()
        return loss, {name: term.detach() for name, term in parts.items()}

    def _compare(
        self,
        logits: Tensor,
        record: Recording,
        teacher_logits: Tensor,
        teacher: Recording,
        valid: Tensor | None,
    ) -> dict[str, Tensor]:
        spec, parts = self.recipe.objective, {}
        if spec.logits is not None:
            if self._regression:
                term = torch.nn.functional.mse_loss(logits, teacher_logits)
            else:
                term = logit_loss(logits, teacher_logits, spec.logits, valid)
            parts["logits"] = spec.logits.weight * term
        if spec.hidden is not None:
            term = layer_loss(record.hidden, teacher.hidden, valid, spec.padding)
            parts["hidden"] = spec.hidden.weight * term
        if spec.scores is not None:
            term = score_loss(record.scores, teacher.scores, valid, self._causal, spec.padding)
            parts["scores"] = spec.scores.weight * term
        if spec.output is not None:
            kind = "outputs" if spec.output.on == "ao" else "post_norm"
            term = layer_loss(getattr(record, kind), getattr(teacher, kind), valid, spec.padding)
            parts["output"] = spec.output.weight * term
        return parts

    @torch.no_grad()
    def _ask_teacher(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor | None, Recording | None]:
        if self.teacher is None:
            return None, None
        state: StepState = self.teacher.step  # type: ignore[assignment]
        with state.record() as record:
            logits = self.teacher(**inputs).logits
        return logits, record if self.layers is None else select(record, self.layers)

    def _check(self) -> None:
        if self._checked:
            return
        missing = uninitialised(self.student)
        if missing:
            raise ValueError(
                f"quantisers must be initialised from data first (qat.quantizers.lifecycle): {missing[0]}"
                f" and {len(missing) - 1} more are not"
            )
        self._checked = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must agree with. All else is a function of the step, or lies in the student."""
        return {"recipe": self.recipe.name, "total_steps": self.total_steps, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that a run goes on under the same schedule.

        Raises:
            CheckpointError: recipe, number of steps or seed differ.
        """
        own = self.state_dict()
        faults = [
            f"{key} was {state.get(key)!r} and is now {value!r}"
            for key, value in own.items()
            if state.get(key) != value
        ]
        if faults:
            raise CheckpointError(f"cannot resume under another schedule: {'; '.join(faults)}")


def _check_depths(
    student: PreTrainedModel, teacher: PreTrainedModel, layers: Sequence[int] | None
) -> None:
    ours, theirs = depth(student), depth(teacher)
    if layers is not None:
        check_layers(layers, theirs)
    wanted = theirs if layers is None else len(layers)
    if ours != wanted:
        raise ValueError(
            f"the student has {ours} layers and the teacher {theirs}: `layers` must name the {ours} of the"
            f" teacher that they match, not {None if layers is None else list(layers)}"
        )


def _operands(module: nn.Module) -> nn.Module | None:
    return module._modules.get("operands")


def is_regression(model: PreTrainedModel) -> bool:
    """Say whether a model predicts one score instead of classes."""
    kind = getattr(model.config, "problem_type", None)
    if kind is not None:
        return bool(kind == "regression")
    return model.config.num_labels == 1 and hasattr(model, "classifier")
