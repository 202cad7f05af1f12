"""The gradient of one update, the same however its rows are split over micro-batches and processes.

A micro-batch of an update computes its share of the terms of the loss, each normalised by what the whole update
holds of it (`qat.step.Extent`), so plain sums over micro-batches and processes are the loss and the gradient of
one large batch. docs/methods.md, section 4, says where that cannot hold.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from hwsim.errors import ConfigError
from qat import augment, processes
from qat.step import Extent, Portion

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor

    from qat.config import RunConfig
    from qat.data.split import Split
    from qat.objective import Objective


class UpdateGradient:
    """Computes the gradients of a student, update by update.

    Args:
        objective: loss of the student.
        split: the training rows.
        config: of the run: batch size, precision and seed.
        accelerator: device and processes.

    Raises:
        ConfigError: there is no such augmentation.
    """

    def __init__(
        self, objective: Objective, split: Split, config: RunConfig, accelerator: Accelerator
    ) -> None:
        self.objective, self.split, self.accelerator = objective, split, accelerator
        self.config = config
        entry = config.train.augment
        self.augmentation = None if entry is None else augment.load(entry)

    def check_split(self, rows: NDArray[np.int64]) -> None:
        """Refuse more processes than rows a micro-batch; warn where splitting changes what is computed.

        Raises:
            ConfigError: some process would have no rows of an update like this one.
        """
        count, recipe = self.accelerator.num_processes, self.objective.recipe
        parts = self._micro_batches(rows)
        smallest = min(len(part) for part in parts)
        if smallest < count:
            raise ConfigError(
                f"train.batch_size: {count} processes share the rows of a micro-batch, which has only {smallest}:"
                " start fewer, or make it larger"
            )
        if recipe.batch_dependent and len(parts) > 1 and self.accelerator.is_main_process:
            warnings.warn(
                f"recipe '{recipe.name}' has dynamic ranges per tensor: each of the {len(parts)} micro-batches of an"
                " update has its own, so the training is not that of one large batch",
                stacklevel=3,
            )

    def __call__(self, step: int, rows: NDArray[np.int64]) -> dict[str, float]:
        """Add the gradient of the loss over these rows to the student's.

        Args:
            step: number of updates made so far.
            rows: [N] of the whole update; this process computes its share of them.

        Returns:
            `loss` and its weighted terms, over all the rows.
        """
        index, count = self.accelerator.process_index, self.accelerator.num_processes
        if index > 0:
            # other dropout than in the first process, whose generators alone are part of a run's state
            torch.manual_seed((self.config.seed * 1_000_003 + step) * 1_009 + index)
        parts = [part[index::count] for part in self._micro_batches(rows)]
        batches = [self.split.batch(part) for part in parts]
        if self.augmentation is not None:
            batches = [
                augment.apply(self.augmentation, batch, (self.config.seed, step, i, index))
                for i, batch in enumerate(batches)
            ]
        extents = [self.objective.extent(batch) for batch in batches]
        counted = torch.tensor(extents, device=self.accelerator.device).sum(0)
        whole = Extent(*processes.total(counted).tolist())
        sums: dict[str, Tensor] = {}
        for batch, own, numbers in zip(batches, extents, parts, strict=True):
            moved = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            with torch.autocast(
                self.accelerator.device.type,
                torch.bfloat16,
                enabled=self.config.train.precision == "bfloat16",
            ):
                loss, terms = self.objective(moved, step, Portion(own, whole), rows=numbers)
            self.accelerator.backward(loss)
            for name, term in {"loss": loss.detach(), **terms}.items():
                sums[name] = sums[name] + term if name in sums else term
        processes.add_gradients(self.objective.student)
        totals = processes.total(torch.stack(list(sums.values())))
        return dict(zip(sums, totals.tolist(), strict=True))

    def _micro_batches(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return np.array_split(rows, math.ceil(len(rows) / self.config.train.batch_size))
