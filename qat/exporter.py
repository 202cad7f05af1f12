"""From a finished run to an export: capture, calibrate, freeze, lower, climb rungs A1 to A3, save.

Calibration sees the carve-out of the training set only. The held-out part is used once, here, to measure
the student, the static student and the integer graph side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwsim.api import IGNORED_LABEL, judge
from hwsim.calibrate import RangeMethod, collect_ranges
from hwsim.capture import capture
from hwsim.errors import GraphError
from hwsim.freeze import freeze
from hwsim.graph.serialize import Samples, check_replaceable, save
from hwsim.lower import lower
from hwsim.provenance import source_revision
from hwsim.rungs import climb, graph_inputs, real_lengths
from qat.checkpoint import LoadedRun, load
from qat.data.batches import in_order
from qat.methods.quadapter import fold

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qat.data.split import Split

CALIBRATION_ROWS = 256
BATCH = 32
OPERATOR_SAMPLES = 256
"""rung A1 compares operator by operator on this many of the samples; A2 and A3 use them all"""


def export(
    run_dir: Path | str,
    out: Path | str,
    calibration_rows: int = CALIBRATION_ROWS,
    method: RangeMethod = "max",
) -> dict[str, Any]:
    """Turn a finished run into an integer model and measure rungs A1 to A3 on the way.

    Args:
        run_dir: folder that `python -m qat train` wrote.
        out: folder of the export; an older export there is replaced.
        calibration_rows: rows of the carve-out that set the ranges.
        method: how a range becomes a scale.

    Returns:
        The rungs' record, as stored in the export; its `failures` are empty where all of them hold.

    Raises:
        CheckpointError: not a finished run, or damaged.
        GraphError: the recipe quantises nothing, or the student has no exact integer form.
    """
    check_replaceable(Path(out))
    run = load(run_dir)
    if not run.recipe.quantizes:
        raise GraphError(
            f"{run.folder}: recipe '{run.recipe.name}' quantises nothing; export a student"
        )
    model, task = run.model.eval(), run.task
    calibration = task.validation
    rows = np.sort(
        np.random.default_rng(run.config.seed).permutation(len(calibration))[:calibration_rows]
    )
    part, held_out = next(iter(task.tests.items()))

    max_length = int(max(calibration.lengths.max(), held_out.lengths.max()))
    example = _inputs(calibration.batch(rows[: min(3, len(rows))]))
    # rung A3 compares with the model as it was trained, so it spans the folding too
    captured = capture(fold(model), example, _longest(run, max_length))
    ranges = collect_ranges(captured, (batch for _, batch in _batches(calibration, rows)))
    static = freeze(captured, ranges, method)
    lowered = lower(static, _meta(run, part, calibration.ids[rows], method))

    everything = np.arange(len(held_out))
    batches = [(index, batch) for index, batch in _batches(held_out, everything)]
    order = np.concatenate([index for index, _ in batches])
    record, logits = climb(
        static,
        lowered,
        [batch for _, batch in batches],
        (_logits(model, batch) for _, batch in batches),
        operator_samples=OPERATOR_SAMPLES,
    )
    labels = _labels(held_out)
    flat = labels[order].reshape(-1) if labels.ndim == 2 else labels[order]
    counted = flat != IGNORED_LABEL if labels.ndim == 2 else np.ones(len(flat), dtype=bool)
    meta = lowered.graph.meta
    measured = {
        name: judge(meta, values[counted], flat[counted]) for name, values in logits.items()
    }
    samples = _samples(lowered.graph, held_out, labels)
    stored = record.to_json() | {"measured": measured}
    save(Path(out), lowered.graph, samples, stored, _processor_files(run.folder))
    return stored


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def _batches(
    split: Split, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Yield (rows, inputs) of similar length."""
    for index in in_order(split.lengths[rows], BATCH):
        chosen = rows[index]
        yield chosen, _inputs(split.batch(chosen))


@torch.no_grad()
def _logits(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**batch).logits
    return logits


def _longest(run: LoadedRun, seen: int) -> int:
    """Positions that the graph is built for: the task's limit, else the longest row seen; 0 for images."""
    if run.model.main_input_name == "pixel_values":
        return 0
    limit = getattr(run.config.task, "max_tokens", None) or seen
    return int(min(limit, run.model.config.max_position_embeddings))


def _labels(split: Split) -> NDArray[Any]:
    """Labels as the samples store them: of a language model, the next token at every position."""
    labels = np.asarray(split.labels)
    if labels.ndim == 1:
        return labels
    following = np.full_like(labels, IGNORED_LABEL)
    following[:, :-1] = labels[:, 1:]
    return following


def _samples(graph: Any, split: Split, labels: NDArray[Any]) -> Samples:
    longest = int(split.lengths.max())
    inputs: dict[str, list[NDArray[np.int64]]] = {name: [] for name in graph.inputs}
    lengths: list[NDArray[np.int64]] = []
    for start in range(0, len(split), BATCH):
        batch = _inputs(split.batch(np.arange(start, min(start + BATCH, len(split)))))
        for name, codes in graph_inputs(graph, batch).items():
            missing = longest - codes.shape[1] if graph.tensors[name].shape[:1] == ("T",) else 0
            inputs[name].append(np.pad(codes, [(0, 0), (0, missing)]) if missing else codes)
        if "attention_mask" in batch:
            lengths.append(real_lengths(batch["attention_mask"]))
    joined = {name: np.concatenate(parts) for name, parts in inputs.items()}
    return Samples(joined, labels, np.concatenate(lengths) if lengths else None)


def _meta(run: LoadedRun, part: str, ids: NDArray[np.int64], method: str) -> dict[str, Any]:
    task = run.task
    return {
        "task": task.name,
        "problem": task.problem,
        "metrics": list(task.metrics),
        "labels": list(task.labels),
        "samples": part,
        "recipe": run.recipe.name,
        "model_type": run.model.config.model_type,
        "seed": run.config.seed,
        "config_sha256": run.config_sha256,
        "source_revision": source_revision(),
        "calibration": {"rows": [int(i) for i in ids], "part": "validation", "method": method},
    }


def _processor_files(folder: Path) -> dict[str, Path]:
    """Tokenizer or image-processor files that lie beside the weights."""
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "preprocessor_config.json",
        "config.json",
    )
    return {name: folder / name for name in names if (folder / name).is_file()}
