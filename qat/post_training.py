"""Quantisation without training: the baseline that every trained student is compared with; a teacher taken as it is.

The weights stay the model's own. Learned steps come from real batches, as before a training; dynamic ranges stay
dynamic in the student and become constants when it is exported, from the carve-out, as every other range of
the integer graph does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from hwsim.errors import CheckpointError
from hwsim.metrics import wilson_interval
from qat import checkpoint, result
from qat.build import find_tokenizer, load_teacher, starting_model
from qat.conclude import conclude
from qat.config import check_train
from qat.data.batches import BucketedBatches
from qat.data.task import load_task
from qat.evaluate import predict
from qat.quantizers.lifecycle import initialise
from qat.recipe import Recipe
from qat.student import prepare


class PostTraining:
    """One student in memory, quantised from `train.initialise_batches` batches of the training set.

    Raises:
        ConfigError, DataError, CheckpointError: as a training does.
    """

    def __init__(self, record: checkpoint.RunRecord, recipe: Recipe, out: Path) -> None:
        self.record, self.recipe, self.out = record, recipe, out
        self.begin = time.monotonic()
        config = record.config
        check_train(config.train, recipe)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.task = load_task(config.task, find_tokenizer(config))
        teacher = load_teacher(config, self.task, recipe)
        self.student = prepare(starting_model(config, self.task, recipe, teacher), recipe)

    def finish(self) -> result.RunResult:
        """Quantise, measure and write the run.

        Raises:
            CheckpointError: as `_check_that_it_knows_the_task` does.
        """
        config = self.record.config
        train = self.task.train
        batches = BucketedBatches(train.lengths, config.train.batch_size, config.seed)
        rows = batches.epoch(0)[: config.train.initialise_batches]
        initialise(self.student, [train.batch(row) for row in rows])
        if not self.recipe.quantizes and self.task.problem == "classification":
            self._check_that_it_knows_the_task()
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

    def _check_that_it_knows_the_task(self) -> None:
        """Make sure that a checkpoint that is taken as it is beats a constant answer; nobody can tell what its LABEL_0 means.

        Raises:
            CheckpointError: on the carve-out it is worse than always giving the most frequent answer, beyond the 95 %
                interval of its accuracy: its classes stand in another order, or it was fine-tuned for something else.
        """
        split, labels = self.task.validation, self.task.labels
        answers = predict(self.student, split).argmax(axis=1)
        correct, count = int(np.count_nonzero(answers == split.labels)), len(split)
        most = np.bincount(split.labels, minlength=len(labels))
        if wilson_interval(correct, count)[1] >= most.max() / count:
            return
        raise CheckpointError(
            f"{self.record.config.name}: the checkpoint gets {correct} of {count} rows of the carve-out right, where always"
            f" '{labels[int(most.argmax())]}' gets {most.max()}: its classes must be {', '.join(labels)} in this order"
            " (a table says its own order with `labels:`)"
        )
