"""From a student to an export: capture, calibrate, freeze, lower, climb rungs A1 to A3, save.

`export_run` takes a finished run: calibration sees the carve-out of the training set only, and the held-out part
is used once, here, to measure the student, the static student and the integer graph side by side. `export` takes
a student in memory and rows of the caller's. Both go the same way.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwsim.api import judge
from hwsim.calibrate import RangeMethod, collect_ranges
from hwsim.capture import Captured, capture
from hwsim.dataset import IGNORED_LABEL, Rows, make_samples, stored_labels
from hwsim.errors import GraphError
from hwsim.freeze import freeze
from hwsim.graph.serialize import Model, check_replaceable, load, save
from hwsim.lower import lower
from hwsim.metrics import pack_right
from hwsim.provenance import source_revision
from hwsim.rungs import climb
from qat import checkpoint
from qat.data.batches import in_order
from qat.hf.quantizer import recipe_of
from qat.methods.quadapter import fold
from qat.objective import is_regression
from qat.quantizers.lifecycle import uninitialised
from qat.roles import position_limit
from qat.student import is_prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from qat.data.split import Split

CALIBRATION_ROWS = 256
BATCH = 32
BATCH_ELEMENTS = 1 << 27
"""of what all calls of the model return, for the samples that run at a time: the rungs hold it as float64 and as codes"""
OPERATOR_SAMPLES = 256
"""rung A1 compares operator by operator on this many of the samples; A2 and A3 use them all"""
METRICS = {
    "classification": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "language": ("perplexity",),
}


def export_run(
    run_dir: Path | str,
    out: Path | str,
    calibration_rows: int = CALIBRATION_ROWS,
    method: RangeMethod = "max",
) -> Model:
    """Turn a finished run into an integer model and measure rungs A1 to A3 on the way.

    Args:
        run_dir: folder that `python -m qat train` wrote.
        out: folder of the export; an older export there is replaced.
        calibration_rows: rows of the carve-out that set the ranges.
        method: how a range becomes a scale.

    Returns:
        The export as it lies on the disk. Its `record` holds the rungs; `failures` there is empty where all
        of them hold.

    Raises:
        CheckpointError: not a finished run, or damaged.
        GraphError: the recipe quantises nothing, or the student has no exact integer form.
    """
    check_replaceable(Path(out))
    run = checkpoint.load(run_dir)
    if not run.recipe.quantizes:
        raise GraphError(
            f"{run.folder}: recipe '{run.recipe.name}' quantises nothing; export a student"
        )
    task = run.task
    calibration = task.validation
    rows = np.sort(
        np.random.default_rng(run.config.seed).permutation(len(calibration))[:calibration_rows]
    )
    part, held_out = next(iter(task.tests.items()))
    seen = int(max(calibration.lengths.max(), held_out.lengths.max()))
    limit = getattr(run.config.task, "max_tokens", None) or seen
    meta = {
        "task": task.name,
        "problem": task.problem,
        "metrics": list(task.metrics),
        "labels": list(task.labels),
        "samples": part,
        "seed": run.config.seed,
    }
    chosen = {"rows": [int(i) for i in calibration.ids[rows]], "part": "validation"}
    origin = {"config_sha256": run.config_sha256}
    material = _Material(calibration, rows, held_out, limit, meta, chosen, method, origin)
    return _export(run.model, material, Path(out), run.folder)


def export(
    student: PreTrainedModel,
    calibration: Iterable[Any],
    out: Path | str,
    processing_class: Any = None,
    samples: Iterable[Any] | None = None,
    max_length: int | None = None,
    method: RangeMethod = "max",
) -> Model:
    """Turn a trained student into an integer model and measure rungs A1 to A3 on the way.

    Args:
        student: from `qat.prepare`, trained, or loaded with `from_pretrained`; it is left as it is.
        calibration: rows that set the ranges, all of them: a few hundred of the training data as the tokenizer
            or image processor makes them (`hwsim.dataset.Rows` says in which forms).
        out: folder of the export; an older export there is replaced.
        processing_class: tokenizer or image processor; its files are put beside the graph.
        samples: rows to climb the rungs with and to store, best with labels and not seen in training;
            the calibration rows where there are none.
        max_length: longest sequence that the graph will run; the model's (or tokenizer's) limit by default.
        method: how a range becomes a scale.

    Returns:
        The export as it lies on the disk: what `hwsim.run` and `hwsim.verify` take. Its `record` holds the
        rungs; `failures` there is empty where all of them hold.

    Raises:
        CheckpointError: `out` holds something else than an export.
        DataError: rows that are no inputs of the model.
        GraphError: no student, an untrained one, or one without an exact integer form.
    """
    check_replaceable(Path(out))
    recipe = recipe_of(student)
    if recipe is None or not is_prepared(student):
        raise GraphError(
            f"export: the model must be a student of qat.prepare(model, recipe), this {type(student).__name__} is"
            " not quantised"
        )
    model = copy.deepcopy(student).cpu().eval()
    names = checkpoint.input_names(model)
    pad_id = getattr(model.config, "pad_token_id", None) or 0
    rows = Rows(calibration, names, pad_id)
    held_out = rows if samples is None else Rows(samples, names, pad_id)
    limit = max_length or getattr(processing_class, "model_max_length", None)
    language = model.get_output_embeddings() is not None
    problem = "language" if language else "regression" if is_regression(model) else "classification"
    meta = {
        "task": "dataset",
        "problem": problem,
        "metrics": list(METRICS[problem]),
        "labels": list((model.config.id2label or {}).values())
        if problem == "classification"
        else [],
        "samples": "calibration" if samples is None else "samples",
    }
    chosen = {"rows": rows.ids.tolist(), "part": "calibration"}
    material = _Material(rows, rows.ids, held_out, limit, meta, chosen, method)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write_config(Path(folder), model, recipe, processing_class)
        return _export(model, material, Path(out), Path(folder))


@dataclass(frozen=True)
class _Material:
    """What an export needs beside the student."""

    calibration: Split | Rows
    rows: NDArray[np.int64]
    """of `calibration`: those that set the ranges"""
    held_out: Split | Rows
    limit: int | None
    """longest sequence, None for the model's own limit"""
    meta: dict[str, Any]
    chosen: dict[str, Any]
    """which rows set the ranges, for the record"""
    method: RangeMethod
    origin: dict[str, str] = field(default_factory=dict)
    """what made the student, for the record"""


