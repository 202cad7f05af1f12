"""Quantisation without training: the baseline that every trained student is compared with; a teacher taken as it is.

The weights stay the model's own. Learned steps come from real batches, as before a training; dynamic ranges stay
dynamic in the student and become constants when it is exported, from the carve-out, as every other range of
the integer graph does.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from hwsim.errors import ConfigError
from qat import checkpoint, result
from qat.build import find_tokenizer, load_teacher, starting_model
from qat.conclude import conclude
from qat.config import TrainSpec
from qat.data.batches import BucketedBatches
from qat.data.task import load_task
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe
from qat.student import prepare

UNUSED = (
    "accumulate",
    "learning_rate",
    "alpha_learning_rate",
    "weight_decay",
    "warmup_fraction",
    "clip_norm",
    "early_stopping",
    "augment",
    "tensorboard",
)


class PostTraining:
    """One student in memory, quantised from `train.initialise_batches` batches of the training set.

    Raises:
        ConfigError, DataError, CheckpointError: as a training does.
    """

    def __init__(self, record: checkpoint.RunRecord, recipe: Recipe, out: Path) -> None:
        self.record, self.recipe, self.out = record, recipe, out
        self.begin = time.monotonic()
        config = record.config
        if config.train.steps != 0:
            raise ConfigError(
                f"train: recipe '{recipe.name}' trains nothing: steps must be 0, not"
                f" {config.train.steps or f'epochs: {config.train.epochs}'}"
            )
        defaults = TrainSpec(steps=0)
        unused = [key for key in UNUSED if getattr(config.train, key) != getattr(defaults, key)]
        if unused:
            raise ConfigError(
                [
                    f"train.{key}: recipe '{recipe.name}' trains nothing: leave it out"
                    for key in unused
                ]
            )
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.task = load_task(config.task, find_tokenizer(config))
        teacher = load_teacher(config, self.task, recipe)
        self.student = prepare(starting_model(config, self.task, recipe, teacher), recipe)

    def finish(self) -> result.RunResult:
        """Quantise, measure and write the run."""
        config = self.record.config
        train = self.task.train
        batches = BucketedBatches(train.lengths, config.train.batch_size, config.seed)
        rows = batches.epoch(0)[: config.train.initialise_batches]
        initialise(self.student, [train.batch(row) for row in rows])
        return conclude(
            self.record,
            self.recipe,
            self.task,
            self.student,
            self.out,
            steps=0,
            kept_step=0,
            stopped_early=False,
            wall_s=time.monotonic() - self.begin,
        )
