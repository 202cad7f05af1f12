"""The training loop: one path for teachers and students of every recipe, seeded and resumable."""

from __future__ import annotations

import json
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
from hwsim.metrics import better
from qat import checkpoint, result, state
from qat.build import find_tokenizer, load_teacher, starting_model, teacher_sha256
from qat.config import RunConfig, resolved, sha256
from qat.data.batches import BucketedBatches
from qat.data.task import load_task
from qat.evaluate import evaluate
from qat.health import HealthMonitor
from qat.objective import Objective
from qat.optim import Schedule, make_optimizer, set_learning_rate
from qat.quantizers.lifecycle import initialise, project
from qat.recipe import Recipe, load_recipe
from qat.student import prepare

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

LOG_FILE = "train.jsonl"
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
    teacher = teacher_sha256(config)
    if checkpoint.is_run(out):
        record = checkpoint.read_run_file(out)
        if record.config_sha256 != sha256(values):
            raise CheckpointError(
                f"{out}: holds a run of another configuration; choose another folder or remove this one"
            )
        if record.teacher_sha256 != teacher:
            raise CheckpointError(
                f"{out}: was started from another teacher: the weights in {config.teacher} have changed"
            )
        if (out / result.RESULT_FILE).is_file():
            return result.read_result(out)
    elif out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out}: not empty and not a run: choose another folder")
    record = checkpoint.RunRecord(config, sha256(values), teacher)
    run = _Run(record, recipe, out)
    checkpoint.write_run_file(out, values, teacher)
    return run.finish(run.steps_to_go(progress))


