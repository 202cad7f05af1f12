"""The order in which rows are seen: a pure function of (seed, epoch), so a position can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POOL_BATCHES = (
    50  # rows of so many batches are sorted by length together: little padding, much shuffling
)


@dataclass(frozen=True, slots=True)
class BucketedBatches:
    """Shuffled batches of rows of similar length.

    `lengths` int64 [N]. A last batch that would not be full is dropped (its rows come in another epoch),
    unless the whole set is smaller than one batch.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches an epoch, at least 1."""
        return max(1, len(self.lengths) // self.batch_size)

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the row numbers of each batch of one epoch."""
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = rng.permutation(len(self.lengths))
        pool = POOL_BATCHES * self.batch_size
        ordered = [
            part[np.argsort(self.lengths[part], kind="stable")]
            for part in (order[start : start + pool] for start in range(0, len(order), pool))
        ]
        rows = np.concatenate(ordered)
        batches = [
            rows[i * self.batch_size : (i + 1) * self.batch_size] for i in range(self.per_epoch)
        ]
        # the pools were sorted: without this the model would see short rows first, then long ones
        return [batches[i] for i in rng.permutation(len(batches))]

    def start_at(self, batch: int) -> Iterator[NDArray[np.int64]]:
        """Yield batches without end, the first of them number `batch` counted from the start of training."""
        epoch, first = divmod(batch, self.per_epoch)
        while True:
            yield from self.epoch(epoch)[first:]
            epoch, first = epoch + 1, 0


def in_order(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return every row once, shortest first, for evaluation."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
