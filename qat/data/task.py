"""From a `task:` entry to data: training part, carve-out and test parts, ready to make batches.

The development files are `tests`: they are read once, at the end. Everything that chooses (the best step,
early stopping, calibration) sees `validation`, a seeded part of the training rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.errors import DataError, MissingExtra
from qat.data import own_table
from qat.data.digits import IMAGE_SIZE, load_digits
from qat.data.parts import containers
from qat.data.spec import CarveOut, LanguageTask, NamedTask, TableTask
from qat.data.split import BlockSplit, Split, TextSplit, token_bytes
from qat.data.tables import Table, find_table
from qat.data.tsv import Rows, read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA_VARIABLE = "BITWRIGHT_DATA"
CARVE_OUT_MAX = 1_000
BYTE_SYMBOLS = 256

Problem = Literal["classification", "regression", "language"]


@dataclass(frozen=True)
class Task:
    """A data set with its question.

    `labels` are the class names in id order (empty unless classification). `metrics`: the first selects.
    `tests` maps the name of each held-out part to its rows. `processor` is the tokenizer (text), the image
    processor's settings as a mapping (images) or None (bytes). `model_config` are the keys of a Hugging Face
    configuration that the data dictates (image size, vocabulary, labels).
    """

    name: str
    problem: Problem
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Split
    validation: Split
    tests: Mapping[str, Split]
    processor: Any
    model_config: Mapping[str, Any]


def load_task(spec: NamedTask | TableTask | LanguageTask, tokenizer: Any = None) -> Task:
    """Read the data of a task. `tokenizer` is the model's own; text tasks need one.

    Raises DataError (unknown task, no folder, damaged files), MissingExtra (hub data without `datasets`).
    """
    if isinstance(spec, LanguageTask):
        return _language_task(spec)
    if isinstance(spec, TableTask):
        return _table_task(spec, tokenizer)
    if spec.name == "digits":
        return _digits_task(spec)
    return _glue_task(spec, find_table(spec.name), tokenizer)


def needs_tokenizer(spec: NamedTask | TableTask | LanguageTask) -> bool:
    """Say whether the rows are texts that the model's own tokenizer must cut."""
    return isinstance(spec, TableTask) or (isinstance(spec, NamedTask) and spec.name != "digits")


def data_root(what: str) -> Path:
    """Return the folder that `BITWRIGHT_DATA` names. Raises DataError that says what to set."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise DataError(
            f"{what}: set {DATA_VARIABLE} to the folder of the data sets, or give the task a `data:` path"
        )
    if not Path(root).is_dir():
        raise DataError(f"{what}: {DATA_VARIABLE} is '{root}', which is no folder")
    return Path(root)


def table_folder(spec: NamedTask, table: Table) -> Path:
    """Return the folder of a GLUE task's files. Raises DataError that says what to set."""
    folder = (
        Path(spec.data) if spec.data else data_root(f"task '{table.name}'") / "glue" / table.folder
    )
    if not folder.is_dir():
        raise DataError(
            f"task '{table.name}': no folder {folder}; set {DATA_VARIABLE} or the task's `data:` path"
        )
    return folder


def text_files(spec: LanguageTask) -> tuple[Path, Path]:
    """Return the training and the held-out text of a language task. Raises DataError that says what to set."""

    def path(given: str | None, default: str) -> Path:
        return Path(given) if given else data_root("task 'lm'") / "wikitext-2" / default

    return path(spec.train, "valid.txt"), path(spec.dev, "test.txt")