def _export(model: PreTrainedModel, material: _Material, out: Path, files: Path) -> Model:
    """Make and save the integer model; `files` is a folder with the processor's."""
    recipe = recipe_of(model)
    assert recipe is not None  # both callers made sure
    missing = uninitialised(model)
    if missing:
        raise GraphError(
            f"a student must be trained before it is exported: {missing[0]} and {len(missing) - 1} more quantisers"
            " have seen no data"
        )
    calibration, rows, held_out = material.calibration, material.rows, material.held_out
    example = _inputs(calibration.batch(np.resize(rows, 3)))
    # rung A3 compares with the model as it was trained, so it spans the folding too
    captured = capture(fold(model), example, _longest(model, material.limit))
    ranges = collect_ranges(captured, (batch for _, batch in _batches(calibration, rows)))
    static = freeze(captured, ranges, material.method)
    meta = {
        **material.meta,
        "recipe": recipe.name,
        "model_type": model.config.model_type,
        "calibration": {**material.chosen, "method": material.method},
    }
    lowered = lower(static, meta)

    size = _batch_size(captured)
    batches = list(_batches(held_out, np.arange(len(held_out)), size))
    record, logits = climb(
        static,
        lowered,
        [batch for _, batch in batches],
        (_logits(model, batch) for _, batch in batches),
        operator_samples=OPERATOR_SAMPLES,
    )
    labels = stored_labels(held_out.labels)
    # beside the graph, not in it: equal models of two revisions, or from teachers in two folders, are one model
    origin = {"source_revision": source_revision(), **material.origin}
    stored = record.to_json() | origin
    if labels is not None:
        wanted = np.concatenate([_wanted(labels[index], batch) for index, batch in batches])
        stored["measured"] = _measured(lowered.graph.meta, logits, wanted)
        if "correct" in stored["measured"]["graph"]:
            rows_order = np.argsort(np.concatenate([index for index, _ in batches]))
            right = (logits["graph"].argmax(axis=1) == wanted)[rows_order]
            stored["measured"]["graph"]["right"] = pack_right(right)
    samples = make_samples(lowered.graph, held_out, labels)
    save(out, lowered.graph, samples, stored, _processor_files(files))
    return load(out)


def _wanted(labels: NDArray[Any], batch: dict[str, Tensor]) -> NDArray[Any]:
    """Labels [B] of a batch; of a language model those of all positions in a row, as its logits are joined."""
    return labels if labels.ndim == 1 else labels[:, : batch["input_ids"].shape[1]].reshape(-1)


def _measured(
    meta: Any, logits: dict[str, NDArray[np.float64]], labels: NDArray[Any]
) -> dict[str, Any]:
    """Metrics of student, static student and graph: logits [N, classes] each, labels [N]."""
    counted = (
        labels != IGNORED_LABEL if meta["problem"] == "language" else np.ones(len(labels), bool)
    )
    return {name: judge(meta, values[counted], labels[counted]) for name, values in logits.items()}


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def _batch_size(captured: Captured) -> int:
    """Return how many samples run at a time through the rungs, which keep every value: fewer of a large model."""
    elements = sum(
        math.prod(captured.max_length if n == "T" else int(n) for n in call.shape[1:])
        for call in captured.calls
    )
    return max(1, min(BATCH, BATCH_ELEMENTS // elements))


def _batches(
    split: Split | Rows, rows: NDArray[np.int64], size: int = BATCH
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Yield (rows, inputs) of similar length."""
    for index in in_order(split.lengths[rows], size):
        chosen = rows[index]
        yield chosen, _inputs(split.batch(chosen))


@torch.no_grad()
def _logits(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**batch).logits
    return logits


def _longest(model: PreTrainedModel, limit: int | None) -> int:
    """Positions that the graph is built for; 0 for images."""
    if model.main_input_name == "pixel_values":
        return 0
    own = position_limit(model.config)
    return own if limit is None else int(min(limit, own))


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
