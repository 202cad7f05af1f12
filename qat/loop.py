"""The training loop: one path for teachers and students of every recipe, seeded and resumable.

Under `torchrun` or `accelerate launch` several processes share each update's rows (`qat.processes`). All of
them evaluate, so that all know what is best; the first one alone writes files and draws progress.
"""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from hwsim.errors import BitwrightError, CheckpointError, ConfigError
from hwsim.metrics import better, without_answers
from qat import checkpoint, result, state
from qat.build import find_tokenizer, load_teacher, starting_model, teacher_sha256
from qat.conclude import conclude
from qat.config import RunConfig, resolved, sha256
from qat.data.batches import BucketedBatches
from qat.data.task import load_task
from qat.evaluate import evaluate
from qat.gradient import UpdateGradient
from qat.health import HealthMonitor
from qat.objective import Objective
from qat.optim import Schedule, make_optimizer, set_learning_rate
from qat.post_training import PostTraining
from qat.processes import accelerator_on
from qat.quantizers.lifecycle import after_update, initialise
from qat.recipe import Recipe, load_recipe
from qat.runlog import RunLog
from qat.student import prepare
from qat.teacher_cache import (
    TeacherCache,
    cache_folder,
    check_cacheable,
    compared,
    remove_caches,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.optim import Optimizer

HEALTH_ROWS = 64


class TrainingDiverged(BitwrightError):
    """The loss is no finite number any more. The last state of the run is kept."""


def train(config: RunConfig, out: Path, progress: bool = False) -> result.RunResult:
    """Train what a configuration describes into the folder `out`; resume there, or return what is finished.

    `progress` draws a bar with the time left, on a terminal only.
    Raises ConfigError, DataError, CheckpointError (`out` holds another run, or damage), TrainingDiverged.
    """
    recipe = _resolve_recipe(config)
    values = resolved(config, recipe)
    record = checkpoint.RunRecord(config, sha256(values), teacher_sha256(config))
    _check_folder(record, out)
    if (out / result.RESULT_FILE).is_file():
        state.remove_states(out)  # it may have been killed just before it did
        return result.read_result(out)
    accelerator = accelerator_on(config.device)
    if not recipe.trains:
        unfinished = PostTraining(record, recipe, out)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            checkpoint.write_run_file(out, values, record.teacher_sha256)
            unfinished.finish()
        accelerator.wait_for_everyone()
        return result.read_result(out)
    run = _Run(record, recipe, out, accelerator)
    accelerator.wait_for_everyone()  # all have looked at the folder
    if accelerator.is_main_process:
        checkpoint.write_run_file(out, values, record.teacher_sha256)
    return run.finish(run.steps_to_go(progress))


def _check_folder(record: checkpoint.RunRecord, out: Path) -> None:
    if checkpoint.is_run(out):
        found = checkpoint.read_run_file(out)
        if found.config_sha256 != record.config_sha256:
            raise CheckpointError(
                f"{out}: holds a run of another configuration; choose another folder or remove this one"
            )
        if found.teacher_sha256 != record.teacher_sha256:
            raise CheckpointError(
                f"{out}: was started from another teacher: the weights in {record.config.teacher} have changed"
            )
    elif not checkpoint.is_vacant(out):
        raise CheckpointError(f"{out}: not empty and not a run: choose another folder")


def _resolve_recipe(config: RunConfig) -> Recipe:
    recipe = load_recipe(config.recipe) if isinstance(config.recipe, str) else config.recipe
    if recipe.trains and config.train.steps == 0:
        raise ConfigError(f"train.steps: recipe '{recipe.name}' trains: must be 1 or more, not 0")
    if recipe.needs_teacher and config.teacher is None:
        raise ConfigError(f"teacher: recipe '{recipe.name}' learns from a teacher: name one")
    if config.train.precision != "float32" and recipe.quantizes:
        raise ConfigError(
            f"train.precision: recipe '{recipe.name}' quantises, which needs float32, "
            f"not {config.train.precision}: it is for teachers only"
        )
    return recipe


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator: libraries draw from it
    torch.manual_seed(seed)


class _Run:
    """One training in memory."""

    def __init__(
        self,
        record: checkpoint.RunRecord,
        recipe: Recipe,
        out: Path,
        accelerator: Accelerator,
    ) -> None:
        self.record, self.recipe, self.out, self.accelerator = record, recipe, out, accelerator
        self.config = config = record.config
        torch.set_num_threads(config.threads)
        seed_everything(config.seed)
        self.task = load_task(config.task, find_tokenizer(config))
        self.teacher = load_teacher(config, self.task, recipe)
        student = prepare(starting_model(config, self.task, recipe, self.teacher), recipe)
        # the rows of an update and their order are the same however it is split
        self.batches = BucketedBatches(
            self.task.train.lengths,
            config.train.batch_size * config.train.accumulate,
            config.seed,
        )
        self.steps = config.train.steps or math.ceil(
            (config.train.epochs or 0) * self.batches.per_epoch
        )
        # not wrapped for several processes: gradients are summed, and some parameters have none
        self.student = student.to(accelerator.device)
        if self.teacher is not None:
            self.teacher.to(accelerator.device)
        # a method that does not fit the number of steps, a model without the recipe's parts
        try:
            self.objective = Objective(
                self.student,
                self.teacher,
                recipe,
                self.steps,
                seed=config.seed,
                layers=config.layers,
            )
        except ValueError as fault:
            raise ConfigError(f"recipe '{recipe.name}': {fault}") from None
        capacity_bytes = config.train.teacher_cache
        if capacity_bytes is not None:
            check_cacheable(recipe, config.train.augment is not None)
            assert recipe.objective is not None
            self.objective.cache = TeacherCache(
                cache_folder(out, accelerator.process_index),
                capacity_bytes,
                compared(recipe.objective),
            )
        self.gradient = UpdateGradient(self.objective, self.task.train, config, accelerator)
        self.gradient.check_split(self.batches.epoch(0)[0])
        assert recipe.optimizer is not None  # the recipe has an objective
        self.optimizer_spec = config.train.optimizer(recipe.optimizer)
        self.schedule = Schedule(
            (0, *self.objective.restart_steps), self.steps, self.optimizer_spec.warmup_fraction
        )
        self.optimizer = self._new_optimizer()
        self.progress = state.Progress()
        self.health = HealthMonitor(self.student)

    def steps_to_go(self, draw: bool) -> bool:
        """Train from where the run stands to its end; say whether early stopping ended it."""
        self._start()
        self._health()  # takes the signs as they are now: flips are counted from here on
        spec, begin = self.config.train, time.monotonic() - self.progress.wall_s
        data = self.batches.start_at(self.progress.step)
        main = self.accelerator.is_main_process
        bar = tqdm(
            total=self.steps,
            initial=self.progress.step,
            desc=self.config.name,
            unit="step",
            disable=not (draw and main and sys.stderr.isatty()),
        )
        with bar, RunLog(self.out, self.progress.step, main, spec.tensorboard) as log:
            while self.progress.step < self.steps and not self._stale():
                step = self.progress.step
                if step in self.objective.restart_steps:
                    self.optimizer = self._new_optimizer()
                loss, parts = self._update(step, next(data))
                self.progress.step += 1
                bar.update()
                if self.progress.step % spec.log_every == 0:
                    log.write(self._log_entry(step, loss, parts))
                done = self.progress.step == self.steps
                if self.progress.step % spec.evaluate_every == 0 or done:
                    log.write(self._evaluate())
                    self.progress.wall_s = time.monotonic() - begin
                    if main:
                        state.save_state(
                            self.out, self.student, self.optimizer, self.objective, self.progress
                        )
        return self.progress.step < self.steps

    def _stale(self) -> bool:
        """Say whether early stopping ends the run: also one that was killed after it had stopped."""
        patience = self.config.train.early_stopping
        return patience is not None and self.progress.stale >= patience

    def _start(self) -> None:
        """Resume from the newest state, or initialise the quantisers of a new run."""
        found = state.newest_state(self.out)
        if found is None:
            self.objective.enter(0)
            rows = self.batches.epoch(0)[: self.config.train.initialise_batches]
            # every process sees all of the rows: these scales are the same whatever the split
            initialise(self.student, [self._to_device(self.task.train.batch(row)) for row in rows])
        else:
            self.progress = state.load_progress(found)
            state.load_state(found, self.student, self.optimizer, self.objective)
            self.objective.enter(self.progress.step - 1)  # as it was when the state was saved
        self.accelerator.wait_for_everyone()  # before the first process writes into the folder

    def _new_optimizer(self) -> Optimizer:
        optimizer: Optimizer = self.accelerator.prepare(
            make_optimizer(self.student, self.optimizer_spec)
        )
        return optimizer

    def _update(self, step: int, rows: NDArray[np.int64]) -> tuple[float, dict[str, float]]:
        """Make one update of the weights; return the loss and its terms over all of its rows."""
        set_learning_rate(self.optimizer, self.schedule.factor(step))
        self.student.train()
        values = self.gradient(step, rows)
        total = values.pop("loss")
        if not math.isfinite(total):
            found = state.newest_state(self.out)
            kept = f"the state in {found} is kept" if found else "no state was saved yet"
            raise TrainingDiverged(
                f"{self.config.name}: the loss is {total} at step {step}; {kept}"
            )
        if self.config.train.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.student.parameters(), self.config.train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        after_update(self.student)
        return total, values

    def _evaluate(self) -> dict[str, Any]:
        """Measure the carve-out, keep the weights if they are the best so far; return the log's line."""
        values = without_answers(evaluate(self.student, self.task.validation, self.task))
        metric = self.task.metrics[0]
        progress, step = self.progress, self.progress.step
        if self._eligible(step):
            # later of two equal ones: its learning rate is the lower
            worse = progress.best_value is not None and better(
                metric, progress.best_value, values[metric]
            )
            progress.stale = (
                0 if better(metric, values[metric], progress.best_value) else progress.stale + 1
            )
            if not worse or self.config.train.select == "last":
                progress.best_step, progress.best_value = step, values[metric]
                if self.accelerator.is_main_process:
                    state.save_best(self.out, self.student, step)
        return {"step": step, "event": "validation", **values, **self._health()}

    def _health(self) -> dict[str, float]:
        """Return signs of trouble in the quantisers, from the first rows of the carve-out."""
        rows = range(min(HEALTH_ROWS, len(self.task.validation)))
        return self.health.measure(self._to_device(self.task.validation.batch(rows)))

    def _eligible(self, step: int) -> bool:
        """Say whether the weights after `step` updates may be the kept ones: they were trained as what is exported,
        with constant ranges, at the recipe's bits and without intervention."""
        begins = (
            self.objective.freeze_step or 0,
            self.objective.own_bits_step,
            self.schedule.starts[-1],
        )
        return step > max(begins) or step == self.steps

    def _log_entry(self, step: int, loss: float, parts: dict[str, float]) -> dict[str, Any]:
        rates = {f"lr_{group['role']}": group["lr"] for group in self.optimizer.param_groups}
        entry = {
            "step": step + 1,
            "event": "step",
            "phase": self.objective.phase(step),
            "loss": loss,
        }
        return {**entry, **{f"loss_{name}": value for name, value in parts.items()}, **rates}

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def finish(self, stopped_early: bool) -> result.RunResult:
        """Measure the kept weights on the carve-out and, once, on the tests; write model and result."""
        begin = time.monotonic() - self.progress.wall_s
        assert self.progress.best_step is not None
        self.accelerator.wait_for_everyone()  # until the first process has written the best weights
        state.load_best(self.out, self.student, self.progress.best_step)
        if self.accelerator.is_main_process:
            conclude(
                self.record,
                self.recipe,
                self.task,
                self.student,
                self.out,
                steps=self.progress.step,
                kept_step=self.progress.best_step,
                stopped_early=stopped_early,
                wall_s=time.monotonic() - begin,
            )
            state.remove_states(self.out)
            remove_caches(self.out)
        self.accelerator.wait_for_everyone()
        return result.read_result(self.out)