def carve_out(
    container: NDArray[np.int64], spec: CarveOut
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split row numbers in two sorted parts: (train, validation).

    Args:
        container: [N] the row that contains each row, its own number where none does. Only rows that are
            their own are held out, and what they contain is in neither part.
        spec: size and seed.

    Raises:
        DataError: too few rows.
    """
    whole = np.flatnonzero(container == np.arange(len(container)))
    size = spec.rows if spec.rows is not None else min(CARVE_OUT_MAX, max(1, len(whole) // 10))
    if size >= len(whole):
        raise DataError(
            f"the carve-out of {size} rows leaves nothing to train on: the training set has {len(whole)} rows"
        )
    order = np.random.Generator(np.random.PCG64(spec.seed)).permutation(len(whole))
    held_out = np.sort(whole[order[:size]]).astype(np.int64)
    train = np.flatnonzero(~np.isin(container, held_out)).astype(np.int64)
    return train, held_out


def _class_config(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
    }


def _digits_task(spec: NamedTask) -> Task:
    for key in ("data", "max_tokens"):
        if getattr(spec, key) is not None:
            raise DataError(f"task 'digits' has no `{key}:`: its images come with scikit-learn")
    if spec.validation != CarveOut() or spec.source != "folder":
        raise DataError(
            "task 'digits' has a fixed split: `validation:` and `source:` have no effect"
        )
    parts = load_digits()
    labels = tuple(str(digit) for digit in range(10))
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 16,
        "do_normalize": False,
    }
    config = {"image_size": IMAGE_SIZE, "num_channels": 1, **_class_config(labels)}
    return Task(
        name="digits",
        problem="classification",
        labels=labels,
        metrics=("accuracy",),
        train=parts["train"],
        validation=parts["validation"],
        tests={"test": parts["test"]},
        processor=processor,
        model_config=config,
    )


def _text_task(
    name: str,
    train: Rows,
    tests: Mapping[str, Rows],
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    validation: CarveOut,
    tokenizer: Any,
    max_tokens: int,
    has_phrases: bool = False,
) -> Task:
    if tokenizer is None:
        raise DataError(f"task '{name}' is text: the model or teacher must come with a tokenizer")
    kind = np.float32 if labels is None else np.int64

    def part(name: str, rows: Rows) -> TextSplit:
        ids = np.arange(len(rows.texts), dtype=np.int64)
        return TextSplit(name, ids, np.array(rows.labels, kind), rows.texts, tokenizer, max_tokens)

    by_whole = has_phrases if validation.whole is None else validation.whole
    container = containers(train.texts) if by_whole else np.arange(len(train.texts))
    keep, held_out = carve_out(container, validation)
    whole = part("train", train)
    config: dict[str, Any] = (
        {"num_labels": 1, "problem_type": "regression"} if labels is None else _class_config(labels)
    )
    return Task(
        name=name,
        problem="regression" if labels is None else "classification",
        labels=labels or (),
        metrics=metrics,
        train=whole.subset("train", keep),
        validation=whole.subset("validation", held_out),
        tests={test: part(test, rows) for test, rows in tests.items()},
        processor=tokenizer,
        model_config=config,
    )


def _glue_task(spec: NamedTask, table: Table, tokenizer: Any) -> Task:
    if spec.source == "hub":
        train, tests = _from_hub(table)
    else:
        folder = table_folder(spec, table)

        def read(file: str) -> Rows:
            return read_rows(
                folder / file,
                table.text,
                table.label,
                table.labels,
                columns=table.columns,
                broken_rows_max=table.broken_rows_max,
            )

        train = read(table.train)
        tests = {name: read(file) for name, file in table.dev.items()}
    return _text_task(
        table.name,
        train,
        tests,
        None if table.labels is None else tuple(table.labels.values()),
        table.metrics,
        spec.validation,
        tokenizer,
        spec.max_tokens or table.max_tokens,
        table.has_phrases,
    )


def _from_hub(table: Table) -> tuple[Rows, dict[str, Rows]]:
    try:
        from datasets import load_dataset  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingExtra("datasets", "data") from None
    try:
        data = load_dataset("nyu-mll/glue", table.hub_config)
    except (OSError, ValueError) as fault:
        raise DataError(f"task '{table.name}' from the hub: {fault}") from None

    def rows(part: str) -> Rows:
        texts = list(zip(*(data[part][column] for column in table.hub_text), strict=True))
        return Rows(texts, list(data[part]["label"]))

    return rows("train"), {name: rows(part) for name, part in table.hub_dev.items()}


def _table_task(spec: TableTask, tokenizer: Any) -> Task:
    labels = own_table.classes(spec)
    return _text_task(
        Path(spec.train).stem,
        own_table.rows(spec, spec.train, labels),
        {"dev": own_table.rows(spec, spec.dev, labels)},
        labels,
        spec.metric,
        spec.validation,
        tokenizer,
        spec.max_tokens,
    )


def _language_task(spec: LanguageTask) -> Task:
    train, dev = text_files(spec)
    tokenizer = None
    vocabulary = BYTE_SYMBOLS
    if spec.tokenizer != "bytes":
        from transformers import AutoTokenizer

        if not Path(spec.tokenizer).is_dir():
            raise DataError(
                f"task 'lm': tokenizer must be 'bytes' or a folder, not '{spec.tokenizer}'"
            )
        tokenizer = AutoTokenizer.from_pretrained(spec.tokenizer, local_files_only=True)
        if not tokenizer.is_fast:
            raise DataError(
                f"task 'lm': the tokenizer in {spec.tokenizer} must be a fast one (tokenizer.json): no other"
                " says which bytes of the text a token stands for"
            )
        vocabulary = len(tokenizer)

    def part(name: str, file: Path, blocks_max: int | None) -> BlockSplit:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        text = file.read_bytes()
        try:
            content = text.decode("utf-8")
        except UnicodeDecodeError as fault:
            raise DataError(f"{file}: not UTF-8 text (byte {fault.start})") from None
        if tokenizer is None:
            ids, sizes = list(text), np.ones(len(text), np.int64)
        else:
            encoded = tokenizer(content, return_offsets_mapping=True)
            ids, sizes = encoded["input_ids"], token_bytes(content, encoded["offset_mapping"])
        blocks = len(ids) // spec.block_tokens
        if blocks == 0:
            raise DataError(
                f"{file}: must hold at least {spec.block_tokens} tokens, holds {len(ids)}"
            )
        kept = blocks * spec.block_tokens
        tokens = np.array(ids[:kept], np.int64).reshape(blocks, -1)[:blocks_max]  # [N, T]
        numbers = np.arange(len(tokens), dtype=np.int64)
        return BlockSplit(name, numbers, tokens, sizes[:kept].reshape(blocks, -1)[:blocks_max])

    whole = part("train", train, spec.blocks_max)
    if spec.validation.whole:
        raise DataError("task 'lm' has no rows that contain others: `whole:` has no effect")
    keep, held_out = carve_out(np.arange(len(whole)), spec.validation)
    config: dict[str, Any] = {"vocab_size": vocabulary}
    if tokenizer is None:
        config |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return Task(
        name="lm",
        problem="language",
        labels=(),
        metrics=("perplexity",),
        train=whole.subset("train", keep),
        validation=whole.subset("validation", held_out),
        tests={
            "test": part("test", dev, spec.dev_blocks_max),
            **{
                name: part(name, Path(file), spec.dev_blocks_max) for name, file in spec.ood.items()
            },
        },
        processor=tokenizer,
        model_config=config,
    )