def _resolve_recipe(config: RunConfig) -> Recipe:
    recipe = load_recipe(config.recipe) if isinstance(config.recipe, str) else config.recipe
    needs = recipe.objective.needs_teacher or recipe.method is not None
    if needs and config.teacher is None:
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

    def __init__(self, record: checkpoint.RunRecord, recipe: Recipe, out: Path) -> None:
        self.record, self.recipe, self.out = record, recipe, out
        self.config = config = record.config
        torch.set_num_threads(config.threads)
        seed_everything(config.seed)
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        if self.accelerator.num_processes > 1:
            raise ConfigError("training in several processes is not supported: start one")
        self.task = load_task(config.task, find_tokenizer(config))
        self.teacher = load_teacher(config, self.task)
        student = prepare(starting_model(config, self.task, self.teacher), recipe)
        self.batches = BucketedBatches(
            self.task.train.lengths, config.train.batch_size, config.seed
        )
        self.steps = config.train.steps or math.ceil(
            (config.train.epochs or 0) * self.batches.per_epoch / config.train.accumulate
        )
        self.student = self.accelerator.prepare(student)
        if self.teacher is not None:
            self.teacher.to(self.accelerator.device)
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
        data = self.batches.start_at(self.progress.step * spec.accumulate)
        bar = tqdm(
            total=self.steps,
            initial=self.progress.step,
            desc=self.config.name,
            unit="step",
            disable=not (draw and sys.stderr.isatty()),
        )
        with bar, (self.out / LOG_FILE).open("a", encoding="utf-8") as log:
            while self.progress.step < self.steps:
                step = self.progress.step
                if step in self.objective.restart_steps:
                    self.optimizer = self._new_optimizer()
                loss, parts = self._update(step, [next(data) for _ in range(spec.accumulate)])
                self.progress.step += 1
                bar.update()
                if self.progress.step % spec.log_every == 0:
                    _write_line(log, self._log_entry(step, loss, parts))
                done = self.progress.step == self.steps
                if self.progress.step % spec.evaluate_every == 0 or done:
                    _write_line(log, self._evaluate())
                    self.progress.wall_s = time.monotonic() - begin
                    state.save_state(
                        self.out, self.student, self.optimizer, self.objective, self.progress
                    )
                    if spec.early_stopping and self.progress.stale >= spec.early_stopping:
                        return not done
        return False

    def _start(self) -> None:
        """Resume from the newest state, or initialise the quantisers of a new run."""
        found = state.newest_state(self.out)
        log = self.out / LOG_FILE
        if found is None:
            rows = self.batches.epoch(0)[: self.config.train.initialise_batches]
            initialise(self.student, [self._to_device(self.task.train.batch(row)) for row in rows])
            log.write_text("", "utf-8")
            return
        self.progress = state.load_progress(found)
        state.load_state(found, self.student, self.optimizer, self.objective)
        # lines written after the state was saved would otherwise stand there twice
        kept = [
            line
            for line in log.read_text("utf-8").splitlines(keepends=True)
            if line.endswith("\n") and json.loads(line)["step"] <= self.progress.step
        ]
        log.write_text("".join(kept), "utf-8")

    def _new_optimizer(self) -> Optimizer:
        optimizer: Optimizer = self.accelerator.prepare(
            make_optimizer(self.student, self.optimizer_spec)
        )
        return optimizer

    def _update(self, step: int, rows: list[Any]) -> tuple[float, dict[str, float]]:
        """Make one update of the weights; return the loss and its terms, means over the micro-batches."""
        set_learning_rate(self.optimizer, self.schedule.factor(step))
        self.student.train()
        loss_sum, part_sums = 0.0, dict[str, float]()
        for row in rows:
            batch = self._to_device(self.task.train.batch(row))
            with torch.autocast(
                self.accelerator.device.type,
                torch.bfloat16,
                enabled=self.config.train.precision == "bfloat16",
            ):
                loss, parts = self.objective(batch, step)
            value = loss.item()
            if not math.isfinite(value):
                found = state.newest_state(self.out)
                kept = f"the state in {found} is kept" if found else "no state was saved yet"
                raise TrainingDiverged(
                    f"{self.config.name}: the loss is {value} at step {step}; {kept}"
                )
            self.accelerator.backward(loss / len(rows))
            loss_sum += value / len(rows)
            for name, term in parts.items():
                part_sums[name] = part_sums.get(name, 0.0) + term.item() / len(rows)
        if self.config.train.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.student.parameters(), self.config.train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        project(self.student)
        return loss_sum, part_sums

    def _evaluate(self) -> dict[str, Any]:
        """Measure the carve-out, keep the weights if they are the best so far; return the log's line."""
        values = evaluate(self.student, self.task.validation, self.task)
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
                state.save_best(self.out, self.student, step)
        return {"step": step, "event": "validation", **values, **self._health()}

    def _health(self) -> dict[str, float]:
        """Return signs of trouble in the quantisers, from the first rows of the carve-out."""
        rows = range(min(HEALTH_ROWS, len(self.task.validation)))
        return self.health.measure(self._to_device(self.task.validation.batch(rows)))

    def _eligible(self, step: int) -> bool:
        """Say whether the weights after `step` updates may be the kept ones: constant ranges, no intervention."""
        frozen = self.objective.freeze_step is None or step > self.objective.freeze_step
        return (frozen and step > self.schedule.starts[-1]) or step == self.steps

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
        state.load_best(self.out, self.student, self.progress.best_step)
        self.student.eval()
        validation = evaluate(self.student, self.task.validation, self.task)
        tests = {
            name: evaluate(self.student, split, self.task)
            for name, split in self.task.tests.items()
            if self.config.train.measure_tests
        }
        checkpoint.write_final_model(self.out, self.student, self.recipe, self.task.processor)
        measured = result.RunResult(
            folder=self.out,
            name=self.config.name,
            recipe=self.recipe.name,
            task=self.task.name,
            metric=self.task.metrics[0],
            seed=self.config.seed,
            config_sha256=self.record.config_sha256,
            teacher_sha256=self.record.teacher_sha256,
            model_sha256=checkpoint.file_sha256(self.out / checkpoint.MODEL_FILE),
            steps=self.progress.step,
            kept_step=self.progress.best_step,
            stopped_early=stopped_early,
            validation=validation,
            tests=tests,
            wall_s=time.monotonic() - begin,
        )
        result.write_result(measured)
        state.remove_states(self.out)
        return measured


def _write_line(log: Any, values: dict[str, Any]) -> None:
    log.write(json.dumps(values) + "\n")
    log.flush()
