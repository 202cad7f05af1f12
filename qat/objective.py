"""The objective of a run: loss of one batch at one step, with its method's intervention.

The training loop knows only this: `loss, parts = objective(batch, step)`, the steps at which optimiser and
schedule restart, and the name of the phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from hwsim.errors import CheckpointError
from qat.attention import AttentionOperands
from qat.depth import check_layers
from qat.methods.distillation import (
    IGNORED_LABEL,
    label_loss,
    layer_loss,
    logit_loss,
    score_loss,
    similarity_loss,
)
from qat.methods.layer_reduction import depth, select
from qat.methods.quadapter import BlockSchedule, check_float_blocks, freeze_weights
from qat.methods.teacher_intervention import DETACHED, InterventionSchedule
from qat.quantizers.lifecycle import freeze_ranges, ranges_frozen, uninitialised, weights
from qat.recipe import Quadapter, Recipe, TeacherIntervention
from qat.step import Extent, Portion, Recording, StepState
from qat.student import prepare
from qat.teacher_cache import TeacherCache


class Objective:
    """Loss of a prepared student.

    Args:
        student: from `qat.student.prepare`, its learned quantisers initialised before the first call. A method
            that freezes its weights does so here (`requires_grad`): make the optimiser afterwards.
        teacher: a Hugging Face model (prepared here if it is not yet), or None where no term needs one.
        recipe: terms, method, range freezing.
        total_steps: steps of the whole run, both steps of a two-step method together.
        seed: of the method's own draws.
        layers: which of the teacher's layers the student's correspond to, where it has fewer.

    Attributes:
        cache: keeps the teacher's answers to training rows, None for no such thing.
        restart_steps: steps before which optimiser and learning-rate schedule start anew.
        freeze_step: step from which dynamic ranges are constants, None for never.
        own_bits_step: step from which all weights have the format of the recipe, 0 without a bit schedule.

    Raises:
        ValueError: the recipe needs a teacher and there is none, or the method does not fit the steps or the
            teacher.
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
        if recipe.objective is None:
            raise ValueError(f"recipe {recipe.name} trains nothing")
        if teacher is None and recipe.needs_teacher:
            raise ValueError(f"recipe {recipe.name} must have a teacher, got none")
        self.student, self.recipe, self.total_steps, self.seed = student, recipe, total_steps, seed
        self.spec = recipe.objective
        self.cache: TeacherCache | None = None
        self.teacher = None
        if teacher is not None and recipe.needs_teacher:
            prepared = isinstance(getattr(teacher, "step", None), StepState)
            self.teacher = teacher if prepared else prepare(teacher)
            self.teacher.train(recipe.teacher_mode == "train")
        self.layers = layers
        if self.teacher is not None:
            _check_depths(student, self.teacher, layers)
        if recipe.channel_scaling is not None:
            freeze_weights(student, train_scales=isinstance(recipe.method, Quadapter))
        self.schedule: InterventionSchedule | BlockSchedule | None = None
        if isinstance(recipe.method, TeacherIntervention):
            self.schedule = InterventionSchedule.from_spec(recipe.method, total_steps, seed)
        elif isinstance(recipe.method, Quadapter):
            assert self.teacher is not None
            self.schedule = BlockSchedule.from_spec(recipe.method, total_steps)
            check_float_blocks(student, self.teacher, self.schedule)
        self.restart_steps = () if self.schedule is None else self.schedule.restart_steps
        self.freeze_step = (
            round((1 - recipe.freeze_ranges) * total_steps)
            if recipe.freeze_ranges > 0 and not ranges_frozen(student)
            else None
        )
        self.own_bits_step = max((w.final_step for w in weights(student)), default=0)
        if self.own_bits_step >= total_steps:
            raise ValueError(
                f"the bit schedule must end before the run's {total_steps} steps do, but its last change comes"
                f" at step {self.own_bits_step}"
            )
        attention = [m for m in student.modules() if isinstance(_operands(m), AttentionOperands)]
        self._causal = any(getattr(m, "is_causal", False) for m in attention)
        self._regression = is_regression(student)
        self._checked = False

    def phase(self, step: int) -> str:
        """Name of what happens at a step: `labels`, `distillation`, `intervention_*` or `blockwise`."""
        if self.schedule is not None and step < self.schedule.length:
            injected = self.schedule.injected(step)
            return "blockwise" if injected == "input" else f"intervention_{injected or 'none'}"
        return "distillation" if self.spec.needs_teacher else "labels"

    def enter(self, step: int) -> None:
        """Give the student's quantisers what they have at a step: bit widths, and constant ranges at the end."""
        if self.own_bits_step > 0:
            for quantizer in weights(self.student):
                quantizer.at_step(step)
        if self.freeze_step is not None and step >= self.freeze_step:
            freeze_ranges(self.student)

    def extent(self, batch: Mapping[str, Tensor]) -> Extent:
        """Count what the means of a batch are taken over. `batch` had better lie on the CPU."""
        rows = next(iter(batch.values())).shape[0]
        mask, labels = batch.get("attention_mask"), batch.get("labels")
        positions = pairs = scores = targets = rows
        if mask is not None:
            real = mask.long().sum(-1)
            positions, pairs = int(real.sum()), int((real * real).sum())
            # with causality a real query has the real keys up to itself
            seen = mask.long().cumsum(-1) * mask if self._causal else real * real
            scores = int(seen.sum())
        if labels is not None and labels.dim() == 2:
            targets = int((labels[:, 1:] != IGNORED_LABEL).sum())
        return Extent(rows, positions, pairs, scores, targets)

    def __call__(
        self,
        batch: Mapping[str, Tensor],
        step: int,
        portion: Portion | None = None,
        wrapped: nn.Module | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch at a step (0-based), and its weighted terms (detached, on the device).

        With a `portion` the loss is the batch's share of the whole update's: the sum over all micro-batches and
        processes is the loss of one batch with all their rows, and so is the gradient.

        Args:
            batch: the model's inputs by name, and `labels` where a term needs them.
            step: number of weight updates made so far.
            portion: what the batch is of the update, None where it is all of it.
            wrapped: the student inside `DistributedDataParallel` or the like, to be called in its place.
            rows: [B], which of the training rows these are, where the teacher's answers are kept (`cache`).
        """
        self._check()
        self.enter(step)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        mask = batch.get("attention_mask")
        valid = None if mask is None else mask.bool()

        whole = None if portion is None else portion.whole
        injected = None if self.schedule is None else self.schedule.injected(step)
        teacher_logits, teacher_record = None, None
        if injected is not None or self.spec.needs_teacher:
            if self.cache is None or rows is None or injected is not None:
                teacher_logits, teacher_record = self._ask_teacher(inputs, whole)
            else:  # what is injected is not kept
                teacher_logits, teacher_record = self.cache.ask(
                    rows, inputs, lambda: self._ask_teacher(inputs, whole)
                )
        state: StepState = self.student.step  # type: ignore[assignment]
        intervention = (
            nullcontext()
            if injected is None
            else state.intervene(injected, DETACHED[injected], teacher_record)
        )
        with intervention, state.portion_of(whole), state.record() as record:
            logits = (wrapped or self.student)(**inputs).logits

        parts: dict[str, Tensor] = {}
        spec = self.spec
        if injected == "input":
            assert teacher_record is not None
            # every block had the float model's input, a constant: each term reaches its own block alone
            blocks, wanted = record.hidden[1:], teacher_record.hidden[1:]
            loss = layer_loss(blocks, wanted, valid, spec.padding)
            if portion is not None:
                loss = loss * self._share("blocks", portion, logits)
            return loss, {"blocks": loss.detach()}
        if spec.labels is not None:
            parts["labels"] = spec.labels.weight * label_loss(
                logits, batch["labels"], self._regression
            )
        if teacher_logits is not None and teacher_record is not None:
            parts |= self._compare(logits, record, teacher_logits, teacher_record, valid)
        if portion is not None:
            parts = {
                name: term * self._share(name, portion, logits) for name, term in parts.items()
            }
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
        spec, parts = self.spec, {}
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
        if spec.similarity is not None:
            pairs = (
                (record.queries, teacher.queries),
                (record.keys, teacher.keys),
                (record.values, teacher.values),
            )
            term = torch.stack([similarity_loss(s, t, valid) for s, t in pairs]).sum()
            parts["similarity"] = spec.similarity.weight * term
        return parts

    def _share(self, term: str, portion: Portion, logits: Tensor) -> float:
        """Share of the whole update that a batch has in what a term is the mean over."""
        if term == "labels":
            unit = "targets"
        elif term == "logits":
            unit = "positions" if logits.dim() == 3 else "rows"
        elif term == "similarity" or self.spec.padding == "counted":
            unit = "rows"  # where padding counts: as the released codes, the mean of the micro-batches' means
        else:
            unit = "scores" if term == "scores" else "positions"
        own: int = getattr(portion.own, unit)
        return own / max(1, getattr(portion.whole, unit))

    @torch.no_grad()
    def _ask_teacher(
        self, inputs: Mapping[str, Tensor], update: Extent | None
    ) -> tuple[Tensor, Recording]:
        assert self.teacher is not None
        state: StepState = self.teacher.step  # type: ignore[assignment]
        with state.portion_of(update), state.record() as record:
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
