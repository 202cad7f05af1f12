"""Measuring a model on one part of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwsim.errors import DataError
from hwsim.metrics import compute, pack_right, token_nll, wilson_interval
from qat.data.batches import in_order
from qat.data.split import BlockSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from qat.data.split import Split
    from qat.data.task import Task

EVALUATION_BATCH = 64


@torch.no_grad()
def predict(
    model: PreTrainedModel, split: Split, batch_size: int = EVALUATION_BATCH
) -> NDArray[np.float32]:
    """Return the logits [N, C] of every row, in the split's order. The model's mode is kept."""
    rows: NDArray[np.float32] | None = None
    for index, logits, _ in _forward(model, split, batch_size):
        if rows is None:
            rows = np.empty((len(split), logits.shape[-1]), np.float32)
        rows[index] = logits
    assert rows is not None
    return rows


@torch.no_grad()
def evaluate(
    model: PreTrainedModel, split: Split, task: Task, batch_size: int = EVALUATION_BATCH
) -> dict[str, Any]:
    """Return the task's metrics on a part, with `rows` and, for an accuracy, `correct`, its Wilson interval and which rows were `right`, packed.

    Raises DataError where the outputs are not finite.
    """
    if task.problem == "language":
        assert isinstance(split, BlockSplit)
        return _evaluate_language(model, split, batch_size)
    logits = predict(model, split, batch_size)
    labels = split.labels
    values: dict[str, Any] = {**compute(task.metrics, logits, labels), "rows": len(split)}
    if "accuracy" in task.metrics:
        right = logits.argmax(axis=1) == labels
        correct = int(np.count_nonzero(right))
        values["correct"] = correct
        values["right"] = pack_right(right)
        values["accuracy_wilson95"] = list(wilson_interval(correct, len(split)))
    return values


def _evaluate_language(
    model: PreTrainedModel, split: BlockSplit, batch_size: int
) -> dict[str, Any]:
    """Perplexity a token and a byte, exp of the summed surprise over the number of predicted tokens or bytes.

    Every block is read by itself: its first token is context and is not predicted.
    """
    # summed batch by batch: the logits of all tokens together would not fit a small machine
    total, tokens = 0.0, 0
    for _, logits, labels in _forward(model, split, batch_size):
        nll = token_nll(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
        total += float(nll.sum())
        tokens += nll.size
    if not np.isfinite(total):
        raise DataError("the model's outputs are not finite: its metrics would mean nothing")
    text_bytes = int(split.token_bytes[:, 1:].sum())
    return {
        "perplexity": float(np.exp(total / tokens)),
        "byte_perplexity": float(np.exp(total / text_bytes)),
        "rows": len(split),
        "tokens": tokens,
        "bytes": text_bytes,
    }


def _forward(model: PreTrainedModel, split: Split, batch_size: int) -> Any:
    """Yield (row numbers, logits, labels) of each batch, without dropout."""
    was_training = model.training
    model.eval()
    try:
        for index in in_order(split.lengths, batch_size):
            batch = split.batch(index)
            labels = batch.pop("labels").numpy()
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            yield index, model(**inputs).logits.float().cpu().numpy(), labels
    finally:
        model.train(was_training)
