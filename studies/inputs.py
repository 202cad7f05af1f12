"""What a study reads of the user's own, looked at before anything is planned or trained: tables, texts, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hwsim.config.source import Document, KeyPath
from hwsim.errors import ConfigError, DataError
from qat.config import NewModel, PretrainedModel
from qat.data.spec import LanguageTask, NamedTask, TableTask
from studies.nodes import NO_DOCUMENT, kept_at
from studies.space import Study, Training


def check_inputs(study: Study, document: Document = NO_DOCUMENT) -> str | None:
    """Look at every file and folder that a study names; return what a table holds, in words, None of another task.

    What is not of the user's own (data sets in BITWRIGHT_DATA, the `text` extra's checkpoint) is `require_data`'s.

    Raises:
        ConfigError: a file, a column or a part of a checkpoint is not there, or a row is wrong: all of them at once,
            each with the place of the key that names it.
    """
    from qat.data.task import needs_tokenizer
    from qat.depth import check_layers

    faults: list[str] = []
    table = None
    if isinstance(study.task, TableTask):
        table = _table(study.task, document, faults)
    elif isinstance(study.task, NamedTask):
        kept_at(("task",), partial(_named, study.task), document, faults)
    elif isinstance(study.task, LanguageTask):
        for path, name in _texts(study.task):
            kept_at(path, partial(_file, name), document, faults)
        kept_at(("task", "tokenizer"), partial(_tokenizer, study.task), document, faults)
    of_texts = isinstance(study.task, NamedTask | TableTask) and needs_tokenizer(study.task)
    for path, model in _models(study):
        cuts_texts = of_texts and path[0] == "teacher"  # a student has its teacher's tokenizer
        kept_at(path, partial(_model, model, cuts_texts), document, faults)
    if not faults:  # a checkpoint that is none has no number of layers
        for path, layers, depth in _reduced(study):
            kept_at(path, partial(check_layers, layers, depth), document, faults)
    if faults:
        raise ConfigError(faults)
    return table


def require_data(study: Study) -> None:
    """Make sure that what comes from elsewhere is where it is looked for; a plan needs none of it.

    Raises:
        DataError: a data set is not in BITWRIGHT_DATA; says what to set.
        MissingExtra: the checkpoint `minilm` is not installed.
    """
    from qat.data.tables import find_table
    from qat.data.task import table_folder, text_files
    from qat.pretrained import MINILM, checkpoint_source

    task = study.task
    if isinstance(task, NamedTask) and task.name != "digits" and task.source == "folder":
        table_folder(task, find_table(task.name))
    elif isinstance(task, LanguageTask):
        for file in text_files(task):
            _file(str(file))
    if any(isinstance(m, PretrainedModel) and m.checkpoint == MINILM for _, m in _models(study)):
        checkpoint_source(MINILM)


def _table(task: TableTask, document: Document, faults: list[str]) -> str | None:
    """Read both files of a table and say what they hold; None, with faults added to a list, where one is wrong."""
    from qat.data import own_table

    before = len(faults)
    labels = kept_at(("task", "train"), partial(own_table.classes, task), document, faults)
    if len(faults) > before:
        kept_at(("task", "dev"), partial(_file, task.dev), document, faults)
        return None
    train, dev = (
        kept_at(("task", key), partial(own_table.rows, task, path, labels), document, faults)
        for key, path in (("train", task.train), ("dev", task.dev))
    )
    if train is None or dev is None:
        return None
    return own_table.summary(train, dev, labels)


def _named(task: NamedTask) -> None:
    """Make sure that there is a task of a name, and its folder if one is given."""
    from qat.data.tables import find_table

    if task.name != "digits":
        find_table(task.name)
    if task.data is not None and not Path(task.data).is_dir():
        raise DataError(f"data: {task.data}: no such folder")


def _texts(task: LanguageTask) -> Iterator[tuple[KeyPath, str]]:
    for key, name in (("train", task.train), ("dev", task.dev)):
        if name is not None:
            yield ("task", key), name
    yield from ((("task", "ood", key), name) for key, name in task.ood.items())


def _tokenizer(task: LanguageTask) -> None:
    if task.tokenizer != "bytes" and not Path(task.tokenizer).is_dir():
        raise DataError(f"must be 'bytes' or a folder, not '{task.tokenizer}'")


def _file(name: str) -> None:
    if not Path(name).is_file():
        raise DataError(f"{name}: no such file")


def _models(study: Study) -> Iterator[tuple[KeyPath, NewModel | PretrainedModel]]:
    parts: list[tuple[KeyPath, Training]] = [
        (("students", i), s) for i, s in enumerate(study.students)
    ]
    if study.teacher is not None:
        parts.insert(0, (("teacher",), study.teacher))
    for path, part in parts:
        if isinstance(part.model, PretrainedModel):
            yield (*path, "model", "checkpoint"), part.model
        elif part.model is not None:
            yield (*path, "model"), part.model


def _reduced(study: Study) -> Iterator[tuple[KeyPath, Sequence[int], int]]:
    """Yield the layers that students keep of teachers whose number of layers is known: (place, layers, that number)."""
    from qat.depth import known_depth

    if study.teacher is None:
        return
    depths = {study.teacher.name: known_depth(study.teacher.model) if study.teacher.model else None}
    for index, entry in enumerate(study.students):
        above = depths.get(entry.teacher or study.teacher.name)
        own = above if entry.model is None else known_depth(entry.model)
        for student in entry.expanded():
            if student.layers is not None and above is not None:
                yield ("students", index), student.layers, above
            depths[student.name] = own if student.layers is None else len(student.layers)


def _model(model: NewModel | PretrainedModel, cuts_texts: bool) -> None:
    """Make sure that a checkpoint in a folder is one, with a tokenizer where it cuts texts. A hub id is not asked for."""
    from qat.pretrained import MINILM, check_checkpoint

    if isinstance(model, NewModel):
        if cuts_texts:
            raise ConfigError("must be a `checkpoint:`, whose tokenizer cuts the texts")
    elif model.checkpoint != MINILM:
        check_checkpoint(model.checkpoint, cuts_texts)
